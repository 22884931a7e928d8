"""Synthetic portable supine chest films with pneumothorax, for the demo and the tests.

Every film is drawn in three steps: an anatomy (shared by all exams of one patient), the nuisances (exposure,
lines, leads, folds, opacities ...) and, when it is positive, the lesion. The lesion has a generator of its
own, so a positive and a negative film drawn from the same state differ in the lesion and nowhere else: no
nuisance can give the label away.

Body coordinates: x to the right of the picture and y down, film about [-1, 1] x [-1, 1]. Angles inside a
lung: 0 is lateral, +90 degrees the apex, -90 degrees the base, on either side. Grey levels are attenuations,
about 0 (air) to 1 (metal), until `_tone` turns them into a film.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

Style = Literal["siim", "ntuh"]
SIDES = (-1, 1)  # the picture's left (the patient's right) and right
N_ANGLES = 360
SHIFT = 4  # fractional bits of the coordinates that cv2 draws with

# Quantiles of the lesion's area as a share of the film: SIIM-ACR's masks, and NTUH's unions of rectangles.
AREA_QUANTILES: dict[str, tuple[list[float], list[float]]] = {
    "siim": ([0, 0.05, 0.25, 0.5, 0.75, 0.95, 1], [0.0009, 0.0013, 0.004, 0.008, 0.017, 0.044, 0.09]),
    "ntuh": ([0, 1 / 3, 0.5, 2 / 3, 1], [0.012, 0.029, 0.048, 0.078, 0.135]),
}
# Rectangles cover a little more than the lesion, so an NTUH lesion is drawn this much smaller.
RECTANGLE_EXCESS = 1.11
# A lung's outline from the apex down the chest wall, around the base and up the mediastinum (right side).
OUTLINE_X = (0.25, 0.46, 0.62, 0.70, 0.74, 0.70, 0.54, 0.36, 0.17, 0.12, 0.11, 0.13)
OUTLINE_Y = (-0.80, -0.66, -0.32, 0.06, 0.40, 0.55, 0.41, 0.34, 0.42, 0.10, -0.25, -0.60)


@dataclass(frozen=True)
class Lung:
    """One lung, star-shaped around `centre` (body coordinates): `radius[k]` at angle 2 pi k / N_ANGLES."""

    side: int
    centre: np.ndarray
    radius: np.ndarray

    def points(self, angle: np.ndarray, radius: np.ndarray) -> np.ndarray:
        """Body coordinates, shape (n, 2), of points at `angle` (radians) and `radius` from the centre."""
        return self.centre + np.stack([self.side * radius * np.cos(angle), -radius * np.sin(angle)], axis=-1)

    def outline(self) -> np.ndarray:
        """The closed outline in body coordinates, shape (N_ANGLES, 2)."""
        return self.points(_angles(), self.radius)


@dataclass(frozen=True)
class Anatomy:
    """What the exams of one patient have in common (body coordinates)."""

    lungs: tuple[Lung, Lung]
    heart: tuple[float, float, float, float, float]  # centre x, y, half axes, tilt in degrees
    spine: np.ndarray
    width: float
    height: float
    rib_gap: float
    rib_slope: float
    habitus: float
    shoulder: float
    breast: float
    vessel_seed: int


@dataclass(frozen=True)
class Canvas:
    """Draws shapes given in body coordinates on a square of `size` pixels; values 0 to 1."""

    size: int
    to_film: np.ndarray  # 2 x 3: body coordinates to the unit square

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Fixed-point pixel coordinates (int32) of body coordinates of shape (..., 2)."""
        unit = points @ self.to_film[:, :2].T + self.to_film[:, 2]
        return np.round((unit * self.size - 0.5) * (1 << SHIFT)).astype(np.int32)

    def scale(self, length: float) -> float:
        """Pixels in a body length."""
        return float(length * self.size * np.sqrt(abs(np.linalg.det(self.to_film[:, :2]))))

    def fill(self, points: np.ndarray, blur: float = 0.0) -> np.ndarray:
        """A filled polygon as float32, its edge softened by `blur` (body length)."""
        layer = np.zeros((self.size, self.size), np.uint8)
        cv2.fillPoly(layer, [self.pixels(points)], 255, cv2.LINE_AA, SHIFT)
        return self.soften(layer, blur)

    def soften(self, layer: np.ndarray, blur: float) -> np.ndarray:
        """A uint8 layer as float32 in 0 to 1, blurred (widely: on a half or quarter of the pixels a side)."""
        sigma = self.scale(blur)
        if sigma > 3:
            part = 4 if sigma > 6 else 2
            small = cv2.resize(layer, None, fx=1 / part, fy=1 / part, interpolation=cv2.INTER_AREA)
            small = cv2.GaussianBlur(small.astype(np.float32), (0, 0), sigma / part)
            return cv2.resize(small, layer.shape[::-1], interpolation=cv2.INTER_LINEAR) * np.float32(1 / 255)
        if sigma > 0.3:
            layer = cv2.GaussianBlur(layer, (0, 0), sigma)
        return layer.astype(np.float32) * np.float32(1 / 255)

    def lines(
        self, layer: np.ndarray, lines: np.ndarray | Sequence[np.ndarray], width: float, value: float
    ) -> None:
        """Draws open polylines, equally many points each, of a body width into a uint8 layer, in place."""
        thick, grey = max(1, round(self.scale(width))), int(255 * value)
        cv2.polylines(layer, list(self.pixels(np.asarray(lines))), False, grey, thick, cv2.LINE_AA, SHIFT)


def _angles() -> np.ndarray:
    return np.arange(N_ANGLES) * (2 * np.pi / N_ANGLES)


def _wrapped(angle: np.ndarray) -> np.ndarray:
    """Angles brought to -pi to pi."""
    return np.mod(angle + np.pi, 2 * np.pi) - np.pi


def _spline(points: np.ndarray, per_segment: int = 24) -> np.ndarray:
    """A closed Catmull-Rom curve through the points."""
    t = (np.arange(per_segment) / per_segment)[None, :, None]
    p0, p1, p2, p3 = (np.roll(points, k, axis=0)[:, None, :] for k in (1, 0, -1, -2))
    curve = p1 + 0.5 * t * (p2 - p0 + t * (2 * p0 - 5 * p1 + 4 * p2 - p3 + t * (3 * (p1 - p2) + p3 - p0)))
    return curve.reshape(-1, 2)


def _curve(start: np.ndarray, bend: np.ndarray, end: np.ndarray, n: int = 24) -> np.ndarray:
    """A quadratic Bezier curve, shape (n, 2)."""
    t = np.linspace(0, 1, n)[:, None]
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end


def _draw_lung(rng: np.random.Generator, side: int, width: float, height: float, heart: float) -> Lung:
    points = np.array([OUTLINE_X, OUTLINE_Y]).T
    if side == 1:  # the heart takes a part of the left lung
        points[8:10, 0] += (heart, 0.7 * heart)
    points[4:9, 1] += rng.uniform(-0.10, 0.08)  # level of the diaphragm
    points[6:8, 1] += rng.uniform(-0.06, 0.05)  # height of the dome
    points[:2, 1] += rng.uniform(-0.04, 0.05)
    points[2:6, 0] += rng.uniform(-0.05, 0.04)
    points += rng.normal(0, 0.010, points.shape)
    curve = _spline(points) * (width, height)
    centre = np.array([(0.41 + 0.15 * heart * (side == 1)) * width, -0.05 * height])
    delta = curve - centre
    angle = np.mod(np.arctan2(-delta[:, 1], delta[:, 0]), 2 * np.pi)
    order = np.argsort(angle)
    radius = np.interp(_angles(), angle[order], np.hypot(*delta.T)[order], period=2 * np.pi)
    return Lung(side, centre * (side, 1), radius)


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """A patient: lungs, heart, spine, ribs and habitus, all at random. Independent of label and style."""
    width, height = rng.uniform(0.90, 1.08), rng.uniform(0.90, 1.06)
    heart = rng.uniform(0.06, 0.20)
    lean, bow = rng.normal(0, 0.03), rng.normal(0, 0.025)  # scoliosis
    y = np.linspace(-1.3, 1.4, 28)
    spine = np.stack([lean * y + bow * np.cos(2.2 * y + rng.uniform(0, 6)), y], axis=-1)
    one, other = (_draw_lung(rng, side, width * rng.uniform(0.94, 1.06), height, heart) for side in SIDES)
    ellipse = (0.06 + 0.3 * heart, 0.22 * height, 0.16 + heart, 0.20 + 0.5 * heart, rng.uniform(20, 45))
    return Anatomy(
        lungs=(one, other),
        heart=ellipse,
        spine=spine,
        width=width,
        height=height,
        rib_gap=rng.uniform(0.125, 0.155) * height,
        rib_slope=rng.uniform(0.02, 0.35),
        habitus=rng.uniform(0, 1),
        shoulder=rng.uniform(-0.95, -0.70),
        breast=rng.uniform(0.3, 1) if rng.random() < 0.4 else 0.0,
        vessel_seed=int(rng.integers(2**63)),
    )


def _placement(rng: np.random.Generator) -> np.ndarray:
    """Body coordinates to the unit square: zoom, tilt and shift of this exam."""
    zoom, tilt = rng.uniform(0.90, 1.08), np.deg2rad(rng.normal(0, 3.0))
    turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    shift = 0.5 + np.array([rng.normal(0, 0.015), 0.03 + rng.normal(0, 0.02)])
    return np.hstack([0.5 * zoom * turn, np.clip(shift, 0.45, 0.58)[:, None]])


# --- lesion ---------------------------------------------------------------------------------------------


def _depth(rng: np.random.Generator, lung: Lung, area: float) -> np.ndarray:
    """How far the lung has fallen from the chest wall at each angle, as a share of the radius.

    The place is apical, lateral, basal (deep sulcus) or around the whole lateral wall; the depth is solved so
    that the lesion covers `area` (body units squared), and the arc widens until the depth is plausible.
    """
    size = np.sqrt(area / (0.5 * np.sum(lung.radius**2) * 2 * np.pi / N_ANGLES))  # 0 to 1
    place = rng.choice(4, p=[0.35, 0.25, 0.2, 0.2])
    centre = np.deg2rad([rng.uniform(65, 95), rng.uniform(0, 45), rng.uniform(-55, -30), 40][place])
    half = np.deg2rad(([18, 18, 15, 30][place] + [75, 90, 60, 110][place] * size) * rng.uniform(0.9, 1.2))
    skew, power = rng.uniform(-0.3, 0.3), rng.uniform(0.6, 1.2)
    for _ in range(12):
        t = _wrapped(_angles() - centre) / half
        t = np.clip(t + skew * (1 - t**2) * (np.abs(t) < 1), -1, 1)
        shape = np.cos(0.5 * np.pi * t) ** power
        low, high = 0.0, 0.88
        for _ in range(24):
            middle = (low + high) / 2
            got = np.sum(lung.radius**2 * (1 - (1 - middle * shape) ** 2)) * np.pi / N_ANGLES
            low, high = (middle, high) if got < area else (low, middle)
        if high < 0.70:
            break
        half, power = min(1.15 * half, 2.5), 0.9 * power
    return high * shape


def _draw_lesion(
    rng: np.random.Generator, anatomy: Anatomy, canvas: Canvas, area: float
) -> tuple[np.ndarray, np.ndarray]:
    """The lesion (bool mask) and its visceral pleural edge (uint8 layer), both of the canvas's size."""
    mask = np.zeros((canvas.size, canvas.size), np.uint8)
    edge = np.zeros_like(mask)
    area = area / abs(np.linalg.det(canvas.to_film[:, :2]))
    both = rng.random() < (0.08 if area < 0.36 else 0.4)
    share = rng.uniform(0.3, 0.7) if both else 1.0
    first = int(rng.integers(2))
    width = rng.uniform(0.008, 0.013)
    for k, part in ((first, share), (1 - first, 1 - share)):
        if part * area <= 0:
            continue
        lung = anatomy.lungs[k]
        depth = _depth(rng, lung, part * area)
        inner = lung.points(_angles(), lung.radius * (1 - depth))
        piece = np.zeros_like(mask)
        hole = np.zeros_like(mask)
        cv2.fillPoly(piece, [canvas.pixels(lung.outline())], 1, cv2.LINE_8, SHIFT)
        cv2.fillPoly(hole, [canvas.pixels(inner)], 1, cv2.LINE_8, SHIFT)
        mask |= piece & (1 - hole)
        seen = depth > 0.015
        start = int(np.argmin(seen)) if not seen.all() else 0  # roll so that the arc is in one piece
        arc = np.roll(inner, -start, axis=0)[np.roll(seen, -start)]
        canvas.lines(edge, [arc], width, 1.0)
    return mask > 0, edge


def target_area(rng: np.random.Generator, style: Style) -> float:
    """A lesion's area as a share of the film, drawn from the style's quantiles."""
    area = float(np.exp(np.interp(rng.random(), AREA_QUANTILES[style][0], np.log(AREA_QUANTILES[style][1]))))
    return area / RECTANGLE_EXCESS if style == "ntuh" else area


# --- anatomy on the canvas ------------------------------------------------------------------------------


def _band(line: np.ndarray, left: float, right: float) -> np.ndarray:
    """The polygon between two copies of a line, shifted sideways."""
    return np.vstack([line + np.array([left, 0.0]), line[::-1] + np.array([right, 0.0])])


def _ellipse(x: float, y: float, a: float, b: float, degrees: float = 0.0) -> np.ndarray:
    t, tilt = np.linspace(0, 2 * np.pi, 48, endpoint=False), np.deg2rad(degrees)
    u, v = a * np.cos(t), b * np.sin(t)
    return np.stack(
        [x + u * np.cos(tilt) - v * np.sin(tilt), y + u * np.sin(tilt) + v * np.cos(tilt)], axis=-1
    )


def _walls(anatomy: Anatomy, y: np.ndarray) -> np.ndarray:
    """How far the rib cage reaches to either side of the midline at the heights y, shape (2, n)."""
    walls = []
    for lung in anatomy.lungs:
        right = lung.points(_angles(), lung.radius + 0.03)[np.abs(_wrapped(_angles())) < 1.9]
        order = np.argsort(right[:, 1])
        reach = np.interp(y, right[order, 1], np.abs(right[order, 0]))
        walls.append(np.where(y > 0.15, max(reach.max(), np.abs(right[:, 0]).max()), reach))
    return np.array(walls)


def _ribs(anatomy: Anatomy, canvas: Canvas) -> np.ndarray:
    """Posterior ribs and fainter anterior ribs; 0 to about 1."""
    back, front = (np.zeros((canvas.size, canvas.size), np.uint8) for _ in range(2))
    posterior, anterior = [], []
    t = np.linspace(0, 1, 20)
    tops = -0.86 * anatomy.height + np.arange(11) * anatomy.rib_gap
    sags = (0.12 + 0.8 * anatomy.rib_slope) * np.minimum(1.0, 0.3 + 0.1 * np.arange(11))
    walls = _walls(anatomy, tops + 0.8 * sags)
    for k, (y, sag) in enumerate(zip(tops, sags, strict=True)):
        x0 = np.interp(y, anatomy.spine[:, 1], anatomy.spine[:, 0])
        for side, wall in zip(SIDES, walls[:, k], strict=True):
            x = x0 * (1 - t) + side * (0.05 + np.sin(t * np.pi / 2) * (wall - 0.05))
            posterior.append(np.stack([x, y - 0.06 * np.sin(np.pi * t) + sag * t**2.5], axis=-1))
            if 1 <= k <= 7:
                xa = side * (wall - (1 - np.cos(t * np.pi / 2)) * (wall - 0.24))
                anterior.append(np.stack([xa, y + sag + 0.02 + 0.30 * np.sin(t * np.pi / 2)], axis=-1))
    for layer, lines, width in ((back, posterior, 0.048), (front, anterior, 0.056)):
        canvas.lines(layer, lines, width, 1.0)
        canvas.lines(layer, lines, width - 0.014, 0.66)  # the cortex is brighter than the marrow
    return canvas.soften(back, 0.005) + 0.55 * canvas.soften(front, 0.007)


def _shoulders(rng: np.random.Generator, anatomy: Anatomy, canvas: Canvas) -> np.ndarray:
    """Clavicles and scapulae; 0 to about 1."""
    clavicle, scapula = (np.zeros((canvas.size, canvas.size), np.uint8) for _ in range(2))
    for side in SIDES:
        y = anatomy.shoulder + rng.normal(0, 0.02)
        start = np.array([side * 0.07, y + 0.17 + rng.normal(0, 0.02)])
        line = _curve(start, np.array([side * 0.40, y + 0.16]), np.array([side * 0.85, y - 0.02]))
        canvas.lines(clavicle, [line], 0.062, 1.0)
        canvas.lines(clavicle, [line], 0.044, 0.6)
        x = side * anatomy.width * rng.uniform(0.62, 0.86)  # the medial border often lies over the lung
        blade = np.array(
            [(x, y + 0.12), (x + side * 0.06, y + 0.65), (side * 1.05, y + 0.2), (side * 0.9, y)]
        )
        cv2.fillPoly(scapula, [canvas.pixels(_spline(blade, 8))], 255, cv2.LINE_AA, SHIFT)
    return canvas.soften(clavicle, 0.006) + 0.45 * canvas.soften(scapula, 0.008)


def _vessels(lung: Lung, canvas: Canvas, rng: np.random.Generator, layer: np.ndarray) -> None:
    """A tree of lung markings, fanning out from the hilum and thinning towards the wall, drawn in place."""
    hilum = lung.centre + np.array([-lung.side * 0.24, 0.0])
    n = 13
    at = hilum + rng.normal(0, 0.02, (n, 2))
    angle = np.linspace(-1.8, 1.8, n) + rng.normal(0, 0.12, n)
    length = rng.uniform(0.13, 0.2, n)
    for width, value in (
        (0.017, 0.9),
        (0.013, 0.85),
        (0.010, 0.8),
        (0.007, 0.75),
        (0.005, 0.7),
        (0.004, 0.6),
    ):
        step = np.stack([lung.side * np.cos(angle), -np.sin(angle)], axis=-1) * length[:, None]
        bend = rng.normal(0, 0.12, (len(at), 1)) * step[:, ::-1] * (-1, 1)
        end = at + step
        canvas.lines(layer, np.stack([at, at + step / 2 + bend, end], axis=1), width, value)
        at = np.repeat(end, 2, axis=0)
        fork = rng.uniform(0.15, 0.55, len(end))
        angle = np.stack([angle + fork, angle - rng.uniform(0.15, 0.55, len(end))], axis=-1).ravel()
        length = np.repeat(length, 2) * rng.uniform(0.62, 0.98, len(at))
        keep = (rng.random(len(at)) < 0.93) & (length > 0.02)
        at, angle, length = at[keep], angle[keep], length[keep]


def _clouds(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Smooth noise of unit variance with about `cells` features a side."""
    noise = rng.standard_normal((cells, cells), dtype=np.float32)
    return cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC) * np.float32(1.4)


def _parenchyma(rng: np.random.Generator, anatomy: Anatomy, canvas: Canvas) -> np.ndarray:
    """What the air of a pneumothorax displaces: vessels, texture, opacities and the lung's own density."""
    layer = np.zeros((canvas.size, canvas.size), np.uint8)
    tree = np.random.default_rng(anatomy.vessel_seed)
    for lung in anatomy.lungs:
        _vessels(lung, canvas, tree, layer)
    total = rng.uniform(0.13, 0.20) * canvas.soften(layer, 0.003)
    total += rng.uniform(0.012, 0.020) * _clouds(rng, canvas.size, 110)
    total += rng.uniform(0.018, 0.028) * _clouds(rng, canvas.size, 48)
    density = rng.uniform(0.08, 0.13)
    for lung in anatomy.lungs:  # the two lungs differ, with rotation or disease
        inside = canvas.fill(lung.outline(), 0.03)
        total += density * rng.uniform(0.88, 1.12) * inside
        if rng.random() < 0.35:
            total += inside * _opacity(rng, lung, canvas)
    return total


def _opacity(rng: np.random.Generator, lung: Lung, canvas: Canvas) -> np.ndarray:
    """Patchy consolidation in one lung."""
    layer = np.zeros((canvas.size, canvas.size), np.uint8)
    for _ in range(int(rng.integers(1, 5))):
        k = int(rng.integers(N_ANGLES))
        x, y = lung.points(_angles()[k], lung.radius[k] * rng.uniform(0.1, 0.8))
        a, b = rng.uniform(0.05, 0.20, 2)
        cv2.fillPoly(
            layer, [canvas.pixels(_ellipse(x, y, a, b, rng.uniform(0, 180)))], 255, cv2.LINE_AA, SHIFT
        )
    patch = canvas.soften(layer, 0.05)
    return rng.uniform(0.05, 0.20) * patch * np.clip(1 + 0.35 * _clouds(rng, canvas.size, 24), 0.2, 2)


def _body(rng: np.random.Generator, anatomy: Anatomy, canvas: Canvas) -> np.ndarray:
    """Soft tissue, the lungs' air, mediastinum, heart, abdomen and bones."""
    w, top = anatomy.width * (0.98 + 0.22 * anatomy.habitus), anatomy.shoulder
    right = [(0.20, -1.6), (0.22, top - 0.22), (0.5, top - 0.12), (1.0, top), (1.3, 0.2), (0.98 * w, 0.1)]
    right += [(0.90 * w, 0.4), (0.93 * w, 1.6)]
    body = np.array(right + [(-x, y) for x, y in right[::-1]])
    total = (0.46 + 0.12 * anatomy.habitus) * canvas.fill(body, 0.03)
    belly = np.array([(-0.92 * w, 0.35), (0, 0.25), (0.92 * w, 0.35), (0.92 * w, 1.6), (-0.92 * w, 1.6)])
    total += rng.uniform(0.04, 0.14) * canvas.fill(belly, 0.07)
    for lung in anatomy.lungs:
        sharp, soft = canvas.fill(lung.outline(), 0.006), canvas.fill(lung.outline(), 0.06)
        total -= (0.24 + 0.20 * soft) * sharp
    spine = anatomy.spine
    total += 0.07 * canvas.fill(_band(spine, 0.085, -0.085), 0.012)
    total += 0.12 * canvas.fill(_band(spine, 0.15, -0.15), 0.03)
    x, y, a, b, tilt = anatomy.heart
    total += rng.uniform(0.09, 0.14) * canvas.fill(_ellipse(x, y, a, b, tilt), 0.018)
    total += 0.08 * canvas.fill(_ellipse(0.10, -0.36, 0.09, 0.10), 0.012)  # aortic knob
    total -= 0.10 * canvas.fill(_band(spine[:13], 0.03, -0.03), 0.012)  # trachea
    discs = np.zeros((canvas.size, canvas.size), np.uint8)
    canvas.lines(discs, [_band(level[None], 0.075, -0.075) for level in spine[2:-1]], 0.018, 1.0)
    total -= 0.035 * canvas.soften(discs, 0.006)
    if anatomy.breast:
        for side in SIDES:
            shape = _ellipse(side * 0.5, 0.28 + 0.15 * anatomy.breast, 0.34, 0.30)
            total += 0.07 * anatomy.breast * canvas.fill(shape, 0.02)
    if rng.random() < 0.5:  # gas in the stomach, below the left diaphragm
        shape = _ellipse(0.42, rng.uniform(0.66, 0.8), rng.uniform(0.08, 0.16), rng.uniform(0.05, 0.1), 15)
        total -= rng.uniform(0.06, 0.15) * canvas.fill(shape, 0.01)
    total += rng.uniform(0.05, 0.09) * _ribs(anatomy, canvas)
    return total + rng.uniform(0.09, 0.15) * _shoulders(rng, anatomy, canvas)


# --- nuisances ------------------------------------------------------------------------------------------


def _skin_folds(rng: np.random.Generator, canvas: Canvas) -> np.ndarray:
    """Folds: an edge like a pleural one, but a ramp behind it, and it runs on beyond the chest wall."""
    total = np.zeros((canvas.size, canvas.size), np.float32)
    for _ in range(int(rng.choice(3, p=[0.65, 0.25, 0.1]))):
        side, lean = rng.choice(SIDES), rng.uniform(-0.25, 0.25)
        x, y = side * rng.uniform(0.42, 0.78), rng.uniform(-0.5, 0.3)
        length, ramp = rng.uniform(0.5, 0.8), rng.uniform(0.08, 0.2)
        start, end = np.array([x - lean, y - length]), np.array([x + lean, y + length])
        line = _curve(start, (start + end) / 2 + (rng.normal(0, 0.06), 0), end)
        sharp = canvas.fill(_band(line, 0, -2.5 * side * ramp), 0.003)
        soft = canvas.fill(_band(line, side * ramp, -0.3 * side * ramp), 0.5 * ramp)
        total += rng.uniform(0.06, 0.11) * sharp * soft
    return total


def _devices(rng: np.random.Generator, canvas: Canvas, style: Style) -> np.ndarray:
    """Leads, lines, tubes and text as attenuation, at full resolution."""
    layer = np.zeros((canvas.size, canvas.size), np.uint8)
    busy = 0.75 if style == "ntuh" else 0.4
    if rng.random() < busy:
        _draw_leads(rng, canvas, layer)
    if rng.random() < busy * 0.6:  # endotracheal tube
        canvas.lines(
            layer, [np.array([(0.01, -1.4), (0.0, -0.9), (0.01, rng.uniform(-0.6, -0.4))])], 0.020, 0.30
        )
    if rng.random() < busy * 0.5:  # gastric tube
        x = rng.normal(0.02, 0.015)
        line = _curve(np.array([x, -1.4]), np.array([x - 0.05, 0.4]), np.array([0.3, 0.95]))
        canvas.lines(layer, [line], 0.012, 0.32)
    if rng.random() < busy * 0.6:  # central venous line
        side = rng.choice(SIDES)
        end = np.array([-0.10, rng.uniform(-0.2, 0.05)])
        line = _curve(np.array([side * 0.30, -1.05]), np.array([-0.06, -0.75]), end)
        canvas.lines(layer, [line], 0.009, 0.36)
    _draw_text(rng, layer, style)
    return cv2.GaussianBlur(layer, (0, 0), max(0.4, canvas.size / 1600)).astype(np.float32) * np.float32(
        1 / 255
    )


def _draw_leads(rng: np.random.Generator, canvas: Canvas, layer: np.ndarray) -> None:
    for _ in range(int(rng.integers(1, 5))):
        pad = np.array([rng.uniform(-0.75, 0.75), rng.uniform(-0.7, 0.7)])
        out = np.array([rng.choice(SIDES) * 1.3, rng.uniform(-1.0, 1.2)])
        bend = (pad + out) / 2 + rng.normal(0, 0.25, 2)
        canvas.lines(layer, [_curve(pad, bend, out)], 0.008, rng.uniform(0.2, 0.45))
        for radius, value in ((0.035, 60), (0.016, 170)):
            points = canvas.pixels(_ellipse(pad[0], pad[1], radius, radius))
            cv2.fillPoly(layer, [points], value, cv2.LINE_AA, SHIFT)


def _draw_text(rng: np.random.Generator, layer: np.ndarray, style: Style) -> None:
    n = layer.shape[0]
    words = ["R", "L", "AP", "PORTABLE", "SUPINE", f"{rng.integers(24):02d}:{rng.integers(60):02d}"]
    for word in rng.choice(words, size=int(rng.integers(1, 4)), replace=False):
        x = rng.choice([rng.uniform(0.02, 0.1), rng.uniform(0.78, 0.88)])
        y = rng.choice([rng.uniform(0.04, 0.12), rng.uniform(0.88, 0.97)], p=[0.7, 0.3])
        height = rng.uniform(0.6, 1.3) * n / 1024
        cv2.putText(
            layer, str(word), (int(x * n), int(y * n)), 0, height, 230, max(1, round(2.5 * height)), 16
        )


def _field(rng: np.random.Generator, size: int) -> np.ndarray:
    """Slow changes over the film: heel effect, grid cut-off, a patient turned to one side."""
    low = rng.normal(0, 1, 5) * (0.035, 0.03, 0.02, 0.02, 0.02)
    y, x = np.mgrid[-1:1:32j, -1:1:32j].astype(np.float32)
    field = low[0] * x + low[1] * y + low[2] * x * y + low[3] * x**2 + low[4] * y**2
    return cv2.resize(field.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)


def _tone(rng: np.random.Generator, film: np.ndarray) -> np.ndarray:
    """Attenuation to a film in 0 to 1: exposure, contrast, gamma, noise and collimation."""
    low, high, gamma = rng.uniform(-0.06, 0.10), rng.uniform(0.82, 1.05), rng.uniform(0.65, 1.35)
    cv2.setRNGSeed(int(rng.integers(2**31)))  # its generator is seven times as fast as NumPy's
    noise = cv2.randn(np.empty_like(film), 0, 1)  # type: ignore[call-overload] # takes numbers
    sigma, grain = rng.uniform(0.006, 0.020), rng.uniform(0.4, 0.8)
    film += np.float32(2.5 * sigma * grain) * cv2.GaussianBlur(noise, (5, 5), grain)
    film = np.clip((film - np.float32(low)) * np.float32(1 / (high - low)), 0, 1)
    film = cv2.pow(film, gamma)
    if rng.random() < 0.3:
        edge = (rng.uniform(0, 0.05, 4) * film.shape[0]).astype(int)
        film[: edge[0]], film[:, : edge[1]] = 0, 0
        film[film.shape[0] - edge[2] :], film[:, film.shape[1] - edge[3] :] = 0, 0
    return film


def render(
    rng: np.random.Generator,
    anatomy: Anatomy,
    style: Style,
    area: float | None = None,
    size: int = 1024,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws one exam of a patient.

    Args:
        rng: Random generator of the exam; label and lesion do not change what the nuisances draw from it.
        anatomy: Anatomy of the patient.
        style: `siim` or `ntuh`; ntuh films carry more leads and tubes.
        area: Area of the lesion as a share of the film (0 to about 0.15), or None for a negative.
        size: Side of the square film in pixels.

    Returns:
        film: (size, size) float32, 0 (black, air) to 1.
        mask: (size, size) bool, the lesion between chest wall and visceral pleura; empty when `area` is None.
    """
    lesion_rng = np.random.default_rng(int(rng.integers(2**63)))
    to_film = _placement(rng)
    fine, coarse = Canvas(size, to_film), Canvas(max(size // 2, 128), to_film)
    lung = np.maximum(*(coarse.fill(part.outline(), 0.006) for part in anatomy.lungs))
    parenchyma = _parenchyma(rng, anatomy, coarse) * lung
    body = _body(rng, anatomy, coarse) + _skin_folds(rng, coarse) + _field(rng, coarse.size)
    film = cv2.resize(body, (size, size), interpolation=cv2.INTER_LINEAR)
    parenchyma = cv2.resize(parenchyma, (size, size), interpolation=cv2.INTER_LINEAR)
    mask = np.zeros((size, size), bool)
    if area is not None:
        mask, edge = _draw_lesion(lesion_rng, anatomy, fine, area)
        gone = cv2.GaussianBlur(mask.astype(np.uint8) * 255, (0, 0), size / 800).astype(np.float32)
        parenchyma *= 1 - gone * np.float32(1 / 255)
        line = cv2.GaussianBlur(edge, (0, 0), size / 1024).astype(np.float32)
        film += np.float32(lesion_rng.uniform(0.10, 0.17) / 255) * line
    film += parenchyma
    film += _devices(rng, fine, style)
    return _tone(rng, film), mask


def draw_film(
    rng: np.random.Generator, positive: bool, style: Style, size: int = 1024
) -> tuple[np.ndarray, np.ndarray]:
    """Draws one film of a new patient.

    Args:
        rng: Random generator, advanced alike whatever the label, so that only the lesion depends on it.
        positive: Whether the film shows a pneumothorax.
        style: `siim` (small lesions, fewer devices) or `ntuh` (larger lesions, portable supine films).
        size: Side of the square film in pixels.

    Returns:
        film: (size, size) uint8, MONOCHROME2 (air is dark), 0 to 255.
        mask: (size, size) bool, the exact lesion; all False on a negative film.
    """
    anatomy = draw_anatomy(rng)
    area = target_area(rng, style)
    film, mask = render(rng, anatomy, style, area if positive else None, size)
    return np.round(film * 255).astype(np.uint8), mask
