"""Whether a system does worse in one group of films: each group minus the largest one of the same kind.

Groups are those of `strata.groups`: sex, age, view, device, chest tube. Both are in the same resamples, so
that patients with films in both are no trouble. Nobody chose these comparisons before the result, and there
are many: all are exploratory, each says of how many it is one, and Holm's adjustment is over all of a system.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from common.statistics.bootstrap import NOT_ESTIMABLE, TOO_FEW, Bootstrapped, Key
from common.statistics.compare_systems import BOOTSTRAP, bootstrap_p, holm, joined, of_replicates
from common.statistics.strata import STRATA, UNKNOWN

COMPARED = ("auroc", "sensitivity", "specificity", "dice_positives")
MINUS = " minus "  # between the names of two groups
_DECISION = "two_stage"


def group_difference_rows(found: Mapping[Key, Bootstrapped], reference: str) -> list[dict[str, Any]]:
    """Rows of each group minus the largest of its kind, in COMPARED, by the two-stage decision.

    Args:
        found: Output of `bootstrap` under the reference.
        reference: `mask`, `report` or `mask_or_clear`.

    Returns:
        Rows as `compare_systems.pair_rows` gives them, their stratum `group minus group`. `n` and `positives`
        are of both groups together; there is neither interval nor p-value where either
        group has too few films.
    """
    rows = []
    for system in dict.fromkeys(key[0] for key in found):
        own = [
            _row(found, (system, reference), pair, metric)
            for pair in _pairs(found, system)
            for metric in COMPARED
        ]
        tested = [row for row in own if row["p_value"] is not None]
        adjusted = holm([row["p_value"] for row in tested])
        for row, p in zip(tested, adjusted, strict=True):
            row["p_holm"] = p
            row["note"] = f"exploratory: one of {len(tested)} comparisons of groups"
        rows += own
    return rows


def _pairs(found: Mapping[Key, Bootstrapped], system: str) -> Iterator[tuple[str, str]]:
    """Each group, and the largest of its kind."""
    kinds: dict[str, dict[str, int]] = {}
    for (of_system, decision, stratum, metric), each in found.items():
        if (of_system, decision, metric) == (system, _DECISION, COMPARED[0]) and stratum not in STRATA:
            kinds.setdefault(_kind(stratum), {})[stratum] = each.n
    for groups in kinds.values():
        known = {group: n for group, n in groups.items() if not group.endswith(f" {UNKNOWN}")}
        if len(known) < 2:
            continue
        largest = max(known, key=known.__getitem__)
        yield from ((group, largest) for group in known if group != largest)


def _kind(group: str) -> str:
    return next(
        kind for kind in ("sex", "age", "view", "device", "chest tube") if group.startswith(f"{kind} ")
    )


def _row(
    found: Mapping[Key, Bootstrapped], of: tuple[str, str], pair: tuple[str, str], metric: str
) -> dict[str, Any]:
    system, reference = of
    one, other = (found[system, _DECISION, group, metric] for group in pair)
    estimate: float | None = one.estimate - other.estimate
    kind, ends, p, note = "percentile", None, math.nan, ""
    if math.isnan(one.estimate - other.estimate):
        estimate = None
    if one.too_few or other.too_few:
        note = TOO_FEW
    elif estimate is not None:
        patients, differences = min(one.patients, other.patients), one.replicates - other.replicates
        p = bootstrap_p(differences, patients)
        if metric == "dice_positives":
            kind, ends = of_replicates(metric, one, other)
        else:  # a little too wide where patients have films in both groups
            kind, ends = "newcombe", joined(metric, one, other)
    low, high = ends or (None, None)
    both = one.positives is not None and other.positives is not None
    return {
        "system": system,
        "reference": reference,
        "decision": _DECISION,
        "stratum": MINUS.join(pair),
        "metric": metric,
        "n": one.n + other.n,
        "positives": (one.positives or 0) + (other.positives or 0) if both else None,
        "estimate": estimate,
        "ci_low": low,
        "ci_high": high,
        "interval": kind if ends else "none",
        "note": note or NOT_ESTIMABLE if ends is None else "",
        "p_value": None if math.isnan(p) else p,
        "p_holm": None,
        "test": None if math.isnan(p) else BOOTSTRAP,
    }
