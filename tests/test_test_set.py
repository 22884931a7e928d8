"""Inference: folded networks, what is written, kills, several processes, films without labels."""

from __future__ import annotations

import copy as copying
import csv
import fcntl
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import REPOSITORY, Scripts
from distributed_worker import network, norms
from scipy.ndimage import label
from scipy.spatial.distance import mahalanobis
from torch.profiler import ProfilerActivity, profile

from common import journal, start
from common.distributed import Processes
from common.files import canonical_json, write_json
from common.inference import run_networks, test_set
from common.inference.result_columns import COLUMNS, Column
from common.inference.result_files import read_results
from common.inference.resumable_result import ResumableResult
from common.inference.run_networks import Predictor, films_at_once
from common.inference.trained_system import (
    CLASSIFICATION,
    SEGMENTATION,
    TrainedSystem,
    operating_point,
    read_trained,
)
from common.inference.unlike_training import TrainingLikeness, features
from common.networks import weights
from common.networks.ensemble import Nets
from common.networks.fuse_batchnorm import fuse_batchnorm
from common.paths import result_folder, thresholds_file
from common.preparation.film_store import PreparedSet
from common.preparation.run import open_prepared
from common.refusal import Refusal
from common.stages import Stage
from common.statistics.metric_catalogue import METRICS, Mean, Metric
from common.statistics.metrics import MetricValues

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
Files = dict[str, bytes]  # of a folder, by relative path
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs fork, and ends as Linux does")


# --- networks made ready to predict ----------------------------------------------------------------


def _patterns(count: int, generator: torch.Generator) -> torch.Tensor:
    """Films that differ: 4 x 4 random grey levels each, smoothed."""
    coarse = torch.rand(count, 1, 4, 4, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(64, 64), mode="bilinear")


def _with_history(system: str) -> torch.nn.Module:
    """A full-size network whose BatchNorm has seen films, with statistics, factors and terms of its own."""
    net, generator = network(system, "cls", "published"), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for norm in norms(net):
            norm.momentum = None  # the mean of all batches
            norm.weight.uniform_(0.5, 1.5, generator=generator)
            norm.bias.normal_(0, 0.2, generator=generator)
        for name, parameter in net.named_parameters():
            if name.endswith("attention_biases"):
                parameter.normal_(generator=generator)
        net.train()
        net(_patterns(8, generator))
        for norm in norms(net):
            spread = norm.running_var.sqrt()
            norm.running_mean += 0.1 * spread * torch.randn(norm.num_features, generator=generator)
            norm.running_var *= torch.empty(norm.num_features).uniform_(0.8, 1.25, generator=generator)
    return net.eval()


@pytest.mark.slow
@pytest.mark.parametrize(("system", "count"), [("eff", 119), ("vit", 37)])
def test_folded_network_is_the_same(system: str, count: int) -> None:
    """In float64 nearly to the last digit; in float32 no further from that than the network as it was."""
    net, film = _with_history(system), _patterns(2, torch.Generator().manual_seed(2))
    assert len(norms(net)) == count
    found = {}
    for precision in (torch.float64, torch.float32):
        for folded in (False, True):
            each = copying.deepcopy(net).to(precision)
            if folded:
                fuse_batchnorm(each)
                assert not norms(each)
            own = film.to(precision)
            with torch.no_grad():
                masks, logits = each(own)
                found[precision, folded] = masks.softmax(1), logits.sigmoid(), each.classify(own).sigmoid()
    convolutions = [module for module in each.modules() if isinstance(module, torch.nn.Conv2d)]
    assert all(c.weight.is_contiguous(memory_format=torch.channels_last) for c in convolutions)
    exact = found[torch.float64, False]
    assert exact[0].std() > 0.05  # maps that say something
    for kind in range(3):
        error = {key: (value[kind] - exact[kind]).abs().max().item() for key, value in found.items()}
        assert error[torch.float64, True] < 1e-10
        assert error[torch.float32, True] < 2 * error[torch.float32, False] + 1e-6
        assert kind == 0 or error[torch.float32, True] < 1e-5


def test_folded_transformer_uses_the_fused_attention() -> None:
    net, film = network("vit", "cls").eval(), torch.rand(1, 1, 64, 64)

    def attention_kernels() -> set[str]:
        with torch.no_grad(), profile(activities=[ProfilerActivity.CPU]) as seen:
            net.classify(film)
        return {event.key for event in seen.key_averages() if "_scaled_dot_product" in event.key}

    fuse_batchnorm(net)
    assert all("flash" in kernel for kernel in attention_kernels())
    net.train()  # as `evaluating` does
    net.eval()
    assert all("flash" in kernel for kernel in attention_kernels())


def test_films_at_once() -> None:
    """A processor takes no more films than stay in its cache, a GPU 16."""
    assert [films_at_once(CPU, size) for size in (1024, 512, 256, 64)] == [1, 1, 4, 16]
    assert films_at_once(torch.device("cuda"), 512) == 16
    assert Predictor(None, 256, CPU).batch_size == 4
    assert [part.tolist() for part in Predictor(None, 256, CPU).cut(np.arange(9))] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8],
    ]


# --- a whole inference -----------------------------------------------------------------------------


@pytest.fixture
def tested(chain: Scripts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished chain, in which films are computed two at a time."""
    root = chain.copy(tmp_path / "workspace").workspace
    monkeypatch.setenv("PTX_WORKSPACE", str(root))
    monkeypatch.setattr(run_networks, "_MOST", 2)
    return root


@pytest.fixture(scope="module")
def uninterrupted(chain: Scripts, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """What inference writes when nothing comes between, on the chain as it is."""
    root = chain.copy(tmp_path_factory.mktemp("uninterrupted") / "workspace").workspace
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PTX_WORKSPACE", str(root))
        patch.setattr(run_networks, "_MOST", 2)
        _infer()
        files = _files(result_folder("eff"))
    torch.set_num_threads(threads)
    return files


def _infer() -> str:
    """What `inference.py --gpu cpu --system eff` does and prints."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as said:
        patch.setattr("sys.argv", ["inference.py", "--gpu", "cpu", "--system", "eff"])
        start.inference("")
    return said.getvalue()


def _files(folder: Path) -> Files:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _rows() -> list[dict[str, str]]:
    with open(result_folder("eff") / "cases.csv", newline="") as file:
        return list(csv.DictReader(file))


def _edit_cases(root: Path, change: Callable[[pd.DataFrame], None]) -> None:
    """Change the case table of the test films, and with it what an inference belongs to."""
    path = root / "data" / "prepared" / "ntuh_test" / "cases.csv"
    table = pd.read_csv(path)
    change(table)
    table.to_csv(path, index=False)


def _set_threshold(value: float) -> None:
    path = thresholds_file("eff")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"cls_threshold": value}))


def _trained() -> tuple[TrainedSystem, PreparedSet]:
    return read_trained(["eff"], "test")[0], open_prepared("ntuh_test", None, "test")


def _plain_networks(trained: TrainedSystem, stage: Stage) -> list[torch.nn.Module]:
    """The networks as they were trained, not folded, by another way than `TrainedSystem.networks`."""
    nets = []
    for fold in range(5):
        state, metadata = weights.read_stage_weights(stage, "eff", fold, "test")
        net = weights.build(metadata)
        net.load_state_dict(state)
        nets.append(net.to(memory_format=torch.contiguous_format).eval())
    return nets


def test_rows_say_what_the_networks_found(tested: Path) -> None:
    """Every number again, film by film with whole, unfolded networks."""
    table = tested / "data" / "prepared" / "ntuh_test" / "cases.csv"
    masked = pd.read_csv(table)["has_mask"].to_numpy() == 1
    unknown = [int(np.flatnonzero(masked)[0]), int(np.flatnonzero(~masked)[0])]

    def forget_spacing(cases: pd.DataFrame) -> None:
        cases.loc[unknown, "spacing_row"] = np.nan
        cases.loc[unknown[0], "manufacturer"] = 'A, "B"'
        cases.loc[unknown[0], "chest_tube"] = np.nan

    _edit_cases(tested, forget_spacing)
    trained, prepared = _trained()
    classifiers, segmenters = (_plain_networks(trained, each) for each in (CLASSIFICATION, SEGMENTATION))
    films = [torch.from_numpy(prepared.film(row, 64) / 255).float()[None, None] for row in range(len(masked))]
    with torch.no_grad():
        by_fold = np.array([[net(film)[1].sigmoid().item() for net in classifiers] for film in films])
        maps = np.array(
            [np.mean([net(film)[0].softmax(1)[0, 1].numpy() for net in segmenters], axis=0) for film in films]
        )
    probability = by_fold.mean(axis=1)
    # a threshold that misses some films with a mask and calls some without; no decision is borderline
    order = np.sort(probability)
    middle = slice(4, -4)
    gaps = np.diff(order[middle])
    threshold = order[middle][np.argmax(gaps)] + gaps.max() / 2
    called = probability >= threshold
    assert (masked & ~called).any()
    assert (~masked & called).any()
    assert (~masked & ~called).any()
    _set_threshold(threshold)
    declined = _far_half(prepared)
    _infer()

    assert [int(found["no_answer"]) for found in _rows()] == declined
    point = json.loads(thresholds_file("eff").read_text())
    case_table = pd.read_csv(table)
    for row, found in enumerate(_rows()):
        facts = case_table.iloc[row]
        assert found["case"] == facts["case"]
        folds = [float(found[f"fold_{fold}"]) for fold in range(5)]
        assert folds == pytest.approx(by_fold[row], abs=1e-5)
        assert float(found["probability"]) == pytest.approx(np.mean(folds), abs=1e-12)
        segmented = maps[row] > 0.5
        near = int((np.abs(maps[row] - 0.5) < 1e-5).sum())  # pixels that rounding may decide
        assert int(found["stage_1"]) == called[row]
        if not (masked[row] or called[row]):
            assert {found[name] for name in ("area_pixels", "area_fraction", "area_cm2", "iou")} == {""}
            assert not (result_folder("eff") / "maps" / f"{found['case']}.png").exists()
            continue
        area = int(found["area_pixels"])
        assert area == pytest.approx(segmented.sum(), abs=near)
        assert float(found["area_fraction"]) == area / 64**2
        assert int(found["two_stage"]) == (called[row] and area >= point["seg_threshold"])
        path = result_folder("eff") / "maps" / f"{found['case']}.png"
        written = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert written.dtype == np.uint8
        assert np.abs(written - 255 * maps[row]).max() < 0.51
        if row in unknown:
            assert (found["distance_unit"], found["film_cm2"], found["area_cm2"]) == ("px", "", "")
        else:
            film_cm2 = facts["width"] * facts["spacing_column"] * facts["height"] * facts["spacing_row"] / 100
            assert found["distance_unit"] == "mm"
            assert float(found["film_cm2"]) == pytest.approx(film_cm2)
            assert float(found["area_cm2"]) == pytest.approx(film_cm2 * area / 64**2)
        if masked[row] and not near:
            truth = prepared.mask(row, 64)
            both, either = (segmented & truth).sum(), (segmented | truth).sum()
            dice = 2 * both / (segmented.sum() + truth.sum())
            assert float(found["dice_segmentation"]) == pytest.approx(dice)
            assert float(found["iou"]) == pytest.approx(both / either)
            assert float(found["dice_positives"]) == pytest.approx(dice * int(found["two_stage"]))
            assert float(found["hd95"]) >= 0
            assert 0 <= float(found["nsd"]) <= 1
        if not near:
            _check_localisation(found, maps[row], prepared.mask(row))
    result = read_results(("eff",))["eff"]
    assert (len(result.cases), len(result.unlabelled)) == (len(masked), 0)
    assert np.flatnonzero(~result.cases.in_mm).tolist() == sorted(unknown)
    assert result.cases.manufacturer[unknown[0]] == 'A, "B"'
    assert np.isnan(result.cases.chest_tube[unknown[0]])
    assert result.meta["nsd_tolerance_px"] == 13 / 8


def _far_half(prepared: PreparedSet) -> list[int]:
    """Let half of the test films be far by the thresholds file; which of them prediction would decline."""
    path = thresholds_file("eff")
    content = json.loads(path.read_text())
    films = [prepared.film(row) for row in range(len(prepared.cases))]
    lower = np.zeros((43, 43))
    lower[np.tril_indices(43)] = content["novelty"]["covariance"]
    inverse = np.linalg.inv(lower + np.tril(lower, -1).T)
    away = [mahalanobis(features(film), content["novelty"]["mean"], inverse) for film in films]
    limit = float(np.median(away))
    content["novelty"]["threshold"] = limit
    path.write_text(json.dumps(content))
    likeness = TrainingLikeness.of_json(content["novelty"])
    declined = [int(far > limit or likeness.seems(film) != "") for far, film in zip(away, films, strict=True)]
    assert 0 < sum(declined) < len(declined)
    return declined


def _check_localisation(found: dict[str, str], map_: np.ndarray, truth: np.ndarray) -> None:
    """The columns of a film's localisation against plain ones at 1024 x 1024."""
    full = cv2.resize(map_, (1024, 1024), interpolation=cv2.INTER_LINEAR)
    outline = full > 0.5
    parts, count = label(outline, np.ones((3, 3)))
    false = [i for i in range(1, count + 1) if not truth[parts == i].any()]
    assert int(found["false_outlines"]) == len(false)
    scores = sorted((full[parts == i].max() for i in false), reverse=True)
    assert [float(each) for each in found["false_scores"].split()] == pytest.approx(scores, abs=1e-4)
    names = ("laterality", "outline_laterality", "hit", "lesions", "lesions_found", "dice_full_size")
    if not truth.any():
        assert {found[name] for name in names} == {""}
        return
    dice = 2 * (outline & truth).sum() / (outline.sum() + truth.sum())
    assert float(found["dice_full_size"]) == pytest.approx(dice, abs=1e-3)
    assert int(found["lesions"]) == label(truth, np.ones((3, 3)))[1] == len(found["lesion_scores"].split())
    assert int(found["lesions_found"]) == sum(float(each) > 0 for each in found["lesion_scores"].split())
    left = truth[:, :512].sum() / truth.sum()
    assert (found["laterality"] != "") == (max(left, 1 - left) >= 0.95)
    if found["laterality"]:
        higher = [np.quantile(half, 0.999, method="inverted_cdf") for half in (full[:, :512], full[:, 512:])]
        assert float(found["laterality"]) == float((higher[0] > higher[1]) == (left > 0.5))


def test_a_new_value_of_each_film_needs_only_its_column(
    tested: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stage 2 measures reaches cases.csv, meta.json and the metrics by one entry of COLUMNS."""
    measured = test_set.measured_map
    monkeypatch.setattr(
        test_set,
        "measured_map",
        lambda prepared, row, found, point: (
            measured(prepared, row, found, point) | {"density": float((found > 0.5).mean())}
        ),
    )
    column = Column("a toy", "number", COLUMNS["area_pixels"].given, high=1)
    monkeypatch.setitem(COLUMNS, "density", column)
    metric = Metric("Toy", Mean(lambda f: f.masked, lambda f: f.cases.column("density")), ("map",))
    monkeypatch.setitem(METRICS, "density", metric)
    _infer()
    rows = _rows()
    assert [row["density"] for row in rows] == [row["area_fraction"] for row in rows]
    assert any(row["density"] not in ("", "0.0") for row in rows)
    result = read_results(("eff",))["eff"]
    assert result.meta["columns"]["density"] == "a toy"
    cases = result.cases
    found = MetricValues(cases, "mask").values(np.ones((1, len(cases))))["stage_1", "all", "density"][0]
    assert found == pytest.approx(cases.area_fraction[cases.has_mask].mean())


def test_films_without_labels_are_predicted_and_not_counted(tested: Path, uninterrupted: Files) -> None:
    with_labels = list(csv.DictReader(uninterrupted["cases.csv"].decode().splitlines()))
    negatives = [row["case"] for row in with_labels if row["has_mask"] == "0"][:3]

    def forget(cases: pd.DataFrame) -> None:
        cases["report"] = cases["report"].mask(cases["case"].isin(negatives))

    _edit_cases(tested, forget)
    said = _infer()
    assert "eff: 16 films, 6 with a mask, 3 without a label; " in said
    for row, expected in zip(_rows(), with_labels, strict=True):
        assert row == expected | ({"report": ""} if row["case"] in negatives else {})
    result = read_results(("eff",))["eff"]
    assert (len(result.cases), len(result.unlabelled), result.meta["n_cases"]) == (13, 3, 16)
    assert not set(negatives) & set(result.cases.case.tolist())


# --- kills -----------------------------------------------------------------------------------------


def _killed(arm: Callable[[], None]) -> None:
    """Run inference in a process of its own that must be killed; `arm` says at which moment."""
    child = os.fork()
    if not child:
        try:
            arm()
            _infer()
        finally:
            os._exit(1)  # it was not killed
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _at_film(number: int) -> Callable[[], None]:
    """When so many further films are noted, while the next one's line is being written."""
    left = iter(range(len(_noted()) + number, -1, -1))

    def arm() -> None:
        journal.canonical_json = lambda entry: canonical_json(entry) if next(left) else _die()

    return arm


def _at_the_end() -> None:
    """When cases.csv is written, and meta.json not yet."""
    write = write_json
    test_set.write_json = lambda path, content: _die() if path.name == "meta.json" else write(path, content)


def _partial() -> Path:
    return result_folder("eff").with_name("result_eff.partial")


def _noted() -> list[str]:
    """The films' lines in the journals."""
    lines = [line for path in _partial().glob("journal_*.jsonl") for line in path.read_text().splitlines()]
    return [line for line in lines if line.endswith("}")]


def _computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Notes the films that are computed from now on."""
    seen: list[int] = []
    batches = Predictor._batches

    def noting(self: Predictor, nets: Nets, rows: np.ndarray, title: str | None) -> Iterator:
        seen.extend(rows.tolist())
        return batches(self, nets, rows, title)

    monkeypatch.setattr(Predictor, "_batches", noting)
    return seen


@LINUX
def test_killed_inference_goes_on_and_two_processes_end_it(
    tested: Path, tmp_path: Path, uninterrupted: Files
) -> None:
    assert sum(name.startswith("maps/") for name in uninterrupted) > 6
    _killed(_at_film(3))  # in stage 1, within a batch
    assert len(_noted()) == 3
    with open(_partial() / "journal_0.jsonl", "a") as file:
        file.write('{"folds":[0.49')  # as a kill within the line leaves it
    _killed(_at_film(16))  # the second batch again, the rest of stage 1, and 2 films of stage 2
    assert sum('"stage":2' in line for line in _noted()) == 2
    script = tmp_path / "two.py"
    script.write_text(
        f"""import sys
sys.path.insert(0, {str(REPOSITORY)!r})
from common import start
from common.inference import run_networks
from common.refusal import run_script

run_networks._MOST = 2
run_script(lambda: start.inference(""))
"""
    )
    done = subprocess.run(
        [sys.executable, "common/launch.py", str(script), "cpu,cpu", "--system", "eff"],
        cwd=REPOSITORY,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        "inference",
        "eff",
        "Next, the metrics",
    ]
    assert _files(result_folder("eff")) == uninterrupted
    assert not _partial().exists()


@LINUX
def test_only_what_is_missing_is_computed(
    tested: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: Files
) -> None:
    before = _files(result_folder("eff"))
    _killed(_at_the_end)
    assert _files(result_folder("eff")) == before  # the earlier result stays until there is a new one
    maps = sorted((_partial() / "maps").iterdir())
    maps[0].unlink()
    maps[1].write_bytes(maps[1].read_bytes()[:100])  # as a power cut leaves it
    table = pd.read_csv(tested / "data" / "prepared" / "ntuh_test" / "cases.csv")
    lost = set(np.flatnonzero(table["case"].isin([path.stem for path in maps[:2]])))
    computed = _computed(monkeypatch)
    _infer()
    assert lost <= set(computed)
    assert len(computed) <= 4  # with the other film of each one's batch
    assert _files(result_folder("eff")) == uninterrupted


@LINUX
def test_partial_result_of_something_else_is_dropped(tested: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _killed(_at_film(3))
    (_partial() / "maps" / "c0123456789abcdef.png").write_bytes(b"")
    _set_threshold(0.0)
    computed = _computed(monkeypatch)
    _infer()
    assert computed == 2 * list(range(16))
    assert "maps/c0123456789abcdef.png" not in _files(result_folder("eff"))


def test_what_a_partial_result_belongs_to(tested: Path) -> None:
    trained, prepared = _trained()
    predictor = Predictor(prepared, 64, CPU)
    one = test_set._Inference(trained, operating_point(trained)[0], predictor, Processes(CPU), None)
    belongs_to = one._belongs_to()
    assert belongs_to == json.loads(json.dumps(belongs_to))
    other_weights = trained.made_from | {"weights": {"ntuh_segmentation": ["0" * 64] * 5}}
    others = [
        replace(one, trained=replace(trained, made_from=other_weights)),
        replace(one, point=replace(one.point, cls_threshold=0.1)),
        replace(one, point=replace(one.point, seg_threshold=10**6)),
        replace(one, predictor=replace(predictor, batch_size=3)),
        replace(one, predictor=replace(predictor, device=torch.device("cuda"))),
    ]
    assert all(other._belongs_to() != belongs_to for other in others)
    # the films: their table, and their pixels
    for path, old in (
        (prepared.folder / "cases.csv", "SYNTHETIC"),
        (prepared.folder / "manifest.json", '"content": "'),
    ):
        before = path.read_text()
        path.write_text(before.replace(old, f"{old}0", 1))
        changed = replace(one, predictor=replace(predictor, prepared=PreparedSet(prepared.folder)))
        assert changed._belongs_to() != belongs_to
        path.write_text(before)
    assert one._belongs_to() == belongs_to


def test_second_run_in_the_same_folder_is_refused(tested: Path) -> None:
    _partial().mkdir()
    with open(_partial() / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Refusal, match=r"another process is at work in .*result_eff\.partial"):
            _infer()


def test_processes_share_whole_batches() -> None:
    """Batches that are not done to the last film: each batch is one process's, and stays as it was cut."""
    rows = np.arange(100, 123)  # in batches of 4, the last of 3
    done = {row: {} for row in (*range(104, 108), 112, 113)}
    waiting = [list(range(start, min(start + 4, 123))) for start in (100, 108, 112, 116, 120)]
    for count in (1, 2, 3, 7):
        predictor = Predictor(None, 256, CPU)
        own = [
            test_set._Inference(None, None, predictor, Processes(CPU, rank, count), None)._own(rows, done)
            for rank in range(count)
        ]
        parts = [[batch.tolist() for batch in predictor.cut(part)] for part in own]
        assert sorted(batch for part in parts for batch in part) == waiting
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


# --- the journal by itself -------------------------------------------------------------------------


def test_journals_of_several_processes_are_one(tmp_path: Path) -> None:
    """Also when fewer go on, and when lines were cut."""
    target = tmp_path / "result_eff"

    def opened(rank: int = 0, belongs_to: str = "a") -> ResumableResult:
        return ResumableResult(target, {"of": belongs_to}, Processes(CPU, rank, 1))

    for rank in (0, 1):
        with opened(rank).journal(1) as add:
            add(rank, folds=[0.1 + 0.2, 1 / 3])
            add(rank + 10, folds=[0.5])
    journal = tmp_path / "result_eff.partial" / "journal_1.jsonl"
    journal.write_text(journal.read_text()[:-5])
    again = opened()
    assert again.found(1) == {
        row: {"stage": 1, "row": row, "folds": folds}
        for row, folds in ((0, [0.1 + 0.2, 1 / 3]), (1, [0.1 + 0.2, 1 / 3]), (10, [0.5]))
    }
    assert again.found(2) == {}
    assert sorted(path.name for path in again.folder.glob("journal*")) == ["journal_0.jsonl"]
    again._lock.close()
    assert opened(belongs_to="b").found(1) == {}
