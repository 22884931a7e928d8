"""Two folders of the project's files: which differ, and where in each file first.

    python benchmarks/folder_differences.py OLD NEW

Every file is compared: tables by cells, JSON by keys, weights by tensors and metadata, arrays by values,
pictures by pixels, DICOM objects by elements, bundles by members, TensorBoard events by tags, text by lines.
What may differ stands in MAY_DIFFER, with the reason; there is no tolerance. `same_results.py` makes the
folders.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import zipfile
from fnmatch import fnmatchcase
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from PIL import Image
from safetensors.numpy import load
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event

# file, what in it (*: all of it, and it may be missing on one side), why it may differ
MAY_DIFFER = (
    ("*/runs/*/log.csv", "*, seconds", "a clock"),
    ("*/runs/*/events *", "*epoch/seconds", "a clock"),
    ("killed/*", "*", "a training that was killed at no particular moment"),
    ("resumed/*/events *", "*", "begins where the kill struck"),
    ("*.safetensors", "/pneumothorax/version", "recorded, never compared"),
    ("*.safetensors", "/pneumothorax/validated_in", "in which the network was judged: recorded"),
    ("*.bundle", "*.safetensors, /pneumothorax/validated_in", "the same"),
    ("*.bundle", "*.json, /precision", "the same of thresholds, results and findings"),
    ("*/5cv_avg.json", "/precision", "the same"),
    ("*/meta.json", "/precision", "the same"),
    ("*/findings/*.json", "/made_by/precision", "the same"),
    ("*/meta.json", "/version", "recorded, never compared"),
    ("*.bundle", "*.safetensors, /pneumothorax/version", "recorded, never compared"),
    ("*.bundle", "manifest.json, /members/*.safetensors/*", "size and hash of the file, version included"),
    ("*/written.jsonl", "*", "since ad2bbae: what predict wrote, for what it may delete"),
    ("*_segmentation.dcm", "/data/00200052/*", "has a plane in space, for viewers: frame of reference"),
    ("*_segmentation.dcm", "/data/00201040/*", "the same"),
    ("*_segmentation.dcm", "/data/52009229*", "the same: pixel measures, orientation, position"),
    ("*_segmentation.dcm", "/data/52009230/Value/0/00209113*", "the same"),
    ("*_outline.dcm", "*", "since the presentation state"),
    ("*/findings/*.json", "/files/presentation", "the same"),
    ("*/outbox/*.json", "/objects/*", "the same"),
    ("*/spellings.csv", "*", "since the leak check sees through spellings"),
    ("*/findings/*.json", "/film/identity", "tells films under the same SOP Instance UID apart"),
    ("printed/*", "*", "words for people; the tables of metrics have files of their own"),
    ("*/figures/froc.svg", "*", "since the metrics of localisation"),
    ("*/figures/net_benefit.svg", "*", "since decision curves"),
    ("*/result_*/cases.csv", "columns", "the same"),
    ("*/metrics.json", "/rows/*", "the rows of metrics.csv, by number"),
    ("*/5cv_avg.json", "/seg_alternatives*", "what the other rule of the area would choose"),
    ("*.bundle", "thresholds.json, /seg_alternatives*", "the same"),
    ("*.bundle", "manifest.json, /members/thresholds.json/*", "the same: size and hash"),
    ("*/metrics.csv", "*, plan", "since plans of a test"),
    ("*/log.txt", "*", "since a run's lines are kept"),
    ("*/recipe.toml", "*", "since a run leaves its recipe"),
    ("*/curves.png", "*", "names the kept epoch: a student's is its last, not its best"),
    ("*/cohort.csv", "*", "since there is a table of the films"),
    ("*/figures/folds.svg", "*", "says `the system`, which may be a student"),
    ("*/figures/calibration.svg", "*", "since it has a smooth curve"),
    ("*/looks.json", "*", "since looks at the test films are counted"),
    ("*/metrics.json", "/plan*", "since plans of a test"),
    ("*/metrics.csv", "columns", "positives stand beside n"),
    ("*/metrics.csv", "*, positives", "the same"),
    *(
        ("*/metrics.csv", f"*, {metric}, {column}", "score intervals, and tests that agree with them")
        for metric in (
            *("sensitivity", "specificity", "ppv", "npv", "accuracy"),
            *("lr_positive", "lr_negative", "ppv_at_prevalence", "npv_at_prevalence"),
        )
        for column in ("interval", "ci_low", "ci_high", "note", "test", "p_value", "p_holm")
    ),
    *(
        ("*/metrics.csv", f"*, auroc, {column}", "DeLong's interval, towards 0.5 Newcombe's")
        for column in ("interval", "ci_low", "ci_high")
    ),
    *(
        ("*/metrics.csv", f"*, calibration_intercept, {column}", "its interval is by patients")
        for column in ("interval", "ci_low", "ci_high", "note")
    ),
    ("*/metrics.csv", "*, p_holm", "adjusted for these tests, too"),
    ("*bca_and_readers/metrics.csv", "*, false_positive_area, ci_*", "another order of sums: the last digit"),
    ("*/report.html", "*", "shows more, in other words; its numbers are those of metrics.csv"),
    ("*bootstrap.txt", "*", "the same"),
    ("*bca_and_readers.txt", "*", "the same"),
    ("*/meta.json", "/cases_sha256", "the tested cases have more columns"),
    ("*/metrics.json", "*/cases_sha256", "the same"),
    ("*/meta.json", "/columns/*", "the same"),
)
# columns and rows that came with later versions -> not compared, in any file of results
LATER = (
    *("*dice_full_size*", "*dice_lesser_half*", "*laterality*", "*hit*", "*lesions*", "*lesion_scores*"),
    *("*false_outlines*", "*false_scores*", "*thumbnail*", "*header*", "*sensitivity_without_tube*"),
    *("*mask_or_clear*", "*single_folds*", "*_majority*", "*vetoed*"),
    *("*observed_over_expected*", "*false_alarms_a_true_alarm*", "*no_answer*", "*_answered*"),
    "*, * minus *, *",  # groups of films against the largest of their kind
)
# of these the bytes may differ where the content is the same; of all others they may not
CONTAINERS = (".png", ".jpg", ".bundle")

Parts = dict[str, "str | np.ndarray"]  # where it stands in a file -> value


def compare(old: Path, new: Path) -> tuple[int, list[str]]:
    """The number of files compared, and a line for each that differs."""
    before, after = _files(old), _files(new)
    compared, different = 0, []
    for name in sorted(before.keys() | after.keys()):
        spared = [part for file, part, _ in MAY_DIFFER if fnmatchcase(name, file)]
        if Path(name).name in ("cases.csv", "metrics.csv", "meta.json"):
            spared += LATER
        if "*" in spared:
            continue
        compared += 1
        if name not in before or name not in after:
            different.append(f"{name}: only in the {'new' if name in after else 'old'} folder")
        elif found := _difference(before[name], after[name], spared):
            different.append(f"{name}: {found}")
    return compared, different


def _files(root: Path) -> dict[str, Path]:
    """Files by name; a run's TensorBoard files by number, since their names may hold clock and host."""
    found: dict[str, Path] = {}
    events: dict[Path, int] = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        name = path.relative_to(root).as_posix()
        if ".tfevents." in path.name:
            number = events[path.parent] = events.get(path.parent, 0) + 1
            name = f"{name.rpartition('/')[0]}/events {number}"
        found[name] = path
    return found


def _difference(old: Path, new: Path, spared: list[str]) -> str | None:
    """Where two files differ first, but for the parts that are spared; None: nowhere."""
    was, now = old.read_bytes(), new.read_bytes()
    if was == now:
        return None
    try:
        if ".tfevents." in old.name:
            a, b = _events(old), _events(new)
        else:
            a, b = _parts(old.name, was), _parts(new.name, now)
    except Exception as error:  # a file that is none of its kind is a difference, too
        return f"cannot be read: {type(error).__name__}: {error}"
    for key in a | b:
        if any(fnmatchcase(key, part) for part in spared):
            continue
        if key not in a or key not in b:
            return f"{key}: only in the {'new' if key in b else 'old'} file"
        if found := _of_values(a[key], b[key]):
            return f"{key}: {found}"
    if spared or old.suffix in CONTAINERS or ".tfevents." in old.name or old.suffix == ".html":
        return None
    return "the same content, written otherwise"


def _of_values(was: str | np.ndarray, now: str | np.ndarray) -> str | None:
    if isinstance(was, str) and isinstance(now, str):
        if was == now:
            return None
        at = next(i for i, (a, b) in enumerate(zip_longest(was, now)) if a != b)
        begin = max(at - 30, 0)
        return f"{_short(was[begin:])} -> {_short(now[begin:])}"
    if isinstance(was, str) or isinstance(now, str) or (was.dtype, was.shape) != (now.dtype, now.shape):
        kinds = [value if isinstance(value, str) else f"{value.dtype} {value.shape}" for value in (was, now)]
        return " -> ".join(map(_short, kinds))
    unequal = (was != now) & ~((was != was) & (now != now))  # NaN equals NaN
    if not unequal.any():
        return None
    first = tuple(int(i) for i in np.argwhere(unequal)[0])
    return f"{unequal.sum()} of {unequal.size} values, at {first} {was[first]} -> {now[first]}"


def _short(text: str) -> str:
    return text if len(text) < 80 else f"{text[:77]}..."


# --- what a file holds -----------------------------------------------------------------------------


def _parts(name: str, content: bytes) -> Parts:
    suffix = Path(name).suffix
    if suffix == ".json":
        return _flat(json.loads(content))
    if suffix == ".csv":
        return _cells(content.decode())
    if suffix == ".safetensors":
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length]).get("__metadata__", {})
        return _flat({key: json.loads(value) for key, value in header.items()}) | load(content)
    if suffix == ".npy":
        return {"array": np.load(io.BytesIO(content), allow_pickle=False)}
    if suffix in (".png", ".jpg"):
        return {"pixels": np.asarray(Image.open(io.BytesIO(content)))}
    if suffix == ".dcm":
        film = pydicom.dcmread(io.BytesIO(content))
        return _flat({"meta": film.file_meta.to_json_dict(), "data": film.to_json_dict()})
    if suffix == ".bundle":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {member: _parts(member, archive.read(member)) for member in archive.namelist()}
        return {f"{member}, {key}": part for member, parts in members.items() for key, part in parts.items()}
    return _lines(content)


def _flat(value: Any, where: str = "") -> Parts:
    """A JSON value, each number, word and empty list under its path."""
    if value and isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {path: leaf for key, each in items for path, leaf in _flat(each, f"{where}/{key}").items()}
    return {where: repr(value)}


def _cells(text: str) -> Parts:
    header, *rows = csv.reader(io.StringIO(text, newline=""))
    cells: Parts = {"columns": ", ".join(header)}
    by_name = header[:5] == ["system", "reference", "decision", "stratum", "metric"]
    for number, row in enumerate(rows, 2):
        where = ", ".join(row[:5]) if by_name else str(number)
        cells |= {f"row {where}, {column}": cell for column, cell in zip_longest(header, row)}
    return cells


def _lines(content: bytes) -> Parts:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return {"bytes": np.frombuffer(content, np.uint8)}
    lines = text.replace("<tr>", "\n<tr>").splitlines()  # a page has whole tables in a line
    return {f"line {number}": line for number, line in enumerate(lines, 1)}


def _events(path: Path) -> Parts:
    """Scalars and pictures that TensorBoard shows, by step and tag."""
    found: Parts = {}
    for record in RawEventFileLoader(str(path)).Load():
        event = Event.FromString(record)
        for value in event.summary.value:
            key = f"step {event.step}, {value.tag}"
            if value.HasField("image"):
                found[key] = _parts("image.jpg", value.image.encoded_image_string)["pixels"]
            else:
                found[key] = repr(value.simple_value)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    arguments = parser.parse_args()
    compared, different = compare(arguments.old, arguments.new)
    print(*different, f"{len(different)} of {compared} files differ", sep="\n")
    raise SystemExit(bool(different))


if __name__ == "__main__":
    main()
