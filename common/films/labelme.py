"""Shapes that LabelMe drew on a film (a JSON file of its own) -> a mask."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from common.films.fault import FilmFault, Note
from common.films.fill_shapes import fill_circle, fill_polygon, fill_rectangles
from common.films.json_numbers import corner, length, whole
from common.films.lesion_names import are_lesions

_FEWEST = {"polygon": 3, "rectangle": 2, "circle": 2}  # points of the shapes that enclose something
_OTHERS = ("line", "linestrip", "point", "points", "mask", "oriented_rectangle")  # of LabelMe


@dataclass(frozen=True)
class Drawing:
    """What a LabelMe file holds.

    Attributes:
        size: (width, height) in pixels of the picture that was annotated.
        labels: What each shape is called.
        kinds: What each shape is: `polygon`, `rectangle` or `circle`.
        points: x and y in pixels of each shape, (n, 2) float64, finite; a circle's are the middle and a point
            on it, a rectangle's two opposite corners.
    """

    size: tuple[int, int]
    labels: tuple[str, ...]
    kinds: tuple[str, ...]
    points: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, content: bytes) -> Drawing:
        """Read a file.

        Raises:
            FilmFault: Not of this form, or a shape that is none of these.
        """
        try:
            read = json.loads(content.decode("utf-8-sig"), parse_int=whole)
            size = length(read["imageWidth"]), length(read["imageHeight"])
            shapes = read["shapes"]
            labels = tuple(str(shape["label"]) for shape in shapes)
            # Files of early versions name no kind: all their shapes are polygons.
            kinds = tuple(str(shape.get("shape_type") or "polygon") for shape in shapes)
            points = tuple(
                np.array([corner(point) for point in shape["points"]], dtype=np.float64).reshape(-1, 2)
                for shape in shapes
            )
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
            raise FilmFault(f"its mask is JSON, but not of LabelMe ({type(error).__name__})") from None
        for kind, each in zip(kinds, points, strict=True):
            _check(kind, each)
        return cls(size, labels, kinds, points)

    def mask(self, width: int, height: int, note: Note) -> np.ndarray:
        """The union of the shapes that are the lesion, (height, width) bool.

        Raises:
            FilmFault: Drawn on a film of another size, no pixel of the film, or names that do not tell which
                shape is the lesion.
        """
        if self.size != (width, height):
            raise FilmFault(
                f"was annotated as {self.size[0]} x {self.size[1]} pixels but has {width} x {height}"
            )
        mask = np.zeros((height, width), dtype=bool)
        lesions = are_lesions(self.labels, note)
        for kind, points, is_lesion in zip(self.kinds, self.points, lesions, strict=True):
            if is_lesion:
                mask |= _FILL[kind](points, width, height)
        if any(lesions) and not mask.any():
            raise FilmFault("its annotation marks no pixel of the film")
        return mask

    def has_rectangles_only(self) -> bool:
        """Whether what it marks are boxes around a lesion, not its outline."""
        return set(self.kinds) == {"rectangle"}


def _check(kind: str, points: np.ndarray) -> None:
    if kind not in _FEWEST:
        shown = f"the shape {kind}" if kind in _OTHERS else "an unknown shape"
        raise FilmFault(f"its annotation holds {shown}; only {', '.join(_FEWEST)} enclose a lesion")
    if len(points) < _FEWEST[kind] or not np.isfinite(points).all():
        raise FilmFault(f"its annotation holds a {kind} with impossible points")


def _rectangle(points: np.ndarray, width: int, height: int) -> np.ndarray:
    corners = np.concatenate([points.min(axis=0), points.max(axis=0)])
    return fill_rectangles(corners[np.newaxis], width, height)


def _circle(points: np.ndarray, width: int, height: int) -> np.ndarray:
    return fill_circle(points[0], float(np.hypot(*(points[1] - points[0]))), width, height)


_FILL: dict[str, Callable[[np.ndarray, int, int], np.ndarray]] = {
    "polygon": fill_polygon,
    "rectangle": _rectangle,
    "circle": _circle,
}
