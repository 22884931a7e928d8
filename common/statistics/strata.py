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
    # NaN, the area without a mask, sorts behind the large ones: `has_mask` keeps it out of them.
    size = np.searchsorted(SIZE_EDGES, cases.mask_area_fraction, side="right")
    sized = {name: ~positive | (cases.has_mask & (size == i)) for i, name in enumerate(STRATA[1:])}
    found = {"all": np.ones(len(cases), dtype=bool), **sized, **groups(cases)}
    return {name: films & counted for name, films in found.items()}


def groups(cases: Cases) -> dict[str, np.ndarray]:
    """The films of each group that occurs: bool arrays of length n, by name, `unknown` last of its kind."""
    variables = {
        "sex": _or_unknown(cases.sex),
        "age": _age_group(cases.age),
        "view": _or_unknown(cases.view),
        "device": _or_unknown(cases.manufacturer),
    }
    if np.isfinite(cases.chest_tube).any():
        variables["chest tube"] = _tube(cases.chest_tube)
    found: dict[str, np.ndarray] = {}
    for variable, values in variables.items():
        occurring = sorted(set(values.tolist()), key=lambda value: (value == UNKNOWN, value))
        if len(occurring) > 1:
            found |= {f"{variable} {value}": values == value for value in occurring}
    return found


def _or_unknown(names: np.ndarray) -> np.ndarray:
    return np.where(names == "", UNKNOWN, names)


def _age_group(age: np.ndarray) -> np.ndarray:
    names = np.array(_AGES)[np.searchsorted(AGE_EDGES, age, side="right").clip(max=len(AGE_EDGES))]
    return np.where(np.isnan(age), UNKNOWN, names)


def _tube(chest_tube: np.ndarray) -> np.ndarray:
    return np.select([chest_tube == 0, chest_tube == 1], ["0", "1"], UNKNOWN)
