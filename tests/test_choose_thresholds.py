"""The script that chooses the thresholds: what it writes down, and how steady they are."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pydicom
import pytest
import torch
from conftest import PATIENCE, THRESHOLDS, Scripts
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score
from test_threshold_rules import RARE, searched_threshold

from common import start
from common.command_line import parse_thresholds
from common.distributed import Processes
from common.inference import choose_thresholds, threshold_plots, threshold_rules
from common.inference.choose_thresholds import STABILITY, OutOfFold, write_thresholds
from common.inference.run_networks import Predictor
from common.inference.threshold_rules import (
    AREA_RULES,
    LOWEST_COST,
    PERCENTILE,
    RULES,
    SENSITIVITY_95,
    SMALLEST,
    YOUDEN,
    Costs,
    area_threshold,
    resampled_thresholds,
)
from common.inference.trained_system import read_trained
from common.inference.two_stage_rule import OperatingPoint, read_thresholds
from common.inference.unlike_training import TrainingLikeness
from common.paths import prepared_folder, thresholds_file
from common.preparation.run import open_prepared
from common.stages import STAGES
from common.statistics.overlap import dice, overlap

CPU = torch.device("cpu")


# --- what is written -------------------------------------------------------------------------------


def _prepared(n: int = 100) -> SimpleNamespace:
    """Stands for a prepared set: a third of its films are positive, two films a patient."""
    has_mask = np.arange(n) % 3 == 0
    cases = pd.DataFrame(
        {
            "case": [f"c{i}" for i in range(n)],
            "patient": [f"p{i // 2}" for i in range(n)],
            "has_mask": has_mask.astype(int),
        }
    )
    return SimpleNamespace(has_mask=has_mask, part=np.arange(n) // 2 % 5, cases=cases)


def _found(prepared: SimpleNamespace, overlapping: bool = True) -> OutOfFold:
    rng = np.random.default_rng(6)
    n = len(prepared.has_mask)
    overlaps = rng.integers(20, 500, n) if overlapping else np.zeros(n, int)
    dices = np.where(prepared.has_mask[:, None], rng.random((n, 256)), np.nan)
    probability = 1 / (1 + np.exp(-rng.normal(prepared.has_mask)))
    probability[1] = 0.999  # the highest is a negative's
    return OutOfFold(probability, np.where(prepared.has_mask, overlaps, -1), dices)


NOVELTY = TrainingLikeness(np.zeros(43), np.eye(43), threshold=9.5, n_films=1571, false_warning_rate=0.0051)
TRAINED = SimpleNamespace(system="eff", image_size=64, facts={"preset": "demo"}, made_from={"weights": {}})


def _written(
    folder: Path,
    rule: str = YOUDEN,
    costs: Costs | None = None,
    overlapping: bool = True,
    area_rule: str = SMALLEST,
) -> tuple[dict, str]:
    """The content of the file that was written in a workspace, and what was printed."""
    prepared = _prepared()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as said:
        patch.setenv("PTX_WORKSPACE", str(folder))
        write_thresholds(TRAINED, prepared, _found(prepared, overlapping), NOVELTY, rule, costs, area_rule)
        content = json.loads(thresholds_file("eff").read_text())
        point, _ = read_thresholds("eff")
    assert point == OperatingPoint(content["cls_threshold"], content["seg_threshold"], 64)
    return content, said.getvalue()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, str]:
    """By the default rule."""
    return _written(tmp_path_factory.mktemp("thresholds"))


@pytest.mark.parametrize("rule", RULES)
def test_the_rule_that_was_asked_for_is_the_one_in_use(tmp_path: Path, rule: str) -> None:
    content, said = _written(tmp_path, rule, RARE)
    assert content["rule"] == rule
    assert list(content["alternatives"]) == list(RULES)
    chosen = content["alternatives"][rule]
    assert content["cls_threshold"] == chosen["threshold"]
    assert content["tpr"] == chosen["sensitivity"]
    assert 1 - content["fpr"] == chosen["specificity"]
    assert len({each["threshold"] for each in content["alternatives"].values()}) == 3
    for name, each in content["alternatives"].items():
        line = next(line for line in said.splitlines() if line.startswith(f"  {name} "))
        assert ("(chosen)" in line) == (name == rule)
        assert f"{each['threshold']:.4f}" in line
        assert line.endswith(f"{each['sensitivity']:.3f}         {each['specificity']:.3f}")
    assert "at a prevalence of 0.1, a miss costing as much as 5 false alarms" in said


def test_the_area_rule_that_was_asked_for_is_the_one_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(threshold_rules._SHARES, PERCENTILE, 0.1)  # so that 34 positives tell the two apart
    smallest, said = _written(tmp_path)
    steady, also_said = _written(tmp_path, area_rule=PERCENTILE)
    overlaps = _found(_prepared()).overlap
    expected = {rule: area_threshold(overlaps, rule) for rule in AREA_RULES}
    for content in (smallest, steady):
        assert content["seg_alternatives"] == expected
    assert smallest["seg_threshold"] == expected[SMALLEST]
    assert steady["seg_threshold"] == expected[PERCENTILE]
    assert steady["seg_rule"] == AREA_RULES[PERCENTILE]
    assert expected[SMALLEST] < expected[PERCENTILE]
    assert f"{AREA_RULES[PERCENTILE]}: {expected[PERCENTILE]}" in said
    assert f"{AREA_RULES[SMALLEST]}: {expected[SMALLEST]}" in also_said


def test_stability_is_written_and_printed_as_such(written: tuple[dict, str]) -> None:
    content, said = written
    stability, prepared = content["stability"], _prepared()
    found = _found(prepared)
    assert stability["label"] == STABILITY == "stability, not a confidence interval"
    assert stability["reason"] in said
    assert STABILITY in said
    for fold, films in ((fold, prepared.part == fold) for fold in range(5)):
        assert stability["folds"][fold] == {
            "fold": fold,
            "cls_threshold": searched_threshold(YOUDEN, prepared.has_mask[films], found.probability[films]),
            "seg_threshold": found.overlap[films & prepared.has_mask].min(),
        }
    assert content["seg_threshold"] == min(fold["seg_threshold"] for fold in stability["folds"])
    patient = prepared.cases["patient"].to_numpy()
    both = resampled_thresholds(YOUDEN, prepared.has_mask, found.probability, found.overlap, patient)
    for name, values in zip(("cls_threshold", "seg_threshold"), both, strict=True):
        assert stability["resamples"][name] == choose_thresholds._range(values)
    assert (stability["resamples"]["number"], stability["resamples"]["seed"]) == (2000, 0)


def test_what_the_films_look_like_is_written_and_told(written: tuple[dict, str]) -> None:
    content, said = written
    assert content["novelty"] == NOVELTY.to_json()
    assert "will get no answer: 0.5% of these themselves, out-of-fold (n = 1,571)" in said


def test_range_of_resamples() -> None:
    """Values that occurred: pixels and probabilities of films, nothing in between."""
    values = np.append(np.random.default_rng(7).permutation(2000) + 1.0, np.nan)
    assert choose_thresholds._range(values) == {
        "minimum": 1,
        "percentile_2.5": 50,
        "median": 1000,
        "percentile_97.5": 1950,
        "maximum": 2000,
        "undefined": 1,
    }


def test_out_of_fold_scores_are_labelled_optimistic(written: tuple[dict, str]) -> None:
    content, said = written
    prepared = _prepared()
    found = _found(prepared)
    scores = content["out_of_fold"]
    assert scores["label"].startswith("optimistic")
    assert scores["label"] in said
    parts = [(scores["pooled"], prepared.part >= 0)]
    parts += [(each, prepared.part == fold) for fold, each in enumerate(scores["folds"])]
    for each, films in parts:
        masked = films & prepared.has_mask
        assert each["auroc"] == roc_auc_score(prepared.has_mask[films], found.probability[films])
        assert each["dice"] == pytest.approx(found.dice_by_threshold[masked, 128].mean())  # 128 / 256 = 0.5
        assert (each["n_films"], each["n_positive"]) == (films.sum(), masked.sum())
    assert content["auc"] == scores["pooled"]["auroc"]
    assert (content["n_films"], content["n_patients"], content["n_positive"]) == (100, 50, 34)


def test_a_segmentation_model_that_finds_nothing(tmp_path: Path) -> None:
    content, said = _written(tmp_path, overlapping=False)
    assert content["seg_threshold"] == 1
    assert content["n_positive_with_overlap"] == 0
    assert [fold["seg_threshold"] for fold in content["stability"]["folds"]] == [None] * 5
    assert content["stability"]["resamples"]["seg_threshold"]["undefined"] == 2000
    assert "warning: eff: no out-of-fold mask overlaps its truth" in said
    assert "resamples none to none" in said


@pytest.mark.parametrize(("rate", "films"), [("sensitivity", "positives"), ("specificity", "negatives")])
def test_a_threshold_that_calls_most_of_a_class_wrongly_is_warned_of(
    written: tuple[dict, str], rate: str, films: str
) -> None:
    content = deepcopy(written[0])
    point = content["alternatives"][content["rule"]]
    point[rate] = 0.5
    assert "called wrongly" not in choose_thresholds._summary(content)
    point[rate] = 0.03
    n = {"positives": 34, "negatives": 66}[films]
    expected = f"at the chosen threshold {rate} is 0.030 (n = {n}): most {films} are called wrongly"
    assert expected in choose_thresholds._summary(content)


def test_where_calling_no_film_positive_costs_less(written: tuple[dict, str], tmp_path: Path) -> None:
    assert LOWEST_COST not in written[0]["alternatives"]
    assert "warning" not in written[1]
    content, said = _written(tmp_path, costs=Costs(0.001))
    cost = content["alternatives"][LOWEST_COST]
    assert cost["expected_cost_of_no_positive"] == pytest.approx(0.001)
    assert cost["expected_cost_of_all_positive"] == pytest.approx(0.999)
    expected = 0.001 * (1 - cost["sensitivity"]) + 0.999 * (1 - cost["specificity"])
    assert cost["expected_cost"] == pytest.approx(expected)
    assert expected > 0.001
    assert "calling no film positive would cost less" in said


def test_pictures_mark_the_thresholds_and_state_n(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, Figure] = {}
    monkeypatch.setattr(threshold_plots, "save_plot", lambda figure, path: drawn.update({path.name: figure}))
    content, _ = _written(tmp_path, SENSITIVITY_95, RARE)
    (axes,) = drawn["roc.png"].axes
    assert [text.get_text() for text in axes.texts] == ["n = 100 (34 positive)"]
    marks = {line.get_label().split(":")[0]: line for line in axes.lines if line.get_marker() != "None"}
    assert set(marks) == {YOUDEN, f"{SENSITIVITY_95} (chosen)", LOWEST_COST}
    for name, line in marks.items():
        each = content["alternatives"][name.removesuffix(" (chosen)")]
        assert line.get_xydata().tolist() == [[pytest.approx(1 - each["specificity"]), each["sensitivity"]]]
    (axes,) = drawn["dice.png"].axes
    assert [text.get_text() for text in axes.texts] == ["n = 34 positive films"]
    curve, used = axes.lines[0], next(line for line in axes.lines if "in use" in line.get_label())
    mean = _found(_prepared()).dice_by_threshold[_prepared().has_mask].mean(axis=0)
    assert curve.get_xydata() == pytest.approx(np.stack([np.arange(256) / 256, mean], axis=1))
    assert used.get_xydata().tolist() == [[0.5, pytest.approx(content["out_of_fold"]["pooled"]["dice"])]]


def test_threshold_of_the_map_is_told_where_it_is_not_the_usual_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not {"map_threshold", "map_rule"} & set(_written(tmp_path / "usual")[0])
    monkeypatch.setenv("PTX_WORKSPACE", str(tmp_path / "other"))
    prepared = _prepared()
    found = replace(_found(prepared), map_threshold=0.25)
    write_thresholds(TRAINED, prepared, found, NOVELTY)
    point, content = read_thresholds("eff")
    assert point.map_threshold == content["map_threshold"] == 0.25
    mean = found.dice_by_threshold[prepared.has_mask, 64].mean()
    assert content["out_of_fold"]["pooled"]["dice"] == pytest.approx(mean)
    assert "map_threshold 0.2500: highest mean Dice" in capsys.readouterr().out


# --- the script on trained networks ----------------------------------------------------------------


@pytest.fixture
def copy(chain: Scripts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished chain that a test may change."""
    root = chain.copy(tmp_path / "workspace").workspace
    monkeypatch.setenv("PTX_WORKSPACE", str(root))
    return root


def test_out_of_fold_films_were_not_trained_on(copy: Path) -> None:
    """Each film's prediction is that of the fold that held it out, and of no other."""
    prepared = open_prepared("ntuh_train", None, "test")
    trained = read_trained(["eff"], "test")[0]
    found = choose_thresholds.predict_out_of_fold(trained, prepared, Processes(CPU))
    nets = trained.networks(STAGES["ntuh_classification"], CPU)
    predictor = Predictor(prepared, 64, CPU)
    every = predictor.probabilities(nets, np.arange(len(prepared.cases)))
    own = every[np.arange(len(every)), prepared.part]
    assert found.probability == pytest.approx(own, abs=1e-6)
    assert ((found.overlap >= 0) == prepared.has_mask).all()
    assert (np.isfinite(found.dice) == prepared.has_mask).all()
    row = np.flatnonzero(prepared.has_mask)[0]
    segmenter = trained.networks(STAGES["ntuh_segmentation"], CPU)[prepared.part[row]]
    ((_, predicted, truth),) = predictor.maps([segmenter], [row])
    assert found.dice[row] == pytest.approx(dice(predicted > 0.5, truth), abs=1e-6)
    assert found.map_threshold == 0.5
    chosen = choose_thresholds.predict_out_of_fold(
        replace(trained, map_threshold="out-of-fold"), prepared, Processes(CPU)
    )
    mean = found.dice_by_threshold[prepared.has_mask].mean(axis=0)
    assert mean[round(256 * chosen.map_threshold)] == mean.max()
    assert chosen.overlap[row] == overlap(predicted > chosen.map_threshold, truth)
    assert chosen.dice[row] == pytest.approx(dice(predicted > chosen.map_threshold, truth), abs=1e-6)


def test_what_the_films_look_like_is_that_of_the_training_films(copy: Path) -> None:
    """All of them, whatever the system; and nothing but `of_films` of them."""
    expected = TrainingLikeness.of_films(open_prepared("ntuh_train", None, "test")).to_json()
    for system in ("eff", "vit"):
        assert json.loads(thresholds_file(system).read_text())["novelty"] == expected


@dataclass(frozen=True)
class _Twin(Processes):
    """One of two processes, as a thread of this one: launching two costs more than all they do here."""

    count: int = 2
    meeting: Barrier = field(default_factory=lambda: Barrier(2, timeout=PATIENCE))
    parts: dict[int, np.ndarray] = field(default_factory=dict)

    def wait(self) -> None:
        self.meeting.wait()

    def joined(self, part: np.ndarray) -> np.ndarray:
        self.parts[self.rank] = part
        self.wait()
        whole = np.empty((len(self.parts[0]) + len(self.parts[1]), *part.shape[1:]), part.dtype)
        whole[0::2], whole[1::2] = self.parts[0], self.parts[1]
        self.wait()  # before either leaves its next part
        return whole


def test_two_processes_find_what_one_does(
    chain: Scripts, copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Each predicts its share of the films, and only the first shows, writes and prints."""
    first = _Twin(CPU)
    twins = [first, replace(first, rank=1)]
    written, shown = [], []
    calls = {name: getattr(choose_thresholds, name) for name in ("write_json", "Predictor")}

    class Noting(calls["Predictor"]):
        def maps(self, nets: Sequence, rows: Sequence[int], title: str | None = None) -> Iterator:
            shown.append((len(rows), title))
            return super().maps(nets, rows, title)

    def write_json(path: Path, content: dict) -> None:
        written.append(path.name)
        calls["write_json"](path, content)

    monkeypatch.setattr(choose_thresholds, "Predictor", Noting)
    monkeypatch.setattr(choose_thresholds, "write_json", write_json)
    monkeypatch.setattr(choose_thresholds, "running", lambda _: contextlib.nullcontext(twins.pop()))
    options = parse_thresholds("", ["--gpu", "cpu,cpu", "--system", "eff"])  # here: tyro stands no threads

    def work() -> None:
        try:
            choose_thresholds.choose_thresholds(options)
        except BaseException:
            first.meeting.abort()  # or the other would wait for this one
            raise

    with ThreadPoolExecutor(2) as pool:
        for done in as_completed([pool.submit(work) for _ in range(2)]):  # whoever failed was done first
            done.result()
    assert written == ["5cv_avg.json"]
    assert capsys.readouterr().out.count(STABILITY) == 1
    folder = Path(THRESHOLDS, "cls_eff_5fold_result")
    one, two = (
        pd.read_csv(root / folder / "out_of_fold.csv", float_precision="round_trip")
        for root in (chain.workspace, copy)
    )
    pd.testing.assert_frame_equal(one, two, rtol=0, atol=1e-6)
    assert sum(films for films, _ in shown) == one["has_mask"].sum()  # none is segmented twice
    assert len([title for _, title in shown if title]) == 5  # a bar a fold, not two
    one, two = (json.loads((root / folder / "5cv_avg.json").read_text()) for root in (chain.workspace, copy))
    assert _flat(one) == pytest.approx(_flat(two), abs=1e-6)


def _flat(content: dict, path: str = "") -> dict[str, float]:
    """The numbers of a JSON object by their place in it."""
    items = content.items() if isinstance(content, dict) else enumerate(content)
    numbers: dict[str, float] = {}
    for key, value in items:
        if isinstance(value, dict | list):
            numbers |= _flat(value, f"{path}/{key}")
        elif isinstance(value, int | float):
            numbers[f"{path}/{key}"] = value
    return numbers


def test_test_labels_change_no_threshold(copy: Path, sources: Path, tmp_path: Path) -> None:
    """Every label and every mask of the test films is another, and all films are prepared anew."""
    before = _thresholds(sources / "ntuh")
    labels = open_prepared("ntuh_test", None, "test").cases[["report", "has_mask"]]
    export = tmp_path / "ntuh"
    shutil.copytree(sources / "ntuh", export)
    _turn_labels(export)
    for name in ("ntuh_train", "ntuh_test"):
        shutil.rmtree(prepared_folder(name))
    assert _thresholds(export) == before
    turned = open_prepared("ntuh_test", None, "test").cases[["report", "has_mask"]]
    assert (turned == 1 - labels["report"].to_numpy()[:, None]).all(axis=None)


def _thresholds(export: Path) -> bytes:
    """The file that get_thresholds writes for these films."""
    thresholds_file("eff").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["script", "--gpu", "cpu", "--system", "eff", "--ntuh", str(export)])
        start.get_thresholds("")
    return thresholds_file("eff").read_bytes()


def _turn_labels(export: Path) -> None:
    """Test films with a lesion lose it, by report and label.json; the others get one."""
    table = export / "NTUH_20.csv"
    with open(table, encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["氣胸"] = str(1 - int(row["氣胸"]))
        label = export / "labels" / row["PERSONID2"] / "label.json"
        if row["氣胸"] == "0":
            label.unlink(missing_ok=True)
        else:
            film = pydicom.dcmread(export / "images" / f"{row['PERSONID2']}.dcm", stop_before_pixels=True)
            label.parent.mkdir(exist_ok=True)
            shape = {"a": [300, 300], "b": [600, 500], "tagAnno": "PTX"}
            size = [film.Columns, film.Rows]
            label.write_text(json.dumps({"accessionNumber": "", "size": size, "shapes": [shape]}))
    with open(table, "w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
