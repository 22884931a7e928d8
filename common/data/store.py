"""Source films -> prepared arrays on disk, and the views of them that training and evaluation use.

A prepared set is a folder: `cases.csv` (one row a film), `films.npy` (n x 1024 x 1024 uint8, memory map),
`masks.npy` (bit-packed masks of the films that have one), `folds.json` (who is in which part),
`rejected.csv` (films with a fault), `flow.json` (every film accounted for) and, last, `manifest.json`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from common import artefacts
from common.artefacts import digest, pseudonym, shown
from common.data import folds, ntuh, siim
from common.data.cases import COLUMNS, SourceFilm, read_cases
from common.data.dicom import read_film
from common.data.faults import FilmFault
from common.refusal import Refusal

SIDE = 1024
KEPT_BYTES = 2**29  # of reduced films in the memory of a process
_SOURCES = {"siim": ("SIIM-ACR", "siim"), "ntuh_train": ("NTUH", "ntuh"), "ntuh_test": ("NTUH", "ntuh")}


# --- geometry --------------------------------------------------------------------------------------


def resample(image: np.ndarray, side: int) -> np.ndarray:
    """Stretch an image to a square by area (linearly where it must grow).

    Args:
        image: (height, width) uint8 or float32.
        side: Pixels of the result's side.

    Returns:
        (side, side), of the image's type.
    """
    if image.shape == (side, side):
        return image
    grows = image.shape[0] < side or image.shape[1] < side
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR if grows else cv2.INTER_AREA)


def resample_mask(mask: np.ndarray, side: int) -> np.ndarray:
    """Stretch a mask to a square: pixels of which more than half are covered. Bool in, bool out."""
    return resample(mask.astype(np.float32), side) > 0.5


# --- a prepared set --------------------------------------------------------------------------------


@dataclass(frozen=True)
class PreparedSet:
    """A prepared set on disk. Its arrays are read when they are asked for."""

    folder: Path
    _kept: dict[tuple[str, int, int], np.ndarray] = field(default_factory=dict, repr=False, compare=False)
    _kept_bytes: list[int] = field(default_factory=lambda: [0], repr=False, compare=False)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        return artefacts.read_json(self.folder / "manifest.json", "prepare the data again")

    @cached_property
    def cases(self) -> pd.DataFrame:
        """The case table, row i belonging to film i; columns as in `common.data.cases`."""
        cases = read_cases(self.folder / "cases.csv")
        if len(cases) != len(self._films):
            raise Refusal(
                f"{shown(self.folder)} is incomplete", do="delete this folder; it is prepared again"
            )
        return cases

    @cached_property
    def _films(self) -> np.ndarray:
        return np.load(self.folder / "films.npy", mmap_mode="r")

    @cached_property
    def _masks(self) -> np.ndarray:
        return np.load(self.folder / "masks.npy", mmap_mode="r")

    @cached_property
    def _mask_rows(self) -> np.ndarray:
        return self.cases["mask_row"].to_numpy()

    @cached_property
    def has_mask(self) -> np.ndarray:
        """(n,) bool: films with an annotated lesion."""
        return self.cases["has_mask"].to_numpy() == 1

    @cached_property
    def part(self) -> np.ndarray:
        """(n,) int: the fold of each film (`ntuh_train`), or 1 for validation (`siim`)."""
        return np.array(artefacts.read_json(self.folder / "folds.json", "prepare the data again")["part"])

    @property
    def content(self) -> str:
        """SHA-256 of pixels, labels and masks in order; independent of the pseudonyms."""
        return self.manifest["content"]

    @property
    def split(self) -> str:
        """SHA-256 of who is in which part."""
        return self.manifest["split"]

    def film(self, row: int, side: int = SIDE) -> np.ndarray:
        """The working-size view of a film, (side, side) uint8: the only place where one is made."""
        return self._reduced("film", row, side, lambda: resample(np.asarray(self._films[row]), side))

    def mask(self, row: int, side: int = SIDE) -> np.ndarray:
        """The mask of a film at the working size, (side, side) bool; empty without a lesion."""
        mask_row = self._mask_rows[row]
        if mask_row < 0:
            return np.zeros((side, side), dtype=bool)
        return self._reduced(
            "mask",
            row,
            side,
            lambda: resample_mask(np.unpackbits(self._masks[mask_row], axis=1).view(bool), side),
        )

    def _reduced(self, kind: str, row: int, side: int, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Keep reduced films in memory up to a limit: every epoch and fold asks for the same ones."""
        key = (kind, row, side)
        if key not in self._kept:
            view = make()
            if side == SIDE or self._kept_bytes[0] + view.nbytes > KEPT_BYTES:
                return view
            view.flags.writeable = False
            self._kept[key] = view
            self._kept_bytes[0] += view.nbytes
        return self._kept[key]


# --- preparing -------------------------------------------------------------------------------------


def open_prepared(
    name: str, source: str | None, needed_for: str, replace_saturated: bool | None = None
) -> PreparedSet:
    """Open a prepared set, preparing it first when it is not there.

    Args:
        name: `siim`, `ntuh_train` or `ntuh_test`. The latter two are prepared together.
        source: Folder of the download or export; None: `data/siim` or `data/ntuh` of the workspace.
        needed_for: Who asks, as the refusal names it.
        replace_saturated: As in `read_film`; None: however it was prepared (or not, when it is prepared now).

    Raises:
        Refusal: No source; a source other than the one it was prepared from; films of one patient, or the
            same picture, in training and test; too few films.
    """
    with _alone():
        return _open_prepared(name, source, needed_for, replace_saturated)


@contextmanager
def _alone() -> Iterator[None]:
    """Two systems may be trained at the same time: the one that comes second waits for the films."""
    lock = artefacts.workspace() / "data" / ".prepare.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _open_prepared(
    name: str, source: str | None, needed_for: str, replace_saturated: bool | None
) -> PreparedSet:
    title, key = _SOURCES[name]
    folder = Path(source).expanduser().resolve() if source else artefacts.workspace() / "data" / key
    prepared = PreparedSet(artefacts.prepared_folder(name))
    finished = (prepared.folder / "manifest.json").exists()
    if finished and replace_saturated not in (None, prepared.manifest["replace_saturated"]):
        raise Refusal(
            f"{shown(prepared.folder)} was prepared {'without' if replace_saturated else 'with'} "
            "--replace-saturated",
            do="give the same flag in every step, or delete data/prepared and all weights made from it",
        )
    if not folder.is_dir():
        if finished and source is None:
            return prepared
        raise Refusal(
            f"{needed_for} needs the {title} films",
            missing=shown(folder),
            do=f"put them there, or name their folder: --{key} PATH",
        )
    names = ("siim",) if key == "siim" else tuple(ntuh.TABLES)
    listed = {n: siim.source_films(folder) if n == "siim" else ntuh.source_films(folder, n) for n in names}
    fingerprint = _fingerprint(listed)
    if not finished:
        _prepare(listed, title, fingerprint, bool(replace_saturated))
    elif prepared.manifest["source"] != fingerprint:
        raise Refusal(
            f"{shown(prepared.folder)} was prepared from other films than {shown(folder)} holds",
            do="name the folder it was made from, or delete "
            + " and ".join(shown(artefacts.prepared_folder(n)) for n in names)
            + " to prepare the new films",
        )
    return prepared


def _fingerprint(listed: dict[str, list[SourceFilm]]) -> str:
    """SHA-256 of what the source lists: films, labels, annotations, and the size of each image file."""
    parts = []
    for name, films in listed.items():
        for film in films:
            size = film.path.stat().st_size if film.path else -1
            parts.append(f"{name} {film.identifier} {film.report} {film.excluded} {film.fault} {size}")
            parts.append(film.annotation.content() if film.annotation else b"")
    return digest(*parts)


def _prepare(listed: dict[str, list[SourceFilm]], title: str, source: str, replace_saturated: bool) -> None:
    """Prepare the sets of one source together: all of them appear, or none."""
    total = sum(not (f.excluded or f.fault) for films in listed.values() for f in films)
    print(f"Preparing {total:,} {title} films once ({total * SIDE * SIDE / 1e9:.1f} GB on disk)")
    for name in listed:
        shutil.rmtree(artefacts.prepared_folder(name), ignore_errors=True)  # what an interruption left
    manifests = {name: _prepare_set(name, films, replace_saturated) for name, films in listed.items()}
    if "ntuh_test" in listed:
        _refuse_leakage(*(PreparedSet(artefacts.prepared_folder(name)) for name in listed))
    for name, manifest in manifests.items():
        artefacts.write_json(
            artefacts.prepared_folder(name) / "manifest.json",
            manifest | {"source": source, "replace_saturated": replace_saturated},
        )


@dataclass(frozen=True)
class _Prepared:
    """What a worker returns for one film: pixels and facts, or why there are none."""

    pixels: np.ndarray | None = None
    mask: np.ndarray | None = None
    facts: dict[str, Any] | None = None
    excluded: str | None = None
    fault: str | None = None


def _prepare_film(film: SourceFilm, minimum_age: float | None, replace_saturated: bool) -> _Prepared:
    """Read, check and stretch one film with its mask (runs in a worker process)."""
    cv2.setNumThreads(1)
    try:
        image = read_film(film.path, replace_saturated)
        if minimum_age is not None and image.age is not None and image.age < minimum_age:
            return _Prepared(excluded=f"age under {minimum_age:g}")
        height, width = image.pixels.shape
        mask = resample_mask(film.annotation.mask(width, height), SIDE) if film.annotation else None
        if mask is not None and not mask.any():
            raise FilmFault("its mask vanishes on the prepared grid")
    except FilmFault as fault:
        return _Prepared(fault=str(fault))
    facts = {
        "patient_id": image.patient_id,
        "age": image.age,
        "sex": image.sex,
        "view": image.view,
        "width": width,
        "height": height,
        "spacing_row": image.spacing and image.spacing[0],
        "spacing_column": image.spacing and image.spacing[1],
    }
    return _Prepared(resample(image.pixels, SIDE), mask, facts)


def _in_workers(films: list[SourceFilm], *rules: object) -> Iterator[_Prepared]:
    """Prepare films in processes, in order, with at most a few waiting in memory."""
    workers = min(
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 8
    )
    # spawned, not forked: the parent may have started threads
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        waiting: list[Future] = []
        for film in films:
            waiting.append(pool.submit(_prepare_film, film, *rules))
            if len(waiting) > 8 * workers:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()


def _prepare_set(name: str, listed: list[SourceFilm], replace_saturated: bool) -> dict[str, Any]:
    """Prepare one set, all but its manifest, which is returned."""
    folder = artefacts.prepared_folder(name)
    folder.mkdir(parents=True, exist_ok=True)
    listed = sorted(listed, key=lambda film: film.identifier)
    readable = [film for film in listed if not (film.excluded or film.fault)]
    minimum_age = None if name == "siim" else ntuh.MINIMUM_AGE
    partial = folder / "films.partial.npy"
    pixels = np.lib.format.open_memmap(partial, "w+", np.uint8, (max(len(readable), 1), SIDE, SIDE))
    masks, rows, hashes = [], [], []
    excluded = [(film, film.excluded) for film in listed if film.excluded and not film.fault]
    rejected = [(film, film.fault) for film in listed if film.fault]
    progress = tqdm(readable, desc=f"preparing {name}", unit="film", disable=None)
    try:
        for film, result in zip(progress, _in_workers(readable, minimum_age, replace_saturated), strict=True):
            if result.fault:
                rejected.append((film, result.fault))
            elif result.excluded:
                excluded.append((film, result.excluded))
            else:
                packed = np.packbits(result.mask, axis=1) if result.mask is not None else None
                pixels[len(rows)] = result.pixels
                rows.append(_case(film, result, len(masks)))
                if packed is not None:
                    masks.append(packed)
                hashes.append(
                    digest(
                        result.pixels.tobytes(), b"" if packed is None else packed.tobytes(), str(film.report)
                    )
                )
    except BrokenProcessPool:
        raise Refusal(
            "a decoder crashed while films were prepared", do="find and remove the broken film"
        ) from None
    if not rows:
        raise Refusal(f"no film of {name} could be prepared", found=_reasons(rejected + excluded))
    _finish_films(pixels, partial, folder / "films.npy", len(rows))
    with artefacts.whole_file(folder / "masks.npy") as temporary, open(temporary, "wb") as file:
        np.save(file, np.array(masks, dtype=np.uint8).reshape(-1, SIDE, SIDE // 8))
    artefacts.write_csv(folder / "cases.csv", list(COLUMNS), rows)
    artefacts.write_csv(
        folder / "rejected.csv",
        ["case", "origin", "reason"],
        [
            {"case": pseudonym("case", film.identifier), "origin": film.origin, "reason": reason}
            for film, reason in rejected
        ],
    )
    flow = _flow(name, listed, rows, excluded, rejected)
    artefacts.write_json(folder / "flow.json", flow)
    print_flow(flow)
    part = _part(name, rows)
    artefacts.write_json(folder / "folds.json", {"part": part})
    return {
        "set": name,
        "films": len(rows),
        "side": SIDE,
        "content": digest(*hashes),
        "split": digest(*map(str, part)),
    }


def _finish_films(pixels: np.memmap, partial: Path, final: Path, count: int) -> None:
    """Cut the array to the films that were prepared and give it its name."""
    if count < len(pixels):  # the header holds the length, so it is written anew
        shorter = np.lib.format.open_memmap(final.with_suffix(".tmp"), "w+", np.uint8, (count, SIDE, SIDE))
        for row in range(count):
            shorter[row] = pixels[row]
        shorter.flush()
        partial.unlink()
        partial = final.with_suffix(".tmp")
    else:
        pixels.flush()
    os.replace(partial, final)


def _case(film: SourceFilm, result: _Prepared, mask_row: int) -> dict[str, Any]:
    """The film's row in the case table."""
    facts = dict(result.facts)
    patient = facts.pop("patient_id")
    has_mask = result.mask is not None
    return {
        "case": pseudonym("case", film.identifier),
        "patient": pseudonym("patient", patient or f"exam {film.identifier}"),
        "patient_known": int(bool(patient)),
        "has_mask": int(has_mask),
        "report": film.report,
        "mask_row": mask_row if has_mask else -1,
        "mask_area_fraction": float(result.mask.mean()) if has_mask else 0.0,
        **facts,
    }


def _part(name: str, rows: list[dict[str, Any]]) -> list[int]:
    """The part each film belongs to: its fold, or 1 for the validation films of pre-training."""
    positive = np.array([row["has_mask"] == 1 for row in rows])
    patients = np.array([row["patient"] for row in rows])
    if name == "siim":
        return folds.choose_validation(positive, patients).astype(int).tolist()
    if name == "ntuh_train":
        return folds.assign_folds(positive, patients).tolist()
    return [0] * len(rows)


def _reasons(films: list[tuple[SourceFilm, str]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for _, reason in films:
        counts[reason] = counts.get(reason, 0) + 1
    return counts


def _flow(
    name: str,
    listed: list[SourceFilm],
    rows: list[dict[str, Any]],
    excluded: list[tuple[SourceFilm, str]],
    rejected: list[tuple[SourceFilm, str]],
) -> dict[str, Any]:
    """Where every film went: found = prepared + excluded + rejected."""

    def count(condition: Callable[[dict[str, Any]], bool]) -> int:
        return sum(map(condition, rows))

    return {
        "set": name,
        "found": len(listed),
        "excluded": _reasons(excluded),
        "rejected": _reasons(rejected),
        "prepared": len(rows),
        "patients": len({row["patient"] for row in rows}),
        "with_mask": count(lambda r: r["has_mask"] == 1),
        "positive_by_report": count(lambda r: r["report"] == 1),
        "report_without_mask": count(lambda r: r["report"] == 1 and r["has_mask"] == 0),
        "mask_without_report": count(lambda r: r["report"] == 0 and r["has_mask"] == 1),
        "unknown_age": count(lambda r: r["age"] is None),
        "grouped_by_exam": count(lambda r: r["patient_known"] == 0),
    }


def print_flow(flow: dict[str, Any]) -> None:
    """Print where every film of a set went."""
    print(f"{flow['set']}: {flow['found']} films found")
    for kind in ("excluded", "rejected"):
        for reason, count in sorted(flow[kind].items()):
            print(f"  {count:>6} {kind}: {reason}")
    print(f"  {flow['prepared']:>6} prepared, of {flow['patients']} patients")
    print(
        f"         {flow['with_mask']} with a mask; {flow['positive_by_report']} positive by report, "
        f"{flow['report_without_mask']} of them without a mask"
    )
    if flow["set"] == "siim":
        print("         (SIIM-ACR gives nearly every film its own PatientID: patients cannot be told apart)")
    if flow["unknown_age"] and flow["set"] != "siim":
        print(f"  {flow['unknown_age']:>6} of them of unknown age, kept")
    if flow["grouped_by_exam"]:
        print(f"  {flow['grouped_by_exam']:>6} of them without PatientID: grouped by exam, not by patient")


def _refuse_leakage(train: PreparedSet, test: PreparedSet) -> None:
    """Refuse a patient, or a picture, that is in training and in test.

    Raises:
        Refusal: With the first pairs of films; nothing stays prepared.
    """
    pairs = [(*pair, "same patient") for pair in shared_patients(train, test)]
    pairs += [(*pair, "same picture") for pair in _shared(train, test, _picture_hashes)]
    if pairs:
        for prepared in (train, test):
            shutil.rmtree(prepared.folder)
        raise Refusal(
            f"{len(pairs)} pairs of films share a patient, or are the same picture, in training and test",
            found="; ".join(f"{a} and {b} ({why})" for a, b, why in pairs[:10]),
            do="take them out of one of the two tables",
        )


def shared_patients(first: PreparedSet, second: PreparedSet) -> list[tuple[str, str]]:
    """Films of the second set whose patient is in the first: (a case of the first, case of the second)."""
    return _shared(first, second, lambda prepared: prepared.cases["patient"])


def _picture_hashes(prepared: PreparedSet) -> list[str]:
    return [digest(prepared.film(row).tobytes()) for row in range(len(prepared.cases))]


def _shared(
    first: PreparedSet, second: PreparedSet, keys: Callable[[PreparedSet], Iterable[str]]
) -> list[tuple[str, str]]:
    known = dict(zip(keys(first), first.cases["case"], strict=True))
    return [
        (known[key], case)
        for key, case in zip(keys(second), second.cases["case"], strict=True)
        if key in known
    ]
