"""The same picture, encoded, resized or windowed again: a perceptual hash nominates, correlation confirms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import cv2
import numpy as np

# Chosen on 214 real films of 126 patients (`tests/test_leaks.py` repeats the essence), each with copies:
# JPEG of quality 30-95, resized to 25-140% and back, gamma 0.4-2.5, up to 15% of the pixels clipped at either
# end. The copies' hashes are at most 6 bits away, those of 45,254 pairs of different patients (half of them
# mirrored) at least 10.
RADIUS = 8
# Least value of the larger of Pearson's and Spearman's correlation. Pearson's alone is lost to windows
# (gamma 0.4: down to 0.921, 10% clipped: 0.865; Spearman's 0.997), Spearman's alone to noise on a flat
# background (standard deviation 5: 0.966; Pearson's 0.997). The larger is at least 0.990 for every copy
# above, at most 0.951 for two films of one patient and 0.911 for films of two patients.
SAME_PICTURE = 0.99
CONFIRM_SIDE = 256  # pixels of the films that are correlated

MOST_PAIRS = 100_000  # listed for each reason, and confirmed; what is beyond is counted
_TILE = (16, 4096)  # distances at a time: small enough for the processor's cache and the quick allocator
_KEPT_FILMS = 1024  # of 64 KB


def _ranks(film: np.ndarray) -> np.ndarray:
    """Each pixel's mean rank among all, 0 to 1, float32: whatever monotone curve the greys went through.

    Mean rank, not `cv2.equalizeHist`: pixels clipped to one value keep the middle of their ranks.
    """
    counts = cv2.calcHist([film], [0], None, [256], [0, 256]).ravel().astype(np.float64)
    return cv2.LUT(film, ((np.cumsum(counts) - counts / 2) / film.size).astype(np.float32))


def perceptual_hash(film: np.ndarray) -> np.uint64:
    """64 bits that hardly change when a film is encoded, resized or windowed again; inverted, all change.

    The DCT hash of C. Zauner (Implementation and benchmarking of perceptual image hash functions, 2010), on
    ranks instead of grey values: of the 32 x 32 film, which of 8 x 8 low frequencies are above their median.
    Row and column 0 are left out: they hold the mean, and the shading from side to side and top to bottom.

    Args:
        film: (height, width) uint8, of any size.

    Raises:
        ValueError: It is no uint8 film.
    """
    if film.ndim != 2 or film.dtype != np.uint8:
        raise ValueError(f"no uint8 film: {film.shape} {film.dtype}")
    ranks = _ranks(_reduced(film))
    frequencies = cv2.dct(cv2.resize(ranks, (32, 32), interpolation=cv2.INTER_AREA))[1:9, 1:9]
    median = np.sort(frequencies, axis=None)[31:33].mean()  # np.median, without its detours
    bits = np.packbits(frequencies > median)
    return np.uint64(int.from_bytes(bits.tobytes(), "big"))


def _reduced(film: np.ndarray) -> np.ndarray:
    """(256, 256): the film by area, linearly where it must grow."""
    if film.shape == (CONFIRM_SIDE, CONFIRM_SIDE):
        return film
    if film.shape == (4 * CONFIRM_SIDE, 4 * CONFIRM_SIDE):
        return _quarter(film)
    how = cv2.INTER_LINEAR if min(film.shape) < CONFIRM_SIDE else cv2.INTER_AREA
    return cv2.resize(film, (CONFIRM_SIDE, CONFIRM_SIDE), interpolation=how)


def _quarter(film: np.ndarray) -> np.ndarray:
    """A quarter of the film's sides by area, bit for bit as OpenCV does in one step, in half the time.

    OpenCV is quick only at halves. With 16 times the grey levels, two of them leave the sum of 16 pixels.
    """
    sums = np.left_shift(film, 4, dtype=np.uint16)
    for side in (2 * CONFIRM_SIDE, CONFIRM_SIDE):
        sums = cv2.resize(sums, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.convertScaleAbs(sums, alpha=1 / 16)


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's or Spearman's correlation, whichever is further from 0; 0 where a film has no contrast.

    Args:
        first: (height, width) uint8 film.
        second: (height, width) uint8 film of the same shape.

    Returns:
        -1 to 1; near -1 where one is the other inverted.
    """
    both = (
        _pearson(first.astype(np.float32), second.astype(np.float32)),
        _pearson(_ranks(first), _ranks(second)),
    )
    return max(both, key=abs)


def _pearson(first: np.ndarray, second: np.ndarray) -> float:
    first, second = (x.ravel() - x.mean(dtype=np.float64).astype(np.float32) for x in (first, second))
    norm = np.sqrt(float(first @ first) * float(second @ second))
    return float(np.clip(float(first @ second) / norm, -1, 1)) if norm else 0.0


def nominated(
    hashes: np.ndarray, part: np.ndarray, radius: int = RADIUS
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Pairs of films of different parts whose hashes differ in few bits, or in nearly all (one inverted).

    Args:
        hashes: (n,) uint64, from `perceptual_hash`.
        part: (n,) int, part that each film belongs to; few parts.
        radius: Largest distance of two hashes, in bits (0 to 31).

    Returns:
        Rows of the first films, rows of the second ones (first < second), distances (to the inverted hash
        where that is nearer), by row; and how many pairs, the most distant, were dropped beyond `MOST_PAIRS`.
    """
    if not 0 <= radius < 32:
        raise ValueError(f"radius {radius} is not between 0 and 31")
    # Sorted by part, so that a tile needs no mask of pairs to leave out.
    order = np.argsort(part, kind="stable")
    distances = (_distances_by_counting if hasattr(np, "bitwise_count") else _distances_by_product)(
        hashes[order]
    )
    kept: list[np.ndarray] = [np.empty(0, int) for _ in range(3)]
    total, limit = 0, radius
    for rows, columns in _tiles(part[order]):
        distance = distances(rows, columns)
        is_near = _near(distance, radius)
        count = int(np.count_nonzero(is_near))
        if not count:
            continue
        total += count
        hits = np.flatnonzero(is_near if limit == radius else _near(distance, limit))
        a, b = np.divmod(hits, columns.stop - columns.start)
        distance = distance.ravel()[hits].astype(int)
        distance = np.minimum(distance, 64 - distance)
        found = (order[a + rows.start], order[b + columns.start], distance)
        kept = [np.concatenate(pair) for pair in zip(kept, found, strict=True)]
        if len(kept[2]) > MOST_PAIRS:
            nearest = np.argsort(kept[2], kind="stable")[:MOST_PAIRS]
            kept = [x[nearest] for x in kept]
            limit = int(kept[2][-1]) - 1  # only nearer ones may still enter
    a, b, distance = kept
    first, second = np.minimum(a, b), np.maximum(a, b)
    by_row = np.lexsort((second, first))
    return first[by_row], second[by_row], distance[by_row], total - len(by_row)


def _near(distance: np.ndarray, radius: int) -> np.ndarray:
    """Distances that are at most `radius` or at least 64 - `radius` (uint8 in, bool out; none where -1).

    As one comparison: below 0 an uint8 goes on at 255, so what is too near becomes large.
    """
    return distance - np.uint8(radius + 1) >= 63 - 2 * radius


def _distances_by_counting(hashes: np.ndarray) -> Callable[[slice, slice], np.ndarray]:
    """A function of a tile's (rows, columns): how many bits differ, uint8. Its array is used again."""
    differ = np.empty(_TILE[0] * _TILE[1], dtype=np.uint64)
    counts = np.empty(_TILE[0] * _TILE[1], dtype=np.uint8)

    def distances(rows: slice, columns: slice) -> np.ndarray:
        shape = rows.stop - rows.start, columns.stop - columns.start
        tile, result = (array[: shape[0] * shape[1]].reshape(shape) for array in (differ, counts))
        np.bitwise_xor(hashes[rows, None], hashes[columns], out=tile)
        return np.bitwise_count(tile, out=result)

    return distances


def _distances_by_product(hashes: np.ndarray) -> Callable[[slice, slice], np.ndarray]:
    """The same for numpy 1, which cannot count bits.

    With bits as +1 and -1 the product of two hashes is 64 - 2 x distance, exactly so in float32.
    """
    bits = np.unpackbits(hashes.astype(">u8").view(np.uint8).reshape(-1, 8), axis=1)
    signs = bits.astype(np.float32) * 2 - 1
    return lambda rows, columns: ((64 - signs[rows] @ signs[columns].T) / 2).astype(np.uint8)


def _tiles(part: np.ndarray) -> Iterator[tuple[slice, slice]]:
    """Blocks of rows and columns that cover each pair of rows of different (sorted) parts once."""
    ends = np.flatnonzero(np.diff(part, append=np.nan)) + 1
    begin = 0
    for end in ends.tolist():
        for row in range(begin, end, _TILE[0]):
            for column in range(end, len(part), _TILE[1]):
                yield slice(row, min(row + _TILE[0], end)), slice(column, min(column + _TILE[1], len(part)))
        begin = end


def pair_correlations(
    film_256: Callable[[int], np.ndarray], first: np.ndarray, second: np.ndarray
) -> np.ndarray:
    """(pairs,) float64: the correlation of each pair's films; recent films are kept in memory."""
    film = lru_cache(maxsize=_KEPT_FILMS)(film_256)
    rows = zip(first.tolist(), second.tolist(), strict=True)
    return np.array([correlation(film(i), film(j)) for i, j in rows], dtype=np.float64)
