"""Run lengths and rectangles land on the right pixels."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from common.data.faults import FilmFault
from common.data.masks import Rectangles, RunLengths, decode_rle, encode_rle, fill_rectangles


def test_runs_go_down_the_columns() -> None:
    # 3 pixels of gap, 2 of lesion, 4 of gap, 1 of lesion in a 4 x 4 film: pixels 3, 4 and 9 of the columns
    mask = decode_rle("3 2 4 1", side=4)
    assert sorted(zip(*np.nonzero(mask), strict=True)) == [(0, 1), (1, 2), (3, 0)]


@pytest.mark.parametrize("text", ["-1", " -1", "", " "])
def test_empty(text: str) -> None:
    assert not decode_rle(text, side=4).any()


def test_round_trip() -> None:
    rng = np.random.default_rng(0)
    for share in (0.02, 0.5, 1.0):
        mask = rng.random((1024, 1024)) < share
        assert (decode_rle(encode_rle(mask)) == mask).all()
    assert encode_rle(np.zeros((8, 8), bool)) == "-1"


@pytest.mark.parametrize("text", ["1", "a b", "0 17", "-3 2", "1 2 3", "9" * 30 + " 1", "1.5 2"])
def test_impossible_runs_are_a_fault(text: str) -> None:
    with pytest.raises(FilmFault):
        decode_rle(text, side=4)


def test_rows_of_one_film_are_united() -> None:
    rows = RunLengths(("0 1", "5 1"))
    assert rows.mask(1024, 1024).sum() == 2


def test_rectangles_cover_pixel_centres_in_any_corner_order() -> None:
    left_top_right_bottom = np.array([[1.0, 0.0, 3.0, 2.0]])
    expected = np.zeros((4, 5), bool)
    expected[0:2, 1:3] = True
    assert (fill_rectangles(left_top_right_bottom, 5, 4) == expected).all()
    assert fill_rectangles(np.array([[0.6, 0.0, 1.4, 1.0]]), 5, 4).sum() == 0  # no centre inside
    assert fill_rectangles(np.array([[0.4, 0.0, 1.6, 1.0]]), 5, 4).sum() == 2


def _label(path: Path, shapes: list, size: tuple[int, int] = (6, 4)) -> Rectangles:
    content = {"accessionNumber": "x", "size": list(size), "shapes": shapes}
    path.write_text(json.dumps(content))
    return Rectangles(path)


def test_label_file(tmp_path: Path) -> None:
    tags = ["Pneumothorax", "Pneumothorax ", "PTX", "pneumothorax "]
    corners = [([0, 0], [1, 1]), ([6.9, 4.5], [5, 3]), ([0, 4], [1, 3]), ([5, 1], [9, -2])]
    shapes = [{"a": a, "b": b, "tagAnno": tag} for tag, (a, b) in zip(tags, corners, strict=True)]
    mask = _label(tmp_path / "label.json", shapes).mask(6, 4)
    expected = np.zeros((4, 6), bool)
    expected[[0, 3, 3, 0], [0, 5, 0, 5]] = True
    assert (mask == expected).all()


@pytest.mark.parametrize(
    ("shapes", "size", "said"),
    [
        ([], (6, 4), "marks no pixel"),
        ([{"a": [10, 10], "b": [12, 12]}], (6, 4), "marks no pixel"),
        ([{"a": [0, 0], "b": [1, 1]}], (4, 6), "was annotated as"),
        ([{"a": [0, 0]}], (6, 4), "cannot be read"),
        ([{"a": [0, float("nan")], "b": [1, 1]}], (6, 4), "impossible"),
    ],
)
def test_faulty_label_files(tmp_path: Path, shapes: list, size: tuple[int, int], said: str) -> None:
    with pytest.raises(FilmFault, match=said):
        _label(tmp_path / "label.json", shapes, size).mask(6, 4)


def test_the_real_label_file_of_siim_acr(real: Path) -> None:
    with gzip.open(real / "siim" / "train-rle.csv.gz") as file:
        table = pd.read_csv(file, dtype=str)
    table.columns = [c.strip() for c in table.columns]
    rows = table.groupby("ImageId")["EncodedPixels"].agg(tuple)
    positive = rows[rows.map(lambda r: any(text.strip() != "-1" for text in r))]
    assert (len(rows), len(positive)) == (12047, 2669)
    shares = [RunLengths(r).mask(1024, 1024).mean() for r in positive.iloc[::20]]
    assert 0.006 < np.median(shares) < 0.010  # the published median is 0.8%


def test_masks_lie_on_the_side_that_the_truth_names(real: Path) -> None:
    """The patient's right is on the picture's left; a transposed mask would be on the wrong side."""
    folder = real / "semisynthetic"
    truth = pd.read_csv(folder / "truth.csv")
    positive = truth[truth["label"] == 1]
    rle = pd.read_csv(folder / "siim" / "train-rle.csv", dtype=str)
    rle = rle.groupby("ImageId")[" EncodedPixels"].agg(tuple)
    checked = 0
    for case in positive.itertuples():
        if case.set == "siim":
            mask = RunLengths(rle[case.case_id]).mask(1024, 1024)
        else:
            label = folder / "hospital" / "labels" / case.case_id / "label.json"
            size = json.loads(label.read_text())["size"]
            mask = Rectangles(label).mask(*size)
        centre = np.nonzero(mask)[1].mean() / mask.shape[1]
        assert (centre < 0.5) == (case.side == "right"), case.set
        checked += 1
    assert checked == len(positive) > 100
