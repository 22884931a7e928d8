"""The dataset for nnU-Net: every film once, the same five folds, classes 0 and 1, nothing of others lost.

And the way back: what nnU-Net predicts of the test films, in the tables beside our systems.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import TESTING, Scripts, installed_program, made_once

from common.inference.nnunet_predictions import collect_nnunet, film_probability
from common.paths import prepared_folder
from common.preparation.film_store import PreparedSet
from common.preparation.nnunet import DATASET, export_nnunet
from common.refusal import Refusal

SIDE = 64


@pytest.fixture
def training(chain: Scripts, monkeypatch: pytest.MonkeyPatch) -> PreparedSet:
    monkeypatch.setenv("PTX_WORKSPACE", str(chain.workspace))
    return PreparedSet(prepared_folder("ntuh_train"))


@pytest.mark.slow
def test_it_holds_the_prepared_films_and_their_folds(
    training: PreparedSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unclear = ~training.has_mask & (training.cases["report"].to_numpy() == 1)
    export_nnunet(tmp_path, SIDE)
    assert f"left out: {unclear.sum()} training films" in capsys.readouterr().out
    raw = tmp_path / "nnUNet_raw" / DATASET
    splits = json.loads((tmp_path / "nnUNet_preprocessed" / DATASET / "splits_final.json").read_text())
    assert len(splits) == 5
    for row, case in enumerate(training.names(np.arange(len(training.cases)))):
        film, label = raw / "imagesTr" / f"{case}_0000.png", raw / "labelsTr" / f"{case}.png"
        where = [
            ("val" if case in fold["val"] else "train")
            for fold in splits
            if case in fold["train"] + fold["val"]
        ]
        if unclear[row]:
            assert not film.exists()
            assert not label.exists()
            assert not where
            continue
        assert [number for number, part in enumerate(where) if part == "val"] == [training.part[row]]
        assert len(where) == 5
        assert (cv2.imread(str(film), cv2.IMREAD_UNCHANGED) == training.film(row, SIDE)).all()
        assert (cv2.imread(str(label), cv2.IMREAD_UNCHANGED) == training.mask(row, SIDE)).all()
    tested = PreparedSet(prepared_folder("ntuh_test"))
    assert {path.name for path in (raw / "imagesTs").iterdir()} == {
        f"{case}_0000.png" for case in tested.cases["case"]
    }
    assert not (raw / "labelsTs").exists()
    table = json.loads((raw / "dataset.json").read_text())
    assert (
        table["numTraining"] == len([*(raw / "labelsTr").iterdir()]) == len([*(raw / "imagesTr").iterdir()])
    )
    assert table["labels"] == {"background": 0, "pneumothorax": 1}


@pytest.mark.slow
def test_an_earlier_dataset_is_replaced_and_other_files_stay(training: PreparedSet, tmp_path: Path) -> None:
    export_nnunet(tmp_path, SIDE)
    raw = tmp_path / "nnUNet_raw" / DATASET
    (raw / "imagesTr" / "c0123456789abcdef_0000.png").write_bytes(b"of an earlier preparation")
    (raw / "imagesTr" / "holiday.png").write_bytes(b"theirs")
    export_nnunet(tmp_path, SIDE)
    assert not (raw / "imagesTr" / "c0123456789abcdef_0000.png").exists()
    assert (raw / "imagesTr" / "holiday.png").read_bytes() == b"theirs"
    splits = tmp_path / "nnUNet_preprocessed" / DATASET / "splits_final.json"
    splits.write_text("[]")
    with pytest.raises(Refusal, match="other folds"):
        export_nnunet(tmp_path, SIDE)
    assert splits.read_text() == "[]"


@pytest.mark.slow
def test_a_dataset_of_others_is_refused(training: PreparedSet, tmp_path: Path) -> None:
    theirs = tmp_path / "nnUNet_raw" / DATASET / "dataset.json"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("{}")
    with pytest.raises(Refusal, match="did not write"):
        export_nnunet(tmp_path, SIDE)
    assert theirs.read_text() == "{}"


def test_films_that_are_not_prepared_are_named(tmp_path: Path) -> None:
    said = (
        Scripts(tmp_path)
        .run("step2_ntuh_training", "bash", "nnunet.sh", str(tmp_path / "out"), expect=2)
        .stderr
    )
    assert "prepared NTUH films" in said
    assert not (tmp_path / "out").exists()


# --- the way back ----------------------------------------------------------------------------------


def _predicted(folder: Path, cases: list[str], shape: tuple[int, ...] = (2, 1, 40, 30)) -> Path:
    """Probabilities as nnUNetv2_predict leaves them."""
    folder.mkdir()
    for number, case in enumerate(cases):
        softmax = np.zeros(shape, np.float32)
        softmax[1, 0, :5, :5] = number / len(cases)
        softmax[0] = 1 - softmax[1]
        np.savez_compressed(folder / f"{case}.npz", probabilities=softmax)
    return folder


@pytest.mark.slow
def test_its_predictions_become_the_folder_of_a_peer(training: PreparedSet, tmp_path: Path) -> None:
    cases = PreparedSet(prepared_folder("ntuh_test")).cases["case"].tolist()
    collect_nnunet(tmp_path / "peer", _predicted(tmp_path / "predicted", cases))
    rows = list(csv.DictReader((tmp_path / "peer" / "cases.csv").read_text().splitlines()))
    assert [row["case"] for row in rows] == cases
    for number, row in enumerate(rows):
        assert float(row["probability"]) == pytest.approx(number / len(cases))
        found = cv2.imread(str(tmp_path / "peer" / "maps" / f"{row['case']}.png"), cv2.IMREAD_UNCHANGED)
        assert (found.shape, found.dtype) == ((40, 30), np.uint16)
        assert (found[:5, :5] == round(number / len(cases) * 65535)).all()
        assert not found[5:].any()


@pytest.mark.slow
def test_predictions_that_are_none(training: PreparedSet, tmp_path: Path) -> None:
    cases = PreparedSet(prepared_folder("ntuh_test")).cases["case"].tolist()
    predicted = _predicted(tmp_path / "predicted", cases)
    (predicted / f"{cases[1]}.npz").write_bytes(b"PK no archive")
    with pytest.raises(Refusal, match="holds no probabilities"):
        collect_nnunet(tmp_path / "peer", predicted)
    (predicted / f"{cases[1]}.npz").unlink()
    with pytest.raises(Refusal, match="lacks probabilities of 1 of 16 test films"):
        collect_nnunet(tmp_path / "peer", predicted)
    with pytest.raises(Refusal, match="other probabilities than of two classes"):
        collect_nnunet(tmp_path / "peer", _predicted(tmp_path / "three", cases, (3, 1, 8, 8)))
    assert not (tmp_path / "peer").exists()


def test_no_single_pixel_makes_a_film_positive() -> None:
    found = np.zeros((512, 512), np.float32)
    found[100, 100] = 1
    assert film_probability(found) == pytest.approx(1 / 64)
    found[100:108, 100:108] = 1  # a small lesion does
    assert film_probability(found) == pytest.approx(1)


# Of a length that is meant for tests; its signature must be that of the class it is made from
_TRAINER = """
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

class ShortTrainer(nnUNetTrainer):
    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 1, 20, 2
"""


@pytest.fixture(scope="session")
def nnunet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of nnU-Net's programs, in an environment of its own: it wants an older timm than ours."""
    if program := installed_program("nnUNetv2_train"):
        return Path(program).parent
    folder = made_once(tmp_path_factory, "nnunet", _install) / "environment"
    if not (folder / "bin" / "nnUNetv2_train").exists():
        pytest.skip("nnU-Net cannot be installed here")
    return folder / "bin"


def _install(folder: Path) -> None:
    """An environment that sees the packages of this one, and gets what nnU-Net needs beyond them."""
    subprocess.run([sys.executable, "-m", "venv", folder / "environment"], check=True)
    python = folder / "environment" / "bin" / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = subprocess.run([python, "-c", where], check=True, capture_output=True, text=True).stdout.strip()
    (Path(own) / "seen.pth").write_text(sysconfig.get_path("purelib"))
    subprocess.run([python, "-m", "pip", "install", "--quiet", "nnunetv2>=2.5"], check=False)


@pytest.mark.all
@pytest.mark.slow
def test_nnunet_trains_on_it_and_its_predictions_are_in_the_tables(
    chain: Scripts, nnunet: Path, tmp_path: Path
) -> None:
    """From our films to a column beside ours, by nnU-Net's own commands; so few steps are no result."""
    copy = chain.copy(tmp_path / "copy")
    copy.run("step2_ntuh_training", "bash", "nnunet.sh", str(tmp_path), "--image-size", "128")
    (tmp_path / "trainer").mkdir()
    (tmp_path / "trainer" / "short.py").write_text(_TRAINER)
    raw = tmp_path / "nnUNet_raw" / DATASET
    environment = {
        **os.environ,
        **{name: str(tmp_path / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")},
        "nnUNet_extTrainer": str(tmp_path / "trainer"),
        "nnUNet_n_proc_DA": "1",
        "nnUNet_def_n_proc": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    predicted = tmp_path / "predicted"
    for command in (
        "nnUNetv2_plan_and_preprocess -d 501 -c 2d -np 1 -npfp 1",
        "nnUNetv2_train 501 2d 0 -tr ShortTrainer -device cpu",
        f"nnUNetv2_predict -d 501 -c 2d -f 0 -tr ShortTrainer -device cpu -npp 1 -nps 1 --disable_tta "
        f"--save_probabilities -chk checkpoint_final.pth -i {raw / 'imagesTs'} -o {predicted}",
    ):
        program, *arguments = command.split()
        done = subprocess.run(
            [nnunet / program, *arguments], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    peer = tmp_path / "peer"
    copy.run("step2_ntuh_training", "bash", "nnunet.sh", str(peer), "--collect", str(predicted))
    test = PreparedSet(copy.workspace / "data" / "prepared" / "ntuh_test")
    overlaps = []
    for row, case in enumerate(test.cases["case"]):
        found = cv2.imread(str(peer / "maps" / f"{case}.png"), cv2.IMREAD_UNCHANGED)
        outlined = cv2.imread(str(predicted / f"{case}.png"), cv2.IMREAD_UNCHANGED) == 1
        assert ((found > 65535 // 2) == outlined).mean() > 0.999  # the same class, the same way up
        if test.has_mask[row]:
            full = cv2.resize(found / 65535, (1024, 1024), interpolation=cv2.INTER_LINEAR) > 0.5
            mask = test.mask(row)
            overlaps.append(2 * (full & mask).sum() / (full.sum() + mask.sum()))
    copy.python(TESTING, "bootstrap.py", "--replicates", "100", "--peer", f"nnUNet={peer}")
    with open(copy.workspace / TESTING / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["stratum"] == "all" and row["reference"] == "mask"]
    of_it = {row["metric"]: row for row in rows if row["system"] == "nnUNet"}
    assert of_it["auroc"]["n"] == str(len(test.cases))
    assert 0 <= float(of_it["auroc"]["estimate"]) <= 1
    assert of_it["dice_full_size"]["n"] == str(len(overlaps))
    assert float(of_it["dice_full_size"]["estimate"]) == pytest.approx(np.mean(overlaps), abs=1e-4)
    assert {row["system"] for row in rows} == {"eff", "vit", "eff-vit", "nnUNet", "eff-nnUNet", "vit-nnUNet"}
    assert "sensitivity" not in of_it
