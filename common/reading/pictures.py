"""What a browser gets of a film: its picture in the original proportions, outlines, the map, a thumbnail.

Prepared films are stretched to a square. Here they get their proportions back: no side loses a pixel, nothing
is mirrored or turned, and the grey levels are those that the networks saw.
"""

from __future__ import annotations

from functools import cache

import cv2
import matplotlib
import numpy as np

from common.preparation.film_store import SIDE

THUMBNAIL_SIDE = 192  # pixels of the longer side
_JPEG_QUALITY = 82
_PNG_LEVEL = 1  # quick: the picture goes to this machine's own browser
_CLEAR = 0.25  # value from which on the map's layer no longer becomes denser
_DENSE = 0.75  # opacity there


def picture_size(width: int, height: int) -> tuple[int, int]:
    """Width and height in pixels of a film's picture: the shorter side is that of the prepared film.

    Args:
        width: Columns of the original film.
        height: Rows of the original film.
    """
    scale = SIDE / min(width, height)
    return round(width * scale), round(height * scale)


def in_proportion(film: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A prepared film in the proportions of the original one, (height, width) uint8.

    Args:
        film: (1024, 1024) uint8, grey levels, air dark.
        size: Width and height of the picture, from `picture_size`.
    """
    # Linear both ways: one side keeps its pixels, the other one grows.
    return cv2.resize(film, size, interpolation=cv2.INTER_LINEAR)


def thumbnail_jpeg(picture: np.ndarray, size: tuple[int, int]) -> bytes:
    """A film or a picture as OpenCV has it, (h, w) or (h, w, 3) uint8, small, proportioned as `size` is."""
    scale = THUMBNAIL_SIDE / max(size)
    small = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    reduced = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", reduced, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()


def png(pixels: np.ndarray) -> bytes:
    """Pixels as OpenCV has them, (h, w), (h, w, 3) or (h, w, 4) uint8, as PNG."""
    return cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, _PNG_LEVEL])[1].tobytes()


def outline_path(area: np.ndarray) -> str:
    """The border of an area as an SVG path in pixels of the picture; empty where the area is.

    Args:
        area: (height, width) bool, on the pixels of the picture.
    """
    contours, _ = cv2.findContours(area.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    # A pixel's middle lies half a pixel from its corner, from which SVG counts.
    return " ".join(
        "M" + "L".join(f"{x + 0.5:g} {y + 0.5:g}" for x, y in contour[:, 0].tolist()) + "Z"
        for contour in contours
    )


def drawn_outlines(picture: np.ndarray, areas: list[tuple[np.ndarray, str]]) -> np.ndarray:
    """A grey picture, (h, w) uint8, with the borders of areas, (h, w) bool, each in its `#rrggbb`: BGR."""
    drawn = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)
    for area, colour in areas:
        contours, _ = cv2.findContours(area.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        blue_green_red = tuple(int(colour[i : i + 2], 16) for i in (5, 3, 1))
        cv2.drawContours(drawn, contours, -1, blue_green_red, 2, cv2.LINE_AA)
    return drawn


def map_png(found: np.ndarray) -> bytes:
    """A map as a layer over the film: (side, side) uint8, 0-255 for 0-1, as a PNG with opacity."""
    return png(_layer()[found])


def scale_png() -> bytes:
    """The scale of the map's layer, 0 on the left and 1 on the right."""
    return map_png(np.tile(np.arange(256, dtype=np.uint8), (12, 1)))


@cache
def _layer() -> np.ndarray:
    """Blue, green, red and opacity of each value of a map, (256, 4) uint8."""
    values = np.linspace(0, 1, 256)
    # cividis reads the same with and without colour vision (Nunez et al., PLOS ONE 2018;13:e0199239)
    colours = matplotlib.colormaps["cividis"](values)
    colours[:, 3] = _DENSE * np.clip(values / _CLEAR, 0, 1)
    return np.rint(255 * colours[:, [2, 1, 0, 3]]).astype(np.uint8)
