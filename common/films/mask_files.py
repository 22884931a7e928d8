"""A file that marks a lesion, of whatever kind its first bytes say -> a mask."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.films.annotations import content_of, unsaid
from common.films.fault import FilmFault, Note
from common.films.labelme import Drawing
from common.films.mask_pictures import read_mask_picture
from common.films.mask_segmentation import read_segmentation

LARGEST_FILE = 200_000_000  # bytes of a file with a mask


@dataclass(frozen=True)
class MaskFile:
    """An annotation as a file: a picture of the film's size, a DICOM Segmentation, or shapes of LabelMe."""

    path: Path

    def mask(self, width: int, height: int, note: Note = unsaid, instance: str = "") -> np.ndarray:
        """Mask of the film, (height, width) bool; empty where the file marks nothing.

        Args:
            width: Width of the film in pixels.
            height: Height of the film in pixels.
            note: Hears how the file was read where that is not plain.
            instance: SOPInstanceUID of the film, `""` where unknown.

        Raises:
            FilmFault: Unreadable, of another size, or it does not tell what is lesion and what is not.
        """
        try:
            content = self._content()
            if content[128:132] == b"DICM":
                return read_segmentation(content, width, height, instance, note)
            if _is_json(content):
                return Drawing.of(content).mask(width, height, note)
            return read_mask_picture(content, width, height, note)
        except FilmFault:
            raise
        except Exception as error:  # a damaged file can make a decoder raise anything
            raise FilmFault(f"its mask cannot be decoded ({type(error).__name__})") from None

    def has_boxes(self) -> bool:
        """Whether it marks boxes around a lesion; only of a file that `mask` took."""
        content = self._content()
        return _is_json(content) and Drawing.of(content).has_rectangles_only()

    def content(self) -> bytes:
        """What the annotation is made from, for the source's fingerprint."""
        return content_of(self.path, LARGEST_FILE)

    def _content(self) -> bytes:
        if self.path.stat().st_size > LARGEST_FILE:
            raise FilmFault(f"its mask is a file larger than {LARGEST_FILE / 1e6:g} MB")
        return self.path.read_bytes()


def _is_json(content: bytes) -> bool:
    return content[:64].removeprefix(b"\xef\xbb\xbf").lstrip().startswith((b"{", b"["))
