"""The scripts, run as a user runs them, on tiny networks."""

from __future__ import annotations

import csv
import json
import math
import shutil
import socket
import sys
from pathlib import Path

import pandas as pd
import pydicom
import pytest
import torch
from conftest import (
    REPOSITORY,
    SECRET_FOLDER,
    SECRETS,
    STEP_1_1,
    STEP_1_2,
    STEP_2_1,
    STEP_2_2,
    TESTING,
    THRESHOLDS,
    TINY,
    Scripts,
)

from common.networks.weights import read_metadata
from common.paths import run_name
from common.stages import N_FOLDS, STAGES, SYSTEMS

# --- the whole chain -------------------------------------------------------------------------------


def test_chain_leaves_every_file_of_the_contract(chain: Scripts) -> None:
    for stage in STAGES.values():
        for system in SYSTEMS:
            for fold in [None] if stage.source == "siim" else range(N_FOLDS):
                name = run_name(stage, system, fold)
                folder = chain.workspace / stage.folder
                assert (folder / "model_weights" / f"{name}.safetensors").is_file()
                files = {path.name for path in (folder / "runs" / name).iterdir()}
                assert {"config.json", "recipe.toml", "log.txt", "log.csv"} <= files
                assert {"curves.png", "films.png"} <= files
                assert "last.pt" not in files
    for system in SYSTEMS:
        result = chain.workspace / THRESHOLDS / f"cls_{system}_5fold_result"
        thresholds = json.loads((result / "5cv_avg.json").read_text())
        assert {"auc", "cls_threshold", "fpr", "tpr", "seg_threshold", "image_size"} <= set(thresholds)
        assert all(isinstance(thresholds[key], float) for key in ("auc", "cls_threshold", "fpr", "tpr"))
        assert (result / "out_of_fold.csv").is_file()
        assert (result / "roc.png").is_file()
        cases = pd.read_csv(chain.workspace / TESTING / f"result_{system}" / "cases.csv")
        masks = int(cases["has_mask"].sum())
        assert len(list((chain.workspace / TESTING / f"result_{system}" / "truth").iterdir())) >= masks > 0


def test_every_link_starts_from_the_one_before(chain: Scripts) -> None:
    def metadata(step: str, name: str) -> dict:
        return read_metadata(chain.workspace / step / "model_weights" / f"{name}.safetensors")

    for system in SYSTEMS:
        segmentation = metadata(STEP_1_1, f"{system}_seg_siim")
        assert segmentation["lineage"] == [{"stage": "start", "kind": "random"}]
        stages = [link["stage"] for link in metadata(STEP_2_2, f"fold_3_{system}_cls_ntuh")["lineage"]]
        assert stages == ["start", "siim_segmentation", "siim_classification"]
        stages = [link["stage"] for link in metadata(STEP_2_1, f"fold_3_{system}_seg_ntuh")["lineage"]]
        assert stages == ["start", "siim_segmentation"]


def test_metrics_csv_is_complete(chain: Scripts) -> None:
    table = pd.read_csv(chain.workspace / TESTING / "metrics.csv")
    assert list(table.columns) == [
        "system", "reference", "decision", "stratum", "metric", "n", "positives", "estimate", "ci_low",
        "ci_high", "interval", "note", "p_value", "p_holm", "test", "plan",
    ]  # fmt: skip
    assert set(table["system"]) == {*SYSTEMS, "eff-vit"}
    assert set(table["reference"]) == {"mask", "report", "mask_or_clear"}
    assert {"all", "small", "medium", "large"} <= set(table["stratum"])
    names = "auroc auprc sensitivity specificity ppv npv dice_segmentation dice_positives dice_true_positives"
    assert set(names.split()) <= set(table["metric"])
    areas, rates = (table[table["metric"] == name] for name in ("auroc", "sensitivity"))
    assert (areas["positives"] <= areas["n"]).all()
    assert rates["positives"].isna().all()
    intervals = table[table["interval"] != "none"].fillna({"ci_low": -math.inf, "ci_high": math.inf})
    assert (intervals["ci_low"] < intervals["ci_high"]).all()


def test_no_identity_in_anything_written_or_printed(chain: Scripts, sources: Path) -> None:
    with open(sources / "ntuh" / "NTUH_1519.csv", encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    secrets = {row["PERSONID2"] for row in rows} | {row["ACCESSNO2"] for row in rows}
    secrets |= {path.stem for path in (sources / "siim").rglob("*.dcm")}
    secrets |= {line for row in rows for line in row["EXAM"].splitlines() if len(line) > 20}
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in sources.rglob("*.dcm")]
    secrets |= {str(film.PatientID) for film in headers} | {str(film.StudyInstanceUID) for film in headers}
    secrets |= {*SECRETS.values(), SECRET_FOLDER, "QUINCY", "Adelheid", "Zebulon"}
    assert len(secrets) > 120
    # the arrays hold pixels only; everything else is searched byte by byte
    files = [p for p in chain.workspace.rglob("*") if p.is_file() and p.suffix != ".npy"]
    assert len(files) > 100
    for path in files:
        content = path.read_bytes()
        for secret in secrets:
            assert secret.encode() not in content, f"{secret} in {path}"
            assert secret not in str(path)


@pytest.mark.all
def test_order_of_the_fine_tuning_steps_does_not_matter(
    chain: Scripts, sources: Path, tmp_path: Path
) -> None:
    other = chain.copy(tmp_path / "other")
    for step in (STEP_2_1, STEP_2_2):
        shutil.rmtree(other.workspace / step)
    options = [*TINY, "--ntuh", str(sources / "ntuh"), "--system", "vit", "--folds", "1"]
    other.run(STEP_2_2, "bash", "train.sh", "cpu", *options, "--films-per-epoch", "8")
    other.run(STEP_2_1, "bash", "train.sh", "cpu", *options)
    for step, name in ((STEP_2_1, "fold_1_vit_seg_ntuh"), (STEP_2_2, "fold_1_vit_cls_ntuh")):
        first, second = (
            (s.workspace / step / "model_weights" / f"{name}.safetensors").read_bytes()
            for s in (chain, other)
        )
        assert first == second


def test_finished_stage_is_skipped_and_a_changed_one_refused(chain: Scripts, sources: Path) -> None:
    base = ["bash", "train.sh", "cpu", *TINY, "--siim", str(sources / "siim")]
    done = chain.run(STEP_1_1, *base, "--system", "vit")
    assert "vit_seg_siim: finished before" in done.stdout
    done = chain.run(STEP_1_1, *base, "--system", "vit", "--learning-rate", "0.5", expect=2)
    assert "recipe.learning_rate: 0.001 -> 0.5" in done.stderr or "-> 0.5" in done.stderr
    assert "--fresh" in done.stderr


# --- refusals: each stage, before any work ---------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "command", "missing", "made_by"),
    [
        (STEP_1_1, "train.sh", "data/siim", "--siim"),
        (STEP_2_2, "train.sh", "eff_cls_siim.safetensors", f"{STEP_1_2} && bash train.sh"),
        (
            THRESHOLDS,
            "get_thresholds.sh",
            "fold_0_eff_seg_ntuh.safetensors",
            f"{STEP_2_1} && bash train.sh",
        ),
        (TESTING, "inference.sh", "fold_0_eff_seg_ntuh.safetensors", f"{STEP_2_1} && bash train.sh"),
    ],
)
def test_missing_inputs_are_refused(
    tmp_path: Path, folder: str, command: str, missing: str, made_by: str
) -> None:
    flags = ["--initial-weights", "random"] if folder == STEP_1_1 else []
    done = Scripts(tmp_path).run(folder, "bash", command, "cpu", *flags, expect=2)
    assert done.stderr.startswith("error: ")
    assert missing in done.stderr
    assert made_by in done.stderr
    assert not list(tmp_path.rglob("*.npy"))


def test_interrupted_run_is_named(chain: Scripts, tmp_path: Path) -> None:
    other = chain.copy(tmp_path / "other")
    (other.workspace / STEP_1_1 / "model_weights" / "vit_seg_siim.safetensors").unlink()
    done = other.run(STEP_1_2, "bash", "train.sh", "cpu", *TINY, "--system", "vit", expect=2)
    assert "runs/vit_seg_siim, at epoch 1 of 1; the command resumes it" in done.stderr


def test_incomplete_folds_are_refused(chain: Scripts, tmp_path: Path) -> None:
    other = chain.copy(tmp_path / "other")
    for fold in (1, 4):
        (other.workspace / STEP_2_2 / "model_weights" / f"fold_{fold}_vit_cls_ntuh.safetensors").unlink()
    done = other.run(THRESHOLDS, "bash", "get_thresholds.sh", "cpu", expect=2)
    assert "fold_1_vit_cls_ntuh.safetensors, fold_4_vit_cls_ntuh.safetensors" in done.stderr


def test_missing_thresholds_are_refused(chain: Scripts, tmp_path: Path) -> None:
    other = chain.copy(tmp_path / "other")
    (other.workspace / THRESHOLDS / "cls_vit_5fold_result" / "5cv_avg.json").unlink()
    done = other.run(TESTING, "bash", "inference.sh", "cpu", expect=2)
    assert "cls_vit_5fold_result/5cv_avg.json" in done.stderr
    assert f"{THRESHOLDS} && bash get_thresholds.sh" in done.stderr


# --- the command line ------------------------------------------------------------------------------


@pytest.mark.all
@pytest.mark.parametrize(
    ("gpu", "said"),
    [
        pytest.param(
            "0,1",
            "no GPU can be used here",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here"),
        ),
        ("0,0", "named twice"),
        ("two", "names no GPU"),
        pytest.param(
            "0",
            "GPU 0: no GPU can be used here",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here"),
        ),
    ],
)
def test_gpu_argument(tmp_path: Path, gpu: str, said: str) -> None:
    done = Scripts(tmp_path).run(STEP_1_1, "bash", "train.sh", gpu, "--siim", str(tmp_path), expect=2)
    assert said in done.stderr


@pytest.mark.slow
def test_no_argument_means_gpu_0(tmp_path: Path) -> None:
    done = Scripts(tmp_path).run("step1_pretraining", "bash", "train.sh", "--siim", str(tmp_path), expect=2)
    assert "on GPU 0\n" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "script",
    [
        f"{STEP_1_1}/train.py",  # the other three differ by their stage: `test_stages.py`
        f"{THRESHOLDS}/get_thresholds.py",
        f"{TESTING}/inference.py",
        f"{TESTING}/bootstrap.py",
        "step3_testing/prediction/predict.py",
    ],
)
def test_help_teaches_and_a_foreign_common_is_not_used(tmp_path: Path, script: str) -> None:
    foreign = tmp_path / "common"
    foreign.mkdir()
    (foreign / "__init__.py").write_text("raise SystemExit('the foreign common was imported')\n")
    path = REPOSITORY / script
    scripts = Scripts(tmp_path, {"PYTHONPATH": str(tmp_path)})
    done = scripts.python(str(path.parent.relative_to(REPOSITORY)), "-X", "importtime", path.name, "--help")
    assert "bash" in done.stdout or "python bootstrap.py" in done.stdout
    assert "--system" in done.stdout
    assert ("INPUT OUTPUT" in done.stdout and "Research use only" in done.stdout) == script.endswith(
        "predict.py"
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "common.start" in imported


def test_python_without_the_packages_is_told_what_to_do(tmp_path: Path) -> None:
    command = [sys.executable, "-S", "-c", "import sys; sys.path.insert(0, '.'); import common"]
    done = Scripts(tmp_path).run(".", *command, expect=2)
    assert done.stderr.startswith("error: this Python")
    assert "activate" in done.stderr


def test_launcher_without_environment_is_refused(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    for folder in ("common", "step1_pretraining"):
        shutil.copytree(REPOSITORY / folder, clone / folder)
    done = Scripts(tmp_path, {"VIRTUAL_ENV": "", "CONDA_PREFIX": ""}).run(
        str(clone / STEP_1_1), "bash", "train.sh", "cpu", expect=2
    )
    assert ".venv/bin/python" in done.stderr


# --- offline first ---------------------------------------------------------------------------------


@pytest.mark.all
def test_hub_that_never_answers_is_given_up(tmp_path: Path, sources: Path) -> None:
    silent = socket.create_server(("127.0.0.1", 0))  # accepts connections and never says a word
    host = f"http://127.0.0.1:{silent.getsockname()[1]}"
    environment = {"HF_ENDPOINT": host, "HF_HOME": str(tmp_path / "hub")}
    options = ["--siim", str(sources / "siim"), "--system", "vit"]
    scripts = Scripts(tmp_path, environment | {"HF_HUB_OFFLINE": "0"})
    done = scripts.run(STEP_1_1, "bash", "train.sh", "cpu", *options, expect=2)
    silent.close()
    name = "tiny_vit_21m_512.dist_in22k_ft_in1k"
    assert f"{host}/timm/{name}/resolve/main/model.safetensors" in done.stderr
    assert f"data/imagenet/{name}.safetensors" in done.stderr
    assert not (tmp_path / "data" / "prepared").exists()  # refused before any work
