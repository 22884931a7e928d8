"""An epoch's cost and memory, as the films become more: linear, and constant.

    python benchmarks/epoch_scaling.py            500, 5,000 and 50,000 films at 128 px (5 minutes)
    python benchmarks/epoch_scaling.py --quick    500 and 2,000

One epoch of the training loop over films in a memory map of 128 x 128 pixels, every film once, with the
demo's vit at 64 px. Memory is what the process itself holds (RssAnon of Linux), not the file's pages in the
system's cache, which the system takes back when it needs them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

GOAL = 1.1
SIDE = 128
WARM = 20  # steps that are not timed: the first ones allocate


def write_films(folder: Path, count: int) -> None:
    """A prepared set of noise with square lesions, at 128 x 128 pixels."""
    from common.preparation.film_store import ARRAYS
    from common.preparation.prepared_cases import COLUMNS

    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    films = np.lib.format.open_memmap(folder / ARRAYS[0], "w+", np.uint8, (count, SIDE, SIDE))
    masks = np.lib.format.open_memmap(folder / ARRAYS[1], "w+", np.uint8, (count, SIDE, SIDE // 8))
    for row in range(count):
        films[row] = rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
        masks[row, 40:90, 5:11] = 255
    films.flush()
    masks.flush()
    with open(folder / "cases.csv", "w", encoding="utf-8") as file:
        file.write(",".join(COLUMNS) + "\n")
        for row in range(count):
            values = dict.fromkeys(COLUMNS, "0")
            values |= {"case": f"c{row}", "patient": f"p{row}", "has_mask": "1", "mask_row": str(row)}
            file.write(",".join(values[name] for name in COLUMNS) + "\n")


def epoch(folder: Path) -> dict[str, float]:
    """Train one epoch; seconds a film and the largest RssAnon in MB."""
    from tqdm import tqdm

    from benchmarks.training_loop import fit_of
    from common.preparation.film_store import ARRAYS, PreparedSet

    films = PreparedSet(folder)
    count = len(np.load(folder / ARRAYS[0], mmap_mode="r"))
    arguments = argparse.Namespace(preset="demo", image_size=SIDE // 2, gpu="cpu", steps=count // 8)
    fit = fit_of(films, "vit", arguments, folder / "run")
    fit.sampler.films = 0  # every positive, that is every film, once
    progress = fit.begin()
    peaks, begun = [], []

    class Watch(tqdm):
        def update(self, n: float | None = 1) -> None:
            if len(progress.losses) == WARM:
                begun.append(time.perf_counter())
            if len(progress.losses) % 50 == WARM:
                peaks.append(_anonymous())

    with Watch(disable=False, file=open("/dev/null", "w")) as bar:
        fit.train_epoch(progress, bar)
    seconds = time.perf_counter() - begun[0]
    steps = len(fit.sampler) - WARM - 1
    return {"films": count, "ms": seconds / (steps * fit.recipe.batch_size) * 1000, "mb": max(peaks)}


def _anonymous() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    raise SystemExit("this system does not say RssAnon")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--epoch", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.epoch:
        print(json.dumps(epoch(arguments.epoch)))
        return
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        for count in (500, 2000) if arguments.quick else (500, 5000, 50000):
            write_films(Path(temporary) / str(count), count)
            # a process of its own for each, so that memory is comparable
            command = [sys.executable, __file__, "--epoch", str(Path(temporary) / str(count))]
            output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            found.append(json.loads(output.splitlines()[-1]))
            print("{films:,} films: {ms:.2f} ms a film, {mb:.0f} MB".format(**found[-1]), flush=True)
    pace, memory = ([row[key] for row in found] for key in ("ms", "mb"))
    print(f"epoch_scaling, memory: {max(memory) / min(memory):.2f} (goal <= {GOAL})")
    print(f"epoch_scaling: {max(pace) / min(pace):.2f} (goal <= {GOAL})")


if __name__ == "__main__":
    main()
