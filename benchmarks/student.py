"""`predict.sh` by a student, by its ensemble, and by the ensemble of an earlier commit: films a second.

    python benchmarks/student.py --workspace FOLDER --films FOLDER          against the ensemble at 41e1b68
    python benchmarks/student.py --workspace FOLDER --films FOLDER --base-workspace OTHER
    python benchmarks/student.py --workspace FOLDER --films FOLDER --quick  three films, to see that it runs

The workspace holds a trained system, its students, and thresholds of both. The earlier commit cannot use
networks of `strong`; name a workspace of `published` for it. Each side gets the same films, by its own
predict.sh on the CPU, as many at a time as --turn says; the sides take turns, in changing order. Counted is
the whole command, and beside it without what one film costs: start-up and one film less.

The last line is the ratio of the student to the earlier commit, of whole commands.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.same_results import REPOSITORY, check_out

GOAL = 4.0
BASE = "41e1b68"
PREDICTION = "step3_testing/prediction"
READ = (0, 3)  # exit status: all films were read, or some


@dataclass
class Side:
    """One way of predicting, and what it took.

    Attributes:
        title: Name of the side in the output.
        tree: Tree of the project whose predict.sh is run.
        workspace: Workspace of the trained system.
        flags: Flags of predict.sh.
        seconds: Of each turn.
        start: Seconds of a command with a single film.
        positive: Films that were called positive.
    """

    title: str
    tree: Path
    workspace: Path
    flags: tuple[str, ...]
    seconds: list[float] = field(default_factory=list)
    start: float = 0.0
    positive: int = 0

    def predict(self, films: Path, output: Path) -> float:
        """Run predict.sh on a folder; the seconds that it took."""
        shutil.rmtree(output, ignore_errors=True)
        environment = os.environ | {"PTX_WORKSPACE": str(self.workspace), "VIRTUAL_ENV": sys.prefix}
        command = ["bash", "predict.sh", str(films), str(output), "cpu", *self.flags]
        begun = time.perf_counter()
        done = subprocess.run(
            command, cwd=self.tree / PREDICTION, env=environment, capture_output=True, text=True, check=False
        )
        seconds = time.perf_counter() - begun
        if done.returncode not in READ:
            raise SystemExit(f"{self.title}: predict.sh ended with {done.returncode}\n{done.stderr}")
        return seconds

    def turn(self, films: Path, output: Path) -> None:
        """Predict a folder, and note what it took and found."""
        self.seconds.append(self.predict(films, output))
        with (output / "findings.csv").open(newline="", encoding="utf-8") as file:
            self.positive += sum(row["decision"] == "positive" for row in csv.DictReader(file))


def in_turns(films: list[Path], size: int, folder: Path) -> list[Path]:
    """Copies of the films, so many in a folder."""
    turns = []
    for number, begin in enumerate(range(0, len(films), size)):
        turns.append(folder / f"turn_{number}")
        turns[-1].mkdir()
        for place, film in enumerate(films[begin : begin + size]):
            shutil.copyfile(film, turns[-1] / f"{place}{film.suffix}")
    return turns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--films", type=Path, required=True, metavar="FOLDER", help="films to predict")
    parser.add_argument("--system", choices=("eff", "vit"), default="eff")
    parser.add_argument("--base", default=BASE, help="the earlier commit")
    parser.add_argument("--base-workspace", type=Path, metavar="FOLDER", help="its workspace, if another")
    parser.add_argument("--turn", type=int, default=50, help="films of a command")
    parser.add_argument("--quick", action="store_true", help="three films")
    arguments = parser.parse_args()
    films = sorted(path for path in arguments.films.iterdir() if path.is_file())
    films = films[:3] if arguments.quick else films
    if not films:
        raise SystemExit(f"no films in {arguments.films}")
    own, system = arguments.workspace.resolve(), ("--system", arguments.system)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        base, earlier = check_out(arguments.base, folder / "base"), arguments.base_workspace or own
        sides = [
            Side(f"ensemble at {arguments.base}", base, earlier.resolve(), system),
            Side("ensemble", REPOSITORY, own, system),
            Side("student", REPOSITORY, own, (*system, "--student")),
        ]
        (folder / "one").mkdir()
        shutil.copyfile(films[0], folder / "one" / films[0].name)
        for side in sides:
            side.predict(folder / "one", folder / "found")  # warms up
            side.start = side.predict(folder / "one", folder / "found")
        for number, turn in enumerate(in_turns(films, arguments.turn, folder)):
            for side in sides[number % 3 :] + sides[: number % 3]:
                side.turn(turn, folder / "found")
    for side in sides:
        print(
            f"{arguments.system}, {side.title}: {len(films)} films, {side.positive} positive, "
            f"{len(films) / sum(side.seconds):.3f} films a second, "
            f"{_later(side, len(films)):.3f} without the start",
            flush=True,
        )
    *others, student = sides
    for side in others:
        later = _later(student, len(films)) / _later(side, len(films))
        whole = sum(side.seconds) / sum(student.seconds)
        print(f"student against {side.title}: {whole:.2f} times, without the start {later:.2f}")
    print(f"student: {sum(sides[0].seconds) / sum(student.seconds):.2f} (goal >= {GOAL:g})")


def _later(side: Side, films: int) -> float:
    """Films a second after the first of each command."""
    seconds = sum(side.seconds) - len(side.seconds) * side.start
    return (films - len(side.seconds)) / seconds if seconds > 0 else float("nan")


if __name__ == "__main__":
    main()
