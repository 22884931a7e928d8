"""A second annotator's masks of a prepared set, `second_masks.csv`: beside the truth, never in its place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from common.files import digest, write_csv
from common.paths import shown
from common.refusal import Refusal

FILE = "second_masks.csv"
COLUMNS = {
    "row": "of the film in films.npy and cases.csv, from 0",
    "mask": "run lengths on the prepared grid, as `annotations.decode_rle` reads; -1: nothing drawn",
}
_AGAIN = "prepare the films anew: bash common/prepare.sh --fresh"


def masks_digest(masks: Mapping[int, str]) -> str:
    """SHA-256 of masks as run lengths, by the films' rows."""
    return digest(*(f"{row} {mask}" for row, mask in masks.items()))


def write_second_masks(folder: Path, masks: Mapping[int, str]) -> None:
    """Write masks as run lengths, by the films' rows; no file where there is none."""
    if masks:
        write_csv(folder / FILE, list(COLUMNS), [{"row": row, "mask": mask} for row, mask in masks.items()])


def read_second_masks(folder: Path, expected: str) -> dict[int, str]:
    """Read what `write_second_masks` wrote.

    Args:
        folder: Folder of the prepared set.
        expected: `masks_digest` of the masks that were written.

    Raises:
        Refusal: Missing, malformed, or changed since.
    """
    import pandas as pd  # a new film does without

    path = folder / FILE
    try:
        table = pd.read_csv(path, dtype={"mask": str})
        masks = {int(row): str(mask) for row, mask in zip(table["row"], table["mask"], strict=True)}
    except (OSError, ValueError, KeyError) as error:
        raise Refusal(f"{shown(path)} cannot be read", found=type(error).__name__, do=_AGAIN) from None
    if masks_digest(masks) != expected:
        raise Refusal(f"{shown(path)} is not as it was written", found="another SHA-256", do=_AGAIN)
    return masks
