"""How sure the figures are: percentile bootstrap intervals, by resampling patients.

Films of one patient are not independent, so patients are drawn, with replacement, and bring all their films
(the cluster bootstrap: Davison & Hinkley, Bootstrap Methods and their Application, 1997, section 3.8).
Patients with a positive film and the others are drawn separately, each group to its own size, so that no
replicate is short of positives and the prevalence stays the test set's. The same draws serve every figure
and every system: differences of replicates are paired.

So the intervals of PPV, NPV and AUPRC are for the test set's prevalence and leave its own chance variation
out. In simulated test sets of 1,000 films, 10% positive, the PPV interval held the PPV of that prevalence in
94%; where each set's prevalence varied by chance as well, it held the population's PPV in 86%.

The order of the films in `Cases` decides which draw falls on which patient, never their names: another
pseudonym key gives the same intervals.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.evaluation.cases import Cases
from common.evaluation.metrics import CONFUSION, REFERENCES, figures

CONFIDENCE = 0.95
MAX_UNDEFINED = 0.05
METHOD = (
    "percentile bootstrap of patients (all films of a patient together), patients with a positive film "
    "and the others resampled separately, so at the test set's prevalence; the estimate is on the full sample"
)
# Elements of one block of (replicates, films): 4 MB of float64, so that a block stays in the cache.
_BLOCK = 500_000


def patient_numbers(patient: np.ndarray) -> np.ndarray:
    """The films' patients as 0, 1, ... in order of first appearance (int64, length n)."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in patient.tolist()], dtype=np.int64)


def resample_counts(
    patient: np.ndarray, positive: np.ndarray, replicates: int, seed: int
) -> Iterator[np.ndarray]:
    """Draw patients in two groups, block by block.

    Replicate i is the same whatever the number of replicates and the size of a block: each group has its
    own stream, read in order.

    Args:
        patient: Name of each film's patient, length n.
        positive: Films that put their patient in the first group, bool, length n.
        replicates: How many resamples in all.
        seed: Non-negative.

    Yields:
        How often each film is drawn: float64 whole numbers, (at most a block's replicates, n).
    """
    number = patient_numbers(patient)
    n_patients = int(number.max()) + 1
    first = np.zeros(n_patients, dtype=bool)
    first[number[positive]] = True
    groups = [
        (np.flatnonzero(group), np.random.default_rng([seed, i])) for i, group in enumerate((first, ~first))
    ]
    block = max(1, _BLOCK // len(number))
    for start in range(0, replicates, block):
        rows = min(block, replicates - start)
        drawn = np.zeros((rows, n_patients))
        for members, stream in groups:
            if len(members):
                drawn[:, members] = _draw(stream, rows, len(members))
        yield drawn[:, number]


def _draw(stream: np.random.Generator, rows: int, size: int) -> np.ndarray:
    """How often each of `size` is among `size` draws with replacement: int64, (rows, size)."""
    choice = stream.integers(0, size, size=(rows, size)) + size * np.arange(rows)[:, None]
    return np.bincount(choice.ravel(), minlength=rows * size).reshape(rows, size)


def percentile_interval(replicates: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """The percentile interval (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).

    Linear interpolation between order statistics. NaN replicates are those that do not define the figure.

    Returns:
        (low, high), or None where more than MAX_UNDEFINED of the replicates are undefined: the rest would
        be a selection, and an interval from them too narrow.
    """
    undefined = np.isnan(replicates)
    if undefined.mean() > MAX_UNDEFINED:
        return None
    tail = (1 - confidence) / 2
    low, high = np.quantile(replicates[~undefined], [tail, 1 - tail])
    return float(low), float(high)


@dataclass(frozen=True)
class Bootstrapped:
    """A figure and its replicates.

    Attributes:
        n: Films that the figure is over.
        estimate: On the full sample; NaN where undefined.
        replicates: float64, one a resample; NaN where undefined.
    """

    n: int
    estimate: float
    replicates: np.ndarray


def bootstrap(
    systems: Mapping[str, Cases], reference: str, replicates: int, seed: int
) -> dict[tuple[str, str, str, str], Bootstrapped]:
    """Every figure of every system under a reference, with replicates from the same draws.

    Args:
        systems: Results on the same films in the same order, by system.
        reference: `mask` or `report`; it also decides the two groups of patients.
        replicates: At least 1.
        seed: Non-negative.

    Returns:
        By (system, decision, stratum, metric), in the order of `metrics.figures`.

    Raises:
        ValueError: The systems' films differ or stand in another order.
    """
    cases = next(iter(systems.values()))
    for name, other in systems.items():
        if not np.array_equal(other.case, cases.case):
            raise ValueError(f"the films of {name} are others, or in another order")
    found = {
        (name, *key): Bootstrapped(int(point.n[0]), float(point.value[0]), np.empty(replicates))
        for name, results in systems.items()
        for key, point in figures(results, reference, np.ones((1, len(results)))).items()
    }
    start = 0
    for counts in resample_counts(cases.patient, cases.positive(reference), replicates, seed):
        rows = slice(start, start + len(counts))
        for name, results in systems.items():
            for key, figure in figures(results, reference, counts).items():
                found[(name, *key)].replicates[rows] = figure.value
        start = rows.stop
    return found


def metric_rows(systems: Mapping[str, Cases], replicates: int, seed: int) -> list[dict[str, Any]]:
    """The tidy table: one row a figure, for each system, reference, decision and stratum.

    Returns:
        Rows with `system, reference, decision, stratum, metric, n, estimate, ci_low, ci_high`. An estimate
        or interval that is not estimable is None; `tp, fp, fn, tn` have no interval and are whole numbers.
    """
    rows = []
    for reference in REFERENCES:
        found = bootstrap(systems, reference, replicates, seed)
        for (system, decision, stratum, metric), figure in found.items():
            estimate: float | None = None if np.isnan(figure.estimate) else figure.estimate
            interval = None
            if metric in CONFUSION:
                estimate = int(figure.estimate)
            elif estimate is not None:
                interval = percentile_interval(figure.replicates)
            low, high = interval or (None, None)
            rows.append(
                {
                    "system": system,
                    "reference": reference,
                    "decision": decision,
                    "stratum": stratum,
                    "metric": metric,
                    "n": figure.n,
                    "estimate": estimate,
                    "ci_low": low,
                    "ci_high": high,
                }
            )
    order = list(systems)
    return sorted(rows, key=lambda row: order.index(row["system"]))  # stable: references stay in order
