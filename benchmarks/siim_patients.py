"""Step 1.1 with validation divided by film and by patient: what does a patient on both sides add to its Dice?

    python benchmarks/siim_patients.py                     six trainings, half an hour of one core
    python benchmarks/siim_patients.py --quick             one seed, one epoch: does it run?
    python benchmarks/siim_patients.py --epochs 40 --image-size 128 --seeds 0 1 2 3 4

The training films of `../shared/real/pneumothorax` (real films, real SIIM-ACR masks) are laid out as the
SIIM-ACR download, each with a PatientID of its own, as there, and with a table of patients beside. The
project's scripts are given the folder twice, without the table and with it; all else is the same: films,
recipe, networks. A seed is the training's, and gives the films other names, by whose order they are divided:
each seed has other validation films.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
REAL = REPOSITORY.parent / "shared" / "real"
ENCODER = "tf_efficientnet_lite0"
STEP = "step1_pretraining/step1_segmentation"


class Listed(NamedTuple):
    """A film as it is laid out."""

    uid: str
    patient: str
    positive: bool


def lay_out(films: Path, folder: Path, seed: int) -> list[Listed]:
    """Write the training films as the SIIM-ACR download, and their patients; in order of the new names."""
    with (films / "cases.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["set"] == "train"]
    listed, labels = [], ["ImageId, EncodedPixels"]
    for row in rows:
        uid = _uid(f"{seed} {row['case']}")
        _write_film(films / row["image"], folder / "dicom-images-train", uid)
        encoded = _run_lengths(films / row["mask"]) if row["mask"] else "-1"
        labels.append(f"{uid}, {encoded}")
        listed.append(Listed(uid, row["patient"], bool(row["mask"])))
    (folder / "train-rle.csv").write_text("\n".join(labels) + "\n")
    patients = ["ImageId,patient", *(f"{film.uid},{film.patient}" for film in listed)]
    table_of(folder).write_text("\n".join(patients) + "\n")
    return sorted(listed)


def table_of(folder: Path) -> Path:
    """The table of patients, outside the download: taken only where it is named."""
    return folder.with_name(f"{folder.name}_patients.csv")


def _uid(text: str) -> str:
    return f"2.25.{int.from_bytes(hashlib.sha256(text.encode()).digest()[:15], 'big')}"


def _write_film(jpeg: Path, folder: Path, uid: str) -> None:
    """A JPEG file as a DICOM file of the same pixels."""
    import pydicom
    from PIL import Image
    from pydicom.encaps import encapsulate

    film = pydicom.Dataset()
    film.SOPClassUID, film.SOPInstanceUID = pydicom.uid.SecondaryCaptureImageStorage, uid
    film.StudyInstanceUID = film.SeriesInstanceUID = f"{uid}.1"
    film.PatientID = f"patient of {uid}"  # SIIM-ACR gives every film another one
    film.Modality = "CR"
    film.Columns, film.Rows = Image.open(jpeg).size
    film.SamplesPerPixel, film.PhotometricInterpretation = 1, "MONOCHROME2"
    film.BitsAllocated, film.BitsStored, film.HighBit, film.PixelRepresentation = 8, 8, 7, 0
    film.PixelData = encapsulate([jpeg.read_bytes()])
    film["PixelData"].VR = "OB"
    film.file_meta = pydicom.dataset.FileMetaDataset()
    film.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
    path = folder / uid / uid / f"{uid}.dcm"
    path.parent.mkdir(parents=True)
    film.save_as(path, enforce_file_format=True)


def _run_lengths(mask: Path) -> str:
    import cv2

    from common.films.annotations import encode_rle

    pixels = cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE)
    assert pixels is not None, f"{mask} cannot be read"
    return encode_rle(cv2.resize(pixels, (1024, 1024), interpolation=cv2.INTER_NEAREST) > 127)


def train(workspace: Path, siim: Path, table: Path | None, flags: Iterable[str]) -> dict[str, Any]:
    """Step 1.1 of `eff` as a user gives it; the metadata of its weights."""
    from common.networks.weights import read_metadata

    environment = os.environ | {"PTX_WORKSPACE": str(workspace), "VIRTUAL_ENV": sys.prefix}
    command = ["bash", "train.sh", "cpu", "--preset", "demo", "--system", "eff", "--siim", str(siim), *flags]
    command += ["--siim-patients", str(table)] if table else []
    subprocess.run(command, cwd=REPOSITORY / STEP, env=environment, check=True, stdout=sys.stderr)
    metadata = read_metadata(workspace / STEP / "model_weights" / "eff_seg_siim.safetensors")
    assert metadata is not None
    return metadata


def twins(workspace: Path, films: list[Listed]) -> tuple[int, int, int]:
    """Validation positives, those whose patient has another positive in training, and their patients."""
    from common.files import read_json

    part = np.array(read_json(workspace / "data/prepared/siim/folds.json", "run it again")["part"])
    assert len(part) == len(films)  # none was rejected, so that row i is film i
    patients = np.array([film.patient for film in films])
    positive = np.array([film.positive for film in films])
    held = patients[positive & (part == 1)]
    shared = np.isin(held, patients[positive & (part == 0)])
    return len(held), int(shared.sum()), len(set(held.tolist()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--films", type=Path, default=REAL / "pneumothorax", help="folder of a case table")
    parser.add_argument("--imagenet", type=Path, default=REAL / "weights", help=f"weights of {ENCODER}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--quick", action="store_true", help="one seed, one epoch at 64 pixels")
    arguments = parser.parse_args()
    if not arguments.films.is_dir() or not arguments.imagenet.exists():
        print(f"siim_patients: skipped, there are no {arguments.films} and {arguments.imagenet}")
        return
    if arguments.quick:
        arguments.seeds, arguments.epochs, arguments.image_size = arguments.seeds[:1], 1, 64
    sys.path.insert(0, str(REPOSITORY))
    flags = ["--epochs", str(arguments.epochs), "--image-size", str(arguments.image_size)]
    flags += ["--encoder", ENCODER, "--initial-weights", "imagenet", "--imagenet", str(arguments.imagenet)]
    scores: dict[str, list[float]] = {"film": [], "patient": []}
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as folder:
            siim = Path(folder) / "siim"
            films = lay_out(arguments.films, siim, seed)
            for divided, table in (("film", None), ("patient", table_of(siim))):
                workspace = Path(folder) / divided
                result = train(workspace, siim, table, [*flags, "--seed", str(seed)])["result"]
                held, shared, patients = twins(workspace, films)
                scores[divided].append(result["score"])
                print(
                    f"seed {seed}, by {divided}: Dice {result['score']:.3f} at epoch {result['epoch']}, "
                    f"n = {held} positives of {patients} patients, {shared} of them with another positive "
                    "film of the patient in training",
                    flush=True,
                )
    by_film, by_patient = (np.array(scores[divided]) for divided in ("film", "patient"))
    print(
        f"siim_patients: Dice by film {by_film.mean():.3f}, by patient {by_patient.mean():.3f}, difference "
        f"{(by_film - by_patient).mean():+.3f} ({', '.join(f'{d:+.3f}' for d in by_film - by_patient)})"
    )


if __name__ == "__main__":
    main()
