"""Films that are not prepared yet, as their source lists them: for counting, and for timing a few steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common.preparation import folds
from common.preparation.film_store import FILM_BYTES, Lesion
from common.preparation.notes import grouped
from common.refusal import Refusal
from common.sources.source_film import SourceFilm

_REASONS = 5  # that are told where no film can be used


@dataclass(frozen=True)
class ListedFilms:
    """What stands for a prepared set until there is one.

    Who is in which part is guessed, as if each film had a patient of its own. The pixels are random: as much
    work to augment and to compute as a film's.

    Attributes:
        has_mask: (n,) bool: films with an annotation.
        part: (n,) int: as of a prepared set.
    """

    has_mask: np.ndarray
    part: np.ndarray
    # what weights are made from, which only the prepared pixels tell
    content: str = ""
    split: str = ""
    patient_table: None = None
    replace_saturated: bool = False

    @classmethod
    def of(cls, name: str, films: Sequence[SourceFilm]) -> ListedFilms:
        """The films of a set that no rule excludes and whose rows have no fault.

        Args:
            name: `siim`, `ntuh_train` or `ntuh_test`.
            films: Films as the source lists them.

        Raises:
            Refusal: There are none, or too few for the parts of the set.
        """
        usable = [film for film in films if not (film.excluded or film.fault)]
        if not usable:
            why = [(film, film.excluded or film.fault or "") for film in films]
            raise Refusal(
                f"no film of {name} can be prepared",
                found="; ".join([f"{len(films)} films are listed", *grouped(why)[:_REASONS]]),
                do=None
                if name == "siim"
                else "see all that is wrong: bash common/prepare.sh --check-table PATH",
            )
        has_mask = np.array([film.annotation is not None for film in usable])
        patients = np.arange(len(usable))
        if name == "siim":
            part = folds.choose_validation(has_mask, patients).astype(int)
        elif name == "ntuh_train":
            part = folds.assign_folds(has_mask, patients)
        else:
            part = np.zeros(len(usable), int)
        return cls(has_mask, part)

    @property
    def bytes(self) -> int:
        """What the prepared films will take on the disk, at most."""
        return len(self.has_mask) * FILM_BYTES + int(self.has_mask.sum()) * FILM_BYTES // 8

    def film(self, row: int, side: int) -> np.ndarray:
        """(side, side) uint8."""
        return np.random.default_rng(row).integers(0, 256, (side, side), dtype=np.uint8)

    def mask(self, row: int, side: int) -> np.ndarray:
        """(side, side) bool: a lesion of an eighth of the side where there is one."""
        mask = np.zeros((side, side), dtype=bool)
        mask[: side // 8, : side // 8] = self.has_mask[row]
        return mask

    def lesion(self, row: int, side: int) -> Lesion | None:
        """The same as a rectangle."""
        return Lesion.of(self.mask(row, side)) if self.has_mask[row] else None
