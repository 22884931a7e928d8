"""Does the project still make the same files? A tiny chain by a base commit, and by this working tree.

    python benchmarks/same_results.py --base COMMIT             ten minutes on one core
    python benchmarks/same_results.py --base HEAD~1 --quick     against another commit, one system only
    python benchmarks/same_results.py --keep /tmp/same          keep the files; the next run takes the base's

Both trees are driven by their customer scripts only, with the same synthetic films and pseudonym key, by the
Python that runs this, on one thread, one after the other in the same folder, so that no path differs. Then
every file is compared: prepared films, weights, logs, thresholds, result files, metrics, page, findings,
DICOM objects, bundles, the listener's folder. `tiny_chain.py` has the commands; `folder_differences.py` says
how a file is compared, and has the table of what may differ and why.

    same       the chain by this tree against the chain by the base
    readable   what the base made, read by this tree. On a copy of the base's workspace every command is given
               again, the last one first, where it would do nothing after a part of what it made was taken
               away, so that each command reads what the base left: films, weights, thresholds, result files,
               bundle, killed training, films and objects that wait in the listener's folder. It must end as
               the base's workspace, and weights and prepared films that were there must stay as they are.

Both trees must have the same demo recipe, which 41e1b68 no longer has (since 5e5166a fewer epochs, a narrower
decoder): name a later `--base`.

A difference names the file and the place in it; exit status 1. No result is a constant of this file.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
import pydicom
from pydicom.uid import (
    GrayscaleSoftcopyPresentationStateStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from benchmarks.folder_differences import compare
from benchmarks.tiny_chain import CHAIN, FILMS, CommandFailed, Runs

REPOSITORY = Path(__file__).resolve().parents[1]
BASE = "41e1b68"
OBJECTS = {
    SegmentationStorage: "segmentation",
    SecondaryCaptureImageStorage: "overlay",
    GrayscaleSoftcopyPresentationStateStorage: "outline",
}
NOTE = "base.json"  # says what the base's run in a kept folder was made by
GENERATE = """
import importlib, sys
phantom_sets = importlib.import_module(sys.argv[1])
phantom_sets.write_siim(sys.argv[2] + "/siim", positives=12, negatives=12, seed=1, workers=1)
phantom_sets.write_ntuh(sys.argv[2] + "/ntuh", 12, 14, 6, 8, seed=1, workers=1)
"""


def check_out(commit: str, folder: Path) -> Path:
    """The files of a commit; git notes nothing, so that nothing is left when this is killed."""
    archived = folder.with_suffix(".tar")
    subprocess.run(["git", "-C", REPOSITORY, "archive", "-o", archived, commit], check=True)
    shutil.unpack_archive(archived, folder)
    return folder


def write_sources(tree: Path, folder: Path) -> Path:
    """Synthetic films by a tree's generator: `siim`, `ntuh` and, of its films, `table` and `new`."""
    shutil.rmtree(folder, ignore_errors=True)
    module = next((tree / "common").rglob("phantom_sets.py")).relative_to(tree).with_suffix("")
    generate: list[str | Path] = [sys.executable, "-c", GENERATE, ".".join(module.parts), folder]
    subprocess.run(generate, cwd=tree, check=True)
    films = sorted((folder / "ntuh" / "images").glob("*.dcm"))
    for name, some in (("new", films[:FILMS]), ("table", films[FILMS:20])):
        (folder / name).mkdir()
        for film in some:
            shutil.copyfile(film, folder / name / film.name)
    (folder / "new" / "notes.txt").write_text("not a film\n")
    rows = ["image,pneumothorax,mask,set,patient,age"]
    for number, film in enumerate(films[FILMS:20]):
        header = pydicom.dcmread(film, stop_before_pixels=True)
        mask = np.zeros((header.Rows, header.Columns), np.uint8)
        mask[100:300, 200:400] = 255
        cv2.imwrite(str(folder / "table" / f"{number}.png"), mask)
        lesion = f"1,{number}.png" if number % 2 else "0,"
        rows.append(f"{film.name},{lesion},{'test' if number > 9 else 'train'},p{number},{30 + number}")
    (folder / "table" / "cases.csv").write_text("\n".join(rows) + "\n")
    return folder


@contextmanager
def archive(folder: Path) -> Iterator[int]:
    """A DICOM archive that keeps in a folder what it receives; its port."""
    from pynetdicom import AE, evt

    def store(event: evt.Event) -> int:
        folder.mkdir(exist_ok=True)
        kind = OBJECTS[event.file_meta.MediaStorageSOPClassUID]
        name = f"{event.file_meta.MediaStorageSOPInstanceUID}_{kind}.dcm"
        (folder / name).write_bytes(event.encoded_dataset())
        return 0

    entity = AE("PACS")
    for kind in OBJECTS:
        entity.add_supported_context(kind)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    assert server is not None  # it would be of a call that blocks
    yield server.server_address[1]
    server.shutdown()


def made_by(base: str, quick: bool) -> str:
    """All that decides what the base makes."""
    packages = sorted(f"{each.name} {each.version}" for each in importlib.metadata.distributions())
    packages.append(f"Python {platform.python_version()}")
    scripts = [Path(__file__), Path(__file__).with_name("tiny_chain.py")]
    code = [hashlib.sha256(script.read_bytes()).hexdigest() for script in scripts]
    return json.dumps({"base": base, "quick": quick, "scripts": code, "packages": packages}, indent=1)


def run_all(root: Path, base: str, quick: bool) -> list[str]:
    """Give all commands by both trees, and compare; a line for each difference."""
    systems = ("vit",) if quick else ("eff", "vit")
    chain = {title: step for title, step in CHAIN.items() if not (quick and title.endswith(" eff"))}
    network: AbstractContextManager[int] = nullcontext(0)
    if find_spec("pynetdicom"):
        network = archive(root / "work" / "received")
    else:
        print("without the listener, since pynetdicom is not installed")
        chain = {title: step for title, step in chain.items() if "listen.sh" not in step.command}
    sources, note, this = root / "sources", root / NOTE, made_by(base, quick)
    with network as port:
        names = {"sources": sources, "system": systems[0], "systems": " ".join(systems), "port": port}
        runs = Runs(root, chain, names)
        if note.read_text() != this:
            note.write_text("")
            print(f"base: the chain by {base[:7]}")
            tree = check_out(base, root / "tree")
            write_sources(tree, sources)
            runs.make(tree, "base")
            note.write_text(this)
        different = differences("sources", sources, write_sources(REPOSITORY, root / "sources_same"))
        for name, give in {
            "same": lambda: runs.make(REPOSITORY, "same"),
            "readable": lambda: runs.make_again(REPOSITORY, "readable", "base"),
        }.items():
            print(f"{name}: the commands of this tree")
            try:
                different += [f"{name}: {fault}" for fault in give()]
                different += differences(name, root / "base", root / name)
            except CommandFailed as failure:
                different.append(f"{name}: {failure}")
    return different


def differences(name: str, old: Path, new: Path) -> list[str]:
    """A line for each file that differs."""
    compared, found = compare(old, new)
    print(f"{name}: {len(found)} of {compared} files differ", flush=True)
    return [f"{name}/{line}" for line in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--base", default=BASE, metavar="COMMIT", help=f"what to compare with (default {BASE})"
    )
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="an own folder, in which everything is kept"
    )
    parser.add_argument("--quick", action="store_true", help="one system, vit, instead of two")
    arguments = parser.parse_args()
    commit = ["git", "-C", str(REPOSITORY), "rev-parse", "--verify", f"{arguments.base}^{{commit}}"]
    base = subprocess.run(commit, check=True, capture_output=True, text=True).stdout.strip()
    with nullcontext(arguments.keep) if arguments.keep else TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        root.mkdir(parents=True, exist_ok=True)
        if any(root.iterdir()) and not (root / NOTE).exists():
            parser.error(f"{folder} holds something else")
        (root / NOTE).touch()
        different = run_all(root, base, arguments.quick)
    for line in different:
        print(line)
    print(f"same results: {len(different)} differences of one chain from {base[:7]} (goal <= 0)")
    raise SystemExit(bool(different))


if __name__ == "__main__":
    main()
