"""What is written of a finding: a JSON file, a picture, and for DICOM films two DICOM objects.

All of it goes through the manifest of the folder (`written_files.py`): no file of the user's is replaced.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container
from contextlib import suppress
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin
from pydicom.dataset import Dataset

from common.files import CASE, digest, json_text
from common.films.fault import FilmFault
from common.films.header import get_text
from common.films.own_outputs import MANUFACTURER, RESEARCH_ONLY, SOFTWARE
from common.prediction.dicom_objects import (
    Maker,
    ObjectFault,
    capture,
    file_bytes,
    presentation,
    segmentation,
)
from common.prediction.finding import NO_ANSWER, Finding
from common.prediction.new_films import NewFilm
from common.prediction.overlay import overlay
from common.prediction.suitability import Concern
from common.prediction.written_files import NotOurs, WrittenFiles
from common.pseudonyms import pseudonym

FOLDERS = ("findings", "overlays", "dicom")
_NAME = re.compile(r"c[0-9a-f]{16}(\.json|\.png|_(segmentation|overlay|outline)\.dcm)")


@dataclass(frozen=True)
class FindingFiles:
    """Where the files of a film lie in an output folder.

    Attributes:
        folder: Output folder.
        case: Pseudonym of the film, by which its files are named.
        identity: Pseudonym of patient and picture; empty where films are known by their paths.
        second: Whether another film came before under the same SOP Instance UID.
    """

    folder: Path
    case: str
    identity: str = ""
    second: bool = False

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

    @property
    def presentation(self) -> Path:
        """DICOM presentation state that draws the outline on the film."""
        return self.folder / "dicom" / f"{self.case}_outline.dcm"

    @property
    def objects(self) -> tuple[Path, ...]:
        """Every DICOM object that a film can have, in the order in which they are sent."""
        return self.segmentation, self.capture, self.presentation

    @property
    def all(self) -> tuple[Path, ...]:
        """Every file that a film can have, in the order in which they are deleted: the JSON first."""
        return self.json, self.overlay, *self.objects

    def read(self) -> dict[str, Any] | None:
        """Content of the JSON file of an earlier run; None where it, or a file that it names, is missing."""
        try:
            content = json.loads(self.json.read_text(encoding="utf-8"))
            files = [self.folder / name for name in content["files"].values()]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return content if all(path.is_file() for path in files) else None

    def of_film(self, film: NewFilm) -> FindingFiles:
        """Where the files of a received film lie, whatever came before under its SOP Instance UID.

        The film that came first has the place. It stays the same as long as patient and picture do, whatever
        else is corrected in its header.
        """
        identity = _identity(film)
        try:
            known = json.loads(self.json.read_text(encoding="utf-8"))["film"]
            same = film.file is not None and known["file"] == film.file.digest
            same = same or known.get("identity") == identity
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            same = True  # nothing came before, or nothing that can be read
        case = self.case if same else pseudonym("case", f"{self.case} {identity}")
        return replace(self, case=case, identity=identity, second=not same)


def _identity(film: NewFilm) -> str:
    header = film.header or Dataset()
    patient = [get_text(header, f"Patient{name}") for name in ("ID", "Name", "BirthDate")]
    pixels = film.film.pixels
    return pseudonym("film", digest(*patient, str(pixels.shape), pixels.data))


def same_maker(was: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether an earlier finding's `made_by` is the system of now, computing alike.

    Earlier versions wrote training's precision there, in which a CPU never computed.
    """
    if was.get("device") == "cpu":
        was = was | {"precision": now["precision"]}
    return was == now


def write_finding(
    files: FindingFiles, film: NewFilm, finding: Finding, made_by: dict[str, Any], written: WrittenFiles
) -> tuple[dict[str, Any], list[Path]]:
    """Write all files of a finding, the JSON last.

    Args:
        files: Paths of the film's files.
        film: Film as it was read.
        finding: What was found in this film.
        made_by: Facts of the system, from `FilmPredictor.provenance`.
        written: Manifest of the folder.

    Returns:
        The content of the JSON file, and the paths of the DICOM objects.

    Raises:
        FilmFault: Somebody else's file lies where one of them belongs, or somebody changed one since.
        Refusal: The disk is full, or the folder cannot be written.
    """
    name = f"{made_by['system']} {made_by['identity'][:12]}"
    if files.second:
        concern = Concern("another film came before under the same SOP Instance UID", serious=False)
        finding = replace(finding, concerns=(*finding.concerns, concern))
    picture = overlay(film.film.pixels, finding, name)
    contents: dict[str, bytes] = {}
    if not film.film.burned_in:  # the text may be a name, which belongs in the archive only
        contents["overlay"] = _png(picture)
    if film.dicom:
        try:
            contents |= _objects(film, picture, finding, _maker(files, made_by))
        except ObjectFault as fault:
            concern = Concern(f"no DICOM objects: {fault}", serious=False)
            finding = replace(finding, concerns=(*finding.concerns, concern))
    paths = {kind: getattr(files, kind) for kind in contents}
    content = {
        "note": RESEARCH_ONLY,
        "case": files.case,
        "finding": {**finding.columns(), "system": name},
        "film": _facts(film) | ({"identity": files.identity} if files.identity else {}),
        "made_by": made_by,
        "files": {kind: str(path.relative_to(files.folder)) for kind, path in paths.items()},
    }
    # Former files first: this finding may have fewer, and an old outline must not stay beside it.
    remove_finding(files, written)
    written.write(
        {paths[kind]: data for kind, data in contents.items()} | {files.json: json_text(content).encode()}
    )
    return content, [path for kind, path in paths.items() if kind != "overlay"]


def adopt_findings(folder: Path, written: WrittenFiles) -> None:
    """Note the files that a listener of before the manifest wrote into its folder, known by their names."""
    found = [path for name in FOLDERS for path in (folder / name).glob("*") if _NAME.fullmatch(path.name)]
    written.adopt(path for path in sorted(found) if path.is_file() and not path.is_symlink())


def remove_finding(files: FindingFiles, written: WrittenFiles) -> None:
    """Delete what was written of a film before.

    Raises:
        FilmFault: One of the files is not ours, or was changed since; nothing was deleted.
    """
    try:
        written.remove(files.all)
    except NotOurs as error:
        name = error.path.relative_to(files.folder).as_posix()
        raise FilmFault(f"{name} is not as this program wrote it: kept, move it away") from None


def remove_old_findings(folder: Path, before: float, spared: Container[str]) -> int:
    """Delete old results of films, as long as nobody changed any file of theirs.

    Args:
        folder: Output folder.
        before: Time of the last change, in seconds since 1970, before which a finding is old.
        spared: Pseudonyms of films whose results stay.

    Returns:
        Number of films whose results were deleted.

    Raises:
        Refusal: The manifest of the folder cannot be read.
    """
    findings = [
        path for path in sorted((folder / "findings").glob(f"{CASE}.json")) if path.stem not in spared
    ]
    old = [path.stem for path in findings if path.stat().st_mtime < before]
    if not old:
        return 0
    written, removed = WrittenFiles(folder), 0
    for case in old:
        with suppress(NotOurs):
            written.remove(reversed(FindingFiles(folder, case).all))  # the JSON last: it says what is old
            removed += 1
    return removed


def _objects(film: NewFilm, picture: np.ndarray, finding: Finding, maker: Maker) -> dict[str, bytes]:
    """The DICOM objects as files; without an answer no Segmentation: an empty one would say negative."""
    header, spacing = film.header, film.film.spacing
    if header is None:
        raise ObjectFault("the header cannot be read again")
    made = {}
    if finding.decision != NO_ANSWER:
        made["segmentation"] = segmentation(header, finding.outline, maker, spacing)
    made["capture"] = capture(header, picture, maker)
    if finding.outline.any():
        with suppress(ObjectFault):  # of a film in colour, or with grey levels that no state can describe
            made["presentation"] = presentation(header, finding.outline, maker, spacing)
    return {kind: file_bytes(dataset) for kind, dataset in made.items()}


def _maker(files: FindingFiles, made_by: dict[str, Any]) -> Maker:
    return Maker(made_by["system"], made_by["identity"], files.identity if files.second else "")


def _facts(film: NewFilm) -> dict[str, Any]:
    height, width = film.film.pixels.shape
    return {
        "file": film.file and film.file.digest,
        "width": width,
        "height": height,
        "spacing_mm": None if film.film.spacing is None else list(film.film.spacing),
        **{name: getattr(film.film, name) for name in ("view", "position", "manufacturer")},
    }


def _png(picture: np.ndarray) -> bytes:
    """A picture, (h, w, 3) uint8 RGB, as a PNG file whose text says that it is none of a film."""
    texts = PngImagePlugin.PngInfo()
    texts.add_text(SOFTWARE, MANUFACTURER)
    texts.add_text("Comment", RESEARCH_ONLY)
    file = BytesIO()
    Image.fromarray(picture).save(file, "PNG", pnginfo=texts, compress_level=1)  # default: 3 times as long
    return file.getvalue()
