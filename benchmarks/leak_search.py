"""Alike films among 50,000: our search against pairwise distances counted in plain numpy.

    python benchmarks/leak_search.py            half a minute on one core
    python benchmarks/leak_search.py --quick    among 8,000

The hashes are like those of a real collection: of smooth random pictures, of which every tenth is another
one's copy with noise. Half of the films are in one part and half in another. The plain way takes one film of
the first part after the other, XORs its hash with all of the second part and counts the bits (by numpy's
bitwise_count where it has it, else by a table). scikit-learn's ball tree (Hamming distance) does the same
where it is installed. What is slow is timed on a share of the first part and multiplied up; all must find the
same pairs. The ratio is to the fastest of the others.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

try:
    from sklearn.neighbors import BallTree
except ImportError:
    BallTree = None

REPOSITORY = Path(__file__).resolve().parents[1]
BITS_OF_16 = np.array([bin(value).count("1") for value in range(2**16)], dtype=np.uint8)


def make_hashes(count: int) -> np.ndarray:
    """(count,) uint64: hashes of pictures of 64 x 64 pixels; the last tenth are noisy copies of the first."""
    from common.preparation.near_copies import perceptual_hash

    rng = np.random.default_rng(0)
    hashes = np.empty(count, dtype=np.uint64)
    copies = count // 10
    for i in range(count - copies):
        picture = cv2.GaussianBlur(rng.normal(size=(64, 64)).astype(np.float32), (0, 0), 4)
        picture = cv2.normalize(picture, picture, 20, 235, cv2.NORM_MINMAX)
        hashes[i] = perceptual_hash(picture.astype(np.uint8))
        if i < copies:
            noisy = picture + rng.normal(scale=3, size=picture.shape)
            hashes[count - copies + i] = perceptual_hash(np.clip(noisy, 0, 255).astype(np.uint8))
    return hashes


def count_bits(values: np.ndarray) -> np.ndarray:
    """(n,) uint64 -> how many bits of each are set."""
    if hasattr(np, "bitwise_count"):  # numpy 2
        return np.bitwise_count(values)
    return BITS_OF_16[values.view(np.uint16).reshape(-1, 4)].sum(axis=1)


def plain(first: np.ndarray, second: np.ndarray, radius: int) -> set[tuple[int, int]]:
    """(row of first, row of second) at most `radius` bits apart, or from the inverted hash."""
    found: set[tuple[int, int]] = set()
    for row, value in enumerate(first):
        distance = count_bits(second ^ value)
        found.update(
            (row, int(other)) for other in np.flatnonzero(np.minimum(distance, 64 - distance) <= radius)
        )
    return found


def ball_tree(first: np.ndarray, second: np.ndarray, radius: int) -> tuple[set[tuple[int, int]], float]:
    """The same by scikit-learn, and the seconds that it took to build the tree."""
    begun = time.monotonic()
    tree = BallTree(_bits(second), metric="hamming")
    built = time.monotonic() - begun
    found: set[tuple[int, int]] = set()
    for bits in (_bits(first), 1 - _bits(first)):
        near = tree.query_radius(bits, (radius + 0.5) / 64)
        found.update((row, int(other)) for row, others in enumerate(near) for other in others)
    return found, built


def _bits(hashes: np.ndarray) -> np.ndarray:
    return np.unpackbits(hashes.view(np.uint8).reshape(-1, 8), axis=1)


def best(work: Callable[[], Any]) -> tuple[float, Any]:
    """Shortest of three times in seconds, and the result."""
    seconds = []
    for _ in range(3):
        begun = time.monotonic()
        result = work()
        seconds.append(time.monotonic() - begun)
    return min(seconds), result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="among 8,000")
    quick = parser.parse_args().quick
    sys.path.insert(0, str(REPOSITORY))
    from common.preparation.near_copies import RADIUS, nominated

    count = 8_000 if quick else 50_000
    half = count // 2
    hashes = make_hashes(count)
    first, second = hashes[:half], hashes[half:]
    share = 1 if quick or hasattr(np, "bitwise_count") else 10
    tried = first[: half // share]

    ours, (a, b, _, beyond) = best(lambda: nominated(hashes, np.repeat([0, 1], half), RADIUS))
    assert not beyond
    pairs = set(zip(a.tolist(), (b - half).tolist(), strict=True))
    expected = {pair for pair in pairs if pair[0] < len(tried)}
    print(f"{count:,} hashes, {len(pairs):,} pairs at most {RADIUS} bits apart")
    print(f"ours                   {ours:8.2f} s")

    seconds, found = best(lambda: plain(tried, second, RADIUS))
    assert found == expected
    others = [seconds * share]
    print(f"plain numpy            {others[0]:8.2f} s" + (f" (from 1/{share} of it)" if share > 1 else ""))
    if BallTree:
        few = first[: half // 100]
        begun = time.monotonic()
        found, built = ball_tree(few, second, RADIUS)
        others.append(built + (time.monotonic() - begun - built) * 100)
        assert found == {pair for pair in expected if pair[0] < len(few)}
        print(f"scikit-learn BallTree  {others[1]:8.2f} s (from 1/100 of it)")
    ratio = min(others) / ours
    print(f"leak search: {ratio:.1f} (goal >= 1)")


if __name__ == "__main__":
    main()
