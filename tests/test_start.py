"""What a script answers at once, it answers before anything heavy is loaded."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

from common.networks import weights
from common.recipes.presets import preset_network
from common.refusal import run_script

COMMON = (REPOSITORY / "common" / name for name in ("prepare.py", "run.py"))
SCRIPTS = [*sorted(REPOSITORY.glob("step*/*/*.py")), *COMMON]
HEAVY = {
    "torch",
    "timm",
    "monai",
    "pandas",
    "numpy",
    "cv2",
    "pydicom",
    "sklearn",
    "scipy",
    "matplotlib",
    "rich.table",
}
# flags with which a script of the listener or of prediction comes as far as what is missing
NEEDED = {"predict.py": [str(REPOSITORY), "out"], "listen.py": ["--caller", "MODALITY"]}

_RUN = """
import os, runpy, sys
sys.argv = sys.argv[1:]
sys.path[0] = os.path.dirname(sys.argv[0])
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print("loaded:", *sorted(sys.modules))
"""


def _run(script: Path, flags: list[str], workspace: Path) -> tuple[int, str, set[str]]:
    """Exit status, what is said, and the modules that were loaded for it."""
    command = [sys.executable, "-c", _RUN, str(script), *flags]
    environment = {"PTX_WORKSPACE": str(workspace), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    said, _, loaded = done.stdout.rpartition("loaded:")
    return done.returncode, said + done.stderr, set(loaded.split())


def test_all_scripts_are_here() -> None:
    assert len(SCRIPTS) == 13


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
@pytest.mark.parametrize(
    ("flag", "status", "answer"),
    [("--help", 0, "usage:"), ("--no-such-flag", 2, "--no-such-flag"), (None, 2, "error: ")],
)
def test_answers_at_once(script: Path, flag: str | None, status: int, answer: str, tmp_path: Path) -> None:
    flags = [*NEEDED.get(script.name, []), *([flag] if flag else [])]
    found, said, loaded = _run(script, flags, tmp_path)
    assert found == status, said
    assert answer in said
    assert "common.start" in loaded
    assert not HEAVY & loaded


def test_what_libraries_load_is_never_looked_at_for_garbage() -> None:
    """In a process of its own: what is frozen is frozen for all tests."""
    work = """
import gc
from common.loading import loading
def kept():
    return [[place] for place in range(100_000)]
def is_looked_at(objects):
    return any(each is objects for each in gc.get_objects())
before = [each["collections"] for each in gc.get_stats()]
with loading():
    import wave
    first = kept()
    assert not gc.isenabled()
assert [each["collections"] for each in gc.get_stats()] == before
assert gc.isenabled()
assert not is_looked_at(first)
with loading():
    import wave
    second = kept()
assert is_looked_at(second)
gc.disable()
with loading():
    pass
assert not gc.isenabled()
"""
    subprocess.run([sys.executable, "-c", work], cwd=REPOSITORY, check=True)


@pytest.mark.parametrize(
    "script", ["common/run.py", "step3_testing/prediction/predict.py", "step3_testing/prediction/export.py"]
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_who_reads_no_further_gets_no_traceback(script: str, unbuffered: str) -> None:
    """As by `bash run.sh --help | head -3`."""
    read, write = os.pipe()
    os.close(read)
    with open(write, "wb") as nobody_reads:
        done = subprocess.run(
            [sys.executable, str(REPOSITORY / script), "--help"],
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            stdout=nobody_reads,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.stderr == ""
    assert done.returncode == 141


@pytest.mark.parametrize("script", ["common/run.py", "step3_testing/prediction/export.py"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_full_disk_under_the_output_is_one_message(script: str, unbuffered: str) -> None:
    """As of `nohup bash run.sh > log`."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, str(REPOSITORY / script), "--help"],
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == "error: the disk is full\n  do:      make room, and give the same command again\n"


def test_broken_connection_is_no_end_of_output(capfd: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run_script(main)
    print("still read")
    assert capfd.readouterr().out == "still read\n"


def test_usage_and_refusal_name_the_command_that_was_typed(tmp_path: Path) -> None:
    script = REPOSITORY / "step3_testing" / "prediction" / "predict.py"
    assert "usage: bash predict.sh [-h]" in _run(script, ["--help"], tmp_path)[1]
    status, said, _ = _run(script, [str(REPOSITORY), "out", "--system", "none"], tmp_path)
    assert status == 2
    assert "bash predict.sh --help" in said


def test_status_is_told_by_names_alone(tmp_path: Path) -> None:
    status, said, loaded = _run(REPOSITORY / "common" / "run.py", ["--status"], tmp_path)
    assert status == 0, said
    assert said.startswith("0    films                    waits\n1.1  SIIM-ACR segmentation")
    assert not HEAVY & loaded
    assert not any(tmp_path.iterdir())


_NEW_FILM = """
import sys
import common.prediction.folder
assert "torch" not in sys.modules, "the reader of films starts before"
import common.prediction.predictor
from pathlib import Path
from common.networks import weights
from common.recipes.presets import preset_network
from safetensors.torch import load_file
for system in ("eff", "vit"):
    facts = {"network": weights.network_facts(preset_network("demo", system)), "task": "seg"}
    list(weights.build_trained(facts, "seg", [(load_file(f"{sys.argv[1]}/{system}"), Path("a"))]))
print("loaded:", *sorted(sys.modules))
"""


def test_a_new_film_waits_for_nothing_that_it_does_without(tmp_path: Path) -> None:
    """torch's compiler, SciPy and pandas took a third of the time until the first finding."""
    for system in ("eff", "vit"):
        facts = {"network": weights.network_facts(preset_network("demo", system)), "task": "seg"}
        weights.save_weights(tmp_path / system, weights.build(facts).state_dict(), {})
    command = [sys.executable, "-c", _NEW_FILM, str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    loaded = set(done.stdout.rpartition("loaded:")[2].split())
    assert {"torch", "timm", "pydicom"} <= loaded, done.stderr
    assert not {"torch._dynamo", "scipy", "pandas"} & loaded


def test_first_word_comes_before_the_wait(tmp_path: Path) -> None:
    """A folder of films that is no source: refused only by the reader, which has to be loaded."""
    script = REPOSITORY / "step1_pretraining" / "step1_segmentation" / "train.py"
    status, said, loaded = _run(script, ["--gpu", "cpu", "--siim", str(tmp_path)], tmp_path)
    assert status == 2
    assert said.startswith("SIIM-ACR segmentation: eff and vit, preset published, on the CPU\n")
    assert "torch" in loaded
