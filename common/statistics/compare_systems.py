"""One system against the other on the same films: differences with intervals, and tests.

A difference is the first system's estimate minus the second's, on the full sample; its interval is from the
differences of replicates that come from the same draws, or, on the same films, Tango's for proportions and
DeLong's, by patients, for AUROCs. A proportion of other films, such as a PPV, has its interval joined from
those of both systems and their correlation. Replicates that do not differ give no interval without width:
where neither system's do, the difference is joined from their own, as independent ones; else there is none.
Tests are made in stratum `all` only: in a stratum the interval of the difference says what there is to say.

Where every patient has one film, AUROC is tested by DeLong's method, sensitivity and specificity by McNemar's
mid-p test. With several films of a patient the bootstrap of patients takes DeLong's place, as it always does
for `dice_positives`, and McNemar's score test is at the effective number of films, as Tango's interval is
(Eliasziw & Donner, Stat Med 1991;10:1981-1991). The column `test` says which it was. Holm's adjustment is
over `FAMILY` only; every other p-value is unadjusted and exploratory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from common.stages import STUDENTS, SYSTEMS
from common.statistics.auroc import placements
from common.statistics.bootstrap import (
    NOT_ESTIMABLE,
    TOO_FEW,
    Bootstrapped,
    auroc_ends,
    ends_of,
    patient_numbers,
)
from common.statistics.intervals import (
    effective_films,
    joined_interval,
    mean_by_patient,
    percentile_interval,
    percentile_p,
    tango_interval,
)
from common.statistics.metric_catalogue import METRICS
from common.statistics.tested_films import Cases

PAIR = "-".join(SYSTEMS)
# Reference, decision, stratum, metric: the primary comparisons of the pair, chosen before any result.
FAMILY = (
    ("mask", "two_stage", "all", "auroc"),
    ("mask", "two_stage", "all", "sensitivity"),
    ("mask", "two_stage", "all", "specificity"),
    ("mask", "two_stage", "all", "dice_positives"),
)
DELONG = "DeLong"
MCNEMAR = "McNemar, mid-p"
MCNEMAR_EFFECTIVE = "McNemar, effective n"
BOOTSTRAP = "bootstrap of patients"
# The test of each metric that is tested, where every patient has one film.
_TESTS = {"auroc": DELONG, "sensitivity": MCNEMAR, "specificity": MCNEMAR, "dice_positives": BOOTSTRAP}


# --- tests -----------------------------------------------------------------------------------------


class DeLong(NamedTuple):
    """The first AUROC minus the second, its standard error, the two-sided p-value; NaN where undefined."""

    difference: float
    standard_error: float
    p: float


def delong(first: np.ndarray, second: np.ndarray, positive: np.ndarray) -> DeLong:
    """DeLong's test of two AUROCs on the same films (DeLong et al., Biometrics 1988;44:837-845).

    Where the placement values do not vary at all, p is 1 for equal AUROCs, else NaN.

    Args:
        first, second: Scores of the two systems, higher is more positive; finite, length n.
        positive: bool, length n; at least two of each class, else all is NaN.
    """
    m, n = int(positive.sum()), int((~positive).sum())
    if min(m, n) < 2:
        return DeLong(math.nan, math.nan, math.nan)
    # Differenced before the division, so that equal placements cancel exactly.
    wins = placements(first, positive) - placements(second, positive)
    by_positive, by_negative = wins[positive] / n, wins[~positive] / m  # the latter but for its sign
    difference = float(by_positive.mean())
    variance = by_positive.var(ddof=1) / m + by_negative.var(ddof=1) / n
    if np.ptp(by_positive) == 0 and np.ptp(by_negative) == 0:
        return DeLong(difference, 0.0, 1.0 if difference == 0 else math.nan)
    standard_error = math.sqrt(variance)
    return DeLong(difference, standard_error, math.erfc(abs(difference) / standard_error / math.sqrt(2)))


def mcnemar(only_first: int, only_second: int) -> float:
    """McNemar's test (Psychometrika 1947;12:153-157) with the mid-p-value, two-sided.

    The binomial probability of a split of the discordant films that is more uneven, and half of that of one
    as uneven, if each fell to either side with probability 1/2: nearer to its level than the exact test,
    which rejects too rarely (Fagerland et al., BMC Med Res Methodol 2013;13:91). Without a discordant film
    it is 1.

    Args:
        only_first, only_second: Numbers of films that only the first, or only the second, called right.
    """
    discordant, fewer = only_first + only_second, min(only_first, only_second)
    if not discordant:
        return 1.0
    # Whole numbers up to the division: powers of 1/2 would run out of range with many films.
    ways = 2 * sum(math.comb(discordant, k) for k in range(fewer + 1)) - math.comb(discordant, fewer)
    return min(1.0, ways / 2**discordant)


class Paired(NamedTuple):
    """How two systems called the same films.

    Attributes:
        only_first: Films that only the first called right.
        only_second: Films that only the second called right.
        films: Films of both.
        effective: Number of independent films that tell as much of the difference.
    """

    only_first: int
    only_second: int
    films: int
    effective: float

    @property
    def interval(self) -> tuple[float, float]:
        """Tango's interval of the first's proportion minus the second's."""
        weight = self.effective / self.films
        return tango_interval(self.only_first * weight, self.only_second * weight, self.effective)

    @property
    def score_p(self) -> float:
        """Two-sided p-value of McNemar's score test at the effective number of films."""
        discordant = self.only_first + self.only_second
        if not discordant:
            return 1.0
        squared = (self.only_first - self.only_second) ** 2 / discordant * self.effective / self.films
        return math.erfc(math.sqrt(squared / 2))


def paired(one: Bootstrapped, other: Bootstrapped, patient: np.ndarray) -> Paired | None:
    """How two systems called the same films; None for what is no proportion of the same films of 0 or 1 each.

    Args:
        one, other: A metric of the two.
        patient: (n,) pseudonym of each film's patient.
    """
    if one.films is None or other.films is None or one.values is None or other.values is None:
        return None
    if not np.array_equal(one.films, other.films):
        return None
    difference = (one.values - other.values)[one.films]
    if not np.isin(difference, (-1, 0, 1)).all():
        return None
    first, second = (int(np.count_nonzero(difference == side)) for side in (1, -1))
    number = patient_numbers(patient[one.films])
    return Paired(first, second, len(difference), effective_films(difference, number))


def of_replicates(
    metric: str, one: Bootstrapped, other: Bootstrapped
) -> tuple[str, tuple[float, float] | None]:
    """Kind and ends of the interval of a difference from its replicates; see above where these are all equal.

    Args:
        metric: Name of the metric.
        one, other: The metric of the two, or of one system in two groups of films.
    """
    ends = percentile_interval(one.replicates - other.replicates, min(one.patients, other.patients))
    kind = "percentile"
    if ends and ends[0] == ends[1]:
        alone = [np.nanmin(side.replicates) == np.nanmax(side.replicates) for side in (one, other)]
        kind, ends = "newcombe", joined(metric, one, other) if all(alone) else None
    return (kind if ends else "none"), ends


def joined(
    metric: str, one: Bootstrapped, other: Bootstrapped, correlation: float = 0.0
) -> tuple[float, float] | None:
    """The interval of a difference from both sides' own; None where one of them has none.

    Args:
        metric: Name of the metric.
        one, other: The metric of the two, or of one system in two groups of films.
        correlation: Correlation of the two estimates; without it the interval is a little too wide.
    """
    (_, first), (_, second) = ends_of(metric, one), ends_of(metric, other)
    if first is None or second is None:
        return None
    return joined_interval(one.estimate, first, other.estimate, second, correlation)


def correlation(one: Bootstrapped, other: Bootstrapped, patient: np.ndarray) -> float:
    """How alike two proportions are, over the same films or others, by patients; 0 where one does not vary.

    Args:
        one, other: Two proportions that are estimable.
        patient: (n,) pseudonym of each film's patient.
    """
    number = patient_numbers(patient)
    first, second = (
        mean_by_patient(side.values[side.films] - side.estimate, number[side.films], int(number.max()) + 1)
        for side in (one, other)
        if side.films is not None and side.values is not None
    )
    variances = float(first @ first) * float(second @ second)
    return min(max(float(first @ second) / math.sqrt(variances), -1.0), 1.0) if variances > 1e-24 else 0.0


def bootstrap_p(differences: np.ndarray, patients: int) -> float:
    """Two-sided p-value from replicates of a difference, as their percentile interval would reject 0.

    From the smaller share on either side of 0, 0 itself on both, with the replicate that was observed added
    (Davison & Hinkley, Bootstrap Methods and their Application, 1997, section 4.2), so never 0; with many
    patients it is twice that share.

    Args:
        differences: (resamples,) float64, difference in each resample; NaN where undefined.
        patients: As in `percentile_interval`.

    Returns:
        NaN where too many replicates are undefined, as in `percentile_interval`.
    """
    if percentile_interval(differences, patients) is None:
        return math.nan
    defined = differences[~np.isnan(differences)]
    smaller = min(np.count_nonzero(defined <= 0), np.count_nonzero(defined >= 0))
    return percentile_p(min(0.5, (1 + smaller) / (1 + len(defined))), patients)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (Scandinavian Journal of Statistics 1979;6:65-70).

    Args:
        p: P-values of a family; a test that could not be made (NaN) still counts as one, with p = 1.

    Returns:
        Adjusted p-values in the same order; NaN stays NaN.
    """
    filled = [1.0 if math.isnan(value) else value for value in p]
    adjusted, largest = [math.nan] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=filled.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - rank) * filled[i]))
        adjusted[i] = math.nan if math.isnan(p[i]) else largest
    return adjusted


# --- rows ------------------------------------------------------------------------------------------


def comparison_rows(
    systems: Mapping[str, Cases], found: Mapping[tuple[str, str, str, str], Bootstrapped], reference: str
) -> list[dict[str, Any]]:
    """The rows of the pair `eff-vit`, and of a student with its system, such as `eff_student-eff`.

    Args:
        systems: Results on the same films in the same order, by system.
        found: Output of `bootstrap` for these systems under the reference.
        reference: `mask`, `report` or `mask_or_clear`.

    Returns:
        Rows as `pair_rows` gives them, `p_holm` filled in for `FAMILY` of `eff-vit`; none where one of a pair
        is not there.
    """
    rows = []
    for pair in STUDENTS.items():
        if set(pair) <= set(systems):
            rows += pair_rows({system: systems[system] for system in pair}, found, reference)
    return rows + _family_rows(systems, found, reference)


def _family_rows(
    systems: Mapping[str, Cases], found: Mapping[tuple[str, str, str, str], Bootstrapped], reference: str
) -> list[dict[str, Any]]:
    """The rows of `eff-vit`, with Holm's adjustment."""
    if not set(SYSTEMS) <= set(systems):
        return []
    rows = pair_rows({system: systems[system] for system in SYSTEMS}, found, reference)
    by_key = {(row["reference"], row["decision"], row["stratum"], row["metric"]): row for row in rows}
    _fill_in(row for key in FAMILY if (row := by_key.get(key)))
    return rows


def fill_in_holm(rows: Iterable[dict[str, Any]]) -> None:
    """Adjust the p-values of some rows: of what was tested against `mask`, over all films, as one family."""
    of_all = ("mask", "all")
    _fill_in(row for row in rows if row["test"] and (row["reference"], row["stratum"]) == of_all)


def _fill_in(rows: Iterable[dict[str, Any]]) -> None:
    """Adjust the p-values of these rows, a family."""
    family = list(rows)
    p = [math.nan if row["p_value"] is None else row["p_value"] for row in family]
    for row, adjusted in zip(family, holm(p), strict=True):
        row["p_holm"] = _known(adjusted)


def pair_rows(
    pair: Mapping[str, Cases], found: Mapping[tuple[str, str, str, str], Bootstrapped], reference: str
) -> list[dict[str, Any]]:
    """The first of two against the second, in every metric that both have and that can be subtracted.

    Args:
        pair: Results of two, in this order, on the same films in the same order, by name.
        found: Metrics by (name, decision, stratum, metric), their replicates from the same draws.
        reference: `mask`, `report` or `mask_or_clear`.

    Returns:
        Rows with `system` (`first-second`), `reference, decision, stratum, metric, n, positives, estimate,
        ci_low, ci_high, interval, note, p_value, p_holm, test`. What is not estimable or was not tested is
        None, and `interval` then `none`; `p_holm` is None throughout. `n` is the films that the estimate is
        over, the smaller number where the two differ, and the note then gives both.
    """
    first, second = pair
    rows = []
    for (name, decision, stratum, metric), one in found.items():
        other = found.get((second, decision, stratum, metric))
        if name != first or other is None or not METRICS[metric].compared:
            continue
        row = {"system": f"{first}-{second}", "reference": reference, "decision": decision}
        row |= {"stratum": stratum, "metric": metric, **_difference(pair, metric, one, other)}
        # Where films are too few for an interval, they are for a test.
        if stratum == "all" and metric in _TESTS and row["interval"] != "none":
            _add_test(row, pair, one, other)
        rows.append(row)
    return rows


def _difference(
    pair: Mapping[str, Cases], metric: str, one: Bootstrapped, other: Bootstrapped
) -> dict[str, Any]:
    """The columns from `n` on, without a test."""
    first, second = pair
    estimate = _known(one.estimate - other.estimate)
    notes = [f"n is {one.n} for {first}, {other.n} for {second}"] if one.n != other.n else []
    if METRICS[metric].case_mix:
        notes.append("conditional on the case mix")
    kind, ends = "none", None
    calls = paired(one, other, pair[first].patient)
    # What is known of the films as pairs goes first; the bootstrap, which needs nothing, is the last resort.
    if estimate is None:
        notes.append(NOT_ESTIMABLE)
    elif one.too_few or other.too_few:
        notes.append(TOO_FEW)
    elif calls:
        kind, ends = "tango" if one.independent else "tango, effective n", calls.interval
    elif one.ranked and other.ranked:
        kind, ends = auroc_ends(*one.ranked, *other.ranked)
    elif METRICS[metric].kind == "proportion":
        kind = "newcombe" if one.independent else "newcombe, effective n"
        ends = joined(metric, one, other, correlation(one, other, pair[first].patient))
    else:
        kind, ends = of_replicates(metric, one, other)
        notes += [] if ends else ["interval not estimable"]
    low, high = ends or (None, None)
    return {
        "n": min(one.n, other.n),
        "positives": (one if one.n <= other.n else other).positives,
        "estimate": estimate,
        "ci_low": low,
        "ci_high": high,
        "interval": kind,
        "note": "; ".join(notes),
        "p_value": None,
        "p_holm": None,
        "test": None,
    }


def _add_test(row: dict[str, Any], pair: Mapping[str, Cases], one: Bootstrapped, other: Bootstrapped) -> None:
    """Fill in `p_value` and `test`, and say in `note` what they rest on."""
    first, second = pair
    metric = row["metric"]
    calls = paired(one, other, pair[first].patient)
    test, note = _TESTS[metric], ""
    if calls and test == MCNEMAR:
        test, p = (test, mcnemar(*calls[:2])) if one.independent else (MCNEMAR_EFFECTIVE, calls.score_p)
        note = f"right in {first} only: {calls.only_first}, in {second} only: {calls.only_second}"
    elif test == DELONG and one.independent:
        (one_films,), (other_films,) = one.ranked, other.ranked
        p = delong(one_films.scores, other_films.scores, one_films.positive).p
    else:
        if test != BOOTSTRAP:
            note = f"bootstrap of patients in place of {test}: several films of a patient"
        test, p = BOOTSTRAP, bootstrap_p(one.replicates - other.replicates, min(one.patients, other.patients))
    if math.isnan(p):
        note = "no p-value: neither system's ranks vary"
    row["test"], row["p_value"] = test, _known(p)
    row["note"] = "; ".join(filter(None, (row["note"], note)))


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
