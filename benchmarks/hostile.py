"""Hostile input: thousands of broken films, annotations and tables must cost nothing but themselves.

    python benchmarks/hostile.py                 10,000 mutations, seed 0
    python benchmarks/hostile.py --count 200 --seed 7

Each mutation goes through the code that prepares a user's films, in the processes that a user's films go
through. Counted: what was prepared, excluded or rejected with its reason; decoders that crashed or hung (each
may cost its own film only). Exit status 1 when anything else happens: an exception that is no fault or
refusal, a film that takes over 10 s of processor time, a process over 2 GB, a file outside the workspace, or
a mutated bundle, weights file or thresholds file that is not refused (`--systems`, 200).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks import hostile_systems

if TYPE_CHECKING:
    from common.sources.source_film import Annotation

SECONDS, BYTES = 10, 2 * 2**30  # of processor time: a busy machine does not change it
TAGS: dict[str, list[Any]] = {
    "Rows": [0, 1, 65535, None],
    "Columns": [0, 1, 65535, None],
    "NumberOfFrames": ["0", "2", "2147483647", "-1", None],
    "BitsAllocated": [0, 1, 7, 8, 32, 64, None],
    "BitsStored": [0, 1, 16, 255],
    "HighBit": [0, 31, 65535],
    "SamplesPerPixel": [0, 2, 3, 65535],
    "PixelRepresentation": [1, 2, None],
    "PlanarConfiguration": [1, 7],
    "PhotometricInterpretation": ["", "RGB", "YBR_FULL_422", "PALETTE COLOR", "MONOCHROME1", "../../x", None],
    "PixelSpacing": [["NaN", "NaN"], ["0", "0"], ["-1", "1E300"], ["0.1"], ["1E-300", "0.1"]],
    "WindowWidth": ["NaN", "0", "-5", "1E300", ["1", "2"], ""],
    "WindowCenter": ["NaN", "inf", "-1E300", ""],
    "RescaleSlope": ["NaN", "0", "1E300", "-1", "inf"],
    "RescaleIntercept": ["NaN", "-1E300"],
    "PixelPaddingValue": [0, 65535],
    "PatientID": ["../../../etc/passwd", "\x00", "a" * 64, "=cmd()", None],
    "PatientAge": ["999Y", "-01Y", "NaN", "020Q"],
    "PatientBirthDate": ["99999999", "20300101"],
    "StudyDate": ["00000000", "abc", "20201340"],
    "StudyInstanceUID": ["..", "1" * 64],
    "Manufacturer": ["\x1b[31m../..", "x" * 64],
    "ViewPosition": ["../..", "AP\\PA", "\n"],
    "BurnedInAnnotation": ["YES", "maybe"],
    "PixelData": [b"", b"\x00", None],
    "VOILUTFunction": ["SIGMOID", "LINEAR_EXACT", "../"],
}


def mutate_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """Cut, flip, overwrite, delete or repeat a part of a file."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        if len(data) < 8:
            break
        # half of the blows fall on the head of the file, where the structure is
        at = int(rng.integers(0, len(data) if rng.random() < 0.5 else min(len(data), 2000)))
        kind = rng.integers(0, 6)
        if kind == 0:
            del data[at:]
        elif kind == 1:
            data[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 2:
            data[at : at + 4] = bytes(
                [[0, 0, 0, 0], [255] * 4, [255, 255, 255, 127], [0, 0, 0, 128]][int(rng.integers(4))]
            )
        elif kind == 3:
            del data[at : at + int(rng.integers(1, 64))]
        elif kind == 4:
            data[at:at] = rng.bytes(int(rng.integers(1, 64)))
        else:
            data[at:at] = data[at : at + int(rng.integers(1, 4096))]
    return bytes(data)


def mutate_header(path: Path, rng: np.random.Generator) -> bytes:
    """Give one to three attributes of a DICOM file a value that they should not have."""
    import warnings
    from io import BytesIO

    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
        pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
        dataset = pydicom.dcmread(path)
        for name in rng.choice(list(TAGS), int(rng.integers(1, 4)), replace=False):
            value = TAGS[name][int(rng.integers(len(TAGS[name])))]
            if value is None:
                dataset.pop(name, None)
            else:
                setattr(dataset, str(name), value)
        target = BytesIO()
        try:
            dataset.save_as(target)
        except Exception:  # what pydicom will not write is cut instead
            return mutate_bytes(path.read_bytes(), rng)
    return target.getvalue()


def hostile_json(rng: np.random.Generator) -> bytes:
    """A `label.json` that is malformed, absurd, or huge."""
    size = [1024, 1024]
    box = {"a": [1, 1], "b": [900, 900], "tagAnno": "PTX"}
    many = [
        {"a": rng.integers(-99, 2000, 2).tolist(), "b": rng.integers(-99, 2000, 2).tolist()} for _ in range(5)
    ]
    choices: list[Any] = [
        {"size": size, "shapes": many * 20_000},
        {"size": [10**12, 10**12], "shapes": [box]},
        {"size": [-1, 0], "shapes": [box]},
        {"size": size, "shapes": [{"a": [float("nan"), 1], "b": [5, 5]}]},
        {"size": size, "shapes": [{"a": [1e308, -1e308], "b": [1e308, 1e308]}]},
        {"size": size, "shapes": [{"a": [True, "x"], "b": None}]},
        {"size": size, "shapes": {"a": 1}},
        {"size": "1024", "shapes": []},
        {"size": size, "shapes": []},
        [],
        None,
    ]
    raw = [b"[" * 200_000, b'{"size": [1' + b"0" * 100_000 + b", 1]}", b"\xff\xfe\x00", b"", b'{"size"']
    at = int(rng.integers(len(choices) + len(raw)))
    text = raw[at - len(choices)] if at >= len(choices) else json.dumps(choices[at]).encode()
    return mutate_bytes(text, rng) if rng.random() < 0.3 else text


def hostile_shapes(rng: np.random.Generator) -> bytes:
    """A LabelMe file that is malformed, absurd, of another film or of something else."""
    points = rng.uniform(-200, 1400, (int(rng.integers(0, 9)), 2)).tolist()
    kind = ["polygon", "rectangle", "circle", "line", "mask", "../x", None, 7][int(rng.integers(8))]
    label = ["ptx", "lung", "", "a" * 5000, None, "=cmd()"][int(rng.integers(6))]
    whole: dict[str, Any] = {"imageWidth": 1024, "imageHeight": 1024, "imageData": "x"}
    whole["shapes"] = [{"label": label, "points": points, "shape_type": kind}] * int(rng.integers(0, 3))
    if rng.random() < 0.5:
        odd = [0, -1, 10**12, "1024", None, float("nan"), [], {}]
        whole[str(rng.choice(list(whole)))] = odd[int(rng.integers(len(odd)))]
    if rng.random() < 0.1:
        whole["shapes"] = [{"label": "ptx", "points": [[1, 0], [2, 1023]] * 20_000}]
    text = json.dumps(whole).encode()
    return mutate_bytes(text, rng) if rng.random() < 0.3 else text


def implausible_picture(rng: np.random.Generator) -> np.ndarray:
    """What can be neither a film nor a mask: one grey, few greys, noise of any grain, classes, inverted."""
    import cv2

    noise = rng.integers(0, 256, (int(rng.integers(2, 1024)),) * 2, np.uint8)
    grown = cv2.resize(noise, (1024, 1024), interpolation=int(rng.integers(0, 4)))
    return [
        np.full_like(grown, 90),
        grown // 64 * 64,
        grown,
        grown // 128,
        255 - (grown > 250) * np.uint8(255),
    ][int(rng.integers(5))]


def hostile_runs(rng: np.random.Generator) -> str:
    """Run lengths beyond the film, too many, negative, or no numbers at all."""
    choices = [
        f"{rng.integers(0, 2**20)} {rng.integers(0, 2**21)}",
        "1048576 1",
        "0 1048577",
        "-5 10",
        "1 2 3",
        "9" * 5000 + " 1",
        "1 1 " * 300_000,
        "nan inf",
        "0x10 1e3",
        "1 " + "9" * 19,
        "\x00 \x00",
        "../../etc/passwd",
        "0 0",
    ]
    return choices[int(rng.integers(len(choices)))]


def hostile_identifier(rng: np.random.Generator) -> str:
    """A name that would lead out of the folder, or into trouble."""
    choices = [
        "../../../etc/passwd",
        "/etc/passwd",
        "..",
        "a/../../b",
        "a\x00b",
        "C:\\x",
        "~",
        "a" * 5000,
        "=1+1",
        '"',
        "\n",
        "",
    ]
    return choices[int(rng.integers(len(choices)))]


# --- what a worker does ----------------------------------------------------------------------------


def attack(task: tuple[str, Any], alive: Callable[[], None]) -> tuple[str, str, float, int]:
    """Run one mutation; (kind of ending, reason, processor seconds, most bytes it ever used)."""
    from common.preparation.film_task import prepare_film
    from common.refusal import Refusal

    kind, content = task
    start = time.process_time()
    try:
        if kind == "system":
            hostile_systems.read(*content)
            ending = ("ACCEPTED", f"a changed {content[0]}: {content[1].name}")
        elif kind == "film":
            outcome = prepare_film(content, alive)
            ending = (outcome.kind, outcome.reason)
        else:
            reader, arguments = content
            films = reader(*arguments)
            ending = (
                "listed",
                f"{(sum(bool(f.fault) for f in films) > 0 and 'with faults') or 'without faults'}",
            )
    except Refusal as refusal:
        ending = ("refused", re.sub(r"\S*/", "", refusal.what.split(":")[0]))
    except Exception as error:
        ending = ("EXCEPTION", f"{type(error).__name__} in {kind}: {error}"[:200])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return (*ending, time.process_time() - start, peak)


# --- the mutations ---------------------------------------------------------------------------------


def base_films(folder: Path) -> list[Path]:
    """Sound films to damage: synthetic DICOM in several transfer syntaxes, PNG, JPEG and TIFF."""
    import cv2
    import pydicom
    from pydicom.uid import (
        DeflatedExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        RLELossless,
    )

    from common.demo.phantom_sets import write_ntuh, write_siim
    from common.prediction.dicom_objects import Maker, file_bytes, segmentation

    write_siim(folder / "siim", positives=6, negatives=6, seed=3, workers=1)
    write_ntuh(folder / "ntuh", 6, 7, 6, 6, seed=3, workers=1)
    films = (
        sorted((folder / "siim").rglob("*.dcm"))[:3] + sorted((folder / "ntuh" / "images").glob("*.dcm"))[:8]
    )
    plain = folder / "plain"
    plain.mkdir()
    for number, syntax in enumerate(
        (
            ExplicitVRLittleEndian,
            ImplicitVRLittleEndian,
            DeflatedExplicitVRLittleEndian,
            ExplicitVRBigEndian,
            RLELossless,
        )
    ):
        dataset = pydicom.dcmread(films[0])
        dataset.decompress()
        pixels = dataset.pixel_array[::4, ::4]
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.PixelData = pixels.tobytes()
        if syntax == RLELossless:
            dataset.compress(RLELossless)
        path = plain / f"{number}.dcm"
        big = syntax == ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = syntax
        pydicom.dcmwrite(
            path,
            dataset,
            implicit_vr=syntax == ImplicitVRLittleEndian,
            little_endian=not big,
            force_encoding=True,
        )
        films.append(path)
    cv2.imwrite(str(plain / "mask.png"), np.tri(1024, dtype=np.uint8) * 255)
    sound = pydicom.dcmread(films[0])
    lesion = np.zeros((sound.Rows, sound.Columns), dtype=bool)
    lesion[100:300, 100:200] = True
    (plain / "mask.dcm").write_bytes(file_bytes(segmentation(sound, lesion, Maker("eff", "0" * 64))))
    for end in (".png", ".jpg", ".tif"):
        cv2.imwrite(str(plain / f"film{end}"), pixels)
        films.append(plain / f"film{end}")
    return films


def mutations(
    count: int, seed: int, films: list[Path], folder: Path, arrays: Path
) -> Iterator[tuple[str, Any]]:
    """Yield `count` tasks; each writes its files just before it is handed out."""
    import cv2

    from common.command_line import Rules
    from common.films.annotations import Rectangles, RunLengths
    from common.films.mask_files import MaskFile
    from common.sources import case_table, ntuh, siim
    from common.sources.source_film import SourceFilm

    rng = np.random.default_rng(seed)
    sound = films[0]
    for number in range(count):
        place = folder / str(number)
        place.mkdir()
        kind = rng.choice(
            ["bytes", "header", "json", "runs", "mask", "table", "segmentation", "shapes", "picture"],
            p=[0.33, 0.25, 0.07, 0.07, 0.05, 0.08, 0.05, 0.05, 0.05],
        )
        annotation: Annotation | None = None
        path = sound
        if kind in ("bytes", "header"):
            base = films[int(rng.integers(len(films)))]
            path = place / f"film{base.suffix}"
            dicom = base.suffix == ".dcm" and kind == "header"
            path.write_bytes(mutate_header(base, rng) if dicom else mutate_bytes(base.read_bytes(), rng))
        elif kind == "json":
            (place / "label.json").write_bytes(hostile_json(rng))
            annotation = Rectangles(place / "label.json")
        elif kind == "runs":
            annotation = RunLengths((hostile_runs(rng),))
        elif kind == "mask":
            (place / "mask.png").write_bytes(mutate_bytes((films[-1].parent / "mask.png").read_bytes(), rng))
            annotation = MaskFile(place / "mask.png")
        elif kind == "segmentation":
            whole = (films[-1].parent / "mask.dcm").read_bytes()
            (place / "mask.dcm").write_bytes(mutate_bytes(whole, rng))
            annotation = MaskFile(place / "mask.dcm")
        elif kind == "shapes":
            (place / "mask.json").write_bytes(hostile_shapes(rng))
            annotation = MaskFile(place / "mask.json")
        elif kind == "picture":
            cv2.imwrite(str(place / "picture.png"), implausible_picture(rng))
            if rng.random() < 0.5:
                path = place / "picture.png"
            else:
                annotation = MaskFile(place / "picture.png")
        if kind == "table":
            yield "table", hostile_table(rng, place, (siim, ntuh, case_table), Rules(test_from=""))
        else:
            film = SourceFilm(hostile_identifier(rng), path, "hostile", annotation, 1)
            from common.preparation.film_task import Task

            yield "film", Task(0, film, arrays, Rules())


def hostile_table(
    rng: np.random.Generator, place: Path, readers: tuple[Any, Any, Any], rules: Any
) -> tuple[Any, Any]:
    """A source folder with a damaged table, and what lists it: (function, arguments)."""
    siim, ntuh, hospital = readers
    name = hostile_identifier(rng)
    (place / "images").mkdir()
    (place / "dicom-images-train").mkdir()
    rows = {
        "train-rle.csv": f'ImageId, EncodedPixels\n"{name}",{hostile_runs(rng)[:1000]}\n1.2.3,-1\n',
        "NTUH_1519.csv": f'PERSONID2,ACCESSNO2,氣胸,胸管,Training,EXAM\r\n"{name}",1,1,,1,"a\r\nb"\r\n'
        "P1,2,0,9,1,\r\n",
        "NTUH_20.csv": f'PERSONID2,ACCESSNO2,氣胸,胸管,EXAM\r\n"{name}",1,1,,x\r\n',
        "cases.csv": f'image,pneumothorax,set,mask,age\n"{name}",1,train,"{name}",nan\nb.png,2,test,,1e999\n',
    }
    for file, text in rows.items():
        content = ("\ufeff" + text).encode(errors="replace")
        (place / file).write_bytes(mutate_bytes(content, rng) if rng.random() < 0.6 else content)
    if rng.random() < 0.3:  # the same as a workbook; beside a CSV file it would be one table too many
        (place / "cases.csv").unlink()
        (place / "cases.xlsx").write_bytes(mutate_bytes(workbook(name), rng))
        return hospital.source_films, (place, "ntuh_train", rules)
    return [
        (siim.source_films, (place,)),
        (ntuh.source_films, (place, "ntuh_train", rules)),
        (ntuh.source_films, (place, "ntuh_test", rules)),
        (hospital.source_films, (place, "ntuh_train", rules)),
    ][int(rng.integers(4))]


def attack_systems(count: int, seed: int, workspace: Path, endings: Counter[tuple[str, str]]) -> int:
    """Read `count` damaged systems, and count what became of each; how many were refused."""
    from common.preparation.crash_safe_pool import Lost, in_workers

    if not count:
        return 0
    hostile_systems.write_system(workspace / "system")
    changed = hostile_systems.mutations(count, seed, workspace / "system", workspace, mutate_bytes)
    refused = 0
    tasks = (("system", each) for each in changed)
    # PyTorch alone maps more than a reader of films may use
    for _, result in in_workers(attack, tasks, seconds=SECONDS, memory=2**36):
        kind, reason = ("LOST", result.reason) if isinstance(result, Lost) else result[:2]
        endings[kind, reason] += 1
        refused += kind == "refused"
    return refused


def workbook(name: str) -> bytes:
    """A case table of Excel."""
    from io import BytesIO

    import openpyxl

    book, target = openpyxl.Workbook(), BytesIO()
    legal = "".join(letter for letter in name if letter.isprintable())
    for row in (
        ["image", "pneumothorax", "set", "age"],
        [legal, 1, "train", 1e300],
        ["b.png", True, "test", "=1"],
    ):
        book.active.append(row)
    book.save(target)
    return target.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--systems", type=int, default=200, help="bundles, weights, thresholds")
    options = parser.parse_args()
    from tqdm import tqdm

    from common.preparation.crash_safe_pool import Lost, in_workers
    from common.preparation.film_store import GrowingArrays

    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        workspace, outside = root / "workspace", root / "outside"
        for folder in (workspace, outside, workspace / "arrays"):
            folder.mkdir()
        os.environ["PTX_WORKSPACE"] = str(workspace)
        os.chdir(outside)
        GrowingArrays(workspace / "arrays").begin()
        films = base_films(workspace)
        tasks = mutations(options.count, options.seed, films, workspace, workspace / "arrays")
        endings: Counter[tuple[str, str]] = Counter()
        slowest, peak = 0.0, 0
        for _, result in tqdm(in_workers(attack, tasks, seconds=SECONDS), total=options.count, disable=None):
            if isinstance(result, Lost):
                endings["LOST", result.reason] += 1
                continue
            endings[result[0], result[1]] += 1
            slowest, peak = max(slowest, result[2]), max(peak, result[3])
        refused = attack_systems(options.systems, options.seed, workspace, endings)
        escaped = [str(path) for path in outside.rglob("*")] + [
            path.name for path in root.iterdir() if path not in (workspace, outside)
        ]
    for (kind, reason), number in sorted(endings.items(), key=lambda item: (item[0][0], -item[1])):
        print(f"{number:>6} {kind}: {reason}")
    total = sum(endings.values()) - options.systems
    lost = sum(number for (kind, _), number in endings.items() if kind == "LOST")
    print(f"slowest {slowest:.1f} s; largest process {peak / 2**30:.2f} GB; {len(escaped)} files outside")
    exceptions = sum(number for (kind, _), number in endings.items() if kind == "EXCEPTION")
    bad = exceptions or slowest > SECONDS or peak > BYTES or escaped or total != options.count
    bad = bad or refused != options.systems
    print(f"mutated bundles, weights and thresholds: {refused} of {options.systems} refused")
    print(f"hostile input: {total} mutations, {exceptions} exceptions, {lost} decoders lost with their film")
    raise SystemExit(1 if bad else 0)


if __name__ == "__main__":
    main()
