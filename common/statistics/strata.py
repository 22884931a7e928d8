"""The films that a metric is over: all, the lesions of one size, the patients and devices of one kind.

A stratum by size is its positives against ALL negatives of the reference. A group (`sex F`, `age 40-59`) is
its own positives against its own negatives.
"""

from __future__ import annotations

import numpy as np

from common.statistics.tested_films import Cases

STRATA = ("all", "small", "medium", "large")
SIZE_EDGES = (0.032, 0.080)  # of the film's area: small < 0.032 <= medium < 0.080 <= large
AGE_EDGES = (20, 40, 60, 80)  # years; each group starts at its edge
UNKNOWN = "unknown"
_AGES = (f"0-{AGE_EDGES[0] - 1}", "20-39", "40-59", "60-79", "80+")


def strata(cases: Cases, reference: str) -> dict[str, np.ndarray]:
    """The films of each stratum under a reference.

    A film that is positive by report without a mask has no size: under `report` it is in `all` and in its
    groups only; under `mask_or_clear` it is nowhere. A variable with one value gives no group.

    Args:
        cases: Films of one system's result.
        reference: `mask` or `report`.

    Returns:
        bool arrays of length n, by name: STRATA, then the groups that occur.
    """
    positive, counted = cases.positive(reference), cases.counted(reference)
    sizes = lesion_sizes(cases.has_mask, cases.mask_area_fraction)
    sized = {name: ~positive | (sizes == name) for name in STRATA[1:]}
    found = {"all": np.ones(len(cases), dtype=bool), **sized, **groups(cases)}
    return {name: films & counted for name, films in found.items()}


def lesion_sizes(has_mask: np.ndarray, area_fraction: np.ndarray) -> np.ndarray:
    """The size of each film's lesion: `small`, `medium`, `large` or `none`, (n,) str.

    Args:
        has_mask: Annotated lesion, (n,) bool.
        area_fraction: Lesion area over film area, (n,) float64, 0-1; whatever it is without a mask.
    """
    names = np.array(STRATA[1:])[np.searchsorted(SIZE_EDGES, area_fraction, side="right").clip(max=2)]
    return np.where(has_mask, names, "none")


def groups(cases: Cases) -> dict[str, np.ndarray]:
    """The films of each group that occurs: bool arrays of length n, by name, `unknown` last of its kind."""
    return {
        f"{variable} {value}": values == value
        for variable, values in variables(cases).items()
        for value in sorted(set(values.tolist()), key=lambda value: (value == UNKNOWN, value))
    }


def variables(cases: Cases) -> dict[str, np.ndarray]:
    """The group of each film, (n,) str, by what films are grouped by; what has one value is left out."""
    found = {
        "sex": _or_unknown(cases.sex),
        "age": _age_group(cases.age),
        "view": _or_unknown(cases.view),
        "device": _or_unknown(cases.manufacturer),
    }
    if np.isfinite(cases.chest_tube).any():
        found["chest tube"] = _tube(cases.chest_tube)
    return {variable: values for variable, values in found.items() if len(set(values.tolist())) > 1}


def _or_unknown(names: np.ndarray) -> np.ndarray:
    return np.where(names == "", UNKNOWN, names)


def _age_group(age: np.ndarray) -> np.ndarray:
    names = np.array(_AGES)[np.searchsorted(AGE_EDGES, age, side="right").clip(max=len(AGE_EDGES))]
    return np.where(np.isnan(age), UNKNOWN, names)


def _tube(chest_tube: np.ndarray) -> np.ndarray:
    return np.select([chest_tube == 0, chest_tube == 1], ["0", "1"], UNKNOWN)
