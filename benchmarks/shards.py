"""An archive shared by two processes on CPUs: each film once, the same findings, time linear, memory flat.

    python benchmarks/shards.py            10,000 simulated films (five minutes of one core)
    python benchmarks/shards.py --quick    400

Fake networks, which only look at the grey levels, take the place of a system's ten, and what else computes
long on a film is left out: its likeness to the training films, and the drawing of its picture. All the rest
is measured: listing, reading, deciding, findings, manifests, tables.

A quarter, a half and all of the films are predicted by two processes, as `predict.sh FILMS OUTPUT cpu,cpu`
starts them, and all of them by one process. Seconds are those of the processor, of both processes and their
readers of films; memory is the largest that a predicting process ever held (VmHWM of Linux).

The last lines are what a film costs among the second half of the films over what it costs in the second
quarter, and the memory with all films over that with a quarter of them. Both goals are 1.1.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

REPOSITORY = Path(__file__).resolve().parents[1]
GOAL = 1.1
SIDE = 160  # pixels of a film: small, since it is not decoding that is tried
HIDDEN = "written.jsonl"  # its lines stand in the order of writing


@dataclass(frozen=True)
class Run:
    """What a run took.

    Attributes:
        wall: Seconds by the clock.
        cpu: Seconds of the processor, of all processes that predict and read.
        peak: Largest memory of a predicting process in MB.
        films: Films that each process predicted.
    """

    wall: float
    cpu: float
    peak: float
    films: list[int]


def write_films(folder: Path, count: int) -> None:
    """Pictures with the grey levels of a film, each with noise of its own; a part has a bright half."""
    import cv2
    import numpy as np

    folder.mkdir()
    rows, columns = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    chest = 60 + 120 * np.exp(-(((columns - 0.5) / 0.15) ** 2)) + 40 * rows
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 24, (SIDE, SIDE))
        bright = 40 * (number % 3 == 0) * (columns > 0.5)
        cv2.imwrite(
            str(folder / f"{number:06d}.png"), np.clip(chest + bright + noise, 0, 255).astype("uint8")
        )


def part_of(films: Path, count: int, folder: Path) -> Path:
    """A folder with the first films, as further names of the same files."""
    folder.mkdir()
    for path in sorted(films.iterdir())[:count]:
        os.link(path, folder / path.name)
    return folder


# --- one of the processes ---------------------------------------------------------------------------------


def work(gpu: str, films: str, output: str, report: str) -> None:
    """Predict as `predict.py` does, by fake networks, and leave what it took."""
    import numpy as np
    import torch

    from common.command_line import parse_prediction
    from common.prediction import finding_files
    from common.prediction.folder import predict_folder
    from common.prediction.predictor import FilmPredictor

    class Fake(torch.nn.Module):
        """A network that knows the grey levels only."""

        def classify(self, film: torch.Tensor) -> torch.Tensor:
            return 20 * (film.mean(dim=(1, 2, 3)) - 0.52)

        def forward(self, film: torch.Tensor) -> tuple[torch.Tensor]:
            return (torch.cat([0.7 - film, film - 0.7], dim=1) * 20,)

    counted: list[int] = []
    predict = FilmPredictor.findings

    def findings(self: FilmPredictor, given: list) -> list:
        counted.append(len(given))
        return predict(self, given)

    setattr(FilmPredictor, "_networks", lambda self, stage: [Fake() for _ in range(5)])  # noqa: B010
    setattr(FilmPredictor, "_concerns", lambda self, film: [])  # noqa: B010
    setattr(FilmPredictor, "findings", findings)  # noqa: B010
    setattr(finding_files, "overlay", lambda *_: np.zeros((8, 8, 3), np.uint8))  # noqa: B010
    try:
        predict_folder(parse_prediction("", [films, output, "--gpu", gpu]))
    finally:
        multiprocessing.active_children()  # waits for those that ended, whose time counts only then
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        status = Path("/proc/self/status").read_text().splitlines()
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
        took = {"cpu": sum(each.ru_utime + each.ru_stime for each in used), "peak": peak / 1024}
        rank = os.environ.get("RANK", "0")
        Path(report, f"{rank}.json").write_text(json.dumps(took | {"films": sum(counted)}))


def run(root: Path, films: Path, gpus: str, name: str) -> Run:
    """Predict a folder by as many processes as devices are named; the findings lie in `root / name`."""
    report = root / f"{name}.report"
    report.mkdir()
    command = [sys.executable]
    if "," in gpus:
        command += ["common/launch.py", "benchmarks/shards.py", gpus]
    else:
        command += ["benchmarks/shards.py", "--gpu", gpus]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PTX_WORKSPACE": str(root / "system")}
    begun = time.perf_counter()
    subprocess.run(
        [*command, "--work", str(films), str(root / name), str(report)],
        cwd=REPOSITORY,
        env={**environment, "CUDA_VISIBLE_DEVICES": ""},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    wall = time.perf_counter() - begun
    told = [json.loads(path.read_text()) for path in sorted(report.iterdir())]
    cpu, peak = sum(each["cpu"] for each in told), max(each["peak"] for each in told)
    return Run(wall, cpu, peak, [each["films"] for each in told])


def differing(first: Path, second: Path) -> int:
    """Number of files that are not the same in two folders of findings."""
    trees = [
        {
            path.relative_to(folder): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and path.name != HIDDEN and not path.name.startswith(".")
        }
        for folder in (first, second)
    ]
    return sum(trees[0].get(name) != trees[1].get(name) for name in {*trees[0], *trees[1]})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--films", type=int, default=10_000, help="films in all (10,000)")
    parser.add_argument("--quick", action="store_true", help="400 films, to see that it runs")
    arguments = parser.parse_args()
    count = 400 if arguments.quick else arguments.films
    from benchmarks.hostile_systems import write_system

    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        write_system(root / "system")
        write_films(root / "films", count)
        runs = {}
        for number in (count // 4, count // 2, count):
            films = part_of(root / "films", number, root / f"{number}")
            runs[number] = say(
                f"{number:6} films, two processes", run(root, films, "cpu,cpu", f"two_{number}")
            )
        one = say(f"{count:6} films, one process", run(root, root / f"{count}", "cpu", "one"))
        quarter, half, whole = runs.values()
        assert sum(whole.films) == count == sum(one.films), "a film was predicted twice, or not at all"
        different = differing(root / "one", root / f"two_{count}")
        print(f"files that differ between one process and two: {different} (goal 0)")
    print(f"one process over two: {one.wall / whole.wall:.2f} by the clock, {one.cpu / whole.cpu:.2f} of CPU")
    early, late = (half.cpu - quarter.cpu) / (count // 4), (whole.cpu - half.cpu) / (count // 2)
    print(f"CPU a film, second half of the films over second quarter: {late / early:.3f} (goal {GOAL})")
    print(f"memory, all films over a quarter: {whole.peak / quarter.peak:.3f} (goal {GOAL})")


def say(title: str, took: Run) -> Run:
    """Print what a run took."""
    print(f"{title}: {took.wall:.0f} s, {took.cpu:.0f} s of CPU, {took.peak:.0f} MB", flush=True)
    return took


if __name__ == "__main__":
    if "--work" in sys.argv:  # as one of the processes: shards.py --gpu GPUS --work FILMS OUTPUT REPORT
        from common.refusal import run_script

        run_script(lambda: work(sys.argv[2], *sys.argv[4:]))
    else:
        main()
