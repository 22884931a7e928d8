"""How often the intervals of several readers' mean hold the truth, in simulated studies.

    python benchmarks/readers.py            400 studies a cell (--studies)
    python benchmarks/readers.py --quick    40 studies a cell

Readers score films much as in Roe & Metz (Acad Radiol 1997;4:298-303): a normal variable of the film that all
readers share (0.3 of the variance), one of each reader and film (0.7), and one of each reader and class
(variance 0.03), which is how readers differ. A system scores the same films without the last. A cell has 2,
3, 5 or 10 readers, 20 or 60 positives, 100 negatives, and either AUROC 0.85 with sensitivity 0.80, or 0.95
with 0.95; the system's are the same, so that the true difference is 0. Two readers are reported, not gated.

Goal: coverage at least 0.90 in each cell, of the mean AUROC and sensitivity and of the system's less these.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
from itertools import product

import numpy as np
from scipy.stats import norm
from tqdm import tqdm

from common.statistics.auroc import Ranked, auroc_by_patient
from common.statistics.intervals import mean_by_patient
from common.statistics.reader_means import Value, difference_interval, mean_interval

SHARED, OWN, READERS = 0.3, 0.7, 0.03  # variances
NEGATIVES = 100
CELLS = tuple(product((2, 3, 5, 10), (20, 60), ((0.85, 0.80), (0.95, 0.95))))
GATED_FROM = 3  # readers
GOAL = 0.90


def values(scores: np.ndarray, threshold: float, positive: np.ndarray) -> dict[str, Value]:
    """AUROC and sensitivity of one who scored these films, each of a patient of its own."""
    patient, n = np.arange(len(scores)), len(scores)
    ranked = Ranked(scores, positive, patient)
    found = (scores[positive] > threshold).astype(float)
    sensitivity = float(found.mean())
    return {
        "auroc": Value(*auroc_by_patient(ranked, n), [positive, ~positive]),
        "sensitivity": Value(
            sensitivity, mean_by_patient(found - sensitivity, patient[positive], n), [positive]
        ),
    }


def holds(rng: np.random.Generator, readers: int, positives: int, truth: tuple[float, float]) -> list[bool]:
    """Whether the intervals hold the truth: mean AUROC and sensitivity, then the system's less these."""
    positive = np.arange(positives + NEGATIVES) < positives
    area, sensitivity = truth

    def scored(spread: float, who: int) -> list[dict[str, Value]]:
        """As many as are asked for, of whom the mean AUROC and sensitivity are true."""
        distance = norm.ppf(area) * math.sqrt(2 * (SHARED + OWN + spread))
        threshold = distance - norm.ppf(sensitivity) * math.sqrt(SHARED + OWN + spread)
        of_class = rng.normal(0, math.sqrt(spread), (who, 2))
        own = rng.normal(0, math.sqrt(OWN), (who, len(positive)))
        shift = np.where(positive, distance + of_class[:, :1], of_class[:, 1:])
        return [values(each, threshold, positive) for each in of_film + shift + own]

    of_film = rng.normal(0, math.sqrt(SHARED), len(positive))
    read, (system,) = scored(READERS, readers), scored(0.0, 1)
    patient = np.arange(len(positive))
    held = []
    for metric, value in zip(("auroc", "sensitivity"), truth, strict=True):
        low, high = mean_interval(metric, [each[metric] for each in read], patient)
        held.append(low <= value <= high)
    for metric in ("auroc", "sensitivity"):
        low, high = difference_interval(
            metric, [system[metric]] * readers, [each[metric] for each in read], patient
        )
        held.append(low <= 0 <= high)
    return held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="40 studies a cell")
    parser.add_argument("--studies", type=int, help="studies of a cell (default 400)")
    options = parser.parse_args()
    studies = options.studies or (40 if options.quick else 400)
    print(f"{studies} studies a cell, {NEGATIVES} negatives; coverage of the mean, and of system less mean")
    print("readers  positives  AUROC  sensitivity   mean: AUROC  sensitivity   less: AUROC  sensitivity")
    gated: list[float] = []
    for number, (readers, positives, truth) in enumerate(tqdm(CELLS, desc="cells", disable=None)):
        rng = np.random.default_rng(number)
        held = np.mean([holds(rng, readers, positives, truth) for _ in range(studies)], axis=0)
        print(
            f"{readers:7} {positives:10} {truth[0]:6.2f} {truth[1]:12.2f} {held[0]:13.3f} {held[1]:12.3f} "
            f"{held[2]:13.3f} {held[3]:12.3f}"
        )
        gated += held.tolist() if readers >= GATED_FROM else []
    print(f"readers: {min(gated):.3f} (goal >= {GOAL})")


if __name__ == "__main__":
    main()
