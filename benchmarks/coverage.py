"""How often the 95% intervals hold the truth, in simulated test sets whose truth is known.

    python benchmarks/coverage.py               2,000 data sets (--sets), 1,000 replicates each
    python benchmarks/coverage.py --quick       100 data sets
    python benchmarks/coverage.py --clustered   patients of one to three films, 1.3 on average
    python benchmarks/coverage.py --interval bca
    python benchmarks/coverage.py --auroc       the grid of AUROCs: 4,000 data sets a cell

Every data set has 1,071 films, 108 of them positive, as the hospital's test set. Two systems score and call
the same films. Everything is drawn through normal variables: a film's own and, where patients have several
films, its patient's (a third of the variance), correlated between the systems. Scores are binormal, so that
AUROC is Phi(d / sqrt 2). Calls are made with exactly the stated sensitivity and specificity; Dice is 0 with
probability 0.1, else Beta(4, 2). The call does not depend on the Dice, so the mean Dice of the positives as
shown is sensitivity times mean Dice.

The intervals are those of the project's own tables. Gated are the metrics over at least 100 positives, but
for rates near 1: coverage should be from 0.93 to 0.97. Reported only: 20 positives (stratum small), and rates
near 1, where few errors cannot give 95%. The standard error beside each coverage is binomial, of the number
of data sets; `none` counts data sets without interval. The last line is the gated coverage that lies farthest
from 0.95.

`--auroc` is of AUROCs alone: 10, 20 or 108 positives, AUROC 0.90, 0.95 or 0.97, none or 6% of the positives
missed, that is scored as negatives are, and patients of one or three films. Goals: coverage at least 0.90 in
each cell and 0.93 to 0.98 on average, at 108 positives at most 1.1 times the width of the bootstrap's
percentile interval (of the first sets, 1,000 replicates), and 0.92 to 0.98 for the difference of two AUROCs
at 20 positives, drawn as above.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one data set a process is faster than many threads at one
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import multiprocessing
from functools import partial
from itertools import product

import numpy as np
from scipy.stats import beta, norm
from tqdm import tqdm

from common.command_line import Interval
from common.statistics.auroc import Ranked, auroc_difference_interval, auroc_interval
from common.statistics.bootstrap import bootstrap, metric_rows, resample_counts
from common.statistics.compare_systems import PAIR, comparison_rows
from common.statistics.intervals import percentile_interval
from common.statistics.metrics import Ranks
from common.statistics.tested_films import Cases

SYSTEMS = ("eff", "vit")
FILMS, POSITIVES, SMALL = 1_071, 108, 20
DISTANCE = {"eff": 2.6, "vit": 2.3}  # of the scores' means, in standard deviations
RATES = {"two_stage": (0.85, 0.95), "stage_1": (0.98, 0.99)}  # sensitivity, specificity
NO_OVERLAP = 0.1  # probability that a lesion is missed altogether
SHAPE = (4, 2)  # of the Beta distribution of the other Dice values
BETWEEN_SYSTEMS = 0.6  # correlation of what two systems make of the same film
BETWEEN_FILMS = 1 / 3  # share of a patient in the variance of a film
A_PATIENT = (0.77, 0.16, 0.07)  # shares of patients with 1, 2 and 3 films
GOAL = (0.93, 0.97)
# The grid of AUROCs: positives, AUROC of those that are not missed, share that is missed, films a patient.
CELLS = tuple(product((10, 20, 108), (0.90, 0.95, 0.97), (0.0, 0.06), (1, 3)))
MANY = 108
LEAST, MEAN, WIDTH, DIFFERENCE = 0.90, (0.93, 0.98), 1.1, (0.92, 0.98)
BOOTSTRAPPED = 100  # sets of a cell whose percentile interval is computed, too


# --- the truth -------------------------------------------------------------------------------------


def truth() -> dict[tuple[str, str, str, str], float]:
    """The true value by (system, decision, stratum, metric) of everything that is reported."""
    auroc = {system: float(norm.cdf(distance / np.sqrt(2))) for system, distance in DISTANCE.items()}
    dice = (1 - NO_OVERLAP) * SHAPE[0] / sum(SHAPE)
    values = {}
    for stratum in ("all", "small"):
        values[PAIR, "two_stage", stratum, "auroc"] = auroc["eff"] - auroc["vit"]
        values["eff", "two_stage", stratum, "auroc"] = auroc["eff"]
        values["eff", "two_stage", stratum, "dice_segmentation"] = dice
        for decision, (sensitivity, _) in RATES.items():
            values["eff", decision, stratum, "sensitivity"] = sensitivity
            values["eff", decision, stratum, "dice_positives"] = dice * sensitivity
    for decision, (_, specificity) in RATES.items():
        values["eff", decision, "all", "specificity"] = specificity
        values[PAIR, decision, "all", "ppv"] = 0.0  # both have the same rates
    return values


def is_gated(key: tuple[str, str, str, str]) -> bool:
    """At least 100 positives, and no rate near 1."""
    return key[1:3] == ("two_stage", "all")


# --- one data set ----------------------------------------------------------------------------------


def simulate(rng: np.random.Generator, clustered: bool) -> dict[str, Cases]:
    """Both systems' results on the films of one data set."""
    films_of = 1 + rng.choice(3, FILMS, p=A_PATIENT) if clustered else np.ones(FILMS, dtype=int)
    patient = np.repeat(np.arange(FILMS), films_of)[:FILMS]
    positive = np.arange(FILMS) < POSITIVES  # at most one patient has films of both kinds
    area = np.where(np.arange(FILMS) < SMALL, 0.01, 0.1)

    def shared() -> dict[str, np.ndarray]:
        """Standard normal values of every film, correlated between the systems and within a patient."""
        common, *own = (_films_and_patients(rng, patient, clustered) for _ in range(1 + len(SYSTEMS)))
        weights = np.sqrt([BETWEEN_SYSTEMS, 1 - BETWEEN_SYSTEMS])
        return {system: weights @ [common, each] for system, each in zip(SYSTEMS, own, strict=True)}

    score, call, overlap = shared(), shared(), shared()
    found = {}
    for system in SYSTEMS:
        # The call of a film is right where its normal value lies below the quantile of its rate.
        calls = {
            decision: (call[system] < norm.ppf(np.where(positive, *rates))) == positive
            for decision, rates in RATES.items()
        }
        u = norm.cdf(overlap[system])
        dice = np.where(u < NO_OVERLAP, 0.0, beta.ppf((u - NO_OVERLAP).clip(0) / (1 - NO_OVERLAP), *SHAPE))
        found[system] = Cases(
            case=np.arange(FILMS).astype(str),
            patient=patient.astype(str),
            has_mask=positive,
            report=positive,
            mask_area_fraction=np.where(positive, area, np.nan),
            probability=norm.cdf((score[system] + positive * DISTANCE[system] - 1) / 2),  # ranks alone count
            dice_segmentation=np.where(positive, dice, np.nan),
            **calls,
        )
    return found


def _films_and_patients(rng: np.random.Generator, patient: np.ndarray, clustered: bool) -> np.ndarray:
    """Standard normal values, one a film; where clustered, films of a patient are alike."""
    of_film = rng.normal(size=FILMS)
    if not clustered:
        return of_film
    of_patient = rng.normal(size=FILMS)[patient]
    return np.sqrt(BETWEEN_FILMS) * of_patient + np.sqrt(1 - BETWEEN_FILMS) * of_film


def holds(number: int, clustered: bool, interval: Interval, replicates: int) -> list[float]:
    """Whether the interval of each metric of `truth` holds it: 1, 0, or NaN where there is none."""
    systems = simulate(np.random.default_rng([number, clustered]), clustered)
    metrics = {metric for *_, metric in truth()}
    bootstrapped = bootstrap(systems, "mask", replicates, number, interval, metrics=metrics)
    found = {
        (row["system"], row["decision"], row["stratum"], row["metric"]): (row["ci_low"], row["ci_high"])
        for row in metric_rows({"mask": bootstrapped}, interval)
        + comparison_rows(systems, bootstrapped, "mask")
    }
    outcome = []
    for key, value in truth().items():
        low, high = found[key]
        outcome.append(np.nan if low is None else float(low <= value <= high))
    return outcome


# --- the grid of AUROCs ----------------------------------------------------------------------------


def auroc_cell(
    cell: tuple[int, float, float, int], sets: int, replicates: int
) -> tuple[float, float, float, float]:
    """Coverage and mean width; of sets of many positives also that over the bootstrap's; of the difference.

    The second system has an AUROC of 0.95 where the first has 0.97, else one 0.05 lower.
    """
    positives, area, missed, films_of = cell
    rng = np.random.default_rng([positives, round(1000 * area), round(1000 * missed), films_of])
    other = area - (0.02 if area > 0.96 else 0.05)
    patient = np.r_[np.arange(positives) // films_of, FILMS + np.arange(FILMS - positives) // films_of]
    patient = np.unique(patient, return_inverse=True)[1]
    positive = np.arange(FILMS) < positives
    truth = (1 - missed) * area + missed / 2
    apart = (1 - missed) * (area - other)

    def shared() -> list[np.ndarray]:
        """Standard normal values of every film, correlated between two systems and within a patient."""
        common, *own = (_films_and_patients(rng, patient, films_of > 1) for _ in range(3))
        return [np.sqrt(BETWEEN_SYSTEMS) * common + np.sqrt(1 - BETWEEN_SYSTEMS) * each for each in own]

    held, width, differs, ratios = 0, 0.0, 0, []
    for number in range(sets):
        seen = [positive & (each > norm.ppf(missed)) for each in shared()]
        distance = [np.sqrt(2) * norm.ppf(each) for each in (area, other)]
        first, second = (
            Ranked(score + by * found, positive, patient)
            for score, by, found in zip(shared(), distance, seen, strict=True)
        )
        low, high = auroc_interval(first)
        held += low <= truth <= high
        width += high - low
        below, above = auroc_difference_interval(first, second)
        differs += below <= apart <= above
        if positives == MANY and number < BOOTSTRAPPED:
            ratios.append((high - low) / _percentile_width(first, number, replicates))
    return held / sets, width / sets, float(np.mean(ratios)) if ratios else np.nan, differs / sets


def _percentile_width(films: Ranked, seed: int, replicates: int) -> float:
    """Width of the percentile interval of the bootstrap of patients."""
    ranks = Ranks(films.scores, films.positive, ~films.positive)
    draws = resample_counts(films.patient.astype(str), films.positive, replicates, seed)
    found = np.concatenate([ranks.auroc(counts) for counts in draws])
    ends = percentile_interval(found, len(np.unique(films.patient[films.positive])))
    assert ends is not None
    return ends[1] - ends[0]


def auroc_grid(sets: int, replicates: int, workers: int) -> None:
    """Compute and print the grid."""
    work = partial(auroc_cell, sets=sets, replicates=replicates)
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        found = list(tqdm(pool.imap(work, CELLS), total=len(CELLS), desc="cells", disable=None))
    print(f"{sets:,} data sets a cell, {FILMS:,} films; the difference is of two systems on the same films")
    print("positives  AUROC  missed  films a patient  coverage  width  over percentile's  difference")
    for (positives, area, missed, films_of), (held, width, ratio, differs) in zip(CELLS, found, strict=True):
        over = "" if np.isnan(ratio) else f"{ratio:.3f}"
        print(
            f"{positives:9} {area:6.2f} {missed:7.2f} {films_of:16} {held:9.3f} {width:6.3f} {over:>18} "
            f"{differs:11.3f}"
        )
    held, _, ratio, differs = np.array(found).T
    few = differs[[cell[0] == 20 for cell in CELLS]]
    print(
        f"AUROC: coverage {held.min():.3f} at least (goal >= {LEAST}), {held.mean():.3f} on average (goal "
        f"{MEAN[0]} to {MEAN[1]}); width at {MANY} positives {np.nanmean(ratio):.3f} (goal <= {WIDTH}); "
        f"difference at 20 positives {few.min():.3f} to {few.max():.3f} (goal {DIFFERENCE[0]} to "
        f"{DIFFERENCE[1]})"
    )


# --- all of them -----------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="100 data sets")
    parser.add_argument("--sets", type=int, help="data sets (default 2000; of a cell 4000)")
    parser.add_argument("--replicates", type=int, default=1_000, help="of each interval (default 1000)")
    parser.add_argument("--clustered", action="store_true", help="patients of about 1.3 films")
    parser.add_argument("--interval", choices=("percentile", "bca"), default="percentile")
    parser.add_argument("--auroc", action="store_true", help="the grid of AUROCs")
    parser.add_argument(
        "--workers", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores"
    )
    options = parser.parse_args()
    sets = options.sets or (100 if options.quick else 4_000 if options.auroc else 2_000)
    if options.auroc:
        auroc_grid(sets, options.replicates, options.workers)
    else:
        whole_tables(sets, options)


def whole_tables(sets: int, options: argparse.Namespace) -> None:
    """Compute and print the coverage of the tables' intervals."""
    work = partial(
        holds, clustered=options.clustered, interval=options.interval, replicates=options.replicates
    )
    with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
        outcomes = list(tqdm(pool.imap(work, range(sets)), total=sets, desc="data sets", disable=None))
    held = np.array(outcomes)

    films = "patients of one to three films" if options.clustered else "one film a patient"
    print(f"{sets:,} data sets of {FILMS:,} films, {POSITIVES} positive, {films}, {options.interval}")
    print(f"{'':44} {'truth':>6} {'coverage':>9} {'s.e.':>6} {'none':>5}")
    gated = []
    for column, (key, value) in zip(held.T, truth().items(), strict=True):
        there = column[~np.isnan(column)]
        coverage = there.mean() if len(there) else np.nan
        error = np.sqrt(coverage * (1 - coverage) / len(there)) if len(there) else np.nan
        goal = "gated" if is_gated(key) else ""
        line = f"{' '.join(key):44} {value:6.3f} {coverage:9.4f} {error:6.4f} {sets - len(there):5} {goal}"
        print(line.rstrip())
        gated += [coverage] if goal else []
    worst = max(gated, key=lambda coverage: abs(coverage - 0.95))
    print(f"coverage: {worst:.4f} (goal >= {GOAL[0]} and <= {GOAL[1]})")


if __name__ == "__main__":
    main()
