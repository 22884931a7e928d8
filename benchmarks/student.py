"""`predict.sh` by a student, by its ensemble, and by the ensemble of an earlier commit: films a second.

    python benchmarks/student.py --workspace FOLDER --films FOLDER          against the ensemble at 41e1b68
    python benchmarks/student.py --workspace FOLDER --films FOLDER --base-workspace OTHER
    python benchmarks/student.py --workspace FOLDER --films FOLDER --quick  three films, to see that it runs
    python benchmarks/student.py --untrained                    both systems at their full size, untrained

The workspace holds a trained system, its students, and thresholds of both. The earlier commit cannot use
networks of `strong`; name a workspace of `published` for it. With --untrained, it is made here: random
networks by the published recipe, 512 pixels, of which stage 1 calls a sixth of the films, and synthetic films
where no others are named. Each side gets the same films, by its own predict.sh on the CPU, as many at a time
as --turn says; the sides take turns, in changing order. Counted is the whole command, and beside it without
what one film costs: start-up and one film less.

The last line of a system is the ratio of the student to the earlier commit, of whole commands.
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
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.same_results import REPOSITORY, check_out

GOAL = 4.0
BASE = "41e1b68"
PREDICTION = "step3_testing/prediction"
READ = (0, 3)  # exit status: all films were read, or some
SYNTHETIC = {"positives": 4, "negatives": 20}  # films
CALLED = 1 / 6  # share of the films that stage 1 calls, of untrained networks


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
        self.positive += sum(row["decision"] == "positive" for row in findings(output))


def findings(output: Path) -> list[dict[str, str]]:
    """What was found in each film."""
    with (output / "findings.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def untrained(system: str, films: Path, folder: Path) -> Path:
    """A workspace of a full-size system and its student, untrained, that call a share of the films."""
    from benchmarks.untrained import write_thresholds, write_untrained
    from common.films.decode import read_film

    own = folder / f"untrained_{system}"
    write_untrained(own, system, read_film(next(films.iterdir())).pixels)
    for name, flags in ((system, ()), (f"{system}_student", ("--student",))):
        side = Side(f"untrained {name}", REPOSITORY, own, ("--system", system, *flags))
        side.predict(films, folder / "found")
        found = np.sort([float(row["probability"]) for row in findings(folder / "found")])
        called = max(1, round(len(found) * CALLED))
        write_thresholds(own, name, float(found[-called - 1 : -called + 1 or None].mean()))
    return own


def in_turns(films: list[Path], size: int, folder: Path) -> list[Path]:
    """Copies of the films, so many in a folder."""
    turns = []
    for number, begin in enumerate(range(0, len(films), size)):
        turns.append(folder / f"turn_{number}")
        turns[-1].mkdir()
        for place, film in enumerate(films[begin : begin + size]):
            shutil.copyfile(film, turns[-1] / f"{place}{film.suffix}")
    return turns


def compare(system: str, trees: tuple[Path, Path], own: Path, films: list[Path], size: int) -> None:
    """Predict the films by all sides of a system, and print what it took.

    Args:
        system: `eff` or `vit`.
        trees: Tree of the earlier commit, and its workspace.
        own: Workspace of this tree.
        films: Films to predict.
        size: Films of a command.
    """
    base, earlier = trees
    flags = ("--system", system)
    sides = [
        Side("ensemble at the earlier commit", base, earlier, flags),
        Side("ensemble", REPOSITORY, own, flags),
        Side("student", REPOSITORY, own, (*flags, "--student")),
    ]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "one").mkdir()
        shutil.copyfile(films[0], folder / "one" / films[0].name)
        for side in sides:
            side.predict(folder / "one", folder / "found")  # warms up
            side.start = side.predict(folder / "one", folder / "found")
        for number, turn in enumerate(in_turns(films, size, folder)):
            for side in sides[number % 3 :] + sides[: number % 3]:
                side.turn(turn, folder / "found")
    report(system, sides, len(films))


def report(system: str, sides: Sequence[Side], films: int) -> None:
    """Print films a second of each side, and the ratios to the last one, the student."""
    for side in sides:
        print(
            f"{system}, {side.title}: {films} films, {side.positive} positive, "
            f"{films / sum(side.seconds):.3f} films a second, {_later(side, films):.3f} without the start; "
            f"{side.start:.1f} s with one film"
        )
    *others, student = sides
    for side in others:
        later = _later(student, films) / _later(side, films)
        whole = sum(side.seconds) / sum(student.seconds)
        print(f"student against {side.title}: {whole:.2f} times, without the start {later:.2f}")
    ratio = sum(sides[0].seconds) / sum(student.seconds)
    print(f"student of {system}: {ratio:.2f} (goal >= {GOAL:g})", flush=True)


def _later(side: Side, films: int) -> float:
    """Films a second after the first of each command."""
    seconds = sum(side.seconds) - len(side.seconds) * side.start
    return (films - len(side.seconds)) / seconds if seconds > 0 else float("nan")


def main() -> None:
    from common.demo.phantom_sets import write_new

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    networks = parser.add_mutually_exclusive_group(required=True)
    networks.add_argument("--workspace", type=Path, metavar="FOLDER", help="a trained system")
    networks.add_argument("--untrained", action="store_true", help="random networks of full size")
    parser.add_argument("--films", type=Path, metavar="FOLDER", help="films to predict; default: synthetic")
    parser.add_argument("--system", nargs="+", choices=("eff", "vit"), default=("eff", "vit"))
    parser.add_argument("--base", default=BASE, help="the earlier commit")
    parser.add_argument("--base-workspace", type=Path, metavar="FOLDER", help="its workspace, if another")
    parser.add_argument("--turn", type=int, default=50, help="films of a command")
    parser.add_argument("--quick", action="store_true", help="three films")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if arguments.films is None:
            write_new(folder / "films", seed=1, **SYNTHETIC)
        named = arguments.films or folder / "films"
        films = sorted(path for path in named.iterdir() if path.is_file())
        films = films[:3] if arguments.quick else films
        if not films:
            raise SystemExit(f"no films in {named}")
        base = check_out(arguments.base, folder / "base")
        for system in arguments.system:
            own = untrained(system, named, folder) if arguments.untrained else arguments.workspace.resolve()
            earlier = (arguments.base_workspace or own).resolve()
            compare(system, (base, earlier), own, films, arguments.turn)


if __name__ == "__main__":
    main()
