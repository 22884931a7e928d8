"""A film as its source lists it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from common.films.fault import Note

FOUND = ", found "  # between what is wrong with a cell and its value, which is no part of the kind of fault


class Annotation(Protocol):
    """Where a lesion was marked."""

    def mask(self, width: int, height: int, note: Note, instance: str) -> np.ndarray: ...

    def has_boxes(self) -> bool: ...

    def content(self) -> bytes: ...


@dataclass(frozen=True)
class SourceFilm:
    """A film as its source lists it.

    Attributes:
        identifier: Name of the film in its source; never written.
        path: Path of the image file; None where it is missing.
        origin: Where the source lists it, without identity: `train-rle.csv, row 12`.
        annotation: Annotated lesion, or None.
        report: 1 where the radiology report says pneumothorax, else 0; None for a test film without a label.
        excluded: Inclusion rule that drops the film, or None.
        fault: What is wrong with its row, or None. Behind `FOUND` stands the value, where it may be shown.
        chest_tube: 1 or 0; None where the source does not say.
        facts: Facts in the source's table, which go before those of the header. Keys:
            patient_id, study (str), age (years), sex (`M`, `F`), view, position, manufacturer,
            date (`YYYY-MM-DD`), as attributes of `decode.Film`.
        notes: What was odd about its row, which was read all the same, written as `fault`.
        second: A second annotator's lesion, of a test film; None without one.
    """

    identifier: str
    path: Path | None
    origin: str
    annotation: Annotation | None
    report: int | None
    excluded: str | None = None
    fault: str | None = None
    chest_tube: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    second: Annotation | None = None

    @property
    def file(self) -> Path:
        """Path of the image file of a film that is prepared: without one it has a fault.

        Raises:
            ValueError: It has none.
        """
        if self.path is None:
            raise ValueError(f"{self.origin} has no image file")
        return self.path
