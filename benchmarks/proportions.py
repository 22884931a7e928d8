"""How often the interval of a proportion holds it where patients gave several films, and how wide it is.

    python benchmarks/proportions.py
    python benchmarks/proportions.py --sets 400 --icc 0.2

A patient's films are alike: each patient has a probability of its own from a beta distribution about the true
proportion, with the intraclass correlation `--icc`. `even`: all patients give about as many films; `uneven`:
a quarter of them gives all further films. The goal is for the even sets.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from common.statistics.intervals import effective_films, wilson_interval

GOAL = 0.92
CELLS = ((108, 105, 0.99), (20, 15, 0.95), (108, 83, 0.98), (108, 36, 0.95), (21, 7, 0.9), (963, 321, 0.99))
FEW = 4  # one patient of so many gives all further films of the uneven sets


def films_of(films: int, patients: int, even: bool) -> np.ndarray:
    """How many films each patient gives: (patients,) int."""
    giving = patients if even else max(1, patients // FEW)
    further = np.arange(films - patients) % giving
    return 1 + np.bincount(further, minlength=patients)


def coverage(
    rng: np.random.Generator, sizes: np.ndarray, proportion: float, icc: float, sets: int
) -> tuple[float, float]:
    """Share of the intervals that hold the proportion, and their mean width."""
    patient = np.repeat(np.arange(len(sizes)), sizes)
    spread = (1 - icc) / icc
    held, width = 0, 0.0
    for _ in range(sets):
        own = rng.beta(proportion * spread, (1 - proportion) * spread, len(sizes))
        values = (rng.random(len(patient)) < own[patient]).astype(float)
        n = effective_films(values, patient)
        low, high = wilson_interval(values.mean() * n, n)
        held += low <= proportion <= high
        width += high - low
    return held / sets, width / sets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sets", type=int, default=4_000, help="data sets of each cell (default 4000)")
    parser.add_argument("--icc", type=float, default=0.5, help="intraclass correlation, 0-1 (default 0.5)")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    lowest = 1.0
    print(f"{'films':>6} {'patients':>8} {'true':>6}   even: coverage, width   uneven: coverage, width")
    for films, patients, proportion in CELLS:
        found = [
            coverage(rng, films_of(films, patients, even), proportion, options.icc, options.sets)
            for even in (True, False)
        ]
        lowest = min(lowest, found[0][0])
        cells = " ".join(f"{held:16.3f} {width:7.3f}" for held, width in found)
        print(f"{films:6} {patients:8} {proportion:6.2f} {cells}")
    print(f"proportions: lowest coverage {lowest:.3f} (goal >= {GOAL}), {options.sets:,} sets a cell")


if __name__ == "__main__":
    main()
