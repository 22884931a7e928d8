"""A plan from its checks to its end: look at every stage, say what all of it costs, run what is not done."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

from common.files import alone, refuse_small_disk
from common.paths import shown, workspace
from common.pipeline import record
from common.pipeline.asked import Asked
from common.pipeline.conduct import run_stage
from common.pipeline.forecast import Forecast, forecast, needed_disk, notes, table
from common.pipeline.outlook import Outlook, look
from common.pipeline.paces import Machine
from common.progress import in_words
from common.training.cost_estimate import Cost


def carry_out(asked: Asked) -> None:
    """Check every input of every stage, print what the plan costs, and run what is not done, or nothing.

    Raises:
        Refusal: Inputs are missing or wrong, the disk is too small, or a stage failed.
    """
    check = bool(asked.modes)
    busy = f"run.sh is at work in {shown(workspace())}"
    with nullcontext() if check else alone(record.lock_file(), busy):
        machine = Machine.of(asked.gpu)
        outlook, plan = look(asked.stages, asked.parsed, machine.devices)
        known = record.remembered().get("costs", {})
        print("every input was checked; now a few steps are timed, where that was not done", flush=True)
        found, costs = forecast(outlook, plan, machine, known)
        _remember(found, costs, known)
        print("\n".join(["", table(plan, found), "", *notes(machine, found)]), flush=True)
        refuse_small_disk(needed_disk(found), "all that is to be made")
        if check:
            print("\nNothing was run (--check).")
            return
        del outlook, plan  # their weights need not stay in memory beside a training
        _run(asked, machine, found)


def _remember(found: Mapping[str, Forecast], costs: Mapping[str, Cost], known: Mapping[str, Any]) -> None:
    stages = {
        key: {
            "seconds": cost.seconds,
            "how": cost.how,
            "runs": {name: [*each] for name, each in (cost.runs_left or {}).items()},
        }
        for key, cost in found.items()
    }
    every = {**known, **{kind: dataclasses.asdict(cost) for kind, cost in costs.items()}}
    record.remember({"costs": every, "stages": stages})


def _run(asked: Asked, machine: Machine, found: Mapping[str, Forecast]) -> None:
    """Run the stages in order. Each is looked at again at its turn, when those before it are finished."""
    begun = time.monotonic()
    for place, stage in enumerate(asked.stages):
        here, title = Outlook(asked.parsed, machine.devices).of(stage), f"step {stage.number}, {stage.title}"
        if here.done:
            print(f"\n=== {title}: done, kept", flush=True)
            continue
        left = sum(found[each.key].seconds for each in asked.stages[place:])
        told = f"{in_words(time.monotonic() - begun)} so far, about {in_words(left)} left"
        print(f"\n=== {title} ({place + 1} of {len(asked.stages)}; {told})", flush=True)
        systems = list(dict.fromkeys(run.system for run in here.inputs.waiting)) if here.inputs else []
        del here
        run_stage(stage, asked.gpu, asked.words[stage.key], systems, asked.again)
    print(f"\nAll {len(asked.stages)} steps are done, in {in_words(time.monotonic() - begun)}.")
