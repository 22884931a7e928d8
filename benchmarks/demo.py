"""`bash demo.sh` beside an earlier commit's: seconds of the processor, and how good its two systems get.

    python benchmarks/demo.py --keep FOLDER               against 41e1b68, then two further seeds of this tree
    python benchmarks/demo.py --keep FOLDER --seeds 1     without these; --base HEAD~1: another commit

Each side is checked out into the folder, and runs once with the packages of this environment. Counted are
user and system seconds of all processes, and the clock's. The further seeds train every stage anew on the
same films (`run.sh --seed`), for their accuracy: other work may run beside them.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.same_results import BASE, check_out
from benchmarks.whole_commands import took
from common.stages import SYSTEMS

GOAL, LEAST = 0.5, {"auroc": 0.98, "dice_positives": 0.72}
WHOLE = ("mask", "two_stage", "all")  # reference, decision, stratum


def tell(side: str, spent: tuple[float, float], workspace: Path) -> None:
    """Print what a side took, and the estimates of its systems beside what is asked of them."""
    print(f"{side}: {spent[0]:.0f} s of the processor, {spent[1]:.0f} s by the clock", flush=True)
    table = workspace / "step3_testing" / "testing" / "metrics.csv"
    with table.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            place = row["reference"], row["decision"], row["stratum"]
            if row["system"] in SYSTEMS and row["metric"] in LEAST and place == WHOLE:
                least = LEAST[row["metric"]]
                verdict = "" if float(row["estimate"]) >= least else ": missed"
                print(
                    f"  {row['system']} {row['metric']} {float(row['estimate']):.3f} (goal {least}{verdict})",
                    f"n = {row['n']}",
                    flush=True,
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--keep", type=Path, required=True, metavar="FOLDER", help="where all of it lies")
    parser.add_argument("--base", default=BASE, help="the earlier commit")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of this tree")
    arguments = parser.parse_args()
    folder = arguments.keep.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    spent = {}
    for side, commit in (("base", arguments.base), ("now", "HEAD")):
        tree = folder / side
        spent[side] = took(["bash", "demo.sh"], check_out(commit, tree))
        tell(side, spent[side], tree / "demo_workspace")
    of_processor, by_clock = (spent["now"][kind] / spent["base"][kind] for kind in range(2))
    print(
        f"demo.sh: {of_processor:.2f} of the processor (goal <= {GOAL:g}), {by_clock:.2f} by the clock",
        flush=True,
    )
    films = folder / "now" / "demo_workspace" / "data"
    for seed in range(1, arguments.seeds):
        own = folder / f"seed_{seed}"
        shutil.copytree(films, own / "data", ignore=shutil.ignore_patterns("prepared"))
        command = ["bash", "run.sh", "cpu", "--preset", "demo", "--seed", str(seed)]
        tell(f"now, seed {seed}", took(command, folder / "now", {"PTX_WORKSPACE": str(own)}), own)


if __name__ == "__main__":
    main()
