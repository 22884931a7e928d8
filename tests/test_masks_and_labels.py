"""Masks beside labels: black masks of negatives, contradictions, and what is said of them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from common.command_line import PrepareOptions, Rules
from common.paths import prepared_folder
from common.preparation.film_store import PreparedSet
from common.preparation.run import prepare_sources
from common.refusal import Refusal

SIDE, FILMS, TRAINED = 160, 18, 14


def picture(number: int) -> np.ndarray:
    """A smooth film of its own, (SIDE, SIDE) uint8."""
    coarse = np.random.default_rng(number).integers(30, 220, (6, 6), np.uint8)
    return cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)


def ellipse(number: int) -> np.ndarray:
    """A lesion, (SIDE, SIDE) uint8, 0 or 255."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    return cv2.ellipse(mask, (50 + 2 * number, 60 + number), (14, 25), 9 * number, 0, 360, 255, -1)


def hospital(folder: Path, change: Callable[[int, dict[str, str]], None] = lambda i, cells: None) -> Path:
    """A folder with cases.csv: every other film is positive, the last ones are for testing.

    Args:
        folder: Where to make it.
        change: Changes the cells of row i, or the files that they name.
    """
    folder.mkdir()
    rows = []
    for i in range(FILMS):
        cells = {"image": f"f{i}.png", "pneumothorax": str(1 - i % 2), "mask": "", "patient": f"patient {i}"}
        cells |= {"set": "test" if i >= TRAINED else "train"}
        cv2.imwrite(str(folder / cells["image"]), picture(i))
        if i % 2 == 0:
            cells["mask"] = f"m{i}.png"
            cv2.imwrite(str(folder / cells["mask"]), ellipse(i))
        change(i, cells)
        rows.append(cells)
    with open(folder / "cases.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def prepare(folder: Path, **rules: object) -> PreparedSet:
    """The training set of a folder."""
    prepare_sources(PrepareOptions(ntuh=str(folder), rules=Rules(**rules)))
    return PreparedSet(prepared_folder("ntuh_train"))


def notes(name: str = "ntuh_train") -> pd.DataFrame:
    return pd.read_csv(prepared_folder(name) / "notes.csv")


def rejected(name: str = "ntuh_train") -> pd.DataFrame:
    return pd.read_csv(prepared_folder(name) / "rejected.csv")


def test_black_masks_of_negatives_are_negatives(workspace: Path, tmp_path: Path) -> None:
    """Converted SIIM-ACR sets have a mask for every film."""

    def change(i: int, cells: dict[str, str]) -> None:
        if not cells["mask"]:
            cells["mask"] = f"m{i}.png"
            cv2.imwrite(str(tmp_path / "films" / cells["mask"]), np.zeros((SIDE, SIDE), np.uint8))

    prepared = prepare(hospital(tmp_path / "films", change))
    assert len(prepared.cases) == TRAINED
    assert (prepared.has_mask == (prepared.cases["report"] == 1)).all()
    assert not (prepared.folder / "notes.csv").exists()


def test_a_black_mask_of_a_positive_is_a_fault(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(i: int, cells: dict[str, str]) -> None:
        if i == 4:
            cv2.imwrite(str(tmp_path / "films" / cells["mask"]), np.zeros((SIDE, SIDE), np.uint8))

    prepared = prepare(hospital(tmp_path / "films", change))
    assert len(prepared.cases) == TRAINED - 1
    assert rejected()["reason"].tolist() == ["its mask marks no pixel of the film, but its label is positive"]
    printed = capsys.readouterr().out
    assert "label is positive (cases.csv, row 6)" in printed
    assert "rejected.csv" in printed


def test_lesions_of_negatives_are_listed(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(i: int, cells: dict[str, str]) -> None:
        cells["pneumothorax"] = "0" if i in (2, 6) else cells["pneumothorax"]

    prepared = prepare(hospital(tmp_path / "films", change))
    assert len(prepared.cases) == TRAINED
    assert notes()["origin"].tolist() == ["cases.csv, row 4", "cases.csv, row 8"]
    assert set(notes()["note"]) == {"a lesion is marked, which contradicts its negative label"}
    assert set(notes()["case"]) <= set(prepared.cases["case"])
    printed = capsys.readouterr().out
    assert "which contradicts its negative label (cases.csv, row 4; cases.csv, row 8)" in printed


def test_positives_without_a_lesion_are_listed(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In training they are left out, in testing they stay."""

    def change(i: int, cells: dict[str, str]) -> None:
        cells["mask"] = "" if i in (4, 14, 16) else cells["mask"]

    prepare(hospital(tmp_path / "films", change))
    assert rejected()["origin"].tolist() == ["cases.csv, row 6"]
    assert (
        "2 films: its label is positive, but no lesion is marked (cases.csv, row 16;"
        in capsys.readouterr().out
    )


def test_too_many_faults_name_rows_and_the_list(workspace: Path, tmp_path: Path) -> None:
    def change(i: int, cells: dict[str, str]) -> None:
        cells["pneumothorax"] = "2" if i in (1, 3, 5, 7) else cells["pneumothorax"]

    with pytest.raises(Refusal) as refusal:
        prepare(hospital(tmp_path / "films", change))
    rows = "; ".join(f"cases.csv, row {row}: pneumothorax '2'" for row in (3, 5, 7))
    assert f"{rows}; and 1 more" in str(refusal.value)
    assert "rejected.csv" in str(refusal.value)
