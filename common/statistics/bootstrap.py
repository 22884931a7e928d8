"""How sure the estimates are: the bootstrap of patients, and the table of estimates with their intervals.

Films of one patient are not independent, so patients are drawn, with replacement, and bring all their films
(the cluster bootstrap: Davison & Hinkley, Bootstrap Methods and their Application, 1997, section 3.8).
Patients with a positive film and the others are drawn separately, each group to its own size, so that no
replicate is short of positives and the prevalence stays the test set's. The same draws serve every metric
and every system: differences of replicates are paired.

So the intervals of PPV, NPV and whatever else depends on the prevalence are for the test set's, and leave its
own chance variation out; their note says "conditional on the case mix". In simulated test sets of 1,000
films, 10% positive, the PPV interval held the PPV of that prevalence in 94%; where each set's prevalence
varied by chance as well, it held the population's PPV in 86%.

The order of the films in `Cases` decides which draw falls on which patient, never their names: another
pseudonym key gives the same intervals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from common.command_line import Interval
from common.progress import progress
from common.statistics.auroc import Ranked, auroc_difference_interval, auroc_interval
from common.statistics.intervals import (
    EXPANDED,
    acceleration,
    alike_films,
    bca_interval,
    effective_films,
    percentile_interval,
    too_few,
    wilson_interval,
)
from common.statistics.metric_catalogue import METRICS, Rates
from common.statistics.metrics import MetricValues
from common.statistics.tested_films import Cases

Key = tuple[str, str, str, str]  # system, decision, stratum, metric
RESAMPLING = (
    "bootstrap of patients (all films of a patient together), patients with a positive film and the others "
    f"resampled separately, so at the test set's prevalence; {EXPANDED}; the estimate is on the full sample"
)
NOT_ESTIMABLE = "not estimable"
TOO_FEW = "too few films for an interval"
# Elements of one block of (replicates, films): 4 MB of float64, so that a block stays in the cache.
_BLOCK = 500_000


def patient_numbers(patient: np.ndarray) -> np.ndarray:
    """The films' patients as 0, 1, ... in order of first appearance (int64, length n)."""
    # Not by `np.unique`, whose order is that of the pseudonyms, which differ between machines.
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in patient.tolist()], dtype=np.int64)


def patient_groups(patient: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Whether patients have a positive film (bool, one a patient, in the order of `patient_numbers`)."""
    number = patient_numbers(patient)
    first = np.zeros(int(number.max()) + 1, dtype=bool)
    first[number[positive]] = True
    return first


def resample_counts(
    patient: np.ndarray, positive: np.ndarray, replicates: int, seed: int
) -> Iterator[np.ndarray]:
    """Draw patients in two groups, block by block.

    Replicate i is the same whatever the number of replicates and the size of a block: each group has its
    own stream, read in order.

    Args:
        patient: (n,) pseudonym of each film's patient.
        positive: (n,) bool, films that put their patient in the first group.
        replicates: Number of resamples in all.
        seed: Seed of the resampling, 0 or more.

    Yields:
        How often each film is drawn: float64 whole numbers, (at most a block's replicates, n).
    """
    number, first = patient_numbers(patient), patient_groups(patient, positive)
    groups = [
        (np.flatnonzero(group), np.random.default_rng([seed, i])) for i, group in enumerate((first, ~first))
    ]
    block = max(1, _BLOCK // len(number))
    for start in range(0, replicates, block):
        rows = min(block, replicates - start)
        drawn = np.zeros((rows, len(first)))
        for members, stream in groups:
            if len(members):
                drawn[:, members] = _draw(stream, rows, len(members))
        yield drawn[:, number]  # all films of a patient come with it


def _draw(stream: np.random.Generator, rows: int, size: int) -> np.ndarray:
    """How often each of `size` is among `size` draws with replacement: int64, (rows, size)."""
    # Each replicate gets its own range of numbers, so that one count serves the whole block.
    choice = stream.integers(0, size, size=(rows, size)) + size * np.arange(rows)[:, None]
    return np.bincount(choice.ravel(), minlength=rows * size).reshape(rows, size)


def jackknife_counts(patient: np.ndarray, positive: np.ndarray) -> Iterator[np.ndarray]:
    """Leave out each patient, block by block; the others of the group then weigh as much as all of it did.

    Args:
        patient, positive: As in `resample_counts`.

    Yields:
        The weight of each film: float64, (at most a block's patients, n).
    """
    number, first = patient_numbers(patient), patient_groups(patient, positive)
    size = np.where(first, first.sum(), (~first).sum())
    weight = size / np.maximum(size - 1, 1)  # of a single patient, nothing is left that could weigh more
    block = max(1, _BLOCK // len(number))
    for start in range(0, len(first), block):
        left_out = np.arange(start, min(start + block, len(first)))[:, None]
        same_group = first[left_out] == first[number]
        yield np.where(number == left_out, 0.0, np.where(same_group, weight[left_out], 1.0))


@dataclass(frozen=True)
class Bootstrapped:
    """A metric over some films: its estimate and its replicates.

    Attributes:
        n: Number of films that the estimate is over.
        positives: Number of positives among them, for a metric that needs both classes; else None.
        estimate: Estimate on the full sample; NaN where undefined.
        replicates: (resamples,) float64, value in each resample, NaN where undefined; empty where nothing is
            made from them, as `metrics.MetricValues.resampled` has it.
        patients: Number of patients that it is over; of the rarer class where it needs both.
        too_few: It has fewer than MIN_FILMS films or MIN_PATIENTS patients, or, where it needs both classes,
            of one of them.
        independent: Every patient of the test set gave one film.
        effective: Number of independent films that tell as much: for a proportion from its values, for
            another metric if all films of a patient are alike, of the rarer class where it needs both.
        rates: Rates of the decision, for a metric whose interval is from them; None without both classes.
        films: (n,) bool, films of a proportion, of all that were tested; None for another metric.
        values: (n,) float64, value of each film, 0-1, likewise.
        ranked: Scores whose AUROC it is, or of which two the difference; empty for another metric.
        by_patients: Interval that is made from the films by their patients; None for another metric.
        acceleration: Acceleration of the BCa interval; NaN where not computed or not estimable.
    """

    n: int
    estimate: float
    replicates: np.ndarray
    patients: int
    positives: int | None = None
    too_few: bool = False
    independent: bool = False
    effective: float = np.nan
    rates: Rates | None = None
    films: np.ndarray | None = None
    values: np.ndarray | None = None
    ranked: tuple[Ranked, ...] = ()
    by_patients: tuple[float, float] | None = None
    acceleration: float = np.nan


def bootstrap(
    systems: Mapping[str, Cases],
    reference: str,
    replicates: int,
    seed: int,
    interval: Interval = "percentile",
    prevalence: float | None = None,
    metrics: Collection[str] | None = None,
) -> dict[Key, Bootstrapped]:
    """Every metric of every system under a reference, with replicates from the same draws.

    Args:
        systems: Results on the same films in the same order, by system.
        reference: `mask`, `report` or `mask_or_clear`; it also decides the two groups of patients.
        replicates: Number of resamples, at least 1.
        seed: Seed of the resampling, 0 or more.
        interval: `bca` computes the accelerations that it needs, too.
        prevalence: Prevalence for the predictive values, 0-1; None leaves them out.
        metrics: Only these, which takes only their time; None: all.

    Returns:
        By (system, decision, stratum, metric), in the order of `metrics.MetricValues.keys`.

    Raises:
        ValueError: The systems' films differ or stand in another order.
    """
    cases = next(iter(systems.values()))
    for name, other in systems.items():
        if not np.array_equal(other.case, cases.case):
            raise ValueError(f"the films of {name} are others, or in another order")
    prepared = {name: MetricValues(each, reference, prevalence, metrics) for name, each in systems.items()}
    positive, number = cases.positive(reference), patient_numbers(cases.patient)
    independent = int(number.max()) + 1 == len(cases)
    # The products of matrices are small: more threads would only wait for each other on a busy machine.
    with threadpool_limits(1, "blas"):
        # Each film once, through the same code: the estimate cannot be of another kind than its replicates.
        estimates = _values(prepared, [np.ones((1, len(cases)))], 1, MetricValues.values)
        draws = resample_counts(cases.patient, positive, replicates, seed)
        found = _values(
            prepared, draws, replicates, MetricValues.resampled, f"bootstrap, reference {reference}"
        )
        accelerations = _accelerations(prepared, cases, positive) if interval == "bca" else {}
    return {
        own: Bootstrapped(
            estimate=float(estimates[own][0]),
            replicates=found.get(own, np.empty(0)),
            independent=independent,
            rates=_rates(systems[system], values, key, number, prevalence),
            **_of_films(values, key, number),
            ranked=_ranked(systems[system], values, key, number),
            by_patients=_by_patients(systems[system], values, key, number),
            acceleration=float(accelerations.get(own, np.nan)),
        )
        for system, values in prepared.items()
        for key in values.keys
        for own in [(system, *key)]
    }


def _accelerations(
    prepared: Mapping[str, MetricValues], cases: Cases, positive: np.ndarray
) -> dict[Key, float]:
    """The acceleration of each metric's BCa interval, from what it is without each patient."""
    first = patient_groups(cases.patient, positive)
    left_out = _values(
        prepared, jackknife_counts(cases.patient, positive), len(first), MetricValues.resampled
    )
    found = acceleration(np.stack(list(left_out.values())), first)
    return dict(zip(left_out, found, strict=True))


def _values(
    prepared: Mapping[str, MetricValues],
    blocks: Iterable[np.ndarray],
    rows: int,
    compute: Callable[[MetricValues, np.ndarray], Mapping[tuple[str, str, str], np.ndarray]],
    title: str | None = None,
) -> dict[Key, np.ndarray]:
    """What `compute` makes of each row of the blocks, which have `rows` rows together; a title is shown."""
    found: dict[Key, np.ndarray] = {}
    start = 0
    # Systems do not wait for each other: nearly all of the time is NumPy's, which leaves the lock to others
    with progress(rows, title, unit="replicate") as bar, ThreadPoolExecutor(len(prepared)) as threads:
        for counts in blocks:
            of_systems = threads.map(compute, prepared.values(), repeat(counts))
            for system, of_system in zip(prepared, of_systems, strict=True):
                for key, computed in of_system.items():
                    own = found.setdefault((system, *key), np.empty(rows))
                    own[start : start + len(counts)] = computed
            start += len(counts)
            bar.update(len(counts))
    return found


def _rates(
    cases: Cases,
    values: MetricValues,
    key: tuple[str, str, str],
    number: np.ndarray,
    prevalence: float | None,
) -> Rates | None:
    """What the interval of a metric is made from, where it is the rates of its decision."""
    if METRICS[key[2]].interval is None:
        return None
    called = cases.called(key[0])
    positive, negative = values.needed(*key)
    if not (positive.any() and negative.any()):
        return None
    found, passed = called[positive].astype(float), (~called)[negative].astype(float)
    return Rates(
        float(found.mean()),
        effective_films(found, number[positive]),
        float(passed.mean()),
        effective_films(passed, number[negative]),
        float("nan") if prevalence is None else prevalence,
    )


def _of_films(values: MetricValues, key: tuple[str, str, str], number: np.ndarray) -> dict[str, Any]:
    """What `Bootstrapped` holds of the films that a metric is over, and of their patients."""
    films, needed, metric = values.films(*key), values.needed(*key), METRICS[key[2]]
    of_films: dict[str, Any] = {
        "n": int(films.sum()),
        "positives": int((films & needed[0]).sum()) if metric.both_classes else None,
        "patients": min(len(np.unique(number[each])) for each in needed),
        "too_few": any(too_few(number[each]) for each in needed),
    }
    if metric.kind != "proportion":
        alike = min(alike_films(number[each]) if each.any() else np.nan for each in needed)
        return of_films | {"effective": alike}
    if not films.any():
        return of_films
    each = values.of_films(*key)
    effective = effective_films(each[films], number[films])
    return of_films | {"films": films, "values": each, "effective": effective}


def _ranked(
    cases: Cases, values: MetricValues, key: tuple[str, str, str], number: np.ndarray
) -> tuple[Ranked, ...]:
    """The scores of an AUROC or of a difference of two; none of another metric, or of unknown scores."""
    films, (positive, *_) = values.films(*key), values.needed(*key)
    columns = [cases.column(name)[films] for name in METRICS[key[2]].auroc_of]
    if not films.any() or not all(np.isfinite(each).all() for each in columns):
        return ()
    return tuple(Ranked(each, positive[films], number[films]) for each in columns)


def _by_patients(
    cases: Cases, values: MetricValues, key: tuple[str, str, str], number: np.ndarray
) -> tuple[float, float] | None:
    """The interval by patients of a metric that has one; None of another, or without both classes."""
    made_by, films, (positive, *_) = METRICS[key[2]].by_patients, values.films(*key), values.needed(*key)
    if made_by is None or not positive.any() or not (films & ~positive).any():
        return None
    return made_by(cases.probability[films], positive[films], number[films])


# --- the table -------------------------------------------------------------------------------------


def metric_rows(
    found: Mapping[str, Mapping[Key, Bootstrapped]],
    interval: Interval = "percentile",
    prevalence: float | None = None,
) -> list[dict[str, Any]]:
    """The tidy table: one row a metric, for each system, reference, decision and stratum.

    Proportions get Wilson's interval at their effective number of films, AUROCs that of `auroc`. Where no
    resample differs, a percentile or BCa interval would have no width: at 0 or 1, the ends of its range, a
    metric gets Wilson's, elsewhere none. Descriptive metrics and metrics over too few films get none.

    Args:
        found: What `bootstrap` found, by reference.
        interval: Kind of interval, as given to `bootstrap`.
        prevalence: Prevalence, as given to `bootstrap`.

    Returns:
        Rows with `system, reference, decision, stratum, metric, n, positives, estimate, ci_low, ci_high,
        interval, note`, by system, then reference; `positives` is None where one class is enough. An estimate
        or an end of an interval that is not there is None, `interval` then `none`; `tp, fp, fn, tn` are whole
        numbers.
    """
    rows = [
        {"system": system, "reference": reference, "decision": decision, "stratum": stratum}
        | estimate_columns(metric, bootstrapped, interval, prevalence)
        for reference, of_reference in found.items()
        for (system, decision, stratum, metric), bootstrapped in of_reference.items()
    ]
    order = list(dict.fromkeys(row["system"] for row in rows))
    return sorted(rows, key=lambda row: order.index(row["system"]))  # stable: references stay in order


def estimate_columns(
    metric: str,
    bootstrapped: Bootstrapped,
    interval: Interval = "percentile",
    prevalence: float | None = None,
) -> dict[str, Any]:
    """The columns of `metric_rows` from `metric` on, of one estimate."""
    declared = METRICS[metric]
    kind, ends, notes = "none", None, []
    estimate: float | None = None if np.isnan(bootstrapped.estimate) else bootstrapped.estimate
    if declared.case_mix:
        notes.append("conditional on the case mix")
    if declared.at_prevalence:
        notes.append(f"at prevalence {prevalence:g}")
    if declared.kind == "count":
        estimate = int(bootstrapped.estimate)
    elif estimate is None and (bootstrapped.rates is None or bootstrapped.too_few):
        notes.append(NOT_ESTIMABLE)
    elif declared.descriptive:
        notes.append("describes the films")
    elif bootstrapped.too_few:
        notes.append(TOO_FEW)
    else:
        # Also without an estimate: a ratio by none has no value, but a lower end.
        kind, ends = ends_of(metric, bootstrapped, interval)
        if ends is None:
            kind = "none"
            notes.append("interval not estimable")
        if estimate is None:
            notes.append(NOT_ESTIMABLE)
    low, high = ends or (None, None)
    if high == math.inf:
        high = None
        notes.append("no upper end")
    return {
        "metric": metric,
        "n": bootstrapped.n,
        "positives": bootstrapped.positives,
        "estimate": estimate,
        "ci_low": low,
        "ci_high": high,
        "interval": kind,
        "note": "; ".join(notes),
    }


def ends_of(
    metric: str, bootstrapped: Bootstrapped, interval: Interval = "percentile"
) -> tuple[str, tuple[float, float] | None]:
    """Kind and ends of the interval of an estimate over enough films, as `metric_rows` says."""
    if bootstrapped.rates is not None and (from_rates := METRICS[metric].interval):
        return "koopman" if bootstrapped.independent else "koopman, effective n", from_rates(
            bootstrapped.rates
        )
    if METRICS[metric].kind == "proportion":
        return _wilson(bootstrapped)
    if bootstrapped.ranked:
        return auroc_ends(*bootstrapped.ranked)
    if bootstrapped.by_patients:
        return "sandwich", bootstrapped.by_patients
    replicates = bootstrapped.replicates
    if interval == "bca":
        ends = bca_interval(bootstrapped.estimate, replicates, bootstrapped.acceleration)
    else:
        ends = percentile_interval(replicates, bootstrapped.patients)
    if ends is None or ends[0] < ends[1]:
        return interval, ends
    # No resample differs, which says nothing of other films. Of all values from 0 to 1 with this mean,
    # zeros and ones vary most (Hoeffding, J Am Stat Assoc 1963;58:13-30): an interval of those will do.
    if METRICS[metric].in_unit and bootstrapped.estimate in (0, 1):
        return _wilson(bootstrapped)
    return "none", None


def _wilson(bootstrapped: Bootstrapped) -> tuple[str, tuple[float, float]]:
    n = bootstrapped.effective
    kind = "wilson" if bootstrapped.independent else "wilson, effective n"
    successes = bootstrapped.estimate * n
    whole = round(successes)  # the number itself, where the product is off by a rounding error
    return kind, wilson_interval(whole if abs(successes - whole) < 1e-9 else successes, n)


def auroc_ends(first: Ranked, second: Ranked | None = None) -> tuple[str, tuple[float, float]]:
    """Kind and ends of the interval of an AUROC, or of a first one minus a second one of the same films."""
    if second is None:
        return "delong, newcombe", auroc_interval(first)
    return "delong", auroc_difference_interval(first, second)
