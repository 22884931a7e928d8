"""What several test files share: the real films, where they are, and one whole chain on tiny networks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import pandas as pd
import pydicom
import pytest
import torch
from filelock import FileLock

from common.films.decode import read_film
from common.stages import TESTING_FOLDER, THRESHOLDS_FOLDER

REPOSITORY = Path(__file__).resolve().parents[1]
REAL = REPOSITORY.parent / "shared" / "real"

# Seconds after which something that a test waits for is taken to hang. Nothing else is asserted by it: beside
# twenty other jobs everything comes, but late
PATIENCE = 3600.0

# The demo's recipe, but smaller still: seconds instead of minutes
TINY = [
    *("--preset", "demo", "--flip", "False", "--map-threshold", "half"),
    *("--image-size", "64", "--epochs", "1", "--batch-size", "4"),
]


@pytest.fixture
def real() -> Path:
    if not REAL.is_dir():
        pytest.skip("the real films are not here")
    return REAL


# Fixtures that make films or train: the tests that use them are not of the inner loop, nor are those that
# are marked `slow` themselves
_SLOW = {"sources", "strangers", "siim", "ntuh", "two", "flags"}
# Files whose every test takes its time: connections that wait for each other, whole systems, processes, pages
_SLOW_FILES = {
    "test_listener",
    "test_received_films",
    "test_flip",
    "test_start",
    "test_plan",
    "test_page",
    "test_terminal",
}
_COSTLY = {"chromium", "errors_of", "dcmtk", "demo"}  # fixtures: a browser, dciodvfy, an archive, minutes


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run the tests marked `all`, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if "real" in fixtures:
            item.add_marker(pytest.mark.real)
        if fixtures & (_SLOW | _COSTLY) or item.path.stem in _SLOW_FILES:
            item.add_marker(pytest.mark.slow)
        if fixtures & _COSTLY:
            item.add_marker(pytest.mark.all)
        if item.get_closest_marker("all") and not config.getoption("--all"):
            item.add_marker(pytest.mark.skip(reason="bash test.sh --all"))
    items.sort(key=_turn({item.path for item in items if "chain" in getattr(item, "fixturenames", ())}))


# The longest files go first, or one of two processes would end with a long one alone
_LONGEST = ("test_scripts", "test_resuming", "test_step", "test_bootstrap_script", "test_preparation_run")


def _turn(with_chain: set[Path]) -> Callable[[pytest.Item], tuple[int, int]]:
    """Order of the files: one process trains the chain while the other runs what does not wait for it."""

    def key(item: pytest.Item) -> tuple[int, int]:
        name = item.path.stem
        place = _LONGEST.index(name) if name in _LONGEST else len(_LONGEST)
        return (place > 0 and item.path in with_chain), place

    return key


def installed_program(name: str) -> str | None:
    """A program of the tests' own environment, active or not, or of the machine."""
    return shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))


def wait_for(event: Callable[[], object], process: subprocess.Popen | None = None) -> None:
    """Wait until something came about, while the process that is to bring it about lives."""
    end = time.monotonic() + PATIENCE
    while not event():
        assert process is None or process.poll() is None, process.communicate()
        if time.monotonic() > end:
            pytest.fail("waited in vain")
        time.sleep(0.005)


# Holds a training before it writes down an epoch, until a file of the epoch's number lies beside this one
_HOLD = """
import os, pathlib, time
here = pathlib.Path(__file__).parent
def replace(source, target, rename=os.replace):
    if os.path.basename(target) == "log.csv":
        epoch = len(pathlib.Path(source).read_text().splitlines()) - 1
        while epoch > 0 and not (here / str(epoch)).exists():
            (here / "held").touch()
            time.sleep(0.01)
    rename(source, target)
os.replace = replace
"""


@dataclass
class Held:
    """A training that waits before it writes down an epoch that it may not: however late it is killed, it is
    in the middle of its run.

    Args:
        folder: A new one, which holds the code and the permissions.
        epochs: Epochs that may be written down.
    """

    folder: Path
    epochs: int

    def __post_init__(self) -> None:
        self.folder.mkdir()
        (self.folder / "sitecustomize.py").write_text(_HOLD)
        self.allow(self.epochs)

    @property
    def environment(self) -> dict[str, str]:
        return {"PYTHONPATH": str(self.folder)}

    def allow(self, epochs: int) -> None:
        for epoch in range(1, epochs + 1):
            (self.folder / str(epoch)).touch()

    def waits(self) -> bool:
        return (self.folder / "held").exists()


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty workspace for tests that call the modules in this process."""
    monkeypatch.setenv("PTX_WORKSPACE", str(tmp_path))
    return tmp_path


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As each of two processes has: another number of threads adds in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass
class Scripts:
    """Runs the scripts as a user runs them: from their own folders, results in a workspace of their own."""

    workspace: Path
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, folder: str, *command: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command in a folder of the repository; its exit status must be `expect`."""
        environment = {
            **os.environ,
            "PTX_WORKSPACE": str(self.workspace),
            "VIRTUAL_ENV": sys.prefix,
            "CUDA_VISIBLE_DEVICES": "",
            **self.environment,
        }
        done = subprocess.run(
            command, cwd=REPOSITORY / folder, env=environment, capture_output=True, text=True, check=False
        )
        output = f"$ {' '.join(command)}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == expect, output
        assert "Traceback" not in done.stderr, output
        return done

    def python(self, folder: str, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        return self.run(folder, sys.executable, *arguments, expect=expect)

    def copy(self, workspace: Path) -> Scripts:
        shutil.copytree(self.workspace, workspace)
        return Scripts(workspace)


STEP_1_1 = "step1_pretraining/step1_segmentation"
STEP_1_2 = "step1_pretraining/step2_classification"
STEP_2_1 = "step2_ntuh_training/ntuh_segmentation"
STEP_2_2 = "step2_ntuh_training/ntuh_classification"
THRESHOLDS = THRESHOLDS_FOLDER
TESTING = TESTING_FOLDER
# Folder and command of each step of README's tutorial
TUTORIAL = (
    (STEP_1_1, ("bash", "train.sh")),
    (STEP_1_2, ("bash", "train.sh")),
    (STEP_2_1, ("bash", "train.sh")),
    (STEP_2_2, ("bash", "train.sh")),
    (THRESHOLDS, ("bash", "get_thresholds.sh")),
    (TESTING, ("bash", "inference.sh")),
    (TESTING, ("python", "bootstrap.py")),
)
PREDICTION = "step3_testing/prediction"


# What a hospital's header and folders may say of a patient; nothing of it may be written or printed
SECRET_FOLDER = "Quincy Adelheid 19370417"
SECRETS = {
    "PatientName": "QUINCY^ADELHEID",
    "PatientBirthDate": "19370417",
    "OtherPatientNames": "VONTRAPP^ADELHEID",
    "PatientComments": "sister of Zebulon",
    "PatientAddress": "7 Larkspur Crescent",
    "PatientTelephoneNumbers": "0555-918273",
    "AccessionNumber": "ACC-77120934",
    "ReferringPhysicianName": "THISTLEWOOD^ORVILLE",
    "StudyDescription": "follow-up of Adelheid Quincy",
}


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that the first process of the tests makes and the others wait for."""
    parallel = "PYTEST_XDIST_WORKER" in os.environ
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if parallel else base) / name
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            make(folder)
    return folder


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small SIIM-style download and NTUH-style export, in `siim/` and `ntuh/`."""
    return made_once(tmp_path_factory, "sources", _write_sources) / SECRET_FOLDER


def _write_sources(folder: Path) -> None:
    from common.demo.phantom_sets import write_ntuh, write_siim

    root = folder / SECRET_FOLDER
    write_siim(root / "siim", positives=12, negatives=12, seed=1, workers=2)
    write_ntuh(root / "ntuh", 12, 14, 6, 8, seed=1, workers=2)
    for path in root.rglob("*.dcm"):
        film = pydicom.dcmread(path)
        for name, value in SECRETS.items():
            setattr(film, name, value)
        film.save_as(path)


@pytest.fixture(scope="session")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten DICOM films of five patients whom no other source has, for unlabelled ones. Copy it."""
    return made_once(tmp_path_factory, "strangers", _write_strangers) / SECRET_FOLDER


def _write_strangers(folder: Path) -> None:
    from common.demo.phantom_sets import write_ntuh

    write_ntuh(folder / "export", 6, 8, 2, 2, seed=7, workers=2)
    (folder / SECRET_FOLDER).mkdir()
    kept = (path for path in sorted((folder / "export" / "images").iterdir()))
    for number, path in enumerate([path for path in kept if _is_grown_up(path)][:10]):
        film = pydicom.dcmread(path)
        film.PatientID = f"STRANGER-{number // 2}"  # two films each
        for name, value in SECRETS.items():
            setattr(film, name, value)
        film.save_as(folder / SECRET_FOLDER / f"{number:02}.dcm")


def _is_grown_up(path: Path) -> bool:
    return str(pydicom.dcmread(path, stop_before_pixels=True).get("PatientAge", "")) >= "020Y"


@pytest.fixture(scope="session")
def chain(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Scripts:
    """A finished chain of both systems on tiny networks. Do not change it: copy it."""
    made = made_once(tmp_path_factory, "chain", lambda folder: _run_chain(folder / "workspace", sources))
    return Scripts(made / "workspace")


def _run_chain(workspace: Path, sources: Path) -> None:
    scripts = Scripts(workspace)
    workspace.mkdir(parents=True)
    siim, ntuh = ["--siim", str(sources / "siim")], ["--ntuh", str(sources / "ntuh")]
    train, drawn = ["cpu", *TINY], ["--films-per-epoch", "8"]
    arguments = {
        (STEP_1_1, "train.sh"): [
            [*train, *siim, "--system", "eff", "--encoder", "test_efficientnet"],
            [*train, *siim, "--system", "vit"],
        ],
        (STEP_1_2, "train.sh"): [[*train, *siim, *drawn]],
        (STEP_2_1, "train.sh"): [[*train, *ntuh]],
        (STEP_2_2, "train.sh"): [[*train, *ntuh, *drawn]],
        (THRESHOLDS, "get_thresholds.sh"): [["cpu"]],
        (TESTING, "inference.sh"): [["cpu"]],
        (TESTING, "bootstrap.py"): [["--replicates", "200"]],
    }
    output = []
    for folder, (program, script) in TUTORIAL:
        for each in arguments[folder, script]:
            done = scripts.run(folder, sys.executable if program == "python" else program, script, *each)
            output.append(done.stdout + done.stderr)
    (workspace / "printed.txt").write_text("\n".join(output))


@pytest.fixture(scope="session")
def new_films(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test films of the chain, a copy of one as PNG, and two files that are no films."""
    folder = tmp_path_factory.mktemp("new") / SECRET_FOLDER
    folder.mkdir()
    tested = pd.read_csv(sources / "ntuh" / "NTUH_20.csv", dtype=str)["PERSONID2"]
    for exam in tested:
        shutil.copyfile(sources / "ntuh" / "images" / f"{exam}.dcm", folder / f"{exam}.dcm")
    cv2.imwrite(str(folder / "as_picture.png"), read_film(folder / f"{tested[0]}.dcm").pixels)
    whole = (folder / f"{tested[0]}.dcm").read_bytes()
    (folder / "cut.dcm").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.txt").write_text("not a film")
    return folder


@pytest.fixture
def predict(chain: Scripts, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run predict in this process; its exit status."""

    from common import start

    def run(*arguments: object, workspace: Path = chain.workspace) -> int:
        monkeypatch.setenv("PTX_WORKSPACE", str(workspace))
        monkeypatch.setattr(sys, "argv", ["predict.py", "--gpu", "cpu", *map(str, arguments)])
        try:
            start.predict("")
        except SystemExit as end:
            return end.code
        return 0

    return run
