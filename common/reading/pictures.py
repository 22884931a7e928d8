"""What a browser gets of a film: its picture, outlines, the map, a thumbnail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import cv2
import matplotlib
import numpy as np

TRUTH = "truth"
# The truth's is that of overlays, the systems' are Okabe & Ito's, lightened where a dark film asks for it, so
# that the colour-blind tell them apart. `page.css` has the same ones.
COLOURS = {TRUTH: "#28dc78", "eff": "#56b4e9", "vit": "#ff8c42"} | {
    "eff_student": "#f0e442",
    "vit_student": "#e69fcb",
}
THUMBNAIL_SIDE = 192  # pixels of the longer side
_JPEG_QUALITY = 82
_PNG_LEVEL = 1  # quick: the picture goes to this machine's own browser
_CLEAR = 0.25  # value from which on the map's layer no longer becomes denser
_DENSE = 0.75  # opacity there


def thumbnail_jpeg(picture: np.ndarray) -> bytes:
    """A picture as OpenCV has it, (h, w) or (h, w, 3) uint8, small."""
    height, width = picture.shape[:2]
    scale = THUMBNAIL_SIDE / max(height, width)
    small = max(1, round(width * scale)), max(1, round(height * scale))
    reduced = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", reduced, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()


def png(pixels: np.ndarray) -> bytes:
    """Pixels as OpenCV has them, (h, w), (h, w, 3) or (h, w, 4) uint8, as PNG."""
    return cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, _PNG_LEVEL])[1].tobytes()


def outline_path(area: np.ndarray | None) -> str:
    """The border of an area as an SVG path in pixels of the picture; empty without an area.

    Args:
        area: (height, width) bool, on the pixels of the picture.
    """
    # A pixel's middle lies half a pixel from its corner, from which SVG counts.
    return " ".join(
        "M" + "L".join(f"{x + 0.5:g} {y + 0.5:g}" for x, y in contour[:, 0].tolist()) + "Z"
        for contour in _borders(area)
    )


def drawn_outlines(picture: np.ndarray, areas: Mapping[str, np.ndarray | None]) -> np.ndarray:
    """A picture as `Room.pixels` has it, with the borders of `Room.areas`: (h, w, 3) uint8, BGR."""
    drawn = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR) if picture.ndim == 2 else picture
    for name, area in areas.items():
        blue_green_red = bytes.fromhex(COLOURS[name][1:])[::-1]
        cv2.drawContours(drawn, _borders(area), -1, tuple(blue_green_red), 2, cv2.LINE_AA)
    return drawn


def _borders(area: np.ndarray | None) -> Sequence[np.ndarray]:
    if area is None:
        return ()
    return cv2.findContours(area.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)[0]


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
