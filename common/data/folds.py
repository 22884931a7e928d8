"""Who is in which part: patient-grouped folds, and the validation part of pre-training.

Both depend on the order of the films in the set and on the seed, never on the pseudonyms (whose key
differs between machines): patients are numbered by first appearance.
"""

from __future__ import annotations

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from common.artefacts import N_FOLDS
from common.refusal import Refusal

LARGE = (1000, 4000)  # positives, negatives from which on the validation part has a fixed size
LARGE_VALIDATION = (200, 800)


def _by_appearance(patients: np.ndarray) -> np.ndarray:
    """Number patients 0, 1, ... in the order in which they appear; (n,) int."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(patient, len(numbers)) for patient in patients], dtype=int)


def assign_folds(positive: np.ndarray, patients: np.ndarray, seed: int = 0) -> np.ndarray:
    """Split films into five folds, stratified by label, every patient in one fold.

    Args:
        positive: (n,) bool.
        patients: (n,) identifiers.
        seed: Of the shuffle.

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
    folds = np.empty(len(positive), dtype=int)
    # Shuffled here: StratifiedGroupKFold(shuffle=True) before scikit-learn 1.8 shuffles the label counts of
    # the patients without the patients, which undoes the stratification.
    shuffled = np.argsort(np.random.RandomState(seed).permutation(groups.max() + 1))[groups]
    for fold, (_, held_out) in enumerate(StratifiedGroupKFold(N_FOLDS).split(groups, positive, shuffled)):
        folds[held_out] = fold
    for fold in range(N_FOLDS):
        if len(np.unique(positive[folds == fold])) < 2:
            raise Refusal(f"fold {fold} would hold films of one class only", do="bring more patients")
    return folds


def choose_validation(positive: np.ndarray, patients: np.ndarray, seed: int = 0) -> np.ndarray:
    """Choose the validation films of pre-training.

    200 positives and 800 negatives of a seeded shuffle when the set has at least 1,000 and 4,000, else a
    fifth of each, at least one. A patient's films stay together, so the counts can be exceeded by the last
    patient's further films.

    Args:
        positive: (n,) bool.
        patients: (n,) identifiers.
        seed: Of the shuffle.

    Returns:
        (n,) bool: True for validation.

    Raises:
        Refusal: A part would have no film of one class.
    """
    groups = _by_appearance(patients)
    counts = np.array([positive.sum(), (~positive).sum()])
    wanted = LARGE_VALIDATION if (counts >= LARGE).all() else np.maximum(counts // 5, 1)
    order = np.random.default_rng([seed, 0]).permutation(len(positive))
    validation = np.zeros(len(positive), dtype=bool)
    for label, target in zip((True, False), wanted, strict=True):
        for row in order[positive[order] == label]:
            if (validation & (positive == label)).sum() >= target:
                break
            validation |= groups == groups[row]
    for part in (validation, ~validation):
        if not positive[part].any() or positive[part].all():
            raise Refusal(
                "too few films to hold some out for validation",
                found=f"{counts[0]} positive and {counts[1]} negative films",
            )
    return validation
