"""What a worker process does for one film: read, check, stretch, and write it into the prepared arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from common.command_line import Rules
from common.files import digest
from common.films.annotations import encode_rle
from common.films.decode import Film, decode_film
from common.films.fault import FilmFault, Note
from common.films.plausible import implausible
from common.films.resample import resample, resample_mask
from common.preparation.film_store import SIDE, GrowingArrays, pack_mask, packed_area
from common.preparation.fingerprints import file_digest
from common.preparation.lesion_check import refuse_impossible
from common.preparation.near_copies import perceptual_hash
from common.preparation.noise import roughness
from common.sources.source_film import Annotation, SourceFilm

PREPARED, EXCLUDED, REJECTED, FULL = "prepared", "excluded", "rejected", "full"
_FACTS = ("patient_id", "study", "age", "sex", "view", "position", "manufacturer", "date")
MASKED_NEGATIVE = "a lesion is marked, which contradicts its negative label"
_CHUNK = 2**25  # bytes: nearly every film in one piece


@dataclass(frozen=True)
class Task:
    """One film to prepare, into row `row` of the arrays in `folder`."""

    row: int
    film: SourceFilm
    folder: Path
    rules: Rules


@dataclass(frozen=True)
class Outcome:
    """What became of a film.

    Attributes:
        kind: `prepared`, `excluded` or `rejected`; `full` when it could not be written.
        reason: Reason why the film is not prepared.
        file: Digest of the image file (`fingerprints.file_digest`); `""` where it could not be read.
        facts: Facts of header and source's table, which identify the patient; never written as they are.
        picture: SHA-256 of the prepared film.
        mask: SHA-256 of the packed mask; `""` without a lesion.
        area: Area of the mask over area of the film, 0-1.
        perceptual: Perceptual hash of the film, hexadecimal.
        roughness: Roughness of the film at several distances (`noise.roughness`).
        notes: What was odd about film or mask, which were read all the same.
        second: The second annotator's mask as run lengths (`annotations.encode_rle`); `""` without one.
    """

    kind: str
    reason: str = ""
    file: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    picture: str = ""
    mask: str = ""
    area: float = 0.0
    perceptual: str = ""
    roughness: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()
    second: str = ""


def prepare_film(task: Task, alive: Callable[[], None]) -> Outcome:
    """Read, check and stretch one film with its mask, and write them into the arrays."""
    cv2.setNumThreads(1)  # there is a worker a core already
    file = ""
    notes: list[str] = []
    try:
        content = read_content(task.film.file, alive)
        file = file_digest(content)
        image = decode_film(content, task.rules.replace_saturated)
        del content  # the worker's memory is limited
        notes += image.notes
        alive()
        facts = _facts(task.film, image)
        # Rules before faults: a film that is left out anyway need not be in order, and counts as no fault.
        if excluded := exclusion(facts, task.rules):
            return Outcome(EXCLUDED, excluded, file)
        if reason := implausible(image.pixels):
            raise FilmFault(reason)
        pixels = resample(image.pixels, SIDE)
        mask = _mask(task.film, image, pixels, notes.append)
        second = _second(task.film, image, pixels, notes.append)
    except FilmFault as fault:
        return Outcome(REJECTED, str(fault), file)
    except MemoryError:
        return Outcome(REJECTED, "needs more memory than any film should", file)
    except OSError as error:
        return Outcome(REJECTED, f"its file cannot be read ({error.strerror})", file)  # its text has the path
    except Exception as error:  # whatever it is, it costs this film only
        # Its type only: the text of an error may quote the header.
        return Outcome(REJECTED, f"cannot be prepared ({type(error).__name__})", file)
    try:
        GrowingArrays(task.folder).write(task.row, pixels, mask)
    except OSError as error:
        return Outcome(FULL, error.strerror or str(error))  # no fault of the film: the run stops
    return Outcome(
        PREPARED,
        file=file,
        facts=facts,
        picture=digest(pixels.data),
        mask="" if mask is None else digest(mask.data),
        area=0.0 if mask is None else packed_area(mask),
        perceptual=f"{int(perceptual_hash(pixels)):016x}",
        roughness=roughness(pixels),
        notes=tuple(notes),
        second=second,
    )


def exclusion(facts: Mapping[str, Any], rules: Rules) -> str | None:
    """The rule about what header and table say that drops the film, or None."""
    if facts["age"] is not None and facts["age"] < rules.minimum_age:
        return f"age under {rules.minimum_age:g}"
    if rules.views and facts["view"] and facts["view"] not in rules.views:
        return f"view other than {', '.join(rules.views)}"
    if facts["burned_in"] and not rules.allow_burned_in:
        return "text burned into the picture"
    return None


def _facts(film: SourceFilm, image: Film) -> dict[str, Any]:
    """What is known of a film: the source's table goes before the header."""
    height, width = image.pixels.shape
    spacing = image.spacing or (None, None)
    known = {name: getattr(image, name) for name in _FACTS} | dict(film.facts)
    return {
        **known,
        "burned_in": image.burned_in,
        "width": width,
        "height": height,
        "spacing_row": spacing[0],
        "spacing_column": spacing[1],
    }


def _mask(film: SourceFilm, image: Film, pixels: np.ndarray, note: Note) -> np.ndarray | None:
    """The packed mask on the prepared grid, (1024, 128) uint8; None without a lesion.

    An empty mask says of a negative film what its label says: many tools write one for every film.
    """
    if film.annotation is None:
        return None
    mask = _on_grid(film.annotation, image, pixels, note)
    if not mask.any():
        if film.report == 1:
            raise FilmFault("its mask marks no pixel of the film, but its label is positive")
        return None
    if film.report == 0:
        note(MASKED_NEGATIVE)
    return pack_mask(mask)


def _second(film: SourceFilm, image: Film, pixels: np.ndarray, note: Note) -> str:
    """The second annotator's mask as run lengths, `-1` where nothing was drawn; `""` without a usable one."""
    if film.second is None:
        return ""
    try:
        mask = _on_grid(film.second, image, pixels, lambda text: note(f"second_mask: {text}"))
        return encode_rle(mask)
    except FilmFault as fault:
        reason = str(fault)
    except Exception as error:  # whatever it is, the film has its own mask and is used
        reason = f"it cannot be read ({type(error).__name__})"
    note(f"second_mask is unknown: {reason}")
    return ""


def _on_grid(annotation: Annotation, image: Film, pixels: np.ndarray, note: Note) -> np.ndarray:
    """A mask on the prepared grid, (1024, 1024) bool; empty where nothing is marked.

    Raises:
        FilmFault: It cannot be read, or be a lesion of this film.
    """
    height, width = image.pixels.shape
    marked = annotation.mask(width, height, note, image.instance)
    if not marked.any():
        return np.zeros((SIDE, SIDE), dtype=bool)
    mask = resample_mask(marked, SIDE)
    if not mask.any():
        raise FilmFault("its mask vanishes on the prepared grid")
    refuse_impossible(mask, pixels, annotation.has_boxes())
    return mask


def read_content(path: Path, alive: Callable[[], None]) -> bytes:
    """The content of a file, in pieces: a slow disk is no hanging decoder."""
    pieces = []
    with open(path, "rb") as file:
        while piece := file.read(_CHUNK):
            pieces.append(piece)
            alive()
    return b"".join(pieces)
