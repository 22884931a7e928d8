"""The fused augmentation does what the published chain does, in its ranges."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from common.preparation.film_store import Lesion
from common.recipes.presets import read_preset
from common.recipes.recipe import Augmentation
from common.training.augment import Draw, _resize, _warp, affine, augment, draw, intensity_table, window

NOTHING = Draw(1.0, (0.0, 0.0, 1.0, 1.0), 0.0, False, None, 0.0, 0.0, None, None)
PUBLISHED = read_preset("published").augmentation
NEVER = dataclasses.replace(
    PUBLISHED,
    crop=(1.0, 1.0),
    **{f.name: 0.0 for f in dataclasses.fields(Augmentation) if f.name.endswith("_probability")},
)


def _points(drawn: Draw, *points: tuple[float, float], side: int = 1024, target: int = 512) -> np.ndarray:
    """Where edge coordinates of the source land in edge coordinates of the target."""
    matrix = affine(drawn, side, target)
    centres = np.array(points) - 0.5
    return centres @ matrix[:, :2].T + matrix[:, 2] + 0.5


def test_no_augmentation_is_area_resampling() -> None:
    film = np.random.default_rng(0).integers(0, 256, (128, 128), dtype=np.uint8)
    mask = np.zeros((128, 128), bool)
    mask[10:21, 30:50] = True
    got, got_mask = augment(film, Lesion.of(mask), 64, np.random.default_rng(0), NEVER)
    expected = cv2.resize(film, (64, 64), interpolation=cv2.INTER_AREA) / 255
    assert np.abs(got - expected).max() <= 1.01 / 255  # fixed-point rounding of OpenCV
    assert got_mask[5:10, 15:25].all()
    assert got_mask.sum() in (50, 55, 60)  # the half-covered row goes either way


def test_corners_land_where_the_parameters_say() -> None:
    centre, corner = (512, 512), (0, 0)
    assert _points(NOTHING, corner, (1024, 1024)) == pytest.approx(np.array([[0, 0], [512, 512]]))
    flipped = dataclasses.replace(NOTHING, flip=True)
    assert _points(flipped, corner) == pytest.approx(np.array([[512, 0]]))
    zoomed = dataclasses.replace(NOTHING, zoom=1.28)  # shows 800 pixels
    assert _points(zoomed, centre, (112, 912)) == pytest.approx(np.array([[256, 256], [0, 512]]))
    cropped = dataclasses.replace(NOTHING, crop=(0.25, 0.125, 0.625, 0.75))
    assert _points(cropped, (256, 128), (896, 896)) == pytest.approx(np.array([[0, 0], [512, 512]]))
    turned = dataclasses.replace(NOTHING, rotation=15.0)
    assert _points(turned, centre) == pytest.approx(np.array([[256, 256]]))
    moved = _points(turned, (1024, 512))[0] - 256
    assert np.degrees(np.arctan2(moved[1], moved[0])) == pytest.approx(15)
    assert np.hypot(*moved) == pytest.approx(256)


@pytest.mark.parametrize("flip", [False, True])
def test_a_film_that_is_not_turned_is_resized_as_its_map_says(flip: bool) -> None:
    rng = np.random.default_rng(0)
    film = cv2.GaussianBlur(rng.integers(0, 256, (256, 256), dtype=np.uint8), (0, 0), 1.5)
    for _ in range(50):
        ranges = dataclasses.replace(PUBLISHED, zoom=(1.0, 1.2))
        drawn = dataclasses.replace(draw(rng, ranges), rotation=0.0, flip=flip)
        shown, image_size = window(drawn, len(film)), 128
        resized = _resize(film, shown, image_size, flip).astype(int)
        warped = _warp(
            film, (0, 0), shown, affine(drawn, len(film), image_size), (0, 0, image_size, image_size)
        )
        assert np.abs(resized - warped).max() <= 1


def test_what_the_crop_cut_off_does_not_come_back() -> None:
    film = np.full((128, 128), 255, np.uint8)
    left, top, right, bottom = window(
        cut := dataclasses.replace(NOTHING, crop=(0.25, 0.25, 0.625, 0.625)), 128
    )
    film[top:bottom, left:right] = 0
    for rotation in (-15.0, -3.0, 0.0, 3.0, 15.0):
        turned = dataclasses.replace(cut, rotation=rotation)
        shown = window(turned, 128)
        assert not _warp(film, (0, 0), shown, affine(turned, 128, 64), (0, 0, 64, 64)).any()


def test_rotation_pads_with_zeros() -> None:
    film = np.full((128, 128), 200, np.uint8)
    ranges = dataclasses.replace(NEVER, rotation_probability=1.0)
    turned = [augment(film, None, 64, np.random.default_rng(seed), ranges)[0] for seed in range(20)]
    assert sum(got[0, 0] == 0 for got in turned) > 15  # all but the smallest angles
    assert all(got[32, 32] == pytest.approx(200 / 255) for got in turned)


def test_mask_moves_with_the_film() -> None:
    mask = cv2.circle(np.zeros((256, 256), np.uint8), (90, 140), 40, 1, -1).astype(bool)
    film = mask.astype(np.uint8) * 255
    ranges = dataclasses.replace(
        PUBLISHED, blur_probability=0, noise_probability=0, scale_probability=0, shift_probability=0,
        gamma_probability=0,
    )  # fmt: skip
    for seed in range(50):
        got, got_mask = augment(film, Lesion.of(mask), 128, np.random.default_rng(seed), ranges)
        assert ((got > 0.5) == got_mask).mean() > 0.999


def test_draws_stay_in_the_published_ranges_and_fill_them() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw(rng, PUBLISHED) for _ in range(4000)]

    def check(values: list, low: float, high: float, share: float) -> None:
        assert len(values) / len(drawn) == pytest.approx(share, abs=0.03)
        assert low <= min(values) < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < max(values) <= high

    check([d.zoom for d in drawn if d.zoom != 1], 0.8, 1.2, 0.2)
    check([d.rotation for d in drawn if d.rotation], -15, 15, 0.5)
    check([d.blur_sigma for d in drawn if d.blur_sigma is not None], 0.5, 1.15, 0.15)
    check([d.scale for d in drawn if d.scale], -0.3, 0.3, 0.5)
    check([d.shift for d in drawn if d.shift], -0.1, 0.1, 0.5)
    check([d.gamma for d in drawn if d.gamma is not None], 0.7, 1.3, 0.5)
    check([d.noise for d in drawn if d.noise is not None], 0, 0.8 / 255, 0.15)
    check([d.crop[2] for d in drawn], 0.625, 1.0, 1.0)
    check([d.crop[3] for d in drawn], 0.625, 1.0, 1.0)
    assert np.corrcoef([d.crop[2] for d in drawn], [d.crop[3] for d in drawn])[0, 1] == pytest.approx(
        0, abs=0.05
    )
    assert all(0 <= d.crop[0] <= 1 - d.crop[2] and 0 <= d.crop[1] <= 1 - d.crop[3] for d in drawn)
    assert np.mean([d.flip for d in drawn]) == pytest.approx(0.5, abs=0.03)


def test_intensities_by_hand() -> None:
    table = intensity_table(dataclasses.replace(NOTHING, scale=0.2, shift=-0.1), 0, 255)
    assert table[[0, 100, 255]] == pytest.approx([-0.1, 100 / 255 * 1.2 - 0.1, 1.1])
    table = intensity_table(dataclasses.replace(NOTHING, gamma=1.3), 51, 204)  # 0.2 to 0.8
    assert table[[51, 204]] == pytest.approx([0.2, 0.8], abs=1e-6)
    assert table[102] == pytest.approx((1 / 3) ** 1.3 * 0.6 + 0.2, abs=1e-6)


def test_same_key_same_film() -> None:
    film = np.random.default_rng(0).integers(0, 256, (128, 128), dtype=np.uint8)
    mask = film > 200
    one = augment(film, Lesion.of(mask), 64, np.random.default_rng([0, 3, 7]), PUBLISHED)
    two = augment(film, Lesion.of(mask), 64, np.random.default_rng([0, 3, 7]), PUBLISHED)
    other = augment(film, Lesion.of(mask), 64, np.random.default_rng([0, 3, 8]), PUBLISHED)
    assert (one[0] == two[0]).all()
    assert (one[1] == two[1]).all()
    assert (one[0] != other[0]).any()
