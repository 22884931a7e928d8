"""The two-stage rule: the classification model decides, the segmentation model must agree."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from common.files import read_json
from common.missing import refuse_missing_thresholds
from common.paths import shown, thresholds_file
from common.refusal import Refusal
from common.stages import STUDENTS, SYSTEMS, THRESHOLDS_COMMAND, command_of
from common.statistics.overlap import MAP_THRESHOLD

POSITIVE = "positive"
NEGATIVE_PROBABILITY = "negative: probability"
NEGATIVE_AREA = "negative: area"


@dataclass(frozen=True)
class OperatingPoint:
    """Where a system decides.

    Attributes:
        cls_threshold: Smallest ensemble probability of a positive film, 0-1.
        seg_threshold: Smallest segmented area of a positive film, pixels at `image_size`.
        image_size: Working size that `seg_threshold` belongs to.
        map_threshold: What the map must exceed where a pixel is segmented, 0-1.
    """

    cls_threshold: float
    seg_threshold: int
    image_size: int
    map_threshold: float = MAP_THRESHOLD

    def stage_1(self, probability: float) -> bool:
        """Whether the classification model calls the film positive."""
        # Not `>`: the threshold is the probability of a film, which it was chosen to call positive.
        return probability >= self.cls_threshold

    def facts(self) -> dict[str, Any]:
        """All of it as files hold it; the map's threshold only where it is not the usual one."""
        usual = self.map_threshold == MAP_THRESHOLD
        return {key: value for key, value in asdict(self).items() if key != "map_threshold" or not usual}

    def rule(self, probability: float, area: int | None) -> str:
        """The rule that decides a film: `positive`, or the first that makes it negative.

        Args:
            probability: Probability of the ensemble, 0-1.
            area: Segmented pixels; may be None where stage 1 says negative.
        """
        if not self.stage_1(probability):
            return NEGATIVE_PROBABILITY
        # Stage 2 is not run where stage 1 says negative, so only here is its absence a mistake.
        if area is None:
            raise ValueError("stage 1 says positive, so stage 2 must say how much")
        return POSITIVE if area >= self.seg_threshold else NEGATIVE_AREA


def read_thresholds(system: str) -> tuple[OperatingPoint, dict[str, Any]]:
    """Read a system's operating point, and the whole file it stands in.

    Raises:
        Refusal: The file is missing, malformed or of another system.
    """
    refuse_missing_thresholds(system)
    path = thresholds_file(system)
    content = read_json(path, command_of(THRESHOLDS_COMMAND, system))
    return parse_operating_point(content, system, shown(path)), content


def parse_operating_point(content: dict[str, Any], system: str, name: str) -> OperatingPoint:
    """The operating point in the content of a thresholds file, which messages call `name`.

    Raises:
        Refusal: It is malformed or of another system.
    """
    again = f"make it again: {command_of(THRESHOLDS_COMMAND, system)}"
    try:
        if content["system"] != system:
            known_system = content["system"] in (*SYSTEMS, *STUDENTS)
            other = f"the system {content['system']}" if known_system else "no known system"
            raise Refusal(f"{name} is of {other}, not {system}", do=again)
        probability, area, image_size = (
            content[key] for key in ("cls_threshold", "seg_threshold", "image_size")
        )
        of_map = content.get("map_threshold", MAP_THRESHOLD)
        known = isinstance(content["made_from"], dict)
    except (KeyError, TypeError) as error:
        raise Refusal(f"{name} is no thresholds file", found=error, do=again) from None
    # by their very types: to Python, true is a number, and 10**400 too large for one
    whole = type(area) is type(image_size) is int
    numbers = type(probability) in (int, float) and type(of_map) in (int, float)
    if not (known and whole and numbers) or not (
        0 <= probability <= 1 and 0 <= of_map < 1 and 1 <= area <= image_size**2 and image_size >= 1
    ):
        raise Refusal(f"{name} holds impossible thresholds", do=again)
    return OperatingPoint(float(probability), area, image_size, float(of_map))
