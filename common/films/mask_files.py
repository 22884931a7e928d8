"""A file that marks a lesion, of whatever kind its first bytes say -> a mask."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.films.annotations import content_of, unsaid
from common.films.fault import FilmFault, Note
from common.films.mask_pictures import read_mask_picture

LARGEST_FILE = 200_000_000  # bytes of a file with a mask


@dataclass(frozen=True)
class MaskFile:
    """An annotation as a file: a picture of the film's size."""

    path: Path

    def mask(self, width: int, height: int, note: Note = unsaid) -> np.ndarray:
        """Mask of the film, (height, width) bool; empty where the file marks nothing.

        Args:
            width: Width of the film in pixels.
            height: Height of the film in pixels.
            note: Hears how the file was read where that is not plain.

        Raises:
            FilmFault: Unreadable, of another size, or it does not tell what is lesion and what is not.
        """
        try:
            if self.path.stat().st_size > LARGEST_FILE:
                raise FilmFault(f"its mask is a file larger than {LARGEST_FILE / 1e6:g} MB")
            return read_mask_picture(self.path.read_bytes(), width, height, note)
        except FilmFault:
            raise
        except Exception as error:  # a damaged file can make a decoder raise anything
            raise FilmFault(f"its mask cannot be decoded ({type(error).__name__})") from None

    def content(self) -> bytes:
        """What the annotation is made from, for the source's fingerprint."""
        return content_of(self.path, LARGEST_FILE)
