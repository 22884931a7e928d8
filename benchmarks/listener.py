"""The listener between its senders and a real archive, killed with it at random moments; memory and speed.

    python benchmarks/listener.py                            1,000 films, 40 kills; a quarter of an hour
    python benchmarks/listener.py --films 60 --kills 4       as the tests run it
    python benchmarks/listener.py --films 300 --base 41e1b68   its speed, against an earlier commit's

dcmtk, pynetdicom and Orthanc send films over three associations at once, each until it was told that the film
was accepted, and never again. A system of ten tiny random networks predicts them; the results go to another
Orthanc. Half of the kills strike the listener, half the destination, which comes back late, or is full first
(another program in its place answers A700), or slow (stopped nine tenths of the time). In the end the
destination must hold the objects that predict.sh makes of the films: each once, no other, none different.

Before, the films are sent without kills: memory after 100 of them and after all, and how many a second are
accepted while it predicts.

It needs Orthanc and dcmtk (apt-get install orthanc dcmtk).
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from io import BytesIO
from itertools import cycle, islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
import pydicom
from pydicom.uid import ExplicitVRLittleEndian

from benchmarks import archive_programs as programs
from benchmarks.archive_programs import Orthanc, Program, Send, wait_until
from benchmarks.hostile_systems import write_system
from benchmarks.same_results import check_out

REPOSITORY = Path(__file__).resolve().parents[1]
PREDICTION = "step3_testing/prediction"
SIDE = 256  # of the films, pixels: small, since it is not their decoding that is tried
THRESHOLD = 0.507  # between the probabilities that the random networks give: both decisions come about
AT_ONCE = 10  # films over one association
GAP = 10.0  # seconds between two kills, at most
AWAY = 4.0  # seconds for which the destination is down, full or slow, at most
FIRST = 100  # films after which the memory is taken the first time
KILLS = ("listener", "down", "listener", "full", "listener", "slow")  # in turn, then shuffled
ROUNDS = 5
SPEED, GROWTH = 0.9, 1.1


def write_films(folder: Path, count: int) -> list[Path]:
    """Synthetic films, each of a patient and a study of its own, and no two with the same pixels."""
    from common.demo.phantom_sets import write_siim

    write_siim(folder / "phantoms", positives=10, negatives=10, seed=1, workers=1)
    phantoms = []
    for path in sorted((folder / "phantoms").rglob("*.dcm")):
        phantom = pydicom.dcmread(path)
        phantom.decompress()
        small = cv2.resize(phantom.pixel_array, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        phantoms.append((phantom, small))
    films = folder / "films"
    films.mkdir()
    for number, (film, pixels) in zip(range(count), cycle(phantoms)):
        noise = np.random.default_rng(number).integers(0, 8, pixels.shape, dtype=np.uint8)
        film.Rows, film.Columns, film.PixelData = SIDE, SIDE, (pixels // 2 + 60 + noise).tobytes()
        film.PatientID = f"P{number}"
        for level, name in enumerate(("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")):
            setattr(film, name, f"1.2.826.0.1.{number}.{level}")
        film.file_meta.MediaStorageSOPInstanceUID = film.SOPInstanceUID
        film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        film.save_as(films / f"{number:04d}.dcm")
    return sorted(films.iterdir())


def script(tree: Path, name: str, *flags: str | Path) -> tuple[list[str | Path], Path, dict[str, str]]:
    """Command, folder and environment of a customer script of prediction."""
    environment = {"VIRTUAL_ENV": sys.prefix, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return ["bash", name, *flags], tree / PREDICTION, environment


def listener(tree: Path, root: Path, destination: int | None) -> Program:
    """The listener of a tree; its folder is `listener` in the root."""
    port = programs.free_port()
    flags: list[str | Path] = ["cpu", "--bundle", root / "system" / PREDICTION / "eff.bundle"]
    flags += ["--folder", root / "listener", "--port", str(port), "--keep-free", "0"]
    flags += [each for title in programs.SENDERS for each in ("--caller", title)]
    if destination:
        flags += ["--destination", f"{programs.ARCHIVE}@127.0.0.1:{destination}"]
    command, folder, environment = script(tree, "listen.sh", *flags)
    environment["PTX_WORKSPACE"] = str(root / "system")
    return Program(command, port, root / "listener.txt", folder, environment)


def at_most(root: Path, films: int) -> bool:
    """Whether at most so many films are received and not finished."""
    return sum(1 for _ in (root / "listener" / "inbox").glob("[0-9]*")) <= films


# --- kills ------------------------------------------------------------------------------------------------


class Turns:
    """How many films may be sent so far: they are spread over the kills."""

    def __init__(self, films: int, kills: int) -> None:
        self._films, self._kills = films, kills
        self._changed = threading.Condition()
        self.sent = self.done = 0

    def take(self, films: int) -> None:
        """Wait until so many more films may be sent."""
        with self._changed:
            self._changed.wait_for(
                lambda: self.sent * (self._kills + 1) <= self._films * (self.done + 1), programs.PATIENCE
            )
            self.sent += films

    def killed(self) -> None:
        """Note a kill."""
        with self._changed:
            self.done += 1
            self._changed.notify_all()


def send_all(send: Send, films: Sequence[Path], turns: Turns) -> None:
    """Send films until all were accepted; what was accepted is not sent again."""
    for first in range(0, len(films), AT_ONCE):
        left = list(films[first : first + AT_ONCE])
        turns.take(len(left))
        while left:
            accepted = send(left)
            left = [each for each in left if each not in accepted]
            time.sleep(0.2 * bool(left))


def strike(kind: str, of_films: Program, archive: Orthanc, rng: random.Random) -> None:
    """Kill the listener, or the destination, which then is down, full or slow for a while."""
    if kind == "listener":
        of_films.kill()
        of_films.start()
        return
    archive.kill()
    seconds = rng.uniform(0, AWAY)
    if kind == "full":
        with programs.full_archive(archive.port):
            time.sleep(seconds)
    elif kind == "down":
        time.sleep(seconds)
    archive.start()
    wait_until(archive.ready)
    end = time.monotonic() + seconds
    while kind == "slow" and time.monotonic() < end:
        archive.signal(signal.SIGSTOP)
        time.sleep(0.18)
        archive.signal(signal.SIGCONT)
        time.sleep(0.02)


def survive(root: Path, films: Sequence[Path], kills: int, rng: random.Random) -> bool:
    """Send films amid kills, and compare what arrived with what predict.sh makes; whether it is the same."""
    archive = Orthanc(programs.ARCHIVE, root / "archive", programs.free_port(), to=1)
    of_films = listener(REPOSITORY, root, archive.port)
    modality = Orthanc(programs.SENDERS[2], root / "modality", programs.free_port(), of_films.port)
    for each in (archive, modality, of_films):
        each.start()
    try:
        wait_until(modality.ready)
        shares = [films[number::3] for number in range(3)]
        ways = [
            programs.by_storescu(of_films.port),
            programs.by_pynetdicom(of_films.port),
            programs.by_orthanc(modality, shares[2]),
        ]
        turns = Turns(len(films), kills)
        senders = [
            threading.Thread(target=send_all, args=(way, share, turns), daemon=True)
            for way, share in zip(ways, shares, strict=True)
        ]
        wait_until(of_films.ready)
        for sender in senders:
            sender.start()
        kinds = list(islice(cycle(KILLS), kills))
        rng.shuffle(kinds)
        for kind in kinds:
            time.sleep(rng.uniform(0, GAP))
            strike(kind, of_films, archive, rng)
            turns.killed()
        for sender in senders:
            sender.join()
        wait_until(partial(at_most, root, 0))
        of_films.signal(signal.SIGTERM)
        wait_until(lambda: not of_films.processes())  # nor one that a killed listener left
        arrived = objects_of(archive)
    finally:
        for program in (archive, modality, of_films):
            program.kill()
    print(f"kills: {', '.join(f'{number} {kind}' for kind, number in sorted(Counter(kinds).items()))}")
    return compare(arrived, expected_objects(root), len(films), kills)


def objects_of(archive: Orthanc) -> list[pydicom.Dataset]:
    """All that an archive holds."""
    files = (archive.ask(f"/instances/{name}/file") for name in archive.instances())
    return [pydicom.dcmread(BytesIO(file)) for file in files]


def expected_objects(root: Path) -> list[pydicom.Dataset]:
    """What predict.sh makes of the films."""
    bundle, found = root / "system" / PREDICTION / "eff.bundle", root / "predicted"
    command, folder, environment = script(
        REPOSITORY, "predict.sh", root / "films", found, "cpu", "--bundle", bundle
    )
    environment["PTX_WORKSPACE"] = str(root / "system")
    subprocess.run(command, cwd=folder, env=os.environ | environment, check=True, capture_output=True)
    return [pydicom.dcmread(path) for path in (found / "dicom").iterdir()]


def compare(arrived: list[pydicom.Dataset], expected: list[pydicom.Dataset], films: int, kills: int) -> bool:
    """Say which objects are missing, strange, double or different; whether there is none."""
    rightly = {each.SOPInstanceUID: each for each in expected}
    counts = Counter(each.SOPInstanceUID for each in arrived)
    missing, strange = rightly.keys() - counts.keys(), counts.keys() - rightly.keys()
    double = sum(number - 1 for number in counts.values())
    different = sum(
        each.SOPInstanceUID in rightly and each != rightly[each.SOPInstanceUID] for each in arrived
    )
    kinds = Counter(each.Modality for each in arrived)
    print(f"at the destination: {', '.join(f'{number} {kind}' for kind, number in sorted(kinds.items()))}")
    wrong = len(missing) + len(strange) + double + different
    print(
        f"listener: {films} films and {kills} kills: {len(missing)} objects missing, {len(strange)} strange, "
        f"{double} double, {different} different of {len(rightly)} (goal <= 0)"
    )
    return not wrong


# --- memory and speed ---------------------------------------------------------------------------------------


def accepted_a_second(of_films: Program, films: Sequence[Path]) -> float:
    """Send films by three processes at once; how many were accepted in a second."""
    threads, missing = [], []

    def send(share: Sequence[Path], title: str) -> None:
        missing.append(len(share) - len(programs.by_storescu(of_films.port, title)(share)))

    start = time.perf_counter()
    for number, title in enumerate(programs.SENDERS):
        threads.append(threading.Thread(target=send, args=(films[number::3], title)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    if sum(missing):
        raise SystemExit(f"{sum(missing)} films were not accepted")
    return len(films) / (time.perf_counter() - start)


def left_alone(root: Path, tree: Path, films: Sequence[Path], archive: Orthanc | None = None) -> list[float]:
    """Have the listener of a tree receive and predict films in peace.

    Args:
        root: Folder of the system; the listener's folder there is removed in the end.
        tree: Repository whose listener it is.
        films: Films to send.
        archive: Destination of the results; None: they stay in the folder, and it is killed when all films
            were accepted.

    Returns:
        Films accepted in a second while it predicts; and, with an archive, bytes of memory after `FIRST`
        films and after all of them.
    """
    of_films = listener(tree, root, archive.port if archive else None)
    of_films.start()
    try:
        wait_until(of_films.ready)
        programs.by_storescu(of_films.port)(films[:1])
        wait_until(partial(at_most, root, 0))  # its networks are loaded
        measured = [accepted_a_second(of_films, films[1:])]
        if archive:
            for left in (len(films) - FIRST, 0):
                wait_until(partial(at_most, root, left))
                measured.append(float(of_films.memory()))
    finally:
        of_films.kill()
        shutil.rmtree(root / "listener")
    return measured


def keep_up(root: Path, films: Sequence[Path]) -> bool:
    """Say what memory the listener takes and how fast it accepts; whether the memory stays the same."""
    archive = Orthanc(programs.ARCHIVE, root / "peace", programs.free_port(), to=1)
    archive.start()
    try:
        wait_until(archive.ready)
        speed, first, last = left_alone(root, REPOSITORY, films, archive)
    finally:
        archive.kill()
    print(f"accepted while it predicts: {speed:.0f} films a second over 3 associations")
    print(
        f"memory: {first / 2**20:.0f} MB after {FIRST} films, {last / 2**20:.0f} MB after {len(films)}: "
        f"{last / first:.2f} (goal <= {GROWTH})"
    )
    return last <= GROWTH * first


def against(root: Path, films: Sequence[Path], base: str) -> bool:
    """Compare the speed with that of an earlier commit, in turn; whether it is as fast."""
    trees, turns = {"base": check_out(base, root / "tree"), "this": REPOSITORY}, []
    for _ in range(ROUNDS):
        found = {name: left_alone(root, tree, films)[0] for name, tree in trees.items()}
        print(", ".join(f"{name} {speed:.0f}" for name, speed in found.items()), "films a second", flush=True)
        turns.append(found["this"] / found["base"])
    ratio = statistics.median(turns)
    by_round = f"{min(turns):.2f} to {max(turns):.2f} by round"
    print(f"accepted while it predicts: {ratio:.2f} of {base} ({by_round}; goal >= {SPEED})")
    return ratio >= SPEED


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--films", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0, help="of the kills")
    parser.add_argument("--base", metavar="COMMIT", help="only compare the speed with that of a commit")
    arguments = parser.parse_args()
    for program in ("Orthanc", "storescu"):
        if not programs.machine_program(program):
            parser.error(f"{program} is not installed: apt-get install orthanc dcmtk")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_system(root / "system", thresholds={"cls_threshold": THRESHOLD})
        films = write_films(root, arguments.films)
        good = True
        if arguments.base:
            good = against(root, films, arguments.base)
        else:
            if len(films) > FIRST:
                good = keep_up(root, films)
            good &= survive(root, films, arguments.kills, random.Random(arguments.seed))
    raise SystemExit(not good)


if __name__ == "__main__":
    main()
