"""What this project wrote itself is never read as a film: its marks, and how they are recognised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID

from common.films.fault import FilmFault

MANUFACTURER = "Pneumothorax research software"  # in DICOM objects, and in the text chunk SOFTWARE of a PNG
SOFTWARE = "Software"  # a registered keyword of PNG text (PNG specification, 11.3.3.2)
RESEARCH_ONLY = "research use only, not a medical device"
_MARKED = {"Manufacturer": MANUFACTURER, "ImageComments": RESEARCH_ONLY}  # either may get lost on the way


def refuse_own_picture(info: Mapping[str | tuple[int, int], Any]) -> None:
    """Refuse a picture whose texts say that this project drew it.

    Args:
        info: The texts of a PNG file by their keywords, as Pillow gives them.

    Raises:
        FilmFault: It is one of ours.
    """
    if info.get(SOFTWARE) == MANUFACTURER:
        raise FilmFault("is a picture that this project made, no film")


def refuse_own_object(dataset: Dataset) -> None:
    """Refuse a DICOM object that this project made, and a Segmentation whoever made it.

    Raises:
        FilmFault: It is one.
    """
    if (
        "Segmentation Storage" in UID(_text(dataset, "SOPClassUID")).name
        or _text(dataset, "Modality") == "SEG"
    ):
        raise FilmFault("is a Segmentation, no film")
    if any(_text(dataset, keyword) == mark for keyword, mark in _MARKED.items()):
        raise FilmFault("is a picture that this project made, no film")


def _text(dataset: Dataset, keyword: str) -> str:
    try:
        return str(dataset.get(keyword) or "").strip()
    except Exception:  # pydicom converts values when they are asked for
        return ""
