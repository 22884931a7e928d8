"""What a system says of one film."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from common.films.decode import Film
from common.films.own_outputs import RESEARCH_ONLY
from common.inference.result_columns import fold_cells
from common.inference.two_stage_rule import POSITIVE, OperatingPoint
from common.prediction.suitability import Concern, patient_side
from common.stages import N_FOLDS
from common.statistics.surface_distance import Scale

NEGATIVE = "negative"
NO_ANSWER = "no answer"
ROUNDING = 1e-4  # by which two machines may differ in a probability or a map

# The columns of findings.csv, and what they mean
COLUMN_MEANINGS = {
    "number": "place of the file among those of the input, sorted by path, from 1",
    "case": "pseudonym of the film",
    "file": "path of the file in the input, with --keep-identifiers; else empty",
    "decision": "positive, negative, or no answer: the film is not of the kind the system was made for",
    "probability": "of pneumothorax, mean over the folds, or a student's; never altered by a decision",
    "spread": "largest less smallest probability of the folds; empty of a student",
    "area_percent": "outlined area, per cent of the film; only where the decision is positive",
    "area_cm2": "the same in cm2; empty where the film's spacing is unknown",
    "side": "left, right or both, of the patient; only where the decision is positive",
    "borderline": "1: a difference of 1e-4, as between two machines, could change the decision",
    "warnings": "why there is no answer, and what else to know, separated by semicolons",
    "rule": "what the two-stage rule says whatever the warnings: positive, or what makes it negative",
    "segmented_pixels": "map > 0.5, or what was chosen out of fold, at the working size; empty where stage 2 "
    "did not run (stage 1 negative)",
    **{f"fold_{fold}": f"probability by fold {fold}; empty of a student" for fold in range(N_FOLDS)},
    "system": "eff, vit, eff_student or vit_student, and the first 12 digits of the hash of its networks and "
    "thresholds",
    "note": RESEARCH_ONLY,
}


@dataclass(frozen=True)
class Finding:
    """What a system says of one film.

    Attributes:
        decision: `positive`, `negative` or `no answer`.
        rule: Decision and words of `OperatingPoint.rule`, whatever the concerns.
        folds: Probability of pneumothorax by each fold, 0-1; of a student, that of its one network.
        segmented_pixels: Segmented area in pixels at the working size; None where stage 2 did not run.
        area_fraction: Outlined area over film area, 0-1; None unless positive.
        area_cm2: Outlined area in cm2; None unless positive, and where the spacing is unknown.
        side: `left`, `right` or `both`, of the patient; empty unless positive.
        borderline: Whether a difference of `ROUNDING` could change the decision.
        concerns: Reasons for which there is no answer, and what else to know.
        outline: (height, width) bool, on the film's own pixels; empty unless positive.
    """

    decision: str
    rule: str
    folds: tuple[float, ...]
    segmented_pixels: int | None
    area_fraction: float | None
    area_cm2: float | None
    side: str
    borderline: bool
    concerns: tuple[Concern, ...]
    outline: np.ndarray

    @property
    def probability(self) -> float:
        """Mean over the folds, 0-1."""
        return float(np.mean(self.folds))

    @property
    def spread(self) -> float | None:
        """Largest less smallest probability of the folds; None of a student."""
        return max(self.folds) - min(self.folds) if len(self.folds) > 1 else None

    def columns(self) -> dict[str, Any]:
        """Its part of the columns of findings.csv."""
        return {
            "decision": self.decision,
            "probability": self.probability,
            "spread": self.spread,
            "area_percent": None if self.area_fraction is None else 100 * self.area_fraction,
            "area_cm2": self.area_cm2,
            "side": self.side,
            "borderline": int(self.borderline),
            "warnings": "; ".join(concern.text for concern in self.concerns),
            "rule": self.rule,
            "segmented_pixels": self.segmented_pixels,
            **fold_cells(self.folds),
            "note": RESEARCH_ONLY,
        }


def find(
    film: Film,
    folds: Sequence[float],
    mean_map: np.ndarray | None,
    point: OperatingPoint,
    concerns: Sequence[Concern],
) -> Finding:
    """Decide one film.

    Args:
        film: Film as it was read.
        folds: Probability of pneumothorax by each fold, or by a student's one network, 0-1.
        mean_map: (image_size, image_size) float32, 0-1, mean map of the folds; None where stage 1
            says negative.
        point: Thresholds by which the system decides.
        concerns: Concerns about the film; a serious one takes the answer away.
    """
    probability = float(np.mean(folds))
    pixels = None if mean_map is None else int(np.count_nonzero(mean_map > point.map_threshold))
    rule = point.rule(probability, pixels)
    decision = POSITIVE if rule == POSITIVE else NEGATIVE
    if any(concern.serious for concern in concerns):
        decision = NO_ANSWER
    height, width = film.pixels.shape
    outline = np.zeros((height, width), dtype=bool)
    fraction: float | None = None
    area_cm2: float | None = None
    if decision == POSITIVE and mean_map is not None and pixels is not None:  # as it is with every positive
        outline = on_film(mean_map, height, width, point.map_threshold)
        scale = Scale.of(point.image_size, width, height, *(film.spacing or (None, None)))
        # By the map at the working size, as threshold and testing count it; the outline is for the eye.
        fraction = pixels / point.image_size**2
        area_cm2 = None if scale.film_cm2 is None else fraction * scale.film_cm2
    return Finding(
        decision=decision,
        rule=rule,
        folds=tuple(float(each) for each in folds),
        segmented_pixels=pixels,
        area_fraction=fraction,
        area_cm2=area_cm2,
        side=patient_side(outline, film),
        borderline=_is_borderline(probability, mean_map, point),
        concerns=tuple(concerns),
        outline=outline,
    )


def on_film(mean_map: np.ndarray, height: int, width: int, threshold: float) -> np.ndarray:
    """The outline of a map above its threshold on the pixels of the original film, (height, width) bool.

    The way back of `resample`: the film was stretched to a square, so the map is stretched to the film.
    """
    # The map is enlarged and then cut: an enlarged mask would have the steps of its pixels.
    return cv2.resize(mean_map, (width, height), interpolation=cv2.INTER_LINEAR) > threshold


def _is_borderline(probability: float, mean_map: np.ndarray | None, point: OperatingPoint) -> bool:
    if abs(probability - point.cls_threshold) <= ROUNDING:
        return True
    if mean_map is None:
        return False
    # Every pixel may differ by that much, so the area lies between these two.
    least, most = (np.count_nonzero(mean_map > point.map_threshold + sign * ROUNDING) for sign in (1, -1))
    return bool(least < point.seg_threshold <= most)
