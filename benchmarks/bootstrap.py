"""The intervals of a test set of the published size, beside a plain loop with scikit-learn.

    python benchmarks/bootstrap.py            the loop is timed on 20 replicates of each kind and scaled
    python benchmarks/bootstrap.py --quick    the same on 5
    python benchmarks/bootstrap.py --full     the whole loop (about a minute)

The work of the original's script: two systems, 1,071 films, 108 of them positive; AUROC, AUPRC, sensitivity,
specificity, PPV and NPV by 1,000 replicates in four strata (all, small, medium, large, each against all
negatives), and the mean Dice by 10,000 in four. The loop resamples films. Ours does so too (plain),
and as bootstrap.py does: patients, in two groups, the same draws for both systems, and both decisions instead
of one. Imports are excluded, and both use one thread. First, both are shown to give the same estimates and,
but for the chance of the draws, the same intervals.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score
from sklearn.utils import resample

from common.statistics.bootstrap import bootstrap, resample_counts
from common.statistics.intervals import percentile_interval
from common.statistics.metrics import MetricValues
from common.statistics.strata import STRATA, strata
from common.statistics.tested_films import Cases

FILMS, POSITIVES = 1_071, 108
CLASSIFICATION = ("auroc", "auprc", "sensitivity", "specificity", "ppv", "npv")
DICE = ("dice_segmentation",)
WORK = ((CLASSIFICATION, 1_000), (DICE, 10_000))
GOAL, GOAL_PLAIN = 40, 100
ROUNDS = 5

Found = dict[tuple[str, str, str], np.ndarray]  # replicates by system, stratum, metric


def test_set(seed: int) -> dict[str, Cases]:
    """Two systems' results on the same films, one film a patient."""
    rng = np.random.default_rng(seed)
    positive = rng.permutation(FILMS) < POSITIVES
    area = np.where(positive, rng.choice([0.015, 0.05, 0.12], FILMS), np.nan)
    name = np.arange(FILMS).astype(str)
    systems = {}
    for system in ("eff", "vit"):
        probability = 1 / (1 + np.exp(-rng.normal(4.0 * positive - 2, 1.5)))
        called = probability >= 0.5
        dice = np.where(positive, rng.beta(4, 2, FILMS), np.nan)
        systems[system] = Cases(name, name, positive, positive, area, probability, called, called, dice)
    return systems


# --- the loop --------------------------------------------------------------------------------------


def classification(truth: np.ndarray, score: np.ndarray, called: np.ndarray) -> tuple[float, ...]:
    tn, fp, fn, tp = confusion_matrix(truth, called, labels=[False, True]).ravel()
    return (
        roc_auc_score(truth, score),
        average_precision_score(truth, score),
        tp / (tp + fn),
        tn / (tn + fp),
        tp / (tp + fp),
        tn / (tn + fn),
    )


def loop(systems: dict[str, Cases], metrics: tuple[str, ...], replicates: int) -> Found:
    """Each system, stratum and replicate in turn."""
    found: Found = {}
    for system, cases in systems.items():
        for stratum, films in list(strata(cases, "mask").items())[: len(STRATA)]:
            kept = np.flatnonzero(films & cases.has_mask if metrics == DICE else films)
            rows: list[tuple[float, ...]] = []
            for seed in range(replicates):
                drawn = resample(kept, random_state=seed)
                if metrics == DICE:
                    rows.append((cases.dice_segmentation[drawn].mean(),))
                else:
                    columns = cases.has_mask, cases.probability, cases.two_stage
                    rows.append(classification(*(column[drawn] for column in columns)))
            for metric, values in zip(metrics, np.array(rows).T, strict=True):
                found[system, stratum, metric] = values
                np.quantile(values, [0.025, 0.975])
    return found


# --- ours ------------------------------------------------------------------------------------------


def plain(systems: dict[str, Cases], metrics: tuple[str, ...], replicates: int) -> Found:
    """Films are resampled: each its own patient, all in one group."""
    cases = systems["eff"]
    prepared = {system: MetricValues(each, "mask", metrics=metrics) for system, each in systems.items()}
    blocks = [
        {system: values.values(counts) for system, values in prepared.items()}
        for counts in resample_counts(cases.case, np.zeros(len(cases), dtype=bool), replicates, 0)
    ]
    found = {
        (system, stratum, metric): np.concatenate(
            [block[system]["two_stage", stratum, metric] for block in blocks]
        )
        for system in systems
        for stratum in STRATA
        for metric in metrics
    }
    for values in found.values():
        percentile_interval(values, len(cases))
    return found


def patients(systems: dict[str, Cases], metrics: tuple[str, ...], replicates: int) -> Found:
    """As bootstrap.py does."""
    found = {}
    drawn = bootstrap(systems, "mask", replicates, 0, metrics=metrics)
    for (system, decision, stratum, metric), bootstrapped in drawn.items():
        percentile_interval(bootstrapped.replicates, bootstrapped.patients)
        if decision == "two_stage":
            found[system, stratum, metric] = bootstrapped.replicates
    return found


# --- side by side ----------------------------------------------------------------------------------


def seconds(run: Callable[[], object]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def check(systems: dict[str, Cases]) -> None:
    """The loop's intervals from 100 replicates lie where ours from 2,000 do."""
    for metrics in (CLASSIFICATION, DICE):
        slow, fast = loop(systems, metrics, 100), plain(systems, metrics, 2_000)
        for key, values in slow.items():
            error = fast[key].std() / np.sqrt(100)
            assert abs(values.mean() - fast[key].mean()) < 5 * error, key
            assert 0.6 < values.std() / fast[key].std() < 1.6, key


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="time 5 replicates of the loop")
    parser.add_argument("--full", action="store_true", help="time every replicate of the loop")
    arguments = parser.parse_args()
    systems = test_set(0)
    if not arguments.quick:
        check(systems)
    timed = 5 if arguments.quick else 20
    sample = (
        {name: each for name, each in WORK}
        if arguments.full
        else dict.fromkeys((CLASSIFICATION, DICE), timed)
    )
    times: dict[str, list[float]] = {"loop": [], "plain": [], "patients": []}
    for _ in range(1 if arguments.full else ROUNDS):
        times["loop"].append(
            sum(seconds(partial(loop, systems, m, sample[m])) * n / sample[m] for m, n in WORK)
        )
        for name, run in (("plain", plain), ("patients", patients)):
            times[name].append(sum(seconds(partial(run, systems, m, n)) for m, n in WORK))
    best = {name: min(each) for name, each in times.items()}
    scaled = "" if arguments.full else f", scaled from {timed} replicates"
    print(f"scikit-learn loop, films resampled{scaled}: {best['loop']:.1f} s")
    print(f"ours, films resampled: {best['plain']:.3f} s, {best['loop'] / best['plain']:.0f} times as fast "
          f"(goal >= {GOAL_PLAIN})")  # fmt: skip
    print(f"ours, patients resampled in two groups: {best['patients']:.3f} s")
    print(f"bootstrap: {best['loop'] / best['patients']:.1f} (goal >= {GOAL})")


if __name__ == "__main__":
    main()
