"""Five folds in one network: who teaches whom, and that the student is obeyed wherever a system is."""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import TINY, Scripts, made_once

from common import start
from common.command_line import (
    parse_evaluation,
    parse_export,
    parse_listen,
    parse_prediction,
    parse_thresholds,
    parse_train,
)
from common.compute import seed_torch
from common.distributed import Processes
from common.inference import choose_thresholds
from common.inference.run_networks import Predictor
from common.inference.trained_system import (
    CLASSIFICATION,
    SEGMENTATION,
    operating_point,
    read_out_of_fold,
    read_trained,
)
from common.networks import weights
from common.networks.ensemble import fold_probabilities, mean_map
from common.networks.flip import FlippedNet
from common.paths import bundle_file, result_folder, run_folder, thresholds_file, weights_file
from common.prediction.bundle import read_bundle
from common.prediction.deployed import Deployed
from common.prediction.predictor import FilmPredictor
from common.preparation.run import open_prepared
from common.pseudonyms import pseudonym
from common.recipes.chosen import ChosenRecipe
from common.recipes.presets import PRESETS, preset_network, preset_recipe
from common.refusal import Refusal
from common.stages import N_FOLDS, STAGES, STUDENT_STAGES
from common.training.batches import EpochSampler
from common.training.checkpoint import Progress, file_of
from common.training.inputs import Run, film_rows
from common.training.loop import Fit
from common.training.losses import TaskLoss
from common.training.teachers import Teachers, Teaching, refuse_no_lesson

CPU = torch.device("cpu")
SEG, CLS = STUDENT_STAGES["student_segmentation"], STUDENT_STAGES["student_classification"]
ONE = ["--gpu", "cpu", "--system", "eff"]
TRAIN = [*ONE, *TINY[2:]]  # the recipe is their teachers'
needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="pip install openvino"
)


# --- who teaches whom ------------------------------------------------------------------------------


def _hashes(stage: str) -> list[str]:
    return [f"{stage} {fold}" for fold in range(N_FOLDS)]


TRAINED = SimpleNamespace(made_from={"weights": {key: _hashes(key) for key in STAGES if "ntuh" in key}})


@pytest.mark.parametrize("student", [SEG, CLS])
def test_student_of_a_fold_is_taught_by_the_one_network_that_held_it_out(student) -> None:
    every = _hashes(student.teachers)
    for fold in range(N_FOLDS):
        facts = Teaching.of(TRAINED, student, fold).facts
        assert facts == {"stage": student.teachers, "folds": [fold], "sha256": [every[fold]]}
    assert Teaching.of(TRAINED, student, None).facts["sha256"] == every


@pytest.mark.parametrize("stage", [SEG, CLS])
def test_student_of_a_fold_draws_no_film_of_it(stage) -> None:
    prepared = SimpleNamespace(part=np.arange(40) % N_FOLDS, has_mask=np.arange(40) % 3 == 0)
    for fold in (*range(N_FOLDS), None):
        run = Run(stage, "eff", fold, None, None, {}, None, Teaching.of(TRAINED, stage, fold))
        positives, negatives, judged = film_rows(run, prepared)
        learnt = {*positives.tolist(), *negatives.tolist()}
        held_out = set() if fold is None else set(np.flatnonzero(prepared.part == fold))
        assert learnt == set(range(40)) - held_out
        wanted = prepared.part == (fold or 0)
        assert (
            judged.tolist() == np.flatnonzero(wanted & (prepared.has_mask | (stage.task == "cls"))).tolist()
        )


@pytest.mark.parametrize("preset", PRESETS)
def test_student_has_the_numbers_of_its_teachers(preset: str) -> None:
    for stage in (SEG, CLS):
        for system in ("eff", "vit"):
            own = preset_recipe(preset, stage, system)
            teachers = preset_recipe(preset, STAGES[stage.teachers], system)
            differ = {name for name in vars(own) if getattr(own, name) != getattr(teachers, name)}
            assert differ <= {"soft_share", "unlabelled_share", "bce_weight", "flip"}
            assert 0 < own.soft_share < 1 == teachers.soft_share + 1
            assert not own.flip
            assert stage is CLS or own.bce_weight > 0


def test_only_students_have_a_share_of_their_teachers(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_train(SEG, "", ["--soft-share", "0.3"]).recipe(SEG, "eff").soft_share == 0.3
    with pytest.raises(SystemExit):
        parse_train(STAGES["ntuh_segmentation"], "", ["--soft-share", "0.3"])
    capsys.readouterr()
    with pytest.raises(Refusal, match="between 0 and 1"):
        parse_train(CLS, "", ["--soft-share", "1.5"])


def test_flag_names_the_student_wherever_a_system_is_used() -> None:
    for system in ("eff", "vit"):
        flags = ["--system", system, "--student"]
        assert parse_thresholds("", flags).systems == (f"{system}_student",)
        assert parse_evaluation("", flags).systems == (f"{system}_student",)
        assert parse_export("", flags).systems == (f"{system}_student",)
        assert parse_prediction("", ["in", "out", *flags]).named == f"{system}_student"
        assert parse_listen("", ["--caller", "A", *flags]).named == f"{system}_student"
    assert parse_listen("", ["--caller", "A", "--student"]).named == "eff_student"
    assert parse_listen("", ["--caller", "A"]).named is None
    with pytest.raises(Refusal, match="leave one of them off"):
        parse_listen("", ["--caller", "A", "--student", "--bundle", "eff.bundle"])


@pytest.mark.parametrize(
    ("stage", "name", "refused"),
    [
        (SEG, "soft_share", True),
        (SEG, "bce_weight", True),
        (CLS, "soft_share", True),
        (CLS, "bce_weight", False),
    ],
)
def test_recipe_by_which_the_teachers_are_not_heard_is_refused(stage, name: str, refused: bool) -> None:
    recipe = replace(preset_recipe("demo", stage, "eff"), **{name: 0.0})
    with pytest.raises(Refusal, match=f"learn nothing.*\n.*{name} is 0") if refused else nullcontext():
        refuse_no_lesson(stage, recipe, recipe.image_size)


def test_recipe_of_a_student_can_be_given_back(tmp_path: Path) -> None:
    chosen = ChosenRecipe.of_preset("published")
    own = chosen.recipes.stages[SEG.key, "vit"]
    changed = replace(
        own, epochs=7, flip=True, image_size=64, bce_weight=0.0
    )  # the last one is its teachers'
    path = tmp_path / "recipe.toml"
    path.write_text(chosen.resolved(SEG, "vit", changed, chosen.recipes.networks["vit"]))
    again = ChosenRecipe.of_file(path).recipes
    assert again.stages[SEG.key, "vit"] == changed
    assert again.stages[SEG.key, "eff"] == chosen.recipes.stages[SEG.key, "eff"]
    assert again.stages["ntuh_segmentation", "vit"] == chosen.recipes.stages["ntuh_segmentation", "vit"]


# --- what it learns --------------------------------------------------------------------------------


def _entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    probability = logits.double().sigmoid()
    return -(target * probability.log() + (1 - target) * (1 - probability).log()).mean()


def test_loss_is_the_weighted_sum_of_both_cross_entropies_and_dice_of_the_truth() -> None:
    generator = torch.Generator().manual_seed(1)
    masks, logits = torch.randn(3, 2, 8, 8, generator=generator), torch.randn(3, generator=generator)
    truth = (torch.rand(3, 1, 8, 8, generator=generator) > 0.7).float()
    said = torch.rand(3, 1, 8, 8, generator=generator)
    label, told = torch.tensor([1.0, 0.0, 1.0]), torch.tensor([0.9, 0.4, 0.3])
    for stage in (SEG, CLS):
        recipe = preset_recipe("published", stage, "eff")
        loss = TaskLoss(recipe)
        film = None if stage is SEG else logits
        found = loss((masks, film), truth, label, said if stage is SEG else told)
        alone = loss((masks, film), truth, label)
        logit = masks[:, 1] - masks[:, 0] if stage is SEG else logits
        against, taught = (truth[:, 0], said[:, 0]) if stage is SEG else (label, told)
        weight = recipe.bce_weight if stage is SEG else 1.0
        share = recipe.soft_share * (_entropy(logit, taught) - _entropy(logit, against))
        assert float(found - alone) == pytest.approx(float(weight * share), abs=1e-5)


@pytest.mark.parametrize("task", ["seg", "cls"])
def test_teachers_say_their_mean_of_the_very_film_and_need_no_gradient(task: str) -> None:
    nets = []
    for seed in (0, 1):
        seed_torch(seed)
        facts = {"network": weights.network_facts(preset_network("demo", "eff")), "task": task}
        nets.append(weights.build(facts).eval())
    film = torch.rand(2, 1, 64, 64)
    said = Teachers(nets, CPU, "auto").say(film)
    assert not said.requires_grad
    with torch.no_grad():
        expected = mean_map(nets, film)[:, None] if task == "seg" else fold_probabilities(nets, film).mean(1)
    assert torch.equal(said, expected)
    assert said.shape == ((2, 1, 64, 64) if task == "seg" else (2,))


# --- students of a finished chain ------------------------------------------------------------------


def _train(stage, *arguments: str) -> None:
    drawn = ["--films-per-epoch", "8"] if stage is CLS else []
    start.train(stage.key, "", [*TRAIN, *drawn, *arguments])


@pytest.fixture(scope="module")
def taught(chain: Scripts, new_films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished chain with the students of `eff`, tested, packed and used. Do not change it."""

    def make(folder: Path) -> None:
        shutil.copytree(chain.workspace, folder / "workspace")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PTX_WORKSPACE", str(folder / "workspace"))
            for stage in (SEG, CLS):
                _train(stage)
            start.get_thresholds("", [*ONE, "--student"])
            start.inference("", [*ONE, "--student"])
            start.export("", ["--system", "eff", "--student"])
            with pytest.raises(SystemExit):  # some of the files are no films
                start.predict(
                    "", [str(new_films), str(folder / "found"), *ONE, "--student", "--keep-identifiers"]
                )

    return made_once(tmp_path_factory, "taught", make)


@pytest.fixture
def in_place(taught: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PTX_WORKSPACE", str(taught / "workspace"))
    return taught / "workspace"


@pytest.fixture
def copy(taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(taught / "workspace", tmp_path / "workspace")
    monkeypatch.setenv("PTX_WORKSPACE", str(tmp_path / "workspace"))
    return tmp_path / "workspace"


def _metadata(stage, fold: int | None) -> dict:
    found = weights.read_metadata(weights_file(stage, "eff", fold))
    assert found is not None
    return found


def _tensors(stage, fold: int | None) -> str:
    return weights.read_weights(weights_file(stage, "eff", fold), "")[1]["sha256"]


def _retouch(path: Path, noise: float = 0.0, **change: object) -> None:
    """Rewrite a weights file with other tensors or metadata."""
    state, metadata = weights.read_weights(path, "")
    del metadata["sha256"]
    state = {name: each + noise if each.is_floating_point() else each for name, each in state.items()}
    weights.save_weights(path, state, metadata | change)


def test_weights_say_who_taught_and_what_from(in_place: Path) -> None:
    for stage in (SEG, CLS):
        teachers = [_tensors(STAGES[stage.teachers], fold) for fold in range(N_FOLDS)]
        for fold in (*range(N_FOLDS), None):
            found = _metadata(stage, fold)
            assert found["teachers"]["sha256"] == (teachers if fold is None else [teachers[fold]])
            assert found["lineage"] == _metadata(STAGES[stage.teachers], 0)["lineage"]
            assert found["result"]["epoch"] == found["recipe"]["epochs"]
            assert ("in_sample" in found["result"]) == (fold is None)
        assert "teachers" not in _metadata(STAGES[stage.teachers], 0)
    (trained,) = read_trained(["eff_student"], "test")
    assert trained.made_from["weights"] == {each.key: [_tensors(each, None)] for each in (SEG, CLS)}


def test_nothing_of_the_held_out_films_reaches_their_student(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither their pixels, nor through the teachers that learnt from them; but its own teacher does."""
    before = [_tensors(SEG, fold) for fold in (0, 1)]
    prepared = open_prepared("ntuh_train", None, "test")
    films = np.load(prepared.folder / "films.npy", mmap_mode="r+")
    films[prepared.part == 0] = 255 - films[prepared.part == 0]
    films.flush()
    for fold in range(1, N_FOLDS):
        _retouch(weights_file(SEGMENTATION, "eff", fold), noise=0.01)
    _train(SEG, "--folds", "0", "1", "--fresh")
    assert _tensors(SEG, 0) == before[0]
    assert _tensors(SEG, 1) != before[1]


def test_thresholds_are_of_what_each_student_says_of_its_fold(in_place: Path) -> None:
    (trained,) = read_trained(["eff_student"], "test")
    five = read_out_of_fold(trained, "test")
    prepared = open_prepared("ntuh_train", None, "test")
    found = choose_thresholds.predict_out_of_fold(five, prepared, Processes(CPU))
    predictor, row = Predictor(prepared, 64, CPU), int(np.flatnonzero(prepared.part == 3)[0])
    state, metadata = weights.read_weights(weights_file(CLS, "eff", 3), "")
    net = weights.build(metadata).eval()
    net.load_state_dict(dict(state))
    assert found.probability[row] == pytest.approx(predictor.probabilities([net], [row])[0, 0], abs=1e-5)
    point, content = operating_point(trained)
    with open(thresholds_file("eff_student").with_name("out_of_fold.csv"), newline="") as file:
        written = [float(each["probability"]) for each in csv.DictReader(file)]
    assert written == pytest.approx(found.probability.tolist())
    assert point.cls_threshold in written
    assert content["made_from"] == trained.made_from
    assert content["predicted_by"] == five.made_from["weights"] != trained.made_from["weights"]
    assert "teacher" in content["out_of_fold"]["label"]


def test_prediction_by_the_student_is_that_of_testing(taught: Path, in_place: Path) -> None:
    with open(result_folder("eff_student") / "cases.csv", newline="") as file:
        tested = {row["case"]: row for row in csv.DictReader(file)}
    for path in sorted((taught / "found" / "findings").glob("*.json")):
        content = json.loads(path.read_text())
        assert content["made_by"]["system"] == "eff_student"
        assert set(content["made_by"]["weights"]) == {SEG.key, CLS.key}
    with open(taught / "found" / "findings.csv", newline="") as file:
        found = list(csv.DictReader(file))
    same = {pseudonym("case", Path(row["file"]).stem): row for row in found}
    assert tested.keys() <= same.keys()
    for case, row in tested.items():
        assert float(same[case]["probability"]) == pytest.approx(float(row["probability"]), abs=1e-6)
        assert same[case]["rule"] == row["rule"]
        if row["stage_1"] == "1":
            assert abs(int(same[case]["segmented_pixels"]) - int(row["area_pixels"])) <= 1
    assert "1" in {row["stage_1"] for row in tested.values()}
    for row in (*found, *tested.values()):
        assert {row[f"fold_{fold}"] for fold in range(N_FOLDS)} == {""}
    assert {row["spread"] for row in found} == {""}


def _ten_networks() -> int:
    """Bytes of the ten networks."""
    files = [
        weights_file(stage, "eff", fold) for stage in (SEGMENTATION, CLASSIFICATION) for fold in range(5)
    ]
    return sum(path.stat().st_size for path in files)


def test_bundle_of_a_student_says_the_same(in_place: Path, tmp_path: Path, new_films: Path) -> None:
    film = min(new_films.glob("*.dcm"))
    here = FilmPredictor.open("eff_student").predict(film)
    packed = bundle_file("eff_student")
    there = FilmPredictor.open(bundle=packed)
    assert there.deployed.system == "eff_student"
    assert there.deployed.identity == Deployed.of_workspace("eff_student", "test").identity
    assert there.predict(film).folds == here.folds
    assert len(here.folds) == 1
    assert len(list(read_bundle(packed).trained.networks(CLASSIFICATION, CPU))) == 1
    assert packed.stat().st_size < 0.3 * _ten_networks()
    with pytest.raises(Refusal, match="eff_student, not eff"):
        FilmPredictor.open("eff", bundle=packed)
    with pytest.raises(Refusal, match="leave one of them off"):
        start.predict("", [str(film), str(tmp_path), *ONE, "--student", "--bundle", str(packed)])


@needs_openvino
def test_openvino_computes_a_student(in_place: Path, new_films: Path) -> None:
    film = min(new_films.glob("*.dcm"))
    own, quick = (FilmPredictor.open("eff_student", backend=each) for each in ("torch", "openvino"))
    assert quick.predict(film).folds == pytest.approx(own.predict(film).folds, abs=1e-4)


def test_metrics_compare_a_student_with_its_teachers(copy: Path) -> None:
    start.bootstrap("", ["--system", "eff_student", "eff", "--replicates", "100"])
    with open(copy / "step3_testing/testing/metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["system"] for row in rows} == {"eff", "eff_student", "eff_student-eff"}
    page = (copy / "step3_testing/testing/report.html").read_text()
    assert "eff_student as one network a task" in page
    with pytest.raises(Refusal, match="two at a time"):
        start.bootstrap("", ["--system", "eff_student", "eff", "vit"])


def test_a_killed_student_goes_on_to_the_same_weights(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The final one, whose last epoch is kept though an earlier one may have scored better."""
    every = [str(fold) for fold in range(N_FOLDS)]
    for fold in range(N_FOLDS):  # only the final one is trained again
        _retouch(weights_file(SEG, "eff", fold), recipe=_metadata(SEG, fold)["recipe"] | {"epochs": 3})
    weights_file(SEG, "eff", None).unlink()
    _train(SEG, "--epochs", "3", "--folds", *every)
    whole = weights_file(SEG, "eff", None).read_bytes()
    assert _metadata(SEG, None)["result"]["epoch"] == 3
    weights_file(SEG, "eff", None).unlink()
    judge, judged = Fit.judge_epoch, []

    def killed(fit: Fit, progress: Progress) -> None:
        if len(judged) == 2:
            fit._background.finish()
            raise KeyboardInterrupt
        judged.append(judge(fit, progress))

    monkeypatch.setattr(Fit, "judge_epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        _train(SEG, "--epochs", "3")
    monkeypatch.setattr(Fit, "judge_epoch", judge)
    assert not weights_file(SEG, "eff", None).exists()
    assert file_of(run_folder(SEG, "eff", None)).is_file()
    _train(SEG, "--epochs", "3")
    assert weights_file(SEG, "eff", None).read_bytes() == whole


# --- unlabelled films ------------------------------------------------------------------------------


def test_only_students_take_unlabelled_films(capsys: pytest.CaptureFixture[str]) -> None:
    request = parse_train(SEG, "", ["--unlabelled", "films", "--unlabelled-share", "0.25"])
    assert request.options.unlabelled == "films"
    assert request.recipe(SEG, "eff").unlabelled_share == 0.25
    assert parse_train(SEG, "", []).recipe(SEG, "eff").unlabelled_share == 0.5
    for flag in ("--unlabelled", "--unlabelled-share"):
        with pytest.raises(SystemExit):
            parse_train(STAGES["ntuh_segmentation"], "", [flag, "0.5"])
    capsys.readouterr()
    recipe = replace(preset_recipe("demo", SEG, "eff"), unlabelled_share=0.0)
    with pytest.raises(Refusal, match="none of the unlabelled films would be drawn"):
        refuse_no_lesson(SEG, recipe, recipe.image_size, unlabelled=True)
    refuse_no_lesson(SEG, recipe, recipe.image_size)


@pytest.mark.parametrize("films", [0, 4000])
def test_unlabelled_films_are_drawn_in_the_place_of_others(films: int) -> None:
    positives, negatives, unlabelled = np.arange(1000), np.arange(1000, 2000), range(2000, 2050)
    plain = EpochSampler(positives, negatives, 8, films, 3)
    mixed = EpochSampler(positives, negatives, 8, films, 3, None, unlabelled, 0.25)
    for epoch in (0, 1):
        for each in (plain, mixed):
            each.start(epoch, 0.6 if films else 1.0)
        one, other = plain.rows(), mixed.rows()
        taken = other >= 2000
        assert len(plain) == len(mixed)
        assert (one[~taken] == other[~taken]).all()  # the others are drawn as they were
        assert taken.mean() == pytest.approx(0.25, abs=0.05)
        assert 40 < len(set(other[taken])) <= len(unlabelled) == 50
        assert set(other[taken]) <= set(unlabelled)
        assert mixed.expected_share == pytest.approx(0.75 * plain.expected_share)


@pytest.mark.parametrize("labelled", [[1, 0, 1, 0], [0, 0, 0, 0]])
def test_loss_of_an_unlabelled_film_is_the_cross_entropy_against_the_teachers(labelled: list[int]) -> None:
    """Term by term in float64; what stands in the places of its mask and label is never read."""
    generator = torch.Generator().manual_seed(2)
    masks, logits = torch.randn(4, 2, 8, 8, generator=generator), torch.randn(4, generator=generator)
    truth = (torch.rand(4, 1, 8, 8, generator=generator) > 0.7).float()
    said, told = torch.rand(4, 1, 8, 8, generator=generator), torch.rand(4, generator=generator)
    label, known = torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.tensor(labelled).bool()
    truth[~known], label[~known] = 0, 0
    for stage, dice_films in ((SEG, "all"), (SEG, "positives"), (CLS, "all")):
        recipe = replace(
            preset_recipe("published", stage, "eff"), bce_weight=3.0, dice_weight=0.7, dice_films=dice_films
        )
        taught = (masks, None if stage is SEG else logits), truth, label, said if stage is SEG else told
        found = float(TaskLoss(recipe)(*taught, known))
        logit, target, voice = (
            (masks[:, 1] - masks[:, 0], truth[:, 0], said[:, 0]) if stage is SEG else (logits, label, told)
        )
        each = [
            recipe.soft_share * _entropy(logit[i], voice[i])
            + (1 - recipe.soft_share) * _entropy(logit[i], target[i])
            if known[i]
            else _entropy(logit[i], voice[i])
            for i in range(4)
        ]
        expected = (3.0 if stage is SEG else 1.0) * sum(each) / 4
        if known.any():
            chosen = known if dice_films == "all" else label > 0
            plain = replace(recipe, bce_weight=0.0, dice_films="all")
            expected += TaskLoss(plain)((masks[chosen], None), truth[chosen], label[chosen])
            if stage is CLS:  # no teacher speaks of pixels there
                expected += 3.0 * _entropy((masks[:, 1] - masks[:, 0])[known], truth[:, 0][known])
        assert found == pytest.approx(float(expected), abs=1e-5)


def test_loss_of_labelled_films_alone_is_what_it_was() -> None:
    masks, truth, said = (
        torch.randn(3, 2, 8, 8),
        (torch.rand(3, 1, 8, 8) > 0.7).float(),
        torch.rand(3, 1, 8, 8),
    )
    loss, label = TaskLoss(preset_recipe("published", SEG, "eff")), torch.ones(3)
    without = loss((masks, None), truth, label, said)
    assert loss((masks, None), truth, label, said, torch.ones(3).bool()) == pytest.approx(float(without))


UNLABELLED = ("--folds", "0", "--fresh", "--epochs", "3")


def test_student_learns_from_unlabelled_films_and_says_so(copy: Path, strangers: Path) -> None:
    for stage in (SEG, CLS):
        _train(stage, *UNLABELLED)
        without = _tensors(stage, 0)
        assert "unlabelled" not in _metadata(stage, 0)
        assert "unlabelled_share" not in _metadata(stage, 0)["recipe"]
        _train(stage, *UNLABELLED, "--unlabelled", str(strangers))
        films, tested = (open_prepared(name, None, "test") for name in ("unlabelled", "ntuh_test"))
        facts = {"number": 10, "sha256": films.content, "apart_from": tested.content}
        assert _metadata(stage, 0)["unlabelled"] == facts
        assert _metadata(stage, 0)["recipe"]["unlabelled_share"] == 0.5
        assert _tensors(stage, 0) != without
        assert _metadata(stage, 0)["lineage"] == _metadata(stage, 1)["lineage"]
        assert "10 unlabelled" in (run_folder(stage, "eff", 0) / "log.txt").read_text()
    with pytest.raises(Refusal, match=r"unlabelled_share: 0\.5 -> None"):
        _train(SEG, "--folds", "0", "--epochs", "3")
    _retouch(weights_file(SEG, "eff", 0), unlabelled=facts | {"sha256": "0" * 64})
    with pytest.raises(Refusal, match="other unlabelled films"):
        _train(SEG, "--folds", "0", "--epochs", "3", "--unlabelled", str(strangers))
    with pytest.raises(Refusal, match="do not belong together"):
        start.get_thresholds("", [*ONE, "--student"])


def test_a_killed_student_of_unlabelled_films_goes_on_to_the_same_weights(
    copy: Path, strangers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("--folds", "0", "--epochs", "3", "--unlabelled", str(strangers))
    _train(SEG, *asked, "--fresh")
    whole = weights_file(SEG, "eff", 0).read_bytes()
    weights_file(SEG, "eff", 0).unlink()
    judge, judged = Fit.judge_epoch, []

    def killed(fit: Fit, progress: Progress) -> None:
        if judged:
            fit._background.finish()
            raise KeyboardInterrupt
        judged.append(judge(fit, progress))

    monkeypatch.setattr(Fit, "judge_epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        _train(SEG, *asked)
    monkeypatch.setattr(Fit, "judge_epoch", judge)
    with pytest.raises(Refusal, match="begun otherwise"):
        _train(SEG, *asked[:4])
    _train(SEG, *asked)
    assert weights_file(SEG, "eff", 0).read_bytes() == whole


def test_cost_with_unlabelled_films_is_told(
    copy: Path, strangers: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _train(SEG, *UNLABELLED, "--unlabelled", str(strangers), "--check")
    assert "films, 10 unlabelled, " in capsys.readouterr().out


def _record_unlabelled(apart_from: str) -> dict[str, object]:
    facts: dict[str, object] = {"number": 10, "sha256": "0" * 64, "apart_from": apart_from}
    for stage in (SEG, CLS):
        for fold in (*range(N_FOLDS), None):
            _retouch(weights_file(stage, "eff", fold), unlabelled=facts)
    start.get_thresholds("", [*ONE, "--student"])
    return facts


def test_student_is_tested_on_films_that_its_unlabelled_ones_were_compared_with(copy: Path) -> None:
    facts = _record_unlabelled("1" * 64)
    _, content = operating_point(*read_trained(["eff_student"], "test"))
    assert content["made_from"]["unlabelled"] == {SEG.key: facts, CLS.key: facts}
    with pytest.raises(Refusal, match="compared with other test films"):
        start.inference("", [*ONE, "--student"])
    _record_unlabelled(open_prepared("ntuh_test", None, "test").content)
    start.inference("", [*ONE, "--student"])
    start.bootstrap("", ["--system", "eff_student", "--replicates", "100"])
    page = (copy / "step3_testing/testing/report.html").read_text()
    assert "what they say of 10 films without labels, too" in page


# --- what does not belong together -----------------------------------------------------------------


def test_students_are_refused_without_all_teachers(copy: Path) -> None:
    weights_file(CLASSIFICATION, "eff", 2).unlink()
    for stage in (SEG, CLS):
        with pytest.raises(Refusal, match="needs the NTUH classification weights of all 5 folds"):
            _train(stage)


def test_students_of_mixed_teachers_are_refused(copy: Path) -> None:
    _retouch(weights_file(SEGMENTATION, "eff", 2), content="0" * 64)
    with pytest.raises(Refusal, match="do not belong together"):
        _train(SEG)


def test_student_at_another_size_or_of_other_networks_is_refused(copy: Path) -> None:
    with pytest.raises(Refusal, match="works at the size of its teachers"):
        _train(SEG, "--image-size", "96")
    with pytest.raises(Refusal, match="preset strong does not fit the eff weights"):
        _train(SEG, "--preset", "strong")


def test_student_whose_teacher_was_trained_again_is_refused(copy: Path) -> None:
    _retouch(weights_file(SEGMENTATION, "eff", 2), noise=0.01)
    with pytest.raises(Refusal, match="other teachers"):
        _train(SEG)
    _train(SEG, "--folds", "0")  # whose teacher is as it was


def test_thresholds_of_students_with_other_teachers_than_the_final_one_are_refused(copy: Path) -> None:
    facts = _metadata(CLS, 2)["teachers"]
    _retouch(weights_file(CLS, "eff", 2), teachers=facts | {"sha256": ["0" * 64]})
    with pytest.raises(Refusal, match="other teachers"):
        start.get_thresholds("", [*ONE, "--student"])


def test_thresholds_of_a_final_student_that_was_trained_again_are_refused(copy: Path) -> None:
    _retouch(weights_file(SEG, "eff", None), noise=0.01)
    with pytest.raises(Refusal, match=r"(?s)thresholds of eff_student.*other networks.*--student"):
        FilmPredictor.open("eff_student")


@pytest.mark.parametrize("fold", [None, 3])
def test_what_a_student_lacks_is_said(copy: Path, tmp_path: Path, fold: int | None) -> None:
    weights_file(SEG, "eff", fold).unlink()
    with pytest.raises(Refusal, match=r"(?s)student's segmentation weights.*student/segmentation"):
        start.get_thresholds("", [*ONE, "--student"])
    if fold is None:
        with pytest.raises(Refusal, match="student's segmentation weights"):
            start.predict("", [str(copy / "data"), str(tmp_path / "out"), *ONE, "--student"])
    else:
        assert read_trained(["eff_student"], "test")  # prediction needs the final one only


def test_final_student_that_does_not_name_its_teachers_is_refused(copy: Path) -> None:
    _retouch(weights_file(SEG, "eff", None), teachers=None)
    with pytest.raises(Refusal, match=r"(?s)does not say what.*teachers"):
        read_trained(["eff_student"], "test")


def test_flipping_teachers_teach_by_the_film_itself(copy: Path) -> None:
    for stage in (SEGMENTATION, CLASSIFICATION):
        for fold in range(N_FOLDS):
            facts = _metadata(stage, fold)["recipe"]
            _retouch(weights_file(stage, "eff", fold), recipe=facts | {"flip": True})
    (trained,) = read_trained(["eff"], "test")
    assert all(isinstance(net, FlippedNet) for net in trained.networks(SEGMENTATION, CPU))
    nets = Teaching.of(trained, SEG, 1).teachers(CPU, "auto").nets
    assert [type(net).__name__ for net in nets] == ["PneumothoraxNet"]
