"""Preparing films, against bare decoding and resizing of the same files by the same number of processes.

    python benchmarks/preparing.py           300 films: half SIIM-ACR's kind, half a hospital's 12-bit ones
    python benchmarks/preparing.py --quick   60 films

The bare way decodes (pydicom, with the plug-ins that ours uses; and, for comparison, with those that pydicom
takes by itself), resizes to 1024 x 1024 (OpenCV) and keeps nothing; ours also reads the header,
applies rescale and window, makes masks, hashes, writes the arrays and keeps the journal. Both are timed from
the first film on, worker processes already started, alternately, into new arrays, and the best of the rounds
counts.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
import pydicom
from pydicom.pixels import pixel_array
from pydicom.uid import UID, JPEGLSLossless, RLELossless

from common.command_line import Rules
from common.films.decode import PLUGINS
from common.preparation.crash_safe_pool import cores, in_workers
from common.preparation.film_store import GROWING_ARRAYS
from common.preparation.film_task import Task, prepare_film
from common.sources import ntuh, siim

GOAL = 0.85


def usual(task: Task, alive: Callable[[], None]) -> int:
    """Decode as pydicom does by itself, and resize."""
    return bare(task, alive, {})


def bare(task: Task, alive: Callable[[], None], plugins: Mapping[UID, str] = PLUGINS) -> int:
    """Decode by the plug-ins that ours uses, and resize."""
    cv2.setNumThreads(1)
    assert task.film.path is not None  # as `films` chose them
    dataset = pydicom.dcmread(task.film.path)
    pixels = pixel_array(dataset, decoding_plugin=plugins.get(dataset.file_meta.TransferSyntaxUID, ""))
    return int(cv2.resize(pixels, (1024, 1024), interpolation=cv2.INTER_AREA)[0, 0])


def seconds(function: Callable, tasks: list[Task]) -> float:
    """Wall time from the first film done to the last."""
    start = 0.0
    for number, (_, result) in enumerate(in_workers(function, tasks)):
        if number == 2 * cores():  # by now every worker has imported its libraries
            start = time.perf_counter()
        if function is prepare_film and result.kind != "prepared":
            raise SystemExit(f"a film was not prepared: {result.reason}")
    return time.perf_counter() - start


def films(folder: Path, count: int) -> list[Task]:
    """SIIM-ACR's kind (8-bit JPEG, 1024 x 1024) and a hospital's (12 bits, 2,500 x 2,048)."""
    from common.demo.phantom_sets import write_ntuh, write_siim

    write_siim(folder / "siim", positives=10, negatives=10, seed=1, workers=cores())
    write_ntuh(folder / "ntuh", 10, 10, 6, 6, seed=1, workers=cores())
    small = [f for f in siim.source_films(folder / "siim") if f.path]
    rules = Rules(minimum_age=0, allow_burned_in=True, allow_chest_tube=True)
    large = [f for f in ntuh.source_films(folder / "ntuh", "ntuh_train", rules) if f.path]
    for number, path in enumerate(film.path for film in large if film.path):
        dataset = pydicom.dcmread(path)
        if dataset.file_meta.TransferSyntaxUID.is_compressed:
            dataset.decompress()
        noise = np.random.default_rng(number).normal(0, 12, (2500, 2048))
        pixels = cv2.resize(dataset.pixel_array.astype(np.float32), (2048, 2500)) + noise
        top = 2 ** int(dataset.BitsStored) - 1
        dataset.Rows, dataset.Columns = 2500, 2048
        dataset.PixelData = np.clip(pixels, 0, top).astype(np.uint16).tobytes()
        if number % 2:
            dataset.compress(RLELossless if number % 4 == 1 else JPEGLSLossless)
        dataset.save_as(path)
    large = [replace(film, annotation=None) for film in large]  # rectangles are for the films' old size
    chosen = [kind[n % len(kind)] for n in range(count // 2) for kind in (small, large)]
    return [Task(row, film, folder, rules) for row, film in enumerate(chosen)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PTX_WORKSPACE"] = folder
        tasks = films(Path(folder), 60 if quick else 300)
        times: dict[Callable, list[float]] = {usual: [], bare: [], prepare_film: []}
        for _ in range(1 if quick else 6):
            for name in GROWING_ARRAYS:
                (Path(folder) / name).write_bytes(b"")
            for function, found in times.items():
                found.append(seconds(function, tasks))
    counted = len(tasks) - 2 * cores()
    for function, found in times.items():
        print(f"{function.__name__}: {counted / min(found):.1f} films a second, {cores()} processes")
    ours = min(times[prepare_film])
    print(f"against pydicom's own choice of plug-ins: {min(times[usual]) / ours:.2f}")
    turns = sorted(bound / own for bound, own in zip(times[bare], times[prepare_film], strict=True))
    by_round = f"{turns[0]:.3f} to {turns[-1]:.3f} by round"
    print(f"preparing: {min(times[bare]) / ours:.3f} ({by_round}; goal >= {GOAL})")


if __name__ == "__main__":
    main()
