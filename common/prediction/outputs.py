"""What is written of a finding: a JSON file, a picture, and for DICOM films two DICOM objects."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom

from common import artefacts
from common.artefacts import shown
from common.prediction import RESEARCH_ONLY
from common.prediction.dicom_objects import Maker, ObjectFault, capture, save, segmentation
from common.prediction.films import NewFilm, is_dicom
from common.prediction.finding import NO_ANSWER, Finding
from common.prediction.overlay import overlay
from common.prediction.suitability import Concern
from common.refusal import Refusal


@dataclass(frozen=True)
class FindingFiles:
    """Where the files of a film lie in an output folder."""

    folder: Path
    case: str

    @property
    def json(self) -> Path:
        """The finding; written last, so that it stands for all of them."""
        return self.folder / "findings" / f"{self.case}.json"

    @property
    def overlay(self) -> Path:
        """The picture."""
        return self.folder / "overlays" / f"{self.case}.png"

    @property
    def segmentation(self) -> Path:
        """DICOM Segmentation."""
        return self.folder / "dicom" / f"{self.case}_segmentation.dcm"

    @property
    def capture(self) -> Path:
        """DICOM Secondary Capture of the picture."""
        return self.folder / "dicom" / f"{self.case}_overlay.dcm"

    def clear(self) -> None:
        """Delete what an earlier run left of the film, the JSON first."""
        for path in (self.json, self.overlay, self.segmentation, self.capture):
            path.unlink(missing_ok=True)

    def read(self) -> dict[str, Any] | None:
        """Content of the JSON file of an earlier run; None where it, or a file that it names, is missing."""
        try:
            content = json.loads(self.json.read_text(encoding="utf-8"))
            files = [self.folder / name for name in content["files"].values()]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return content if all(path.is_file() for path in files) else None


def write_finding(
    files: FindingFiles, source: Path, film: NewFilm, finding: Finding, made_by: dict[str, Any]
) -> tuple[dict[str, Any], list[Path]]:
    """Write all files of a finding, the JSON last.

    Args:
        files: Where to.
        source: The film's own file.
        film: As it was read.
        finding: Of this film.
        made_by: `FilmPredictor.provenance`.

    Returns:
        The content of the JSON file, and the DICOM objects.

    Raises:
        Refusal: The disk is full, or the folder cannot be written.
    """
    files.clear()
    name = f"{made_by['system']} {made_by['identity'][:12]}"
    picture = overlay(film.film.pixels, finding, name)
    written = {}
    if not film.film.burned_in:  # the text may be a name, which belongs in the archive only
        _write_png(files.overlay, picture)
        written["overlay"] = files.overlay
    if is_dicom(source):
        try:
            written |= _write_objects(files, source, picture, finding, made_by)
        except ObjectFault as fault:
            concern = Concern(f"no DICOM objects: {fault}", serious=False)
            finding = replace(finding, concerns=(*finding.concerns, concern))
    content = {
        "note": RESEARCH_ONLY,
        "case": files.case,
        "finding": {**finding.columns(), "system": name},
        "film": _facts(film),
        "made_by": made_by,
        "files": {kind: str(path.relative_to(files.folder)) for kind, path in written.items()},
    }
    artefacts.write_json(files.json, content)
    return content, [path for kind, path in written.items() if kind != "overlay"]


def _write_objects(
    files: FindingFiles, source: Path, picture: np.ndarray, finding: Finding, made_by: dict[str, Any]
) -> dict[str, Path]:
    """The DICOM objects; no Segmentation where there is no answer: an empty one would say negative."""
    try:
        with warnings.catch_warnings():  # they may quote the header
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(source, stop_before_pixels=True, force=True)
    except Exception as error:  # of a header that only just could be read
        raise ObjectFault(f"the header cannot be read again ({type(error).__name__})") from error
    maker = Maker(made_by["system"], made_by["identity"])
    made = (
        {}
        if finding.decision == NO_ANSWER
        else {"segmentation": segmentation(header, finding.outline, maker)}
    )
    made["capture"] = capture(header, picture, maker)
    paths = {kind: getattr(files, kind) for kind in made}
    for kind, dataset in made.items():
        save(dataset, paths[kind])
    return paths


def _facts(film: NewFilm) -> dict[str, Any]:
    height, width = film.film.pixels.shape
    return {
        "file": film.file,
        "width": width,
        "height": height,
        "spacing_mm": None if film.film.spacing is None else list(film.film.spacing),
        **{name: getattr(film.film, name) for name in ("view", "position", "manufacturer")},
    }


def _write_png(path: Path, picture: np.ndarray) -> None:
    encoded, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if not encoded:
        raise Refusal(f"cannot write {shown(path)}")
    with artefacts.whole_file(path) as temporary:
        temporary.write_bytes(data.tobytes())
