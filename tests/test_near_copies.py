"""Hashes, their search, and the correlation: which films look like copies of each other."""

from __future__ import annotations

import cv2
import numpy as np
import pandas as pd
import pytest

from common.preparation import near_copies
from common.preparation.near_copies import correlation, nominated, perceptual_hash


def smooth(seed: int, side: int = 256) -> np.ndarray:
    """A picture that is no film, but smooth like one; grey levels 20 to 235."""
    noise = np.random.default_rng(seed).normal(size=(side, side)).astype(np.float32)
    picture = cv2.GaussianBlur(noise, (0, 0), side / 20)
    return cv2.normalize(picture, None, 20, 235, cv2.NORM_MINMAX).astype(np.uint8)


@pytest.mark.parametrize("counts_bits", [True, False])
def test_search_as_a_plain_loop_finds_it(monkeypatch: pytest.MonkeyPatch, counts_bits: bool) -> None:
    if not counts_bits:
        monkeypatch.delattr(np, "bitwise_count", raising=False)  # as in numpy 1
    monkeypatch.setattr(near_copies, "_TILE", (16, 32))
    rng = np.random.default_rng(2)
    base = rng.integers(0, 2**64, 20, dtype=np.uint64)
    hashes = base[rng.integers(0, 20, 150)]
    for _ in range(12):  # flip bits of some, and invert others
        hashes ^= (np.uint64(1) << rng.integers(0, 64, 150, dtype=np.uint64)) * rng.integers(
            0, 2, 150, dtype=np.uint64
        )
    hashes[::3] ^= np.uint64(2**64 - 1)
    part = rng.integers(0, 5, 150)
    expected = []
    for i in range(150):
        for j in range(i + 1, 150):
            bits = bin(int(hashes[i]) ^ int(hashes[j])).count("1")
            if part[i] != part[j] and min(bits, 64 - bits) <= 8:
                expected.append((i, j, min(bits, 64 - bits)))
    first, second, distance, beyond = nominated(hashes, part, 8)
    assert list(zip(first, second, distance, strict=True)) == expected
    assert len(expected) > 50
    assert not beyond
    assert len(nominated(hashes[:0], part[:0])[0]) == 0


def test_hash_has_32_bits_and_is_the_same_everywhere() -> None:
    value = perceptual_hash(smooth(0))
    assert isinstance(value, np.uint64)
    assert bin(int(value)).count("1") == 32
    assert int(perceptual_hash(255 - smooth(0))) == int(value) ^ (2**64 - 1)
    assert perceptual_hash(np.full((90, 70), 7, np.uint8)) == 0
    with pytest.raises(ValueError, match="no uint8 film"):
        perceptual_hash(smooth(0).astype(np.float32))


def test_a_film_is_quartered_as_opencv_does_it() -> None:
    generator = np.random.default_rng(1)
    for film in (generator.integers(0, 256, (1024, 1024), np.uint8), np.full((1024, 1024), 255, np.uint8)):
        expected = cv2.resize(film, (256, 256), interpolation=cv2.INTER_AREA)
        assert (near_copies._quarter(film) == expected).all()
        halves = film & 1  # sums of 16 that end on a half grey level
        expected = cv2.resize(halves, (256, 256), interpolation=cv2.INTER_AREA)
        assert (near_copies._quarter(halves) == expected).all()


def test_correlation_is_the_larger_one() -> None:
    film = smooth(3)
    curve = np.rint(255 * (np.arange(256) / 255) ** 3).astype(np.uint8)
    pearson = np.corrcoef(film.ravel(), curve[film].ravel())[0, 1]
    ranks = [pd.Series(x.ravel()).rank() for x in (film, curve[film])]
    assert pearson < 0.99 < correlation(film, curve[film])
    assert correlation(film, curve[film]) == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-5)
    flat = np.where(np.arange(256) < 128, 100, film).astype(np.uint8)  # half of it without contrast
    noisy = flat + np.random.default_rng(0).integers(0, 3, flat.shape).astype(np.uint8)
    assert correlation(flat, noisy) == pytest.approx(np.corrcoef(flat.ravel(), noisy.ravel())[0, 1], abs=1e-5)
    assert correlation(film, 255 - film) == pytest.approx(-1)
    assert correlation(film, np.zeros_like(film)) == 0
