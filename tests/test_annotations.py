"""Run lengths, rectangles and mask pictures land on the right pixels, or are a fault."""

from __future__ import annotations

import json
import struct
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFile

from common.films import annotations as annotations_module
from common.films import mask_files
from common.films.annotations import (
    Rectangles,
    RunLengths,
    decode_rle,
    encode_rle,
    fill_rectangles,
    read_rectangles,
)
from common.films.fault import FilmFault
from common.films.mask_files import MaskFile


def _effort(call: Callable[[], Any]) -> tuple[int, int]:
    """Lines of `annotations.py` that a call runs through, and the most bytes that it holds at a time."""
    lines = 0

    def count(frame: FrameType, event: str, _: Any) -> Callable | None:
        nonlocal lines
        lines += event == "line"
        return count if frame.f_code.co_filename == annotations_module.__file__ else None

    before = sys.gettrace()
    tracemalloc.start()
    sys.settrace(count)
    try:
        call()
    finally:
        sys.settrace(before)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return lines, peak


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
    for side in (1, 2, 3, 7):
        for _ in range(50):
            mask = rng.random((side, side)) < rng.random()
            assert (decode_rle(encode_rle(mask), side) == mask).all()


def test_runs_up_to_the_last_pixel_of_a_film() -> None:
    assert decode_rle("0 16", side=4).all()
    assert decode_rle("15 1", side=4)[3, 3]
    assert (decode_rle("3 0 0 0 0 2", side=4) == decode_rle("3 2", side=4)).all()  # runs of no pixel


@pytest.mark.parametrize(
    "text",
    [
        *(
            "1",
            "a b",
            "0 17",
            "15 2",
            "8 4 4 1",
            "-3 2",
            "3 -2",
            "1 2 3",
            "1.5 2",
            "1e1 2",
            "0x1 1",
            "+1 2",
            "1_0 2",
        ),
        *("٣ ٢", "nan 1", "1, 2", "-1 -1", "\x001 2"),
        *("9" * 19 + " 1", f"{2**63} 1", f"{2**64 + 1} 1", f"1 {2**64}", "9" * 30 + " 1"),
        *(f"{2**49} 0 " * 2**15, f"{2**62} " * 4, "9" * 10**6 + " 1", "1 " + "0" * 10**6 + "1"),
    ],
    ids=lambda text: text[:12] + ("..." if len(text) > 12 else ""),
)
def test_impossible_runs_are_a_fault(text: str) -> None:
    with pytest.raises(FilmFault) as fault:
        decode_rle(text, side=4)
    assert len(str(fault.value)) < 100


@pytest.mark.slow
def test_a_million_runs() -> None:
    assert decode_rle("1 0 " * 10**6).sum() == 0
    assert decode_rle("0 1 " * 10**6).sum() == 10**6
    with pytest.raises(FilmFault, match="beyond the film"):
        decode_rle("1048576 1048576 " * 10**6)


def test_the_effort_of_runs_grows_with_their_number_alone() -> None:
    """No run is looked at twice, and none costs an array of the film's size."""
    (few, little), (many, much) = (_effort(lambda n=n: decode_rle("0 1 " * n)) for n in (1000, 5000))
    assert many - few <= 2 * 4000  # each of the two numbers is converted
    assert much - little < 4000 * 1000


def test_runs_without_a_pixel_are_a_fault() -> None:
    for rows in ((), ("5 0",), ("-1",)):
        with pytest.raises(FilmFault, match="no pixel"):
            RunLengths(rows).mask(1024, 1024)


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


def _loop(corners: np.ndarray, width: int, height: int) -> np.ndarray:
    """Pixel by pixel, as the rule is said: the centre lies in [left, right) x [top, bottom)."""
    mask = np.zeros((height, width), bool)
    for row in range(height):
        for column in range(width):
            x, y = column + 0.5, row + 0.5
            mask[row, column] = any(a <= x < c and b <= y < d for a, b, c, d in corners)
    return mask


def test_rectangles_are_filled_as_by_a_loop() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        width, height = rng.integers(1, 9, 2)
        corners = rng.uniform(-4, 12, (rng.integers(0, 5), 4))
        if rng.random() < 0.5:
            corners = np.round(corners * 2) / 2  # on the pixels' edges and centres
        # not sorted: a rectangle whose left is not below its right holds nothing
        assert (fill_rectangles(corners, width, height) == _loop(corners, width, height)).all()


@pytest.mark.slow
def test_many_rectangles() -> None:
    rng = np.random.default_rng(0)
    low = rng.uniform(-100, 4000, (100_000, 2))
    corners = np.hstack([low, low + rng.uniform(0, 4000, low.shape)])
    mask = fill_rectangles(corners, 4000, 4000)
    for x, y in rng.integers(0, 4000, (200, 2)):
        inside = (corners[:, :2] <= (x + 0.5, y + 0.5)).all(1) & (corners[:, 2:] > (x + 0.5, y + 0.5)).all(1)
        assert mask[y, x] == inside.any()
    far = np.array([[-1e300, -1e300, 1e300, 1e300]] * 3)
    assert fill_rectangles(far, 5, 4).all()


def test_the_effort_of_rectangles_does_not_grow_with_film_times_number() -> None:
    corners = np.array([[-9.0, -9.0, 999.0, 999.0]])
    (few, little), (many, much) = (
        _effort(lambda n=n: fill_rectangles(corners.repeat(n, 0), 200, 200)) for n in (10, 5000)
    )
    assert many == few  # no loop over rectangles
    assert much - little < 4990 * 1000


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
        ([{"a": [10, 10], "b": [12, 12]}], (6, 4), "marks no pixel"),
        ([{"a": [0, 0], "b": [1, 1]}], (4, 6), "was annotated as"),
        ([{"a": [0, 0]}], (6, 4), "cannot be read"),
        ([{"a": [0, float("nan")], "b": [1, 1]}], (6, 4), "impossible"),
    ],
)
def test_faulty_label_files(tmp_path: Path, shapes: list, size: tuple[int, int], said: str) -> None:
    with pytest.raises(FilmFault, match=said):
        _label(tmp_path / "label.json", shapes, size).mask(6, 4)


def test_a_label_file_without_a_shape_is_an_empty_mask(tmp_path: Path) -> None:
    assert not _label(tmp_path / "label.json", []).mask(6, 4).any()


_RECTANGLE = '{"a": [0, 0], "b": [1, 1]}'


@pytest.mark.parametrize(
    ("size", "shapes"),
    [
        *((size, _RECTANGLE) for size in ("[6]", "[6, 4, 1]", "6", "null", '"64"', "[true, 4]", "[6.5, 4]")),
        *((size, _RECTANGLE) for size in ('["6", "4"]', "[0, 4]", "[-6, 4]", "[NaN, 4]", "[Infinity, 4]")),
        *((size, _RECTANGLE) for size in ("[1e400, 4]", "[1e300, 4]", "[[6], [4]]", '{"6": 1, "4": 1}')),
        *((f"[{'9' * digits}, 4]", _RECTANGLE) for digits in (16, 400, 5000, 10**6)),
        *(("[6, 4]", shape) for shape in ("null", "1", '"ab"', "[]", '["a", "b"]', '{"a": [0, 0]}')),
        *(("[6, 4]", f'{{"a": [0, 0], "b": {b}}}') for b in ("[1]", "[1, 1, 1]", '"11"', "[[1, 1]]", "null")),
        *(
            ("[6, 4]", f'{{"a": [0, 0], "b": {b}}}')
            for b in ("[true, true]", '["1", "1"]', '{"0": 1, "1": 1}')
        ),
        *(
            ("[6, 4]", f'{{"a": [0, 0], "b": [1, {x}]}}')
            for x in ("NaN", "-Infinity", "1e999", "[1]", "9" * 5000)
        ),
        ("[6, 4]", '{"a": [0], "b": [0, 1, 1]}'),
        ("[6, 4]", "[" * 200_000),
        ("[6, 4]", "[" * 200_000 + "]" * 200_000),
        ("[6, 4]", '{"a": ' * 200_000),
    ],
    ids=lambda text: text[:30],
)
def test_hostile_label_files_are_a_fault(tmp_path: Path, size: str, shapes: str) -> None:
    path = tmp_path / "label.json"
    path.write_text(f'{{"size": {size}, "shapes": [{shapes}]}}')
    with pytest.raises(FilmFault) as fault:
        Rectangles(path).mask(6, 4)
    assert len(str(fault.value)) < 100
    assert Rectangles(path).content() == path.read_bytes()


def test_long_numbers_are_not_converted_though_python_would(tmp_path: Path) -> None:
    """Python 3.10 has no limit in its first releases, and every Python can be told to have none."""
    path = tmp_path / "label.json"
    path.write_text(f'{{"size": [6, 4], "shapes": [{{"a": [0, 0], "b": [1, {"9" * 10**6}]}}]}}')
    set_limit = getattr(sys, "set_int_max_str_digits", lambda digits: None)
    set_limit(0)
    try:
        with pytest.raises(FilmFault, match=r"cannot be read \(ValueError\)"):  # OverflowError if converted
            Rectangles(path).mask(6, 4)
    finally:
        set_limit(getattr(sys.int_info, "default_max_str_digits", 0))


@pytest.mark.parametrize("size", ["[0, 4]", "[6, -4]"])
def test_sizes_of_no_film(tmp_path: Path, size: str) -> None:
    (tmp_path / "label.json").write_text(f'{{"size": {size}, "shapes": []}}')
    with pytest.raises(FilmFault, match="impossible sizes"):
        read_rectangles(tmp_path / "label.json")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b'"size"',
        b"{}",
        b'{"size": [6, 4]}',
        b"\xff\xfe{",
        b"\x00" * 99,
        b'{"size": [6, 4',
    ],
)
def test_other_files_are_no_labels(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "label.json"
    path.write_bytes(content)
    with pytest.raises(FilmFault, match="cannot be read"):
        Rectangles(path).mask(6, 4)


def test_label_files_that_are_missing_or_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FilmFault, match="cannot be read") as fault:
        Rectangles(tmp_path / "label.json").mask(6, 4)
    assert str(tmp_path) not in str(fault.value)
    assert Rectangles(tmp_path / "label.json").content() == b"FileNotFoundError"
    label = _label(tmp_path / "label.json", [{"a": [0, 0], "b": [1, 1]}])
    label.mask(6, 4)
    with open(label.path, "ab") as file:
        file.truncate(annotations_module.LARGEST_LABEL + 1)
    with pytest.raises(FilmFault, match="larger than 20 MB"):
        label.mask(6, 4)
    assert label.content() == b"20000001 bytes"


def test_label_file_with_byte_order_mark_and_whole_sides_spelt_as_fractions(tmp_path: Path) -> None:
    path = tmp_path / "label.json"
    path.write_text(f'{{"size": [6.0, 4], "shapes": [{_RECTANGLE}]}}', encoding="utf-8-sig")
    assert Rectangles(path).mask(6, 4).sum() == 1


# --- mask pictures ---------------------------------------------------------------------------------

_MARKED = np.array([[1, 0, 0, 1, 1], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1], [1, 0, 0, 0, 0]], bool)  # no symmetry


def _pictures() -> dict[str, Image.Image]:
    """The same mask in every kind of picture that a program might write."""
    grey = Image.fromarray(_MARKED.astype(np.uint8) * 255)
    palette = Image.fromarray((~_MARKED).astype(np.uint8), "P")  # number 0 is white, number 1 is black
    palette.putpalette([255, 255, 255, 0, 0, 0])
    colour = np.zeros((*_MARKED.shape, 3), np.uint8)
    colour[_MARKED, 2] = 9
    clear = np.full((*_MARKED.shape, 4), 200, np.uint8)  # colour everywhere, seen only where marked
    clear[..., 3] = _MARKED * 255
    return {
        "grey": grey,
        "ones": Image.fromarray(_MARKED.astype(np.uint8)),
        "bits": grey.convert("1"),
        "16 bit": Image.fromarray(_MARKED.astype(np.uint16) * 256),
        "palette": palette,
        "RGB": Image.fromarray(colour),
        "RGBA": Image.fromarray(clear),
        "LA": Image.fromarray(clear).convert("LA"),
    }


@pytest.mark.parametrize("end", ["png", "tif"])
@pytest.mark.parametrize("kind", list(_pictures()))
def test_mask_pictures(tmp_path: Path, kind: str, end: str) -> None:
    path = tmp_path / f"mask.{end}"
    _pictures()[kind].save(path)
    mask = MaskFile(path).mask(5, 4)
    assert mask.dtype == bool
    assert (mask == _MARKED).all()
    assert MaskFile(path).content() == path.read_bytes()


def test_random_mask_pictures(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        width, height = rng.integers(2, 40, 2)
        mask = rng.random((height, width)) < 0.5
        mask[0, :2] = True, False
        Image.fromarray(mask).save(tmp_path / "mask.png")
        assert (MaskFile(tmp_path / "mask.png").mask(width, height) == mask).all()


def _save(path: Path, picture: np.ndarray, form: str | None = None, **options: object) -> MaskFile:
    Image.fromarray(picture).save(path, form, **options)
    return MaskFile(path)


def _refused(mask: MaskFile, said: str, width: int = 5, height: int = 4) -> None:
    with pytest.raises(FilmFault, match=said) as fault:
        mask.mask(width, height)
    assert str(mask.path.parent) not in str(fault.value)
    assert mask.path.name not in str(fault.value)


def test_mask_pictures_that_are_faulty(tmp_path: Path) -> None:
    picture = _MARKED.astype(np.uint8)
    path = tmp_path / "P0123456.png"
    _refused(_save(path, picture), "5 x 4 pixels, the film 4 x 5", 4, 5)
    _refused(_save(path, picture), "5 x 4 pixels, the film 6 x 4", 6, 4)
    _refused(_save(path, picture * 0 + 1), "every pixel")
    _refused(_save(path, picture.astype(np.float32), "TIFF"), "neither grey nor RGB")
    several = {"save_all": True, "append_images": [Image.fromarray(picture)]}
    _refused(_save(path, picture, "TIFF", **several), "several pictures")
    whole = _save(path, np.random.default_rng(0).integers(0, 9, (4, 5), np.uint8)).path.read_bytes()
    for damaged in (b"", b"text", whole[:20], whole[:50], whole[:-30]):
        path.write_bytes(damaged)
        _refused(MaskFile(path), "cannot be decoded")
    path.unlink()
    _refused(MaskFile(path), "cannot be decoded")
    assert MaskFile(path).content() == b"FileNotFoundError"


def test_black_mask_pictures_are_empty_masks(tmp_path: Path) -> None:
    for black in (np.zeros((4, 5), np.uint8), np.zeros((4, 5), np.uint16), np.zeros((4, 5, 3), np.uint8)):
        assert not _save(tmp_path / "mask.png", black).mask(5, 4).any()


def _bomb(path: Path, width: int, height: int) -> MaskFile:
    """A small file that says it is a grey PNG of this size; the pixels are zeros."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixels = zlib.compress(bytes(10**7), 9)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )
    return MaskFile(path)


@pytest.mark.parametrize(
    ("side", "said"), [(100_000, "cannot be decoded"), (12_000, "the film"), (6_000, "the film")]
)
def test_a_picture_larger_than_the_film_is_never_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int, said: str
) -> None:
    bomb = _bomb(tmp_path / "mask.png", side, side)
    decoded = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", decoded.append)
    _refused(bomb, said, 1000, 1000)
    assert not decoded


def test_a_mask_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = _save(tmp_path / "mask.png", _MARKED.astype(np.uint8))
    monkeypatch.setattr(mask_files, "LARGEST_FILE", 10)
    _refused(mask, "a file larger than")
    assert mask.content().endswith(b" bytes")


# --- all readers -----------------------------------------------------------------------------------


def test_every_reader_marks_the_same_known_pixels(tmp_path: Path) -> None:
    """A film that is bright in its corners, one, two, three and four pixels wide, and nowhere else."""
    film = np.zeros((1024, 1024), np.uint8)
    film[0, 0] = film[0, -2:] = film[-3:, 0] = film[-1, -4:] = 255
    places = [(0, 0, 1), (0, 1021, 3), (1020, 1023, 1), (1021, 1023, 1)]  # column, first row, rows
    places += [(1022, 0, 1), (1022, 1023, 1), (1023, 0, 1), (1023, 1023, 1)]
    runs = tuple(f"{1024 * column + row} {length}" for column, row, length in places)
    corners = [([0, 0], [1, 1]), ([1024, 0], [1022, 1]), ([0, 1024], [1, 1021]), ([1030, 1030], [1020, 1023])]
    Image.fromarray(film).save(tmp_path / "mask.png")
    read = {
        "runs": RunLengths(runs),
        "rectangles": _label(
            tmp_path / "label.json", [{"a": a, "b": b, "tagAnno": "PTX"} for a, b in corners], (1024, 1024)
        ),
        "picture": MaskFile(tmp_path / "mask.png"),
    }
    for kind, annotation in read.items():
        assert (annotation.mask(1024, 1024) == (film > 0)).all(), kind
    assert (decode_rle(encode_rle(film > 0)) == (film > 0)).all()


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
