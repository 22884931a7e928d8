"""How often the same test films were looked at, and by which plan: a file beside the results.

A look is a result on the test films that was not seen before (other networks, other thresholds), or one that
is read by another plan. The same command given again is no further look.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from common.files import read_json, write_json
from common.inference.result_files import Result
from common.paths import shown, workspace
from common.refusal import Refusal
from common.stages import TESTING_FOLDER
from common.statistics.plan import Plan

LOOKS = "looks.json"


def note_look(results: Mapping[str, Result], plan: Plan | None) -> list[str]:
    """Note this look beside the earlier ones, and say how many there are and what their plans were.

    Args:
        results: Results by system, all of the same test films.
        plan: The plan of this look; None without one.

    Returns:
        Sentences.

    Raises:
        Refusal: The file of looks is malformed.
    """
    path = workspace() / TESTING_FOLDER / LOOKS
    looks = _read(path)
    films = str(next(iter(results.values())).meta["films"])
    sha256 = None if plan is None else plan.sha256
    own = [look for look in looks if look["films"] == films]
    seen = {(system, cases, look["plan"]) for look in own for system, cases in look["results"].items()}
    found = {system: str(result.meta["cases_sha256"]) for system, result in results.items()}
    if any((system, cases, sha256) not in seen for system, cases in found.items()):
        look = {"films": films, "date": date.today().isoformat(), "plan": sha256, "results": found}
        write_json(path, {"looks": [*looks, look]})
        own.append(look)
    sentences = [f"Looks at these test films so far: {len(own)} ({LOOKS})."]
    first = own[0]["plan"]
    if sha256 is not None and first != sha256:
        before = "without a plan" if first is None else f"by the plan with SHA-256 {first[:12]}"
        sentences.append(
            f"Warning: the plan changed after the first look, which was {before}: read these figures as "
            "exploratory."
        )
    return sentences


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    looks = read_json(path, "python bootstrap.py").get("looks")
    keys = {"films", "date", "plan", "results"}
    if not isinstance(looks, list) or any(
        not isinstance(look, dict) or look.keys() != keys for look in looks
    ):
        raise Refusal(
            f"{shown(path)} is malformed",
            do="restore it: it counts the looks at the test films; without it they are counted from 0",
        )
    return looks
