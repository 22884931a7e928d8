"""`bootstrap.py` and `predict.sh` as whole processes, beside an earlier commit's: seconds of the processor.

    python benchmarks/whole_commands.py --workspace FOLDER --film FILE      against 41e1b68; five rounds
    python benchmarks/whole_commands.py --workspace FOLDER --film FILE --rounds 1 --base HEAD~1

The workspace, such as `demo_workspace`, holds the result files of both systems and the networks and
thresholds of `eff`; each side works on a copy of its own. The sides take turns. `bootstrap.py` is everything
from the first import to the page; `predict.sh` gets one film, so that it is the way from the command to the
first finding. Counted are user and system seconds of all processes, which other work on the machine changes
less than the clock, and the clock's. Both use one thread.

The last two lines are the ratios of this tree to the base, of the least seconds: by the clock, which people
wait by, and of the processor.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.same_results import BASE, REPOSITORY, check_out

GOALS = {"bootstrap.py": 0.6, "predict.sh": 0.5}


def took(command: Sequence[str], folder: Path, own: Mapping[str, str] | None = None) -> tuple[float, float]:
    """Seconds of the processor and of the clock that a command takes, with variables of its own."""
    environment = os.environ | {"VIRTUAL_ENV": sys.prefix} | dict(own or {})
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    clock, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{command} in {folder} ended with {done.returncode}\n{done.stderr}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, clock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--film", type=Path, required=True, metavar="FILE", help="film to predict")
    parser.add_argument("--base", default=BASE, help="the earlier commit")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    arguments = parser.parse_args()
    least: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        trees = {"base": check_out(arguments.base, folder / "base"), "now": REPOSITORY}
        for side in trees:  # results and networks only, not the films that they were made from
            for part in ("step2_ntuh_training", "step3_testing"):
                left_out = shutil.ignore_patterns(
                    "runs", "metrics.*", "report.html", "figures", "cohort.csv", "looks.json"
                )
                shutil.copytree(arguments.workspace / part, folder / side / "own" / part, ignore=left_out)
        film = str(arguments.film.absolute())
        commands = {
            "bootstrap.py": ("testing", [sys.executable, "bootstrap.py"]),
            "predict.sh": ("prediction", ["bash", "predict.sh", film, str(folder / "found"), "cpu"]),
        }
        for _ in range(arguments.rounds):
            for title, (place, command) in commands.items():
                for side, tree in trees.items():
                    shutil.rmtree(folder / "found", ignore_errors=True)
                    own = {"PTX_WORKSPACE": str(folder / side / "own"), "OMP_NUM_THREADS": "1"}
                    spent = took(command, tree / "step3_testing" / place, own)
                    best = least.setdefault((title, side), list(spent))
                    least[title, side] = [min(pair) for pair in zip(best, spent, strict=True)]
    for (title, side), (processor, clock) in least.items():
        print(f"{title}, {side}: {processor:.2f} s of the processor, {clock:.2f} s by the clock")
    for title, goal in GOALS.items():
        of_processor, by_clock = (least[title, "now"][kind] / least[title, "base"][kind] for kind in range(2))
        print(f"{title}: {by_clock:.2f} by the clock (goal <= {goal:g}), {of_processor:.2f} of the processor")


if __name__ == "__main__":
    main()
