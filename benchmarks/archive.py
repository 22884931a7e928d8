"""An archive of a million films: identifiers, cases, folds and the exact leak check, without the pixels.

    python benchmarks/archive.py           1,000,000 films (training and test)
    python benchmarks/archive.py --quick   50,000 films

Every step is the one that prepares real films, fed with made-up headers and hashes. Goals for a million:
60 s and 4 GB.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tqdm import tqdm

from common.command_line import Rules
from common.files import write_csv
from common.paths import prepared_folder
from common.preparation import leaks as leak_search
from common.preparation import run as preparation
from common.preparation.film_task import PREPARED, Outcome, Task
from common.preparation.prepared_cases import COLUMNS
from common.preparation.resume_log import ResumeLog
from common.sources.source_film import SourceFilm

SECONDS, BYTES = 60.0, 4 * 2**30
FACTS = {
    "age": 63.0, "sex": "F", "view": "AP", "position": "SUPINE", "manufacturer": "Example",
    "date": "2019-05-04", "width": 2500, "height": 2048, "spacing_row": 0.14, "spacing_column": 0.14,
}  # fmt: skip


class _InMemory(ResumeLog):
    """The log of a preparation that has read all its films; nothing of it lies on the disk."""

    def __init__(self, entries: dict[int, dict[str, Any]]) -> None:
        self.entries = entries


def simulate(name: str, count: int, first: int) -> preparation.Growing:
    """A set of `count` films, 1.25 of a patient on average, as if all had just been read."""
    folder, rules = prepared_folder(name), Rules()
    films, entries = [], {}
    for row in tqdm(range(count), desc=name, unit="film", disable=None):
        number = first + row
        positive = int(number % 5 == 0)
        film = SourceFilm(f"P{number:09d}", Path("/nowhere"), f"row {row}", None, positive)
        films.append(film)
        facts = FACTS | {"patient_id": f"ID{number * 4 // 5}", "study": f"1.2.{number}"}
        outcome = Outcome(
            PREPARED, file="0" * 64, facts=facts, picture=f"{number * 7919:064x}",
            mask="1" * positive, area=0.05 * positive, perceptual=f"{number * 104729 % 2**64:016x}",
        )  # fmt: skip
        entries[row] = preparation.journal_entry(Task(row, film, folder, rules), outcome)
    return preparation.Growing(name, films, films, rules, _InMemory(entries))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    count = 50_000 if parser.parse_args().quick else 1_000_000
    with tempfile.TemporaryDirectory() as workspace:
        os.environ["PTX_WORKSPACE"] = workspace
        start = time.perf_counter()
        test = count // 5
        sets, compared = [simulate("ntuh_train", count - test, 0), simulate("ntuh_test", test, count)], []
        lap = time.perf_counter()
        print(f"identifiers and facts: {lap - start:.1f} s")
        for growing in sets:
            rows = preparation.case_rows(growing)
            parts = preparation.assign_parts(growing.name, rows)
            write_csv(growing.folder / "cases.csv", list(COLUMNS), rows)
            compared.append(preparation.comparable(growing, rows, parts))
        print(f"prepared cases and folds: {time.perf_counter() - lap:.1f} s")
        lap = time.perf_counter()
        leaks = leak_search.find_leaks(leak_search.concatenate(compared), radius=None)
        print(f"exact leak check: {time.perf_counter() - lap:.1f} s, {len(leaks.errors)} pairs")
        total = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    goal = f"(goal <= {SECONDS:.0f} s, {BYTES / 2**30:.0f} GB)"
    print(f"archive of {count:,} films: {total:.0f} s, {peak / 2**30:.1f} GB {goal}")
    raise SystemExit(count == 1_000_000 and (total > SECONDS or peak > BYTES))


if __name__ == "__main__":
    main()
