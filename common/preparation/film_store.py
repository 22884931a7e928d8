"""A prepared set on disk, and the views of its films that training and evaluation use.

A prepared set is a folder: `cases.csv` (one row a film), `films.npy` (n x 1024 x 1024 uint8, memory map),
`masks.npy` (bit-packed masks of the films that have one), `folds.json` (who is in which part),
`rejected.csv` (films not prepared, and why), `flow.json` and `flow.png` (every film accounted for),
`fingerprints.csv` (what it was made from) and, last, `manifest.json`. `run.py` makes it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import pandas as pd

from common.files import read_json
from common.films.resample import resample, resample_mask
from common.paths import shown
from common.preparation.prepared_cases import read_cases
from common.refusal import Refusal

SIDE = 1024
KEPT_BYTES = 2**29  # of reduced films in the memory of a process


@dataclass(frozen=True)
class Lesion:
    """A rectangle of a mask that holds all of its lesion, and little more.

    Attributes:
        left: Column of its left edge in the film, in pixels.
        top: Row of its upper edge in the film, in pixels.
        pixels: (height, width) uint8, 0 or 255.
    """

    left: int
    top: int
    pixels: np.ndarray

    @classmethod
    def of(cls, mask: np.ndarray) -> Lesion | None:
        """The lesion of a whole mask, (side, side) bool; None without one."""
        left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
        box = mask[top : top + height, left : left + width].astype(np.uint8) * 255
        return cls(left, top, box) if width else None

    @classmethod
    def of_packed(cls, packed: np.ndarray) -> Lesion | None:
        """The lesion of a bit-packed mask, (side, side / 8) uint8, unpacking no more than that."""
        left, top, width, height = cv2.boundingRect(packed)
        box = np.unpackbits(packed[top : top + height, left : left + width], axis=1) * np.uint8(255)
        return cls(8 * left, top, box) if width else None


_View = TypeVar("_View", np.ndarray, Lesion | None)


# --- a prepared set --------------------------------------------------------------------------------


@dataclass(frozen=True)
class PreparedSet:
    """A prepared set on disk. Its arrays are read when they are asked for."""

    folder: Path
    _kept: dict[tuple[str, int, int], Any] = field(default_factory=dict, repr=False, compare=False)
    _kept_bytes: list[int] = field(default_factory=lambda: [0], repr=False, compare=False)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        return read_json(self.folder / "manifest.json", "prepare the data again")

    @cached_property
    def cases(self) -> pd.DataFrame:
        """The case table, row i belonging to film i; columns as in `common.preparation.prepared_cases`."""
        cases = read_cases(self.folder / "cases.csv")
        if len(cases) != len(self._films):
            raise Refusal(
                f"{shown(self.folder)} is incomplete", do="prepare it again: bash common/prepare.sh --fresh"
            )
        return cases

    @cached_property
    def _films(self) -> np.ndarray:
        return np.load(self.folder / "films.npy", mmap_mode="r")

    @cached_property
    def _masks(self) -> np.ndarray:
        return np.load(self.folder / "masks.npy", mmap_mode="r")

    @cached_property
    def _mask_rows(self) -> np.ndarray:
        return self.cases["mask_row"].to_numpy()

    @cached_property
    def has_mask(self) -> np.ndarray:
        """(n,) bool: films with an annotated lesion."""
        return self.cases["has_mask"].to_numpy() == 1

    def names(self, rows: np.ndarray) -> list[str]:
        """Pseudonyms of films."""
        return self.cases["case"].iloc[rows].tolist()

    @cached_property
    def part(self) -> np.ndarray:
        """(n,) int: the fold of each film (`ntuh_train`), or 1 for validation (`siim`)."""
        return np.array(read_json(self.folder / "folds.json", "prepare the data again")["part"])

    @property
    def content(self) -> str:
        """SHA-256 of pixels, labels and masks in order; independent of the pseudonyms."""
        return self.manifest["content"]

    @property
    def split(self) -> str:
        """SHA-256 of who is in which part."""
        return self.manifest["split"]

    @property
    def patient_table(self) -> dict[str, Any] | None:
        """What SIIM-ACR's table of patients told, in numbers, and its hash; None: prepared without one."""
        return self.manifest.get("patient_table")

    @property
    def replace_saturated(self) -> bool:
        """Whether saturated pixels were given the film's median."""
        return self.manifest["rules"]["replace_saturated"]

    def film(self, row: int, side: int = SIDE) -> np.ndarray:
        """The working-size view of a film, (side, side) uint8: the only place where one is made."""
        return self._reduced("film", row, side, lambda: resample(np.asarray(self._films[row]), side))

    def mask(self, row: int, side: int = SIDE) -> np.ndarray:
        """The mask of a film at the working size, (side, side) bool; empty without a lesion."""
        mask_row = self._mask_rows[row]
        if mask_row < 0:
            return np.zeros((side, side), dtype=bool)
        return self._reduced(
            "mask",
            row,
            side,
            lambda: resample_mask(np.unpackbits(self._masks[mask_row], axis=1).view(bool), side),
        )

    def lesion(self, row: int, side: int = SIDE) -> Lesion | None:
        """The lesion of a film at the working size; None without one."""
        mask_row = self._mask_rows[row]
        if mask_row < 0:
            return None
        if side == self._films.shape[1]:
            return Lesion.of_packed(np.asarray(self._masks[mask_row]))
        return self._reduced("lesion", row, side, lambda: Lesion.of(self.mask(row, side)))

    def _reduced(self, kind: str, row: int, side: int, make: Callable[[], _View]) -> _View:
        """Keep reduced films in memory up to a limit: every epoch and fold asks for the same ones."""
        key = (kind, row, side)
        if key not in self._kept:
            view = make()
            pixels = view.pixels if isinstance(view, Lesion) else view
            if pixels is None or side == self._films.shape[1]:
                return view
            if self._kept_bytes[0] + pixels.nbytes > KEPT_BYTES:
                return view
            pixels.flags.writeable = False
            self._kept[key] = view
            self._kept_bytes[0] += pixels.nbytes
        return self._kept[key]


# --- the arrays while they grow ---------------------------------------------------------------------

HEADER = 128  # bytes of the .npy header in front of the rows


def films_file(folder: Path) -> Path:
    """Films while they are prepared, row i belonging to film i of the source."""
    return folder / "films.partial.npy"


def masks_file(folder: Path) -> Path:
    """Packed masks while they are prepared; rows of films without a lesion stay holes."""
    return folder / "masks.partial.npy"


def write_row(path: Path, row: int, values: np.ndarray) -> None:
    """Write one row in place. Not through a memory map: there a full disk is a crash, here an OSError."""
    data = np.ascontiguousarray(values).data
    descriptor = os.open(path, os.O_WRONLY)
    try:
        written = os.pwrite(descriptor, data, HEADER + row * data.nbytes)
        if written != data.nbytes:
            raise OSError(28, "No space left on device")
    finally:
        os.close(descriptor)


def read_row(path: Path, row: int, shape: tuple[int, int]) -> np.ndarray:
    """Read one uint8 row; short where the file ends."""
    size = shape[0] * shape[1]
    descriptor = os.open(path, os.O_RDONLY)
    try:
        data = os.pread(descriptor, size, HEADER + row * size)
    finally:
        os.close(descriptor)
    return np.frombuffer(data.ljust(size, b"\0"), np.uint8).reshape(shape)


def array_header(count: int, width: int) -> bytes:
    """The header of a .npy file of (count, 1024, width) uint8, of the length that all of ours have."""
    header = BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (count, SIDE, width)}
    )
    assert len(header.getvalue()) == HEADER
    return header.getvalue()
