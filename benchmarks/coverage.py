"""How often the 95% intervals hold the truth, in simulated test sets whose truth is known.

    python benchmarks/coverage.py               2,000 data sets (--sets), 1,000 replicates each
    python benchmarks/coverage.py --quick       100 data sets
    python benchmarks/coverage.py --clustered   patients of one to three films, 1.3 on average
    python benchmarks/coverage.py --interval bca

Every data set has 1,071 films, 108 of them positive, as the hospital's test set. Two systems score and call
the same films. Everything is drawn through normal variables: a film's own and, where patients have several
films, its patient's (a third of the variance), correlated between the systems. Scores are binormal, so that
AUROC is Phi(d / sqrt 2). Calls are made with exactly the stated sensitivity and specificity; Dice is 0 with
probability 0.1, else Beta(4, 2). The call does not depend on the Dice, so the mean Dice of the positives as
shown is sensitivity times mean Dice.

The intervals are those of the project's own tables: Wilson's for proportions where every patient has one
film, else `--interval`; percentile for the difference of two systems. Gated are the metrics over at least 100
positives: coverage should be from 0.93 to 0.97. Reported only: 20 positives (stratum small), and rates near
1, where few errors cannot give 95% (a percentile interval of no error at all has no width). The standard
error beside each coverage is binomial, of the number of data sets; `none` counts data sets without interval.

The last line is the gated coverage that lies farthest from 0.95.
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

import numpy as np
from scipy.stats import beta, norm
from tqdm import tqdm

from common.command_line import Interval
from common.statistics.bootstrap import bootstrap, metric_rows
from common.statistics.compare_systems import PAIR, comparison_rows
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


# --- all of them -----------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="100 data sets")
    parser.add_argument("--sets", type=int, help="data sets (default 2000)")
    parser.add_argument("--replicates", type=int, default=1_000, help="of each interval (default 1000)")
    parser.add_argument("--clustered", action="store_true", help="patients of about 1.3 films")
    parser.add_argument("--interval", choices=("percentile", "bca"), default="percentile")
    parser.add_argument(
        "--workers", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores"
    )
    options = parser.parse_args()
    sets = options.sets or (100 if options.quick else 2_000)

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
