"""The reading room in headless Chromium: first paint, a grid of 10,000 films, and the next film.

    python benchmarks/reading_room.py
    python benchmarks/reading_room.py --quick     300 films, to see that it runs

Needs Playwright's Python client (pip install playwright) and a Chromium on the PATH. The films are made up:
the first ones have noise, which no compression takes away, the others are black and take no room on the disk.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np

from common.files import digest, write_csv, write_json
from common.films.resample import resample, resample_mask
from common.inference.result_columns import COLUMNS, fold_cells
from common.inference.two_stage_rule import OperatingPoint
from common.paths import REPOSITORY
from common.preparation.film_store import SIDE, pack_mask
from common.preparation.prepared_cases import COLUMNS as PREPARED
from common.stages import N_FOLDS, READING_FOLDER, STUDENTS, SYSTEMS, TESTING_FOLDER

NEXT_GOAL, PAINT_GOAL = 100, 1000  # ms
POINT = OperatingPoint(0.5, 20, 64)
# The lesion of every positive film: left, top, right, bottom as shares of the film
LESION = (0.125, 0.25, 0.375, 0.625)
SIZES = ((1200, 900), (800, 1000), (1024, 1024))  # width and height, by turns


# --- made-up films and results ----------------------------------------------------------------------


def write_workspace(
    folder: Path,
    films: int,
    noisy: int,
    device: str = "Maker",
    systems: Sequence[str] = SYSTEMS,
    unlabelled: int = 0,
) -> None:
    """Write prepared test films and what inference finds in them; every third one is positive.

    Args:
        folder: Workspace.
        films: Number of films.
        noisy: Number of films at the beginning that are not black.
        device: Manufacturer of every second film.
        systems: Systems that were run on them, perhaps students.
        unlabelled: Number of films at the end that have no label.
    """
    prepared = folder / "data" / "prepared" / "ntuh_test"
    prepared.mkdir(parents=True)
    labelled = films - unlabelled
    positives, content = -(-labelled // 3), digest(str(films), str(noisy))
    pixels = np.lib.format.open_memmap(prepared / "films.npy", "w+", np.uint8, (films, SIDE, SIDE))
    masks = np.lib.format.open_memmap(prepared / "masks.npy", "w+", np.uint8, (positives, SIDE, SIDE // 8))
    square = resample_mask(lesion(*SIZES[0]), SIDE)  # every third size, as every third film is positive
    masks[:] = pack_mask(square)
    for i in range(noisy):
        width, height = SIZES[i % 3]
        grey = np.random.default_rng(i).integers(20, 90, (height, width), dtype=np.uint8)
        if i % 3 == 0 and i < labelled:
            grey[lesion(width, height)] = 250
        pixels[i] = resample(grey, SIDE)
    rows = [_prepared(i, square, device, i < labelled) for i in range(films)]
    write_csv(prepared / "cases.csv", tuple(PREPARED), rows)
    write_json(prepared / "manifest.json", {"content": content, "rules": {}})
    for system in systems:
        _write_result(folder / TESTING_FOLDER / f"result_{system}", system, rows, content)


def lesion(width: int, height: int) -> np.ndarray:
    """The lesion on the pixels of a film, (height, width) bool."""
    left, top, right, bottom = LESION
    mask = np.zeros((height, width), dtype=bool)
    mask[round(top * height) : round(bottom * height), round(left * width) : round(right * width)] = True
    return mask


def _prepared(i: int, square: np.ndarray, device: str, labelled: bool) -> dict[str, Any]:
    width, height = SIZES[i % 3]
    positive = labelled and i % 3 == 0
    known = {
        "case": f"c{i:016x}",
        "patient": f"p{i // 2:016x}",
        "has_mask": int(positive),
        "report": int(positive or i % 9 == 1) if labelled else None,  # the one in nine without a mask
        "mask_row": i // 3 if positive else -1,
        "mask_area_fraction": float(square.mean()) if positive else 0.0,
        "patient_known": 1,
        "age": 30.0 + i % 50,
        "sex": "FM"[i % 2],
        "view": "AP",
        "manufacturer": device if i % 2 else "Other",
        "width": width,
        "height": height,
        "spacing_row": 0.3,
        "spacing_column": 0.3,
    }
    return {name: known.get(name) for name in PREPARED}


def _write_result(folder: Path, system: str, films: Sequence[dict[str, Any]], content: str) -> None:
    (folder / "maps").mkdir(parents=True)
    found = np.zeros((POINT.image_size, POINT.image_size), np.uint8)
    found[lesion(POINT.image_size, POINT.image_size)] = 200
    draw = np.random.default_rng([*SYSTEMS, *STUDENTS].index(system))
    rows = []
    for i, film in enumerate(films):
        masked = film["has_mask"] == 1
        clear = masked and i % 9 != 3  # one lesion in three is missed
        folds = np.clip(draw.normal(0.7 if clear else 0.35, 0.15, N_FOLDS), 0, 1)
        probability = float(folds.mean())
        segmented = masked or POINT.stage_1(probability)
        area = int(np.count_nonzero(found)) if segmented else None
        if segmented:
            cv2.imwrite(str(folder / "maps" / f"{film['case']}.png"), found)
        rule = POINT.rule(probability, area)
        cm2 = film["width"] * film["height"] * film["spacing_row"] * film["spacing_column"] / 100
        fraction = None if area is None else area / found.size
        known = film | {
            "mask_area_fraction": film["mask_area_fraction"] if masked else None,
            "probability": probability,
            **fold_cells([probability] if system in STUDENTS else folds.tolist()),
            "area_pixels": area,
            "area_fraction": fraction,
            "area_cm2": None if fraction is None else fraction * cm2,
            "stage_1": int(POINT.stage_1(probability)),
            "two_stage": int(rule == "positive"),
            "rule": rule,
            "no_answer": int(i % 5 == 4),
            **(dict.fromkeys(("dice_segmentation", "iou", "nsd"), 1.0) if masked else {}),
            "dice_positives": float(rule == "positive") if masked else None,
            "hd95": 0.0 if masked else None,
            "distance_unit": "mm",
            "film_cm2": cm2,
        }
        rows.append({name: known.get(name) for name in COLUMNS})
    write_csv(folder / "cases.csv", tuple(COLUMNS), rows)
    meta = {
        "system": system,
        **POINT.facts(),
        "n_cases": len(rows),
        "cases_sha256": digest((folder / "cases.csv").read_bytes()),
        "films": content,
        "weights": {},
        "preset": "demo",
        "nsd_tolerance_mm": 10.0,
        "nsd_tolerance_px": 1.6,
    }
    write_json(folder / "meta.json", meta)


# --- the server -------------------------------------------------------------------------------------


@contextmanager
def reading_room(workspace: Path, *flags: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run read.py in a workspace until Ctrl-C; its address and its process."""
    command = [sys.executable, str(REPOSITORY / READING_FOLDER / "read.py"), *flags]
    environment = {**os.environ, "PTX_WORKSPACE": str(workspace)}
    server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        for line in server.stdout:
            if line.startswith("open "):
                yield line.split()[1], server
                break
        else:
            raise RuntimeError(f"read.py ended with status {server.wait()}")
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()
        server.stdout.close()


# --- the measurement --------------------------------------------------------------------------------


def measure(address: str, films: int) -> tuple[float, float]:
    """Milliseconds of the next film, median, and of the first paint, as a user waits for them."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("google-chrome"),
            args=["--no-sandbox", "--disable-gpu"],
        )
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(address)
        page.wait_for_selector(".tile")
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        tiles = page.evaluate("performance.now()")
        start = time.perf_counter()
        for share in np.linspace(0, 1, 20).tolist():
            page.evaluate(_SCROLLED, share)
        scrolled = 1000 * (time.perf_counter() - start) / 20
        page.keyboard.press("Home")
        page.keyboard.press("Enter")
        page.wait_for_selector("body[data-shown]")
        waits = []
        for _ in range(30):
            page.wait_for_timeout(300)  # a look, in which the next film is fetched ahead
            waits.append(page.evaluate(_NEXT))
        browser.close()
    print(f"first paint {paint:.0f} ms; of {films:,} films the first tiles {tiles:.0f} ms")
    print(f"next screen of tiles {scrolled:.0f} ms; longest wait for a next film {max(waits):.0f} ms")
    return statistics.median(waits), paint


# To a share of the grid's height, until all thumbnails there are loaded
_SCROLLED = """share => new Promise(done => {
  byId("grid").scrollTop = share * byId("tiles").clientHeight;
  const look = () => [...document.querySelectorAll(".tile img")].every(image => image.complete)
    ? done() : requestAnimationFrame(look);
  requestAnimationFrame(() => requestAnimationFrame(look));
})"""
# From the key until the frame after which the film is shown
_NEXT = """new Promise(done => {
  const start = performance.now(), before = document.body.dataset.shown;
  new MutationObserver((_, watching) => {
    if (document.body.dataset.shown === before) return;
    watching.disconnect();
    requestAnimationFrame(() => done(performance.now() - start));
  }).observe(document.body, { attributes: true });
  byId("osd").dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
})"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--films", type=int, default=10_000)
    parser.add_argument("--quick", action="store_true", help="300 films")
    arguments = parser.parse_args()
    films = 300 if arguments.quick else arguments.films
    with tempfile.TemporaryDirectory() as folder:
        write_workspace(Path(folder), films, min(films, 200))
        with reading_room(Path(folder)) as (address, _):
            waited, paint = measure(address, films)
    print(f"reading_room: first paint {paint:.0f} ms (goal <= {PAINT_GOAL})")
    print(f"reading_room: {waited:.0f} ms (goal <= {NEXT_GOAL})")


if __name__ == "__main__":
    main()
