"""Who is in which part: patient-grouped folds, and the validation part of pre-training.

Both depend on the order of the films in the set and on the seed, never on the pseudonyms (whose key
differs between machines): patients are numbered by first appearance.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from common.refusal import Refusal
from common.stages import N_FOLDS

LARGE = (1000, 4000)  # positives, negatives from which on the validation part has a fixed size
LARGE_VALIDATION = (200, 800)


def _by_appearance(patients: np.ndarray) -> np.ndarray:
    """Number patients 0, 1, ... in the order in which they appear; (n,) int."""
    return pd.factorize(patients)[0]


def assign_folds(positive: np.ndarray, patients: np.ndarray, seed: int = 0) -> np.ndarray:
    """Split films into five folds, stratified by label, every patient in one fold.

    Args:
        positive: (n,) bool, whether the film is positive.
        patients: (n,) identifiers of the films' patients.
        seed: Seed of the shuffle.

    Returns:
        (n,) int: the fold that holds each film out.

    Raises:
        Refusal: Too few patients for every fold to have positives and negatives.
    """
    groups = _by_appearance(patients)
    for name, label in (("positive", True), ("negative", False)):
        count = len(np.unique(groups[positive == label]))
        if count < N_FOLDS:
            raise Refusal(
                f"{N_FOLDS} folds need at least {N_FOLDS} patients with {name} films",
                found=f"{count} such patients",
            )
    folds = _deal(np.bincount(groups, positive), np.bincount(groups, ~positive), seed)[groups]
    for fold in range(N_FOLDS):
        if len(np.unique(positive[folds == fold])) < 2:
            raise Refusal(f"fold {fold} would hold films of one class only", do="bring more patients")
    return folds


def _deal(positives: np.ndarray, negatives: np.ndarray, seed: int) -> np.ndarray:
    """Give shuffled patients, those with the most films first, each to the fold that lacks its films most.

    In that fold the sum of squared shares of all positives and of all negatives grows least. (The greedy way
    of scikit-learn's StratifiedGroupKFold, which takes 0.1 ms a patient and whose shuffle loses the
    stratification before version 1.8.)

    Args:
        positives: (patients,) int, number of positive films of each patient.
        negatives: (patients,) int, number of negative films of each patient.
        seed: Seed of the shuffle.

    Returns:
        (patients,) int: the fold of each.
    """
    shuffled = np.random.default_rng(seed).permutation(len(positives))
    films = positives + negatives
    # Large patients first: once the folds are nearly full, only small ones can still even them out.
    order = shuffled[np.argsort(-films[shuffled], kind="stable")]
    weights = [1 / max(kind.sum(), 1) ** 2 for kind in (positives, negatives)]
    held_positive, held_negative = [0.0] * N_FOLDS, [0.0] * N_FOLDS
    folds = np.empty(len(positives), dtype=int)
    for patient, p, n in np.stack([order, positives[order], negatives[order]], axis=1).astype(int).tolist():
        # (h + p)^2 - h^2 = 2 h p + p^2, and p^2 is the same whichever fold it is.
        growth = [
            p * held_positive[k] * weights[0] + n * held_negative[k] * weights[1] for k in range(N_FOLDS)
        ]
        fold = growth.index(min(growth))
        held_positive[fold] += p
        held_negative[fold] += n
        folds[patient] = fold
    return folds


def choose_validation(positive: np.ndarray, patients: np.ndarray, seed: int = 0) -> np.ndarray:
    """Choose the validation films of pre-training.

    200 positives and 800 negatives when the set has at least 1,000 and 4,000, else a fifth of each, at least
    one; as near to these as whole patients allow. Patients are taken in a seeded order, those with a positive
    first, each only where neither count is exceeded. Were they drawn film by film, patients with many films
    would crowd the few that validate.

    Args:
        positive: (n,) bool, whether the film is positive.
        patients: (n,) identifiers of the films' patients.
        seed: Seed of the order.

    Returns:
        (n,) bool: True for validation.

    Raises:
        Refusal: A part would have no film of one class.
    """
    groups = _by_appearance(patients)
    films = np.stack([np.bincount(groups, positive), np.bincount(groups, ~positive)], axis=1).astype(int)
    counts = films.sum(axis=0)
    wanted = np.array(LARGE_VALIDATION) if (counts >= LARGE).all() else np.maximum(counts // 5, 1)
    shuffled = np.random.default_rng([seed, 0]).permutation(len(films))
    # With a positive first: they are rare, and bring negatives along, of which there are enough.
    order = shuffled[np.argsort(films[shuffled, 0] == 0, kind="stable")]
    taken = np.zeros(len(films), dtype=bool)
    held = np.zeros(2, dtype=int)
    # First whoever fits; then, where films are lacking, one patient who does not quite.
    for patient in order:
        if (held + films[patient] <= wanted).all():
            taken[patient] = True
            held += films[patient]
    for label in (0, 1):
        _complete(taken, films, wanted, label, order)
    validation = taken[groups]
    for part in (validation, ~validation):
        if not positive[part].any() or positive[part].all():
            raise Refusal(
                "too few films to hold some out for validation",
                found=f"{counts[0]} positive and {counts[1]} negative films of {len(films)} patients",
            )
    return validation


def _complete(
    taken: np.ndarray, films: np.ndarray, wanted: np.ndarray, label: int, order: np.ndarray
) -> None:
    """Take one more patient where a label lacks films that only a patient with too many has.

    Args:
        taken: (patients,) bool; the patient is added here.
        films: (patients, 2) films of each: positive, negative.
        wanted: (2,) films to take.
        label: Column of the label, 0 or 1.
        order: (patients,) all of them, in which the first of equals is taken.
    """
    held = films[taken].sum(axis=0)
    others = [patient for patient in order if not taken[patient] and films[patient, label]]
    if held[label] >= wanted[label] or not others:
        return

    def distance(counts: np.ndarray) -> float:
        return float((abs(counts - wanted) / wanted).sum())

    nearest = min(others, key=lambda patient: distance(held + films[patient]))
    if not held[label] or distance(held + films[nearest]) < distance(held):
        taken[nearest] = True
