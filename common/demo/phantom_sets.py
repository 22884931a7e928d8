"""Writes synthetic films in the two layouts that the pipeline reads: SIIM-ACR's download and NTUH's export.

Everything follows from the seed: film `i` of set `c` has the generator `default_rng([seed, c, i])`, so
neither the number of workers nor the order of writing changes a byte. Header facts and patients are drawn
apart from the label.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import multiprocessing
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from common.demo.phantom import draw_anatomy, render, target_area
from common.films.annotations import encode_rle
from common.paths import shown
from common.progress import progress
from common.refusal import Refusal, run_script
from common.sources.ntuh import CHEST_TUBE, REPORT

SIIM, NTUH_TRAIN, NTUH_TEST, PATIENTS = 1, 2, 3, 4  # the sets' codes in the generators' seeds
SIIM_SIZE = 1024
IMPLEMENTATION_UID = UID("2.25.271828182845904523536028747135266249775")
TAGS = ("Pneumothorax", "Pneumothorax ", "PTX", "pneumothorax ")


@dataclass(frozen=True)
class Job:
    """One film to write; plain values only, so that a spawned worker can have it."""

    root: str
    seed: int
    code: int
    index: int
    kind: str  # positive, negative, or unmarked: positive by report without an annotation
    person: str = ""
    accession: str = ""
    patient: int = 0
    age: str = ""
    tube: bool = False
    kept: bool = True


def _rng(job: Job, *more: int) -> np.random.Generator:
    return np.random.default_rng([job.seed, job.code, job.index, *more])


def _uid(*parts: object) -> str:
    """A UID under 2.25 that follows from the parts alone."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big') | 1 << 127}"


def _run(task: Callable[[Job], dict], jobs: list[Job], workers: int, what: str) -> list[dict]:
    """The task's result for each job, in the jobs' order."""
    if workers <= 1:
        return _shown(map(task, jobs), len(jobs), what)
    with multiprocessing.get_context("spawn").Pool(
        workers, initializer=cv2.setNumThreads, initargs=(1,)
    ) as pool:
        return _shown(pool.imap(task, jobs, chunksize=4), len(jobs), what)


def _shown(results: Iterable[dict], total: int, what: str) -> list[dict]:
    made = []
    with progress(total, what) as bar:
        for each in results:
            made.append(each)
            bar.update()
    return made


def _shuffled(rng: np.random.Generator, **counts: int) -> list[str]:
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    return [kinds[i] for i in rng.permutation(len(kinds))]


# --- SIIM-ACR -------------------------------------------------------------------------------------------


def _siim_header(job: Job, rng: np.random.Generator) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.SOPClassUID = SecondaryCaptureImageStorage
    ds.SOPInstanceUID = _uid(job.seed, job.code, job.index, "instance")
    ds.StudyDate, ds.StudyTime, ds.AccessionNumber = "19010101", "000000.00", ""
    ds.Modality, ds.ConversionType = "CR", "WSD"
    ds.ReferringPhysicianName = ""
    ds.ViewPosition = str(rng.choice(["PA", "AP"]))
    ds.SeriesDescription = f"view: {ds.ViewPosition}"
    ds.PatientName = ds.PatientID = f"synthetic-{rng.integers(16**8):08x}-{job.index:05d}"
    ds.PatientBirthDate = ""
    ds.PatientSex = str(rng.choice(["F", "M"]))
    with pydicom.config.disable_value_validation():  # SIIM-ACR writes "64" where DICOM wants "064Y"
        ds.PatientAge = str(rng.integers(16, 90))
    ds.BodyPartExamined = "CHEST"
    ds.StudyInstanceUID = _uid(job.seed, job.code, job.index, "study")
    ds.SeriesInstanceUID = _uid(job.seed, job.code, job.index, "series")
    ds.StudyID, ds.SeriesNumber, ds.InstanceNumber, ds.PatientOrientation = "", 1, 1, ""
    ds.PixelSpacing = [float(rng.choice([0.139, 0.143, 0.168, 0.171]))] * 2
    return ds


def _write_siim_film(job: Job) -> dict:
    header = _siim_header(job, _rng(job, 1))
    rng = _rng(job)
    anatomy, area = draw_anatomy(rng), target_area(rng, "siim")
    film, mask = render(rng, anatomy, "siim", area if job.kind == "positive" else None, SIIM_SIZE)
    film = np.round(film * 255).astype(np.uint8)
    ok, jpeg = cv2.imencode(".jpg", film, [cv2.IMWRITE_JPEG_QUALITY, 90])
    if not ok:
        raise RuntimeError("cv2 could not encode a JPEG")
    header.LossyImageCompression, header.LossyImageCompressionMethod = "01", "ISO_10918_1"
    header.LossyImageCompressionRatio = round(film.size / len(jpeg), 2)
    _describe_pixels(header, film.shape, 8, "MONOCHROME2")
    header.PixelData = encapsulate([jpeg.tobytes()])
    header["PixelData"].VR = "OB"
    name = Path(job.root, "dicom-images-train", header.StudyInstanceUID, header.SeriesInstanceUID)
    _save(header, name / f"{header.SOPInstanceUID}.dcm", JPEGBaseline8Bit)
    return {
        "id": header.SOPInstanceUID,
        "positive": job.kind == "positive",
        "area": mask.mean(),
        "rows": _siim_rows(mask, _rng(job, 2)),
    }


def _siim_rows(mask: np.ndarray, rng: np.random.Generator) -> list[str]:
    """The film's cells: a mask may be split over rows; an empty one is -1 with or without a space."""
    if not mask.any():
        return [str(rng.choice([" -1", "-1"]))]
    count, labels = cv2.connectedComponents(mask.astype(np.uint8))
    parts = [labels == k for k in range(1, count)]
    if len(parts) > 1 or rng.random() >= 0.15:
        return [" " + encode_rle(part) for part in parts]
    cut = int(np.median(np.flatnonzero(mask.any(axis=1))))
    halves = [mask.copy(), mask.copy()]
    halves[0][cut:], halves[1][:cut] = False, False
    return [" " + encode_rle(half) for half in halves]


def write_siim(
    folder: str | Path, positives: int, negatives: int, seed: int, workers: int = 2
) -> pd.DataFrame:
    """Writes a set laid out like the SIIM-ACR download.

    `dicom-images-train/<study>/<series>/<SOP>.dcm` (1024 x 1024, 8 bit, MONOCHROME2, JPEG Baseline) and
    `train-rle.csv` (header `ImageId, EncodedPixels`; one or several rows a film).

    Args:
        folder: Folder to write, created when absent.
        positives: Number of films with a lesion.
        negatives: Number of films without a lesion.
        seed: Seed that decides every byte.
        workers: Number of processes, which does not change the result.

    Returns:
        One row a film, in the order of the label file: `id` (SOPInstanceUID), `positive` (bool), `area` (the
        lesion's share of the film, 0 to 1), `rows` (its cells in the label file). Not written; for checks.
    """
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    kinds = _shuffled(np.random.default_rng([seed, SIIM]), positive=positives, negative=negatives)
    jobs = [Job(str(root), seed, SIIM, i, kind) for i, kind in enumerate(kinds)]
    films = _run(_write_siim_film, jobs, workers, "SIIM-style films")
    lines = ["ImageId, EncodedPixels"] + [f"{film['id']},{cell}" for film in films for cell in film["rows"]]
    (root / "train-rle.csv").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    return pd.DataFrame(films)


# --- DICOM ----------------------------------------------------------------------------------------------


def _describe_pixels(ds: Dataset, shape: tuple[int, int], bits: int, photometric: str) -> None:
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, photometric
    ds.Rows, ds.Columns = shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = (8 if bits <= 8 else 16), bits, bits - 1
    ds.PixelRepresentation = 0


def _save(ds: Dataset, path: Path, syntax: pydicom.uid.UID) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID = IMPLEMENTATION_UID
    meta.ImplementationVersionName = "PHANTOM_1"
    ds.file_meta = meta
    ds.save_as(path, enforce_file_format=True)


def _rle_frame(pixels: np.ndarray) -> bytes:
    """One 16-bit frame as RLE Lossless in literal runs only: valid, no smaller, but quick both ways."""
    rows, columns = pixels.shape
    planes = []
    for plane in (pixels >> 8, pixels & 255):
        pieces = []
        for start in range(0, columns, 128):
            part = plane[:, start : start + 128].astype(np.uint8)
            pieces += [np.full((rows, 1), part.shape[1] - 1, np.uint8), part]
        data = np.concatenate(pieces, axis=1).tobytes()
        planes.append(data + b"\0" * (len(data) % 2))
    offsets = [2, 64, 64 + len(planes[0])] + [0] * 13
    return np.array(offsets, "<u4").tobytes() + planes[0] + planes[1]


# --- NTUH -----------------------------------------------------------------------------------------------


def _ntuh_header(job: Job, rng: np.random.Generator) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    computed = rng.random() < 0.5
    ds.SOPClassUID = ComputedRadiographyImageStorage if computed else DigitalXRayImageStorageForPresentation
    ds.SOPInstanceUID = _uid(job.seed, job.code, job.index, "instance")
    year = 2020 if job.code == NTUH_TEST else int(rng.integers(2015, 2020))
    ds.StudyDate = f"{year}{rng.integers(1, 13):02d}{rng.integers(1, 29):02d}"
    ds.StudyTime = f"{rng.integers(24):02d}{rng.integers(60):02d}{rng.integers(60):02d}"
    ds.AccessionNumber = job.accession
    ds.Modality = "CR" if computed else "DX"
    ds.Manufacturer = str(rng.choice(["SYNTHETIC A", "SYNTHETIC B", "SYNTHETIC C"]))
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = "CHEST PORTABLE (AP)"
    ds.PatientName = ds.PatientID = f"SYN{job.patient:08d}"
    ds.PatientBirthDate = ""
    ds.PatientSex = str(np.random.default_rng([job.seed, PATIENTS, job.patient, 1]).choice(["F", "M"]))
    if job.age:
        ds.PatientAge = job.age
    ds.BodyPartExamined, ds.ViewPosition = "CHEST", "AP"
    ds.StudyInstanceUID = _uid(job.seed, job.code, job.index, "study")
    ds.SeriesInstanceUID = _uid(job.seed, job.code, job.index, "series")
    ds.StudyID, ds.SeriesNumber, ds.InstanceNumber, ds.PatientOrientation = "", 1, 1, ["L", "F"]
    ds.ImagerPixelSpacing = ds.PixelSpacing = [float(rng.choice([0.30, 0.32, 0.35, 0.40]))] * 2
    return ds


def _stored_pixels(ds: Dataset, film: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """12-bit stored values of a film in 0 to 1, and the tags that say how to read them."""
    low, high = int(rng.integers(0, 500)), int(rng.integers(2600, 4096))
    inverted, windowed, rescaled = rng.random(3) < (1 / 3, 0.6, 0.3)
    pixels = np.round(low + film * (high - low)).astype(np.uint16)
    if inverted:
        pixels, low, high = 4095 - pixels, 4095 - high, 4095 - low
    _describe_pixels(ds, film.shape, 12, "MONOCHROME1" if inverted else "MONOCHROME2")
    intercept = -1024 if rescaled else 0
    if rescaled:
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = intercept, 1, "US"
    if windowed:
        width = round((high - low) * rng.uniform(0.92, 1.1))
        ds.WindowCenter, ds.WindowWidth = round((low + high) / 2) + intercept, width
    return pixels


def _save_ntuh(ds: Dataset, pixels: np.ndarray, path: Path, rng: np.random.Generator) -> None:
    choice = rng.random()
    if choice < 0.25:
        ds.PixelData = encapsulate([_rle_frame(pixels)])
        syntax = RLELossless
    else:
        ds.PixelData = pixels.astype("<u2").tobytes()
        syntax = ImplicitVRLittleEndian if choice < 0.4 else ExplicitVRLittleEndian
    ds["PixelData"].VR = "OB" if syntax == RLELossless else "OW"
    _save(ds, path, syntax)


def _write_ntuh_film(job: Job) -> dict:
    header_rng, rng = _rng(job, 1), _rng(job)
    ds = _ntuh_header(job, header_rng)
    rows, columns = (int(n) for n in header_rng.integers(900, 1201, 2))
    anatomy = draw_anatomy(np.random.default_rng([job.seed, PATIENTS, job.patient]))
    area: float | None = target_area(rng, "ntuh")
    if job.kind == "unmarked":  # nothing to see, or next to nothing
        area = rng.uniform(0.0006, 0.0015) if rng.random() < 0.5 else None
    film, mask = render(rng, anatomy, "ntuh", None if job.kind == "negative" else area, 1024)
    film = cv2.resize(film, (columns, rows), interpolation=cv2.INTER_LINEAR)
    mask = cv2.resize(mask.astype(np.uint8), (columns, rows), interpolation=cv2.INTER_NEAREST) > 0
    pixels = _stored_pixels(ds, np.clip(film, 0, 1), header_rng)
    _save_ntuh(ds, pixels, Path(job.root, "images", f"{job.person}.dcm"), header_rng)
    covered = 0.0
    if job.kind == "positive":
        covered = _write_label(job, mask, _rng(job, 2))
    return {
        "id": job.person,
        "set": "test" if job.code == NTUH_TEST else "train",
        "positive": job.kind == "positive",
        "reported": job.kind != "negative",
        "included": job.kept and not job.tube and job.age not in UNDERAGE,
        "patient": ds.PatientID,
        "area": covered,
        "exact_area": float(mask.mean()),
    }


def cover_with_rectangles(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    """Covers a lesion with overlapping upright rectangles, in steps along it, as an annotator does.

    Args:
        mask: (height, width) bool.

    Returns:
        (n, 4) float64: x0, y0, x1, y1 in pixels (edges, so a full film is 0, 0, width, height), x0 < x1 and
        y0 < y1; some reach slightly outside the film. Empty for an empty mask.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    boxes = []
    for k in range(1, count):
        x, y, w, h, area = stats[k]
        if area < 30:
            continue
        piece = labels[y : y + h, x : x + w] == k
        bands = int(np.clip(round(h / (0.035 * len(mask)) * rng.uniform(0.7, 1.3)), 2, 14))
        cuts = np.unique(np.linspace(0, h, bands + 1).round().astype(int))
        for top, bottom in itertools.pairwise(cuts):
            filled = piece[top:bottom].mean(axis=0) >= 0.45
            ends = np.flatnonzero(np.diff(np.concatenate([[0], filled, [0]])))
            boxes += [(x + a, y + top, x + b, y + bottom) for a, b in ends.reshape(-1, 2) if b - a >= 3]
    if not boxes:
        return np.zeros((0, 4))
    slack = rng.uniform(0, 0.004, (len(boxes), 4)) * max(mask.shape) * (-1, -1, 1, 1)
    return np.array(boxes, float) + slack


def _write_label(job: Job, mask: np.ndarray, rng: np.random.Generator) -> float:
    """Writes label.json; returns the share of the film that the rectangles cover."""
    rows, columns = mask.shape
    union = np.zeros(mask.shape, bool)
    shapes = []
    for k, (x0, y0, x1, y1) in enumerate(cover_with_rectangles(rng, mask)):
        union[max(0, round(y0)) : round(y1), max(0, round(x0)) : round(x1)] = True
        flip_x, flip_y = rng.random(2) < 0.5
        a, b = (x1 if flip_x else x0, y1 if flip_y else y0), (x0 if flip_x else x1, y0 if flip_y else y1)
        shape = {"type": "Rectangle", "a": np.round(a, 2).tolist(), "b": np.round(b, 2).tolist()}
        tag = str(rng.choice(TAGS, p=[0.4, 0.15, 0.3, 0.15]))
        shapes.append(shape | {"tagAnno": tag, "id": k, "strokeColor": "#ff0000", "strokeWidth": 1})
    label = {"accessionNumber": job.accession, "size": [columns, rows], "shapes": shapes}
    path = Path(job.root, "labels", job.person, "label.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(label, indent=1) + "\n", encoding="utf-8", newline="\n")
    return float(union.mean())


UNDERAGE = tuple(f"{age:03d}Y" for age in range(1, 20))
REPORTS = {
    True: (
        "Chest AP view (portable, supine):\n1. {side} pneumothorax.\n2. Infiltration over both lungs.",
        "CXR (AP):\n* Visible visceral pleural line, {side} side\n* No mediastinal shift",
        'Chest X ray, AP supine:\nSmall {side} pneumothorax, suggest "follow up".\nIncreased lung markings.',
    ),
    False: (
        "Chest AP view (portable, supine):\n1. Increased infiltration.\n2. S/P endotracheal tube.",
        "CXR (AP):\n* Suboptimal inspiration\n* Blunting of left costophrenic angle",
        'KUB+Chest AP (bedside)\n1. No active lesion, no "acute" change.\n2. S/P central venous catheter.',
    ),
}


def _plan(root: Path, seed: int, code: int, positives: int, negatives: int) -> list[Job]:
    """The set's films: those of the study, those that its rules drop, and those that lack an annotation."""
    rng = np.random.default_rng([seed, code])
    test = code == NTUH_TEST
    total = positives + negatives
    few, unmarked = max(1, round(0.02 * total)), max(2 if test else 1, round(0.03 * total) if test else 1)
    kinds = _shuffled(rng, positive=positives, negative=negatives, unmarked=unmarked)
    fates = ["kept"] * len(kinds) + ["young", "tube"] * few + ([] if test else ["untrained"] * few)
    share = positives / max(total, 1)
    kinds += ["positive" if rng.random() < share else "negative" for _ in fates[len(kinds) :]]
    unknown = set(rng.choice(fates.count("kept"), size=few, replace=False).tolist())
    order = rng.permutation(len(kinds))
    patients = _patients(rng, len(kinds))
    jobs = []
    for index, k in enumerate(order):
        age = f"{rng.integers(20, 95):03d}Y"
        age = "" if k in unknown else age
        age = f"{rng.integers(1, 20):03d}Y" if fates[k] == "young" else age
        job = Job(
            root=str(root),
            seed=seed,
            code=code,
            index=index,
            kind=kinds[k],
            person=f"P{rng.integers(10**8):08d}{2 * index + test:04d}",
            accession=f"RA{rng.integers(10**6):06d}{2 * index + test:04d}",
            patient=10_000_000 * (2 if test else 1) + patients[index],
            age=age,
            tube=fates[k] == "tube",
            kept=fates[k] != "untrained",
        )
        jobs.append(job)
    return jobs


def _patients(rng: np.random.Generator, films: int) -> list[int]:
    """A patient's number for each film: most have one exam, some two or three, in no particular order."""
    numbers: list[int] = []
    while len(numbers) < films:
        number = int(rng.integers(10**6)) * 10  # gaps, so that the number says nothing about the order
        numbers += [number] * int(rng.choice([1, 2, 3], p=[0.82, 0.12, 0.06]))
    return [numbers[:films][i] for i in rng.permutation(films)]


def _write_sheet(path: Path, jobs: list[Job], trained: bool) -> None:
    header = ["PERSONID2", "ACCESSNO2", REPORT, CHEST_TUBE] + (["Training"] if trained else []) + ["EXAM"]
    # As the hospital's tables are: with a byte-order mark and CRLF.
    with path.open("w", encoding="utf-8-sig", newline="") as handle:
        sheet = csv.writer(handle, lineterminator="\r\n")
        sheet.writerow(header)
        for job in jobs:
            rng = _rng(job, 3)
            reported = job.kind != "negative"
            report = str(rng.choice(REPORTS[reported])).format(side=rng.choice(["Right", "Left"]))
            flags = [int(reported), 1 if job.tube else ""] + ([int(job.kept)] if trained else [])
            sheet.writerow([job.person, job.accession, *flags, report])


def write_ntuh(
    folder: str | Path,
    train_positives: int,
    train_negatives: int,
    test_positives: int,
    test_negatives: int,
    seed: int,
    workers: int = 2,
) -> pd.DataFrame:
    """Writes a set laid out like the NTUH export.

    `images/<PERSONID>.dcm` (12 bit, about a third MONOCHROME1, windows and rescale on some), `NTUH_1519.csv`
    (training), `NTUH_20.csv` (test) and `labels/<PERSONID>/label.json` (rectangles of the annotated films).

    Args:
        folder: Folder to write, created when absent.
        train_positives: Number of annotated training films that the study includes.
        train_negatives: Number of negative training films that the study includes.
        test_positives: Number of annotated test films that the study includes.
        test_negatives: Number of negative test films that the study includes.
        seed: Seed that decides every byte.
        workers: Number of processes, which does not change the result.

    Extra to these counts are films that the study must drop (age below 20, chest tube, Training = 0) and
    films that are positive by report and have no annotation.

    Returns:
        One row a film: `id` (PERSONID2), `set` ("train" or "test"), `positive` (annotated), `reported`
        (pneumothorax by report), `included` (passes the study's rules), `patient`, `area` (share of the film
        under the rectangles), `exact_area` (share under the lesion drawn). For checks only; not written.
    """
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    train = _plan(root, seed, NTUH_TRAIN, train_positives, train_negatives)
    test = _plan(root, seed, NTUH_TEST, test_positives, test_negatives)
    films = _run(_write_ntuh_film, train + test, workers, "NTUH-style films")
    _write_sheet(root / "NTUH_1519.csv", train, trained=True)
    _write_sheet(root / "NTUH_20.csv", test, trained=False)
    return pd.DataFrame(films)


def write_new(
    folder: str | Path, positives: int, negatives: int, seed: int, workers: int = 2
) -> pd.DataFrame:
    """Writes films as a hospital's archive would send them: DICOM files and nothing else.

    Args:
        folder: Folder to write, created when absent.
        positives: Number of films with a lesion.
        negatives: Number of films without a lesion.
        seed: Seed that decides every byte; another than that of the training films gives other patients.
        workers: Number of processes, which does not change the result.

    Returns:
        As `write_ntuh`, which adds films to these counts.
    """
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent) as export:
        films = write_ntuh(export, 0, 0, positives, negatives, seed, workers)
        for film in Path(export, "images").iterdir():
            film.rename(root / film.name)
    return films


# The films of the demo: enough to learn from in minutes, and to test on with intervals worth reading.
DEMO_SIIM = {"positives": 240, "negatives": 360}
DEMO_NTUH = {"train_positives": 200, "train_negatives": 300, "test_positives": 110, "test_negatives": 220}
DEMO_NEW = {"positives": 4, "negatives": 4}


def write_demo(folder: Path, seed: int = 0) -> None:
    """Writes the demo's films into `siim`, `ntuh` and `new` of `folder`, unless they are there already."""
    for name, write, counts, start in (
        ("siim", write_siim, DEMO_SIIM, seed),
        ("ntuh", write_ntuh, DEMO_NTUH, seed),
        ("new", write_new, DEMO_NEW, seed + 1),
    ):
        if (folder / name).exists():
            (folder / name / _PARTIAL).unlink(missing_ok=True)
            print(f"{shown(folder / name)}: written before, kept")
            continue
        partial = folder / f"{name}.partial"
        _begin(partial)
        films = write(partial, **counts, seed=start)  # over what an interruption left: the same files
        partial.rename(folder / name)
        (folder / name / _PARTIAL).unlink()
        print(f"{shown(folder / name)}: {len(films)} films, {int(films['positive'].sum())} with a lesion")


_PARTIAL = ".demo-films-being-written"  # in a set while it is written, by which it is known as ours


def _begin(partial: Path) -> None:
    """Begin a set of the demo, or go on with one that was interrupted."""
    mark = partial / _PARTIAL
    if partial.exists() and not mark.is_file() and any(partial.iterdir()):
        raise Refusal(f"{shown(partial)} holds files that the demo did not write", do="move it away")
    partial.mkdir(parents=True, exist_ok=True)
    mark.touch()


if __name__ == "__main__":
    run_script(lambda: write_demo(Path(sys.argv[1])))
