"""Peers: systems of others beside ours, known only by what they say of the test films.

A peer has a probability of each film, and perhaps a decision of its own and maps. It gets the metrics that
need no more than that, with the same draws of patients, and each of our systems is compared with it. All of
this is outside the primary comparisons: no p-value of it is adjusted, and none is in a plan's verdicts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from common.command_line import ReportOptions
from common.statistics.bootstrap import Bootstrapped, Key, bootstrap, metric_rows
from common.statistics.compare_systems import pair_rows
from common.statistics.metric_catalogue import METRICS
from common.statistics.metrics import DECISIONS, OF_CLEAR
from common.statistics.tested_films import CLEAR, Cases

_OWN_DECISION = "by the peer's own decision"
_EXPLORATORY = "exploratory: comparison with a peer"


@dataclass(frozen=True)
class Peer:
    """What a peer says of the test films.

    Attributes:
        name: Its name in the tables.
        cases: The films, as if the peer were a system: `stage_1` and `two_stage` are both its decision, False
            where it has none; what its maps would tell is NaN where it has none.
        decides: It has a decision of its own.
        maps: It has a map of each film.
    """

    name: str
    cases: Cases
    decides: bool
    maps: bool

    def metrics(self, reference: str) -> list[str]:
        """Metrics that need something of a system, and nothing that the peer does not have."""
        known = {"probability"} | {need for need in ("decision", "map") if self._has(need)}
        return [
            name
            for name, metric in METRICS.items()
            if metric.needs and known >= set(metric.needs) and (reference != CLEAR or name in OF_CLEAR)
        ]

    def _has(self, need: str) -> bool:
        return self.decides if need == "decision" else self.maps


def peer_rows(
    systems: Mapping[str, Cases],
    peer: Peer,
    found: Mapping[str, Mapping[Key, Bootstrapped]],
    options: ReportOptions,
) -> list[dict[str, Any]]:
    """A peer's metrics, and each system's minus the peer's.

    Args:
        systems: Results on the same films in the same order, by system.
        peer: What the peer says of these films.
        found: What `bootstrap` found of the systems, by reference, with the replicates and seed of `options`.
        options: Replicates, seed, kind of interval and prevalence.

    Returns:
        Rows with the columns of `compare_systems.pair_rows`. The peer's own decision stands under
        `two_stage`, in the place of a system's; under `stage_1` there is only what no decision changes.
    """
    own = {
        reference: bootstrap(
            {peer.name: peer.cases},
            reference,
            options.replicates,
            options.seed,
            options.interval,
            options.prevalence,
            metrics=peer.metrics(reference),
        )
        for reference in found
    }
    untested = {"p_value": None, "p_holm": None, "test": None}
    rows = [
        row | untested | _noted(row, _OWN_DECISION if METRICS[row["metric"]].by_decision else "")
        for row in metric_rows(own, options.interval, options.prevalence)
    ]
    for reference, of_reference in found.items():
        for system, cases in systems.items():
            both = {**of_reference, **own[reference]}
            compared = pair_rows({system: cases, peer.name: peer.cases}, both, reference)
            rows += [row | _noted(row, _EXPLORATORY) for row in compared]
    return [row for row in rows if row["decision"] == DECISIONS[0] or not METRICS[row["metric"]].by_decision]


def _noted(row: Mapping[str, Any], note: str) -> dict[str, str]:
    return {"note": "; ".join(filter(None, (row["note"], note)))}
