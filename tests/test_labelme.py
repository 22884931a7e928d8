"""Shapes that LabelMe drew as masks."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from common.command_line import Rules
from common.films.annotations import Rectangles
from common.films.fault import FilmFault
from common.films.fill_shapes import fill_circle, fill_polygon
from common.films.lesion_names import ONLY_ELSE, PICKED, are_lesions
from common.films.mask_files import MaskFile
from common.preparation.film_store import GrowingArrays
from common.preparation.film_task import PREPARED, REJECTED, Task, prepare_film
from common.sources.source_film import SourceFilm

WIDTH, HEIGHT = 40, 30
TRIANGLE = [[5.2, 4.1], [30.7, 8.4], [12.0, 25.9]]


def _shape(points: list[list[float]], label: str = "ptx", kind: str | None = "polygon") -> dict[str, object]:
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}}


def _save(path: Path, *shapes: object, **content: object) -> MaskFile:
    """A file as LabelMe 5 writes it."""
    whole = {"version": "5.5.0", "flags": {}, "shapes": list(shapes), "imagePath": "film.png"}
    whole |= {"imageData": "aGVsbG8=", "imageHeight": HEIGHT, "imageWidth": WIDTH} | content
    path.write_text(json.dumps(whole, indent=2))
    return MaskFile(path)


def _read(mask: MaskFile) -> tuple[np.ndarray, list[str]]:
    notes: list[str] = []
    return mask.mask(WIDTH, HEIGHT, notes.append), notes


def _inside(points: np.ndarray, width: int, height: int) -> np.ndarray:
    """Whether each pixel's centre lies in a polygon, by OpenCV one by one: positive inside, 0 on an edge."""
    contour = (points * 64).astype(np.float32)[:, None]
    return np.array(
        [
            [cv2.pointPolygonTest(contour, (64 * (x + 0.5), 64 * (y + 0.5)), False) for x in range(width)]
            for y in range(height)
        ]
    )


def test_polygons_hold_the_pixels_whose_centres_lie_in_them() -> None:
    draw = np.random.default_rng(0)
    for _ in range(60):
        angles = np.sort(draw.uniform(0, 2 * np.pi, draw.integers(3, 9)))
        radius = draw.uniform(2, 14, len(angles))
        points = np.stack([18 + radius * np.cos(angles), 15 + radius * np.sin(angles)], axis=1)
        points = np.round(points * 64) / 64
        points = points[:: draw.choice([-1, 1])] + draw.choice([0, 12])  # either way round, and cut off
        place = _inside(points, WIDTH, HEIGHT)
        mask = fill_polygon(points, WIDTH, HEIGHT)
        assert (mask == (place > 0))[place != 0].all()


def test_neighbouring_polygons_share_no_pixel_and_leave_none_out() -> None:
    square = np.array([[4, 4], [20.5, 4], [20.5, 20.5], [4, 20.5]])
    parts = [square[[0, 1, 2]], square[[0, 2, 3]]]
    one, other = (fill_polygon(part, WIDTH, HEIGHT) for part in parts)
    assert not (one & other).any()
    assert ((one | other) == fill_polygon(square, WIDTH, HEIGHT)).all()
    assert fill_polygon(square, WIDTH, HEIGHT).sum() == 16 * 16


def test_a_polygon_that_crosses_itself() -> None:
    eight = np.array([[5, 5], [25, 25], [25, 5], [5, 25]], float)
    mask = fill_polygon(eight, WIDTH, HEIGHT)
    assert mask[15, 10]
    assert mask[15, 20]
    assert not mask[8, 15]


def test_a_polygon_of_too_many_points_is_no_drawing() -> None:
    zigzag = np.array([[1, 0], [2, 4000]] * 2000, float)
    with pytest.raises(FilmFault, match="4,000 points"):
        fill_polygon(zigzag, 4000, 4000)


def test_circles() -> None:
    mask = fill_circle(np.array([20.0, 15.0]), 5.0, WIDTH, HEIGHT)
    assert mask.sum() == pytest.approx(np.pi * 25, rel=0.03)
    assert mask[15, 24]
    assert not mask[15, 25]
    assert not mask[10, 16]
    assert fill_circle(np.array([0.0, 0.0]), 1.0, WIDTH, HEIGHT).sum() == 1


def test_shapes_are_united(tmp_path: Path) -> None:
    shapes = [
        _shape(TRIANGLE),
        _shape([[38, 28], [33, 20]], kind="rectangle"),
        _shape([[35, 6], [35, 9]], kind="circle"),
        _shape([[1, 1], [3, 1], [3, 3]], kind=None),  # older files say nothing: it is a polygon
    ]
    mask, notes = _read(_save(tmp_path / "mask.json", *shapes))
    expected = fill_polygon(np.array(TRIANGLE), WIDTH, HEIGHT) | fill_circle(
        np.array([35, 6]), 3, WIDTH, HEIGHT
    )
    expected[20:28, 33:38] = True
    expected |= fill_polygon(np.array([[1, 1], [3, 1], [3, 3]]), WIDTH, HEIGHT)
    assert (mask == expected).all()
    assert notes == []


def test_a_rectangle_is_that_of_the_hospital(tmp_path: Path) -> None:
    corners = [[4.4, 3.5], [22.6, 17.5]]
    label = {"size": [WIDTH, HEIGHT], "shapes": [{"a": corners[0], "b": corners[1]}]}
    (tmp_path / "label.json").write_text(json.dumps(label))
    mask = _save(tmp_path / "mask.json", _shape(corners, kind="rectangle"))
    assert (_read(mask)[0] == Rectangles(tmp_path / "label.json").mask(WIDTH, HEIGHT)).all()
    assert mask.has_boxes()
    assert not _save(tmp_path / "mask.json", _shape(corners, kind="rectangle"), _shape(TRIANGLE)).has_boxes()


def test_no_shape_is_no_lesion(tmp_path: Path) -> None:
    mask, notes = _read(_save(tmp_path / "mask.json"))
    assert not mask.any()
    assert notes == []


def test_a_byte_order_mark_and_sides_as_fractions(tmp_path: Path) -> None:
    path = tmp_path / "mask.json"
    _save(path, _shape(TRIANGLE), imageWidth=40.0)
    path.write_bytes(b"\xef\xbb\xbf\n" + path.read_bytes())
    assert _read(MaskFile(path))[0].any()


@pytest.mark.parametrize("kind", ["line", "point", "linestrip", "points", "mask", "oriented_rectangle"])
def test_shapes_of_labelme_that_are_not_read_are_named(tmp_path: Path, kind: str) -> None:
    with pytest.raises(FilmFault, match=f"holds the shape {kind}; only polygon, rectangle, circle"):
        _read(_save(tmp_path / "mask.json", _shape(TRIANGLE, kind=kind), _shape(TRIANGLE)))


def test_an_unknown_shape_is_a_fault_that_does_not_repeat_it(tmp_path: Path) -> None:
    with pytest.raises(FilmFault, match="holds an unknown shape; only") as fault:
        _read(_save(tmp_path / "mask.json", _shape(TRIANGLE, kind="Wang")))
    assert "Wang" not in str(fault.value)


FAULTS = {
    "another size": ({"imageWidth": 41}, "was annotated as 41 x 30 pixels but has 40 x 30"),
    "no size": ({"imageWidth": None}, "not of LabelMe"),
    "no shapes": ({"shapes": None}, "not of LabelMe"),
    "shapes without points": ({"shapes": [{"label": "ptx"}]}, "not of LabelMe"),
    "points that are none": ({"shapes": [_shape([[1, "2"]])]}, "not of LabelMe"),
    "points at no place": ({"shapes": [_shape([[1, 2], [float("nan"), 3], [4, 5]])]}, "impossible points"),
    "two points": ({"shapes": [_shape(TRIANGLE[:2])]}, "a polygon with impossible points"),
    "outside": ({"shapes": [_shape([[50, 1], [60, 1], [60, 9]])]}, "marks no pixel of the film"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_faults(tmp_path: Path, kind: str) -> None:
    content, said = FAULTS[kind]
    with pytest.raises(FilmFault, match=said):
        _read(_save(tmp_path / "mask.json", **content))


@pytest.mark.parametrize("text", ["{", "[]", "{}", "[" * 100_000, '{"imageWidth": 1' + "0" * 9999 + "}"])
def test_what_is_no_file_of_labelme(tmp_path: Path, text: str) -> None:
    (tmp_path / "mask.json").write_text(text)
    with pytest.raises(FilmFault, match="is JSON, but not of LabelMe"):
        _read(MaskFile(tmp_path / "mask.json"))


@pytest.mark.parametrize(
    ("names", "lesions"),
    [
        (["x"], [True]),
        (["lesion 1", "lesion 2"], [True, True]),
        (["PTX_left", "ptx-right", "heart"], [True, True, False]),
        (["chest tube", "lesion"], [False, True]),
        (["right lung", "collapsed lung"], [False, True]),
        (["No pneumothorax"], [False]),
        (["Lunge links", "Pneumothorax links"], [False, True]),
        (["lung", "tube"], [False, False]),
        (["氣胸", "胸管"], [True, False]),
        ([], []),
    ],
)
def test_which_names_are_the_lesion(names: list[str], lesions: list[bool]) -> None:
    notes: list[str] = []
    assert are_lesions(names, notes.append) == lesions
    assert notes == ([] if all(lesions) else [PICKED if any(lesions) else ONLY_ELSE])


@pytest.mark.parametrize("names", [["a", "b"], ["lesion", "finding", "tube"]])
def test_names_that_do_not_tell(names: list[str]) -> None:
    with pytest.raises(FilmFault, match="several kinds of things"):
        are_lesions(names, print)


@pytest.mark.parametrize(
    ("label", "report", "kind"),
    [("ptx", 1, PREPARED), ("chest tube", 1, REJECTED), ("chest tube", 0, PREPARED)],
)
def test_a_film_is_prepared_with_its_shapes(tmp_path: Path, label: str, report: int, kind: str) -> None:
    """A negative film may have a tube, which is no lesion."""
    coarse = np.random.default_rng(0).integers(0, 255, (6, 6), np.uint8)
    cv2.imwrite(str(tmp_path / "film.png"), cv2.resize(coarse, (160, 120), interpolation=cv2.INTER_CUBIC))
    points = [[20, 20], [60, 25], [30, 80]]
    mask = _save(tmp_path / "mask.json", _shape(points, label), imageWidth=160, imageHeight=120)
    GrowingArrays(tmp_path).begin()
    film = SourceFilm("a", tmp_path / "film.png", "row 2", mask, report)
    outcome = prepare_film(Task(0, film, tmp_path, Rules()), lambda: None)
    assert outcome.kind == kind, outcome.reason
    area = fill_polygon(np.array(points), 160, 120).mean() if label == "ptx" else 0
    assert outcome.area == pytest.approx(area, rel=0.02)
    assert outcome.notes == (() if label == "ptx" or report else (ONLY_ELSE,))
