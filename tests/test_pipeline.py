"""All stages as one plan: flags, status, what is kept, what fails, and what is known before anything runs."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import REPOSITORY, TESTING, TUTORIAL, Scripts
from safetensors.torch import load_file

from common import start
from common.networks.weights import tensors_digest
from common.paths import run_lock, thresholds_file, weights_file
from common.pipeline import record
from common.pipeline.conduct import run_stage
from common.pipeline.planned_stages import PlannedStage, planned_stages
from common.pipeline.shared_flags import divide, numbers_of_several
from common.refusal import Refusal, gather
from common.stages import STAGES

# The chain of conftest.py, whose trainings got flags of their own, as one recipe
RECIPE = """
based_on = "demo"
[networks.eff]
encoder = "test_efficientnet"
encoder_args = {}
[every_stage]
flip = false
map_threshold = "half"
image_size = 64
epochs = 1
batch_size = 4
[siim_classification]
films_per_epoch = 8
[ntuh_classification]
films_per_epoch = 8
"""


@pytest.fixture
def flags(sources: Path, tmp_path: Path) -> list[str]:
    """The flags by which `run.sh` makes the chain."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    films = ["--siim", str(sources / "siim"), "--ntuh", str(sources / "ntuh")]
    return ["cpu", "--recipe", str(recipe), "--replicates", "200", *films]


@pytest.fixture
def run(chain: Scripts, flags: list[str], tmp_path: Path, monkeypatch, capsys) -> Callable[..., str]:
    """Run `run.py` on a copy of the chain, in this process; what it prints."""
    chain.copy(tmp_path / "copy")
    monkeypatch.setenv("PTX_WORKSPACE", str(tmp_path / "copy"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def give(*more: str) -> str:
        start.run("", ["--gpu", *flags, *more])
        return capsys.readouterr().out

    return give


def states(text: str) -> dict[str, str]:
    """Number of each step and its state, of what `--status` prints."""
    lines = [line for line in text.splitlines() if line[:1].isdigit()]
    return {line.split()[0]: line[30:].split()[0] for line in lines}


# --- the list, and its flags -----------------------------------------------------------------------


def test_plan_is_the_tutorial_with_the_films_before_it() -> None:
    films, *stages = planned_stages()
    assert films.script == "common/prepare.sh"
    assert tuple(stage.script for stage in stages) == tuple(
        f"{place}/{script[1]}" for place, script in TUTORIAL
    )
    assert all((REPOSITORY / stage.script).is_file() for stage in planned_stages())


def test_phases_are_the_trainings_of_their_folders() -> None:
    found = {
        phase: [stage.number for stage in planned_stages(phase)]
        for phase in ("step1_pretraining", "step2_ntuh_training", "step2_ntuh_training/student")
    }
    assert list(found.values()) == [["1.1", "1.2"], ["2.1", "2.2"], ["2.4", "2.4"]]
    for phase in found:
        assert f"--phase {phase}\n" in (REPOSITORY / phase / "train.sh").read_text()


def test_flags_go_to_the_stages_that_have_them() -> None:
    trained = "--system vit --epochs 3 --siim-patients=a.csv --no-checkpointing --seed 4"
    found = divide(f"{trained} --rule youden --views AP PA".split(), planned_stages())
    assert {key: " ".join(words) for key, words in found.items()} == {
        "films": "--siim-patients=a.csv --views AP PA",
        **dict.fromkeys(STAGES, trained),
        "thresholds": "--system vit --rule youden",
        "inference": "--system vit",
        "metrics": "--system vit --seed 4",
    }


def test_flag_of_one_of_two_stages_goes_to_that_one() -> None:
    one, other = planned_stages("step1_pretraining")
    other = dataclasses.replace(other, flags=other.flags - {"dice_weight"})
    found = divide(["--dice-weight", "2", "--epochs", "1"], (one, other))
    assert found[one.key] == ["--dice-weight", "2", "--epochs", "1"]
    assert found[other.key] == ["--epochs", "1"]


def test_number_that_reaches_several_steps_is_said() -> None:
    """In a recipe segmentation and classification may differ there: who meant one should see it."""
    typed = ["--system", "vit", "--films-per-epoch", "240", "--no-flip"]
    assert numbers_of_several(typed, planned_stages("step2_ntuh_training")) == [
        "steps 2.1, 2.2 take --films-per-epoch 240 --no-flip",
    ]
    assert numbers_of_several(["--films-per-epoch", "8"], planned_stages("step2_ntuh_training")[:1]) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--epoch 3", "no stage has the flag --epoch\n.*\n.*write --epochs"),
        (
            "--fresh",
            "--fresh is for one step alone\n.*own script",
        ),  # each command given again would begin anew
        ("--folds 1", "--folds is for one step alone"),  # nothing could be tested
        ("1 --epochs 3", "'1' belongs to no flag"),
    ],
)
def test_flag_that_no_stage_has_is_refused(line: str, said: str) -> None:
    with pytest.raises(Refusal, match=said):
        divide(line.split(), planned_stages())


def test_what_follows_from_a_refusal_is_not_said(workspace: Path, sources: Path) -> None:
    films = ["--siim", str(sources / "siim"), "--ntuh", str(sources / "ntuh")]
    with pytest.raises(Refusal, match="fewer training films than one batch") as refused:
        start.run("", ["--gpu", "cpu", "--check", "--preset", "demo", "--batch-size", "64", *films])
    assert "error:" not in str(refused.value)  # one: later steps only lack what this one would have made


def test_values_are_refused_before_anything_runs(workspace: Path) -> None:
    with pytest.raises(Refusal, match="--replicates 3 is too few"):
        start.run("", ["--gpu", "cpu", "--replicates", "3"])
    with pytest.raises(Refusal, match="--epochs 0 must be positive"):
        start.run("", ["--gpu", "cpu", "--epochs", "0"])
    assert not any(workspace.iterdir())


# --- what is missing -------------------------------------------------------------------------------


def test_films_of_both_sources_are_missed_at_once(workspace: Path) -> None:
    with pytest.raises(Refusal) as refused:
        start.run("", ["--gpu", "cpu", "--preset", "demo"])
    assert "SIIM-ACR films" in str(refused.value)
    assert "NTUH films" in str(refused.value)
    assert not any(workspace.iterdir())


def test_checks_are_all_made_and_each_refusal_is_told_once() -> None:
    made = []

    def refuse(what: str) -> None:
        made.append(what)
        raise Refusal(what, do="bring it")

    with pytest.raises(Refusal) as refused:
        gather([lambda: refuse("a"), lambda: refuse("b"), lambda: refuse("a")])
    assert made == ["a", "b", "a"]
    assert str(refused.value) == "a\n  do:      bring it\nerror: b\n  do:      bring it"
    assert gather([lambda: 1, lambda: 2]) == [1, 2]


@pytest.mark.slow
def test_last_stage_is_checked_before_the_first_begins(flags: list[str], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PTX_WORKSPACE", str(tmp_path / "new"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    taken = tmp_path / "new" / "step3_testing" / "testing" / "metrics.csv"
    taken.parent.mkdir(parents=True)
    taken.write_text("mine\n")
    gone = ["--imagenet", str(tmp_path / "gone"), "--initial-weights", "imagenet"]
    with pytest.raises(Refusal) as refused:
        start.run("", ["--gpu", *flags, *gone])
    assert "metrics.csv" in str(refused.value)
    assert str(refused.value).count("no ImageNet weights of") == 2
    left = {path for path in (tmp_path / "new").rglob("*") if path.is_file()}
    assert left == {taken, record.lock_file()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--readers", "gone.csv"), "no such table of readers' calls"),
        (("--peer", "other=gone"), "there is no table of other\n  missing: gone/cases.csv"),
        (("--plan", "gone.toml"), "gone.toml cannot be read"),
    ],
)
def test_files_of_the_last_step_are_missed_before_the_first(
    flags: list[str], workspace: Path, tmp_path: Path, given: tuple[str, str], said: str, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Refusal) as refused:
        start.run("", ["--gpu", *flags, "--check", *given])
    assert said in str(refused.value)


# --- what is done, running and left ----------------------------------------------------------------


def test_status_of_a_finished_chain(run: Callable[..., str]) -> None:
    text = run("--status")
    assert set(states(text).values()) == {"done"}
    assert "left: about 0 s" in text
    words = [line.split() for line in run("--status", "--system", "eff").splitlines()]
    assert ["1.1", "SIIM-ACR", "segmentation", "done", "1", "run"] in words


def test_status_tells_running_interrupted_and_waiting(run: Callable[..., str]) -> None:
    seg, cls = STAGES["ntuh_segmentation"], STAGES["ntuh_classification"]
    for fold in (1, 3):
        weights_file(seg, "vit", fold).unlink()
    weights_file(cls, "eff", 0).unlink()
    (run_lock(cls, "eff", 0).parent / "fold_0_eff_cls_ntuh" / "last.pt").touch()
    record.remember(
        {"stages": {seg.key: {"runs": {f"fold_{fold}_vit_seg_ntuh": [7, 1e6] for fold in (1, 3)}}}}
    )
    record.note("thresholds", record.FAILED)
    with open(run_lock(seg, "vit", 3), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        text = run("--status")
    found = states(text)
    assert found | {"2.1": "running", "2.2": "waits", "2.3": "failed", "3.1": "waits"} == found
    assert "8 of 10 runs; fold_3_vit_seg_ntuh" in text
    assert "9 of 10 runs; fold_0_eff_cls_ntuh at epoch 1 of 1, interrupted" in text
    assert "run.sh is not running" in text
    # seven epochs of each run, by the pace of the folds that are finished and not by the plan's
    assert " h left" not in text


@pytest.mark.all
def test_what_is_done_is_kept_and_the_rest_is_made(run: Callable[..., str], tmp_path: Path) -> None:
    everything = tmp_path / "copy"
    before = {path: path.read_bytes() for path in everything.rglob("*.csv")}
    thresholds = {system: thresholds_file(system).read_bytes() for system in ("eff", "vit")}
    times = {path: path.stat().st_mtime_ns for path in everything.rglob("*.safetensors")}
    thresholds_file("vit").unlink()
    text = run()
    for number in ("step 0, films", "step 1.1", "step 2.2", "step 3.1, inference", "step 3.2, metrics"):
        assert f"=== {number}" in text
    assert text.count(": done, kept") == 7
    assert "step 2.3, thresholds (6 of 8" in text
    assert {system: thresholds_file(system).read_bytes() for system in thresholds} == thresholds
    assert {path: path.read_bytes() for path in before} == before
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert "get_thresholds: eff and vit" in record.log_file("2.3").read_text()
    assert run().count("done, kept") == 8 * 2  # in the table, and in its turn


@pytest.mark.slow
def test_plan_of_a_new_workspace_writes_nothing_but_itself(flags: list[str], tmp_path: Path) -> None:
    scripts = Scripts(tmp_path / "new")
    (tmp_path / "new").mkdir()
    done = scripts.run(".", "bash", "run.sh", *flags, "--check")
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if line[:1].isdigit()}
    assert list(rows) == [stage.number for stage in planned_stages()]
    assert "10 of 10" in rows["2.2"]
    assert "timed" in rows["1.1"]
    assert "Nothing was run (--check)." in done.stdout
    files = [path for path in (tmp_path / "new").rglob("*") if path.is_file()]
    assert files == [tmp_path / "new" / "run" / "plan.json"]
    plan = json.loads(files[0].read_text())
    assert len(plan["stages"]["ntuh_segmentation"]["runs"]) == 10
    assert str(tmp_path) not in files[0].read_text()


@pytest.mark.slow
def test_phase_is_checked_to_its_end(flags: list[str], tmp_path: Path) -> None:
    """Step 1.2 starts from weights that step 1.1 has yet to make."""
    scripts = Scripts(tmp_path / "new")
    given = [*flags[:3], "--siim", flags[flags.index("--siim") + 1], "--system", "vit", "--check"]
    done = scripts.run("step1_pretraining", "bash", "train.sh", *given)
    assert "1.2" in done.stdout
    assert "2 of 2" in done.stdout


# --- running a stage -------------------------------------------------------------------------------


def script(folder: Path, text: str) -> PlannedStage:
    """A stage whose script is this text."""
    path = folder / "train.sh"
    path.write_text(text)
    return PlannedStage("1.1", "siim_segmentation", "a stage", str(path), frozenset())


def test_failure_names_stage_log_and_command(workspace: Path, capfd) -> None:
    stage = script(workspace, "echo the disk is full; exit 3\n")
    with pytest.raises(Refusal) as refused:
        run_stage(stage, "cpu", [], [], "bash run.sh cpu")
    assert "step 1.1 (a stage) failed: exit status 3" in str(refused.value)
    assert str(record.log_file("1.1")) in str(refused.value)
    assert "go on: bash run.sh cpu" in str(refused.value)
    assert "the disk is full" in record.log_file("1.1").read_text()
    assert record.states() == {"siim_segmentation": record.FAILED}


def test_systems_are_trained_side_by_side_on_a_cpu(workspace: Path, capfd, monkeypatch) -> None:
    """Each waits for the other: one after the other, they would never end."""
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    wait = 'touch "$0.$4"; until [ -e "$0.eff" ] && [ -e "$0.vit" ]; do sleep 0.01; done\n'
    stage = script(workspace, f'echo "$* with $OMP_NUM_THREADS"; {wait}')
    run_stage(stage, "cpu", ["--epochs=1"], ["eff", "vit"], "")
    said = capfd.readouterr().out
    assert said == "cpu --epochs=1 --system eff with 3\ncpu --epochs=1 --system vit with 3\n"
    assert "vit with 3" in record.log_file("1.1", "vit").read_text()
    assert record.states() == {"siim_segmentation": record.DONE}


def test_on_a_gpu_one_command_trains_both_systems(workspace: Path, capfd) -> None:
    run_stage(script(workspace, 'echo "$*"\n'), "0", ["--epochs=1"], ["eff", "vit"], "")
    assert capfd.readouterr().out == "0 --epochs=1\n"


# --- from nothing to the report --------------------------------------------------------------------


@pytest.mark.all
def test_run_makes_what_the_single_commands_make(chain: Scripts, flags: list[str], tmp_path: Path) -> None:
    if os.environ.get("OMP_NUM_THREADS") != "1":
        pytest.skip("the chain was trained with more threads: OMP_NUM_THREADS=1")
    one = Scripts(tmp_path / "one")
    (one.workspace / "data").mkdir(parents=True)
    key = Path("data") / "pseudonym.key"  # of its own, else, and with it the names of cases
    shutil.copyfile(chain.workspace / key, one.workspace / key)
    done = one.run(".", "bash", "run.sh", *flags)
    assert "All 8 steps are done" in done.stdout
    made = sorted(path.relative_to(chain.workspace) for path in chain.workspace.rglob("*.safetensors"))
    assert len(made) == 24
    for path in made:
        tensors, expected = (load_file(each.workspace / path) for each in (one, chain))
        assert tensors_digest(tensors) == tensors_digest(expected), path
    for name in ("cases.csv", "metrics.csv"):
        for path in (chain.workspace / TESTING).rglob(name):
            assert (one.workspace / path.relative_to(chain.workspace)).read_bytes() == path.read_bytes()
    again = one.run(".", "bash", "run.sh", *flags)
    assert again.stdout.count(": done, kept") == 8
