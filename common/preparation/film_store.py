"""A prepared set on disk, and the views of its films that training and evaluation use.

A prepared set is a folder: `cases.csv` (the prepared cases, a row a film), `films.npy` (n x 1024 x 1024
uint8, memory map), `masks.npy` (bit-packed masks of the films that have one), `folds.json` (who is in which
part), `rejected.csv` (films not prepared, and why), `flow.json` and `flow.png` (every film accounted for),
`fingerprints.csv` (what it was made from) and, last, `manifest.json`. With a second annotator it also holds
`second_masks.csv`. `run.py` makes it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import cv2
import numpy as np

from common.files import digest, read_json, whole_file
from common.films.annotations import decode_rle
from common.films.resample import resample, resample_mask
from common.paths import shown
from common.preparation.prepared_cases import read_cases
from common.preparation.second_masks import read_second_masks
from common.refusal import Refusal

if TYPE_CHECKING:
    import pandas as pd  # a new film does without

SIDE = 1024
FILM_BYTES = SIDE * SIDE
ARRAYS = ("films.npy", "masks.npy")  # of a prepared set
GROWING_ARRAYS = ("films.partial.npy", "masks.partial.npy")  # of a set while it is prepared
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
        left, top, width, height = cv2.boundingRect(packed)  # of the bytes, so columns count by eight
        box = np.unpackbits(packed[top : top + height, left : left + width], axis=1) * np.uint8(255)
        return cls(8 * left, top, box) if width else None


_View = TypeVar("_View", np.ndarray, Lesion | None)


# --- a prepared set --------------------------------------------------------------------------------


@dataclass(frozen=True)
class PreparedSet:
    """A prepared set on disk. Its arrays are read when they are asked for."""

    folder: Path
    _kept: dict[tuple[str, int, int], Any] = field(default_factory=dict, repr=False, compare=False)
    # A list of one number, since the attributes of a frozen object cannot be set.
    _kept_bytes: list[int] = field(default_factory=lambda: [0], repr=False, compare=False)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        return read_json(self.folder / "manifest.json", "prepare the data again")

    @cached_property
    def cases(self) -> pd.DataFrame:
        """The prepared cases: row i belongs to film i; columns as in `prepared_cases.py`."""
        cases = read_cases(self.folder / "cases.csv")
        if len(cases) != len(self._films):
            raise Refusal(
                f"{shown(self.folder)} is incomplete", do="prepare it again: bash common/prepare.sh --fresh"
            )
        return cases

    @cached_property
    def _films(self) -> np.ndarray:
        return np.load(self.folder / ARRAYS[0], mmap_mode="r")  # 12 GB of SIIM-ACR, shared by all processes

    @cached_property
    def _masks(self) -> np.ndarray:
        return np.load(self.folder / ARRAYS[1], mmap_mode="r")

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

    @property
    def second_annotator(self) -> str | None:
        """SHA-256 of the second annotator's masks; None: no film has one."""
        return self.manifest.get("second_masks")

    @cached_property
    def _second_masks(self) -> dict[int, str]:
        return read_second_masks(self.folder, self.second_annotator) if self.second_annotator else {}

    def second_mask(self, row: int) -> np.ndarray | None:
        """The second annotator's mask, (1024, 1024) bool, empty where nothing was drawn; None without one."""
        mask = self._second_masks.get(row)
        return None if mask is None else decode_rle(mask, SIDE)

    def film(self, row: int, side: int = SIDE) -> np.ndarray:
        """A film stretched to a side in pixels, such as the working size: (side, side) uint8."""
        return self._reduced("film", row, side, lambda: resample(np.asarray(self._films[row]), side))

    def mask(self, row: int, side: int = SIDE) -> np.ndarray:
        """Its mask, (side, side) bool; empty without a lesion."""
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
        """Its lesion at that side; None without one."""
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
            # At full size the system keeps the file's pages anyway.
            if pixels is None or side == self._films.shape[1]:
                return view
            if self._kept_bytes[0] + pixels.nbytes > KEPT_BYTES:
                return view
            pixels.flags.writeable = False  # all who ask get this very array
            self._kept[key] = view
            self._kept_bytes[0] += pixels.nbytes
        return self._kept[key]


# --- the arrays while they grow ---------------------------------------------------------------------

_HEADER = 128  # bytes of the .npy header in front of the rows


def pack_mask(mask: np.ndarray) -> np.ndarray:
    """A mask as it is stored: (side, side) bool -> (side, side / 8) uint8, a bit a pixel."""
    return np.packbits(mask, axis=1)


def packed_area(packed: np.ndarray) -> float:
    """Share of the pixels that a packed mask marks, 0-1."""
    return np.count_nonzero(np.unpackbits(packed).view(bool)) / (8 * packed.size)


class GrowingArrays:
    """The arrays of a set while it is prepared: row i of both belongs to film i of the source.

    Rows of films that are not prepared, and of masks that are not there, stay holes. `pack_masks` and
    `close_gaps` make the arrays of the prepared set from them.

    Args:
        folder: Folder of the prepared set.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.films, self._masks = (folder / name for name in GROWING_ARRAYS)

    def begin(self) -> None:
        """Begin them, or go on with them, also where the last step had given the films their name."""
        finished = self._folder / ARRAYS[0]
        if finished.exists():
            os.replace(finished, self.films)
        for file in (self.films, self._masks):
            file.touch()

    def write(self, row: int, film: np.ndarray, mask: np.ndarray | None) -> None:
        """Write a film, (1024, 1024) uint8, and its packed mask, (1024, 128) uint8, if it has one.

        Raises:
            OSError: The disk is full, or will not be written.
        """
        _write_row(self.films, row, film)
        if mask is not None:
            _write_row(self._masks, row, mask)

    def film(self, row: int) -> np.ndarray:
        """A film, (1024, 1024) uint8."""
        return _read_row(self.films, row, SIDE)

    def hold(self, row: int, picture: str, mask: str) -> bool:
        """Whether a row is as these SHA-256 say, the mask's empty without one."""
        if not (self.films.exists() and self._masks.exists()):
            return False
        if digest(self.film(row).data) != picture:
            return False
        return not mask or digest(_read_row(self._masks, row, SIDE // 8).data) == mask

    def pack_masks(self, rows: Sequence[int]) -> None:
        """Copy the masks of these rows one behind the other, into the prepared set's array."""
        with whole_file(self._folder / ARRAYS[1]) as temporary, open(temporary, "wb") as file:
            file.write(_header(len(rows), SIDE // 8))
            for row in rows:
                file.write(_read_row(self._masks, row, SIDE // 8).data)

    def close_gaps(self, rows: Sequence[int]) -> None:
        """Move the films of these rows together, in place, and give the array its name.

        Interrupted here, the journal finds films that are not where its entries say, and reads these again.
        """
        with open(self.films, "rb+") as file:
            for row, old in enumerate(rows):
                # Rows only move forward: none is overwritten before it has moved.
                if row != old:
                    film = self.film(old)
                    file.seek(_HEADER + row * FILM_BYTES)
                    file.write(film.data)
            file.truncate(_HEADER + len(rows) * FILM_BYTES)
            file.seek(0)
            file.write(_header(len(rows), SIDE))
            file.flush()
            os.fsync(file.fileno())
        os.replace(self.films, self._folder / ARRAYS[0])

    def remove_masks(self) -> None:
        """Remove the masks that `pack_masks` copied, once nothing depends on them any more."""
        self._masks.unlink()


def _write_row(path: Path, row: int, values: np.ndarray) -> None:
    """Write one row in place. Not through a memory map: there a full disk is a crash, here an OSError."""
    data = np.ascontiguousarray(values).data
    descriptor = os.open(path, os.O_WRONLY)
    try:
        written = os.pwrite(descriptor, data, _HEADER + row * data.nbytes)
        if written != data.nbytes:
            raise OSError(28, "No space left on device")
    finally:
        os.close(descriptor)


def _read_row(path: Path, row: int, width: int) -> np.ndarray:
    """Read one row, (1024, width) uint8; zeros behind the end of the file."""
    size = SIDE * width
    descriptor = os.open(path, os.O_RDONLY)
    try:
        data = os.pread(descriptor, size, _HEADER + row * size)
    finally:
        os.close(descriptor)
    return np.frombuffer(data.ljust(size, b"\0"), np.uint8).reshape(SIDE, width)


def _header(count: int, width: int) -> bytes:
    """The header of a .npy file of (count, 1024, width) uint8, of the length that all of ours have."""
    header = BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (count, SIDE, width)}
    )
    assert len(header.getvalue()) == _HEADER
    return header.getvalue()
