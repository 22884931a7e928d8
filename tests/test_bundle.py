"""A system in one file: the same results elsewhere, every fault refused, nothing of a patient in it."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import pickle
import random
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import REPOSITORY, SECRET_FOLDER, SECRETS, STEP_2_1, STEP_2_2, THRESHOLDS, Scripts, made_once
from safetensors.torch import load, save
from torch import nn

from common import start
from common.demo.phantom import draw_film
from common.files import canonical_json
from common.films.own_outputs import RESEARCH_ONLY
from common.inference.run_networks import Predictor
from common.inference.trained_system import CLASSIFICATION, SEGMENTATION
from common.paths import bundle_file
from common.prediction import bundle
from common.prediction.bundle import check_here, export, read_bundle
from common.prediction.deployed import Deployed
from common.prediction.new_films import NewFilms
from common.prediction.predictor import ACCELERATED_ROUNDING, FilmPredictor
from common.refusal import Refusal
from common.stages import SYSTEMS

CPU = torch.device("cpu")
CLS_0, CLS_1, CLS_3 = (f"fold_{fold}_eff_cls_ntuh.safetensors" for fold in (0, 1, 3))
FOLDER = "step3_testing/prediction"


@pytest.fixture(scope="module")
def origin(chain: Scripts, tmp_path_factory: pytest.TempPathFactory) -> Scripts:
    """A workspace that holds what step 2 leaves and no film, where both systems were packed."""

    def make(folder: Path) -> None:
        for part in (STEP_2_1, STEP_2_2):
            shutil.copytree(chain.workspace / part / "model_weights", folder / part / "model_weights")
        shutil.copytree(chain.workspace / THRESHOLDS, folder / THRESHOLDS)
        done = Scripts(folder).run(FOLDER, "bash", "export.sh")
        (folder / "printed.txt").write_text(done.stdout)

    return Scripts(made_once(tmp_path_factory, "packed", make))


@pytest.fixture
def packed(origin: Scripts) -> Path:
    """The bundle of `eff`. Do not change it."""
    return origin.workspace / FOLDER / "eff.bundle"


def _members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _write(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            bundle._add(archive, name, content)
    return path


def _forged(path: Path, members: dict[str, bytes], **changes: object) -> Path:
    """A bundle of changed members whose manifest has their true sizes and hashes."""
    manifest = json.loads(members["manifest.json"]) | changes
    manifest["members"] = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in members.items()
        if name != "manifest.json"
    }
    return _write(path, members | {"manifest.json": json.dumps(manifest).encode()})


def _retouched(content: bytes, change: Callable[[dict], None], noise: float = 0.0) -> bytes:
    """A weights file with changed metadata, or changed tensors."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    metadata = json.loads(header["__metadata__"]["pneumothorax"])
    change(metadata)
    state = {k: v + noise if v.is_floating_point() else v for k, v in load(content).items()}
    return save(state, {"pneumothorax": canonical_json(metadata)})


# --- packing ---------------------------------------------------------------------------------------


def test_each_system_is_packed_whole_and_stored(origin: Scripts) -> None:
    for system in SYSTEMS:
        path = origin.workspace / FOLDER / f"{system}.bundle"
        members = _members(path)
        for step, task in ((STEP_2_1, "seg"), (STEP_2_2, "cls")):
            for fold in range(5):
                name = f"fold_{fold}_{system}_{task}_ntuh.safetensors"
                file = origin.workspace / step / "model_weights" / name
                assert members.pop(name) == file.read_bytes()
        thresholds = origin.workspace / THRESHOLDS / f"cls_{system}_5fold_result" / "5cv_avg.json"
        assert members.pop("thresholds.json") == thresholds.read_bytes()
        assert sorted(members) == ["check.png", "manifest.json"]
        manifest = json.loads(members["manifest.json"])
        assert manifest["note"] == RESEARCH_ONLY
        assert (manifest["system"], manifest["image_size"]) == (system, 64)
        stages = [link["stage"] for link in manifest["lineage"]]
        assert stages == ["start", "siim_segmentation", "siim_classification"]
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                assert (entry.compress_type, entry.date_time) == (zipfile.ZIP_STORED, (1980, 1, 1, 0, 0, 0))


def test_export_says_what_it_made(origin: Scripts) -> None:
    printed = (origin.workspace / "printed.txt").read_text()
    for system in SYSTEMS:
        path = origin.workspace / FOLDER / f"{system}.bundle"
        assert f"-> {path}, {path.stat().st_size / 1e6:.1f} MB" in printed
        assert json.loads(_members(path)["manifest.json"])["identity"] in printed
    assert printed.count(RESEARCH_ONLY) == 2
    assert "holds no film of a patient" in printed


def test_same_system_gives_the_same_bytes_in_another_workspace(
    origin: Scripts, packed: Path, workspace: Path
) -> None:
    shutil.copytree(origin.workspace, workspace, dirs_exist_ok=True)
    bundle_file("eff").unlink()
    start.export("", ["--system", "eff"])
    assert bundle_file("eff").read_bytes() == packed.read_bytes()


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    script = (REPOSITORY / FOLDER / "export.py").read_text()
    with pytest.raises(SystemExit):
        start.export(ast.get_docstring(ast.parse(script)), ["--help"])
    said = " ".join(capsys.readouterr().out.split())
    for needed in ("bash export.sh", "--bundle", "--output FILE", "--system", "Research use only"):
        assert needed in said


def test_one_file_for_two_systems_is_refused(workspace: Path) -> None:
    with pytest.raises(Refusal, match="--output names one file"):
        start.export("", ["--output", str(workspace / "both.bundle")])


def test_missing_network_is_named_with_its_command(workspace: Path) -> None:
    with pytest.raises(Refusal, match="export needs the NTUH segmentation weights") as refused:
        start.export("", ["--system", "eff"])
    assert refused.value.details["made_by"] == f"cd {STEP_2_1} && bash train.sh"
    assert not bundle_file("eff").exists()


def test_full_disk_leaves_the_earlier_bundle(
    origin: Scripts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    output = tmp_path / "eff.bundle"
    with zipfile.ZipFile(output, "w") as archive:  # of whatever version
        archive.writestr("manifest.json", json.dumps({"format": bundle.FORMAT}))
    earlier = output.read_bytes()
    monkeypatch.setenv("PTX_WORKSPACE", str(origin.workspace))
    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(Refusal, match=r"cannot write .*eff\.bundle"):
        export("eff", output)
    assert output.read_bytes() == earlier
    assert list(tmp_path.iterdir()) == [output]


def test_weights_that_change_while_they_are_packed_are_refused(
    origin: Scripts, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(origin.workspace, workspace, dirs_exist_ok=True)
    folder = workspace / STEP_2_2 / "model_weights"
    made = bundle.Check.of

    def retrained(trained: object) -> bundle.Check:
        (folder / CLS_1).write_bytes((folder / CLS_0).read_bytes())
        return made(trained)

    monkeypatch.setattr(bundle.Check, "of", retrained)
    with pytest.raises(Refusal, match=r"fold_1_eff_cls_ntuh.* changed while it was packed"):
        export("eff", workspace / "new.bundle")
    assert not (workspace / "new.bundle").exists()


# --- no patient ------------------------------------------------------------------------------------


def test_nothing_of_a_patient_or_machine_is_in_it(chain: Scripts, origin: Scripts) -> None:
    tables = [
        pd.read_csv(path, dtype=str) for path in (chain.workspace / "data/prepared").glob("*/cases.csv")
    ]
    names = {name for table in tables for column in ("case", "patient") for name in table[column]}
    assert len(names) > 40
    secrets = {*SECRETS.values(), *SECRET_FOLDER.split(), "QUINCY", str(chain.workspace), str(REPOSITORY)}
    secrets |= {(chain.workspace / "data/pseudonym.key").read_text().strip(), str(origin.workspace)}
    forbidden = [text.encode() for text in names | secrets]
    for system in SYSTEMS:
        path = origin.workspace / FOLDER / f"{system}.bundle"
        members = _members(path)
        texts = [path.read_bytes(), *members.values()]
        for content in (members["manifest.json"], members["thresholds.json"]):
            texts.append(canonical_json(json.loads(content)).encode())
        for text in texts:
            assert not [each for each in forbidden if each in text]


def test_check_film_is_synthetic(packed: Path) -> None:
    film = read_bundle(packed).check.film
    drawn = [draw_film(np.random.default_rng([20231, i]), i % 2 == 0, "ntuh")[0] for i in range(8)]
    assert sum(np.array_equal(film, each) for each in drawn) == 1


# --- the same results elsewhere --------------------------------------------------------------------


def _predictions(deployed: Deployed) -> tuple[np.ndarray, np.ndarray]:
    """Fold probabilities and mean maps of two films."""
    films = [draw_film(np.random.default_rng(seed), seed == 1, "ntuh", 1024)[0] for seed in (1, 2)]
    predictor = Predictor(NewFilms(films), deployed.image_size, CPU)
    nets = [deployed.trained.networks(stage, CPU) for stage in (CLASSIFICATION, SEGMENTATION)]
    return predictor.probabilities(nets[0], [0, 1]), np.array(
        [m for _, m, _ in predictor.maps(nets[1], [0, 1])]
    )


@pytest.mark.all
@pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")
def test_bundle_can_be_computed_by_openvino(packed: Path) -> None:
    """The machine is checked by the very networks that will predict: all folds of a stage in one."""
    film, _ = draw_film(np.random.default_rng(1), True, "ntuh", 1024)
    ours, theirs = (FilmPredictor.open(bundle=packed, backend=each) for each in ("torch", "openvino"))
    expected, found = ours.predict(film).folds, theirs.predict(film).folds
    assert len(found) == 5
    assert np.allclose(found, expected, rtol=0, atol=ACCELERATED_ROUNDING)
    check = replace(theirs.deployed.check, folds=theirs.deployed.check.folds + 0.01)
    with pytest.raises(Refusal, match="must not use"):
        check_here(theirs.deployed, check, CPU, (theirs._classifiers, theirs._segmenters))


@pytest.mark.parametrize("system", SYSTEMS)
def test_bundle_in_an_empty_workspace_predicts_bit_for_bit_the_same(
    system: str, origin: Scripts, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried = shutil.copy(origin.workspace / FOLDER / f"{system}.bundle", workspace / "carried")
    there = read_bundle(carried)
    found = _predictions(there)
    assert os.listdir(workspace) == ["carried"]
    monkeypatch.setenv("PTX_WORKSPACE", str(origin.workspace))
    here = Deployed.of_workspace(system, "test")
    for one, other in zip(found, _predictions(here), strict=True):
        assert np.array_equal(one, other)
    assert (there.point, there.identity, there.system) == (here.point, here.identity, system)
    assert there.likeness.to_json() == here.likeness.to_json()


def test_check_film_is_the_one_of_which_the_networks_are_least_certain(packed: Path) -> None:
    found = read_bundle(packed)
    nets = found.trained.networks(CLASSIFICATION, CPU)
    doubts, films = [], []
    for number in range(8):
        films.append(draw_film(np.random.default_rng([20231, number]), number % 2 == 0, "ntuh")[0])
        small = cv2.resize(films[-1], (64, 64), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        with torch.no_grad():
            each = [torch.sigmoid(net.classify(torch.from_numpy(small)[None, None])).item() for net in nets]
        doubts.append(sum(p * (1 - p) for p in each))
    assert np.array_equal(found.check.film, films[doubts.index(max(doubts))])


def test_coarse_map_is_the_mean_of_equal_squares(packed: Path) -> None:
    found = read_bundle(packed)
    predictor = Predictor(NewFilms([found.check.film]), 64, CPU)
    _, mean_map, _ = next(predictor.maps(found.trained.networks(SEGMENTATION, CPU), [0]))
    for row, column in ((0, 0), (3, 9), (15, 15)):
        square = [mean_map[4 * row + i, 4 * column + j] for i in range(4) for j in range(4)]
        assert found.check.grid[row, column] == pytest.approx(sum(map(float, square)) / 16, abs=2e-6)


# --- a machine that computes something else --------------------------------------------------------


def _bias(nets: bundle.Networks, task: int) -> torch.Tensor:
    """The bias of the last layer of fold 3's network; that of a map has two logits."""
    unet = nets[task][3].unet
    head = (unet.classification_head, unet.segmentation_head)[task]
    return next(module.bias for module in head.modules() if isinstance(module, nn.Linear | nn.Conv2d))


@pytest.mark.parametrize(("task", "what"), [(0, "fold probability"), (1, "map of pneumothorax")])
def test_machine_that_computes_something_else_is_refused(packed: Path, task: int, what: str) -> None:
    """At a probability of one half a logit's error is divided by four; in a mean map, by the folds too."""
    found = read_bundle(packed)
    nets = found.trained.networks(CLASSIFICATION, CPU), found.trained.networks(SEGMENTATION, CPU)
    bias = _bias(nets, task)
    true = bias.detach().clone()

    def check(error: float, tolerance: float = 1e-4) -> None:
        bias.data[-1] = true[-1] + (4, 4 * 5)[task] * error
        check_here(found, found.check, CPU, nets, tolerance)

    check(0)
    check(0.5e-4)
    with pytest.raises(Refusal, match="must not use the eff system") as refused:
        check(2e-4)
    assert what in refused.value.details["found"]
    check(2e-4, tolerance=1e-3)
    with pytest.raises(Refusal, match="computes something else"):
        check(20e-4, tolerance=1e-3)
    with pytest.raises(Refusal, match="computes something else"):
        check(float("nan"))


# --- damage ----------------------------------------------------------------------------------------


def _same(found: bundle.Bundle, true: bundle.Bundle) -> bool:
    """Whether two bundles hold the same in all that decides a result; every tensor is in the identity."""
    return (
        found.identity == true.identity
        and found.thresholds == true.thresholds
        and found.trained.made_from == true.trained.made_from
        and found.trained.facts == true.trained.facts
        and np.array_equal(found.check.film, true.check.film)
        and np.array_equal(found.check.folds, true.check.folds)
        and np.array_equal(found.check.grid, true.check.grid)
    )


def test_any_changed_byte_is_refused(packed: Path, tmp_path: Path) -> None:
    """At random places, and at many of those few that are no content: there zip's readers are lenient."""
    whole = packed.read_bytes()
    drawn = random.Random(6)
    with zipfile.ZipFile(packed) as archive:
        headers = [entry.header_offset + drawn.randrange(60) for entry in archive.infolist()]
        directory = range(archive.start_dir, len(whole))
    places = [drawn.randrange(len(whole)) for _ in range(30)]
    places += [*headers, *directory, *(drawn.randrange(12_000) for _ in range(10))]
    damaged = tmp_path / "damaged"
    for place in places:
        content = bytearray(whole)
        content[place] ^= drawn.randrange(1, 256)
        damaged.write_bytes(content)
        with pytest.raises(Refusal, match="cannot be used"):
            read_bundle(damaged)


def test_bytes_after_the_end_are_refused(packed: Path, tmp_path: Path) -> None:
    for more in (b"\0", b"\n", b"PK\5\6" + bytes(18), bytes(100_000)):
        (tmp_path / "longer").write_bytes(packed.read_bytes() + more)
        with pytest.raises(Refusal, match="cannot be used"):
            read_bundle(tmp_path / "longer")


def test_truncated_file_is_refused(packed: Path, tmp_path: Path) -> None:
    whole = packed.read_bytes()
    for length in (0, 1, 30, 5_000, len(whole) // 2, len(whole) - 22, len(whole) - 1):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(Refusal, match="cannot be used"):
            read_bundle(tmp_path / "cut")


def test_refusal_says_what_where_and_what_to_do(packed: Path, workspace: Path) -> None:
    members = _members(packed)
    del members["check.png"]
    with pytest.raises(Refusal) as refused:
        read_bundle(_write(workspace / "a.bundle", members))
    assert str(refused.value).splitlines() == [
        f"the bundle {workspace / 'a.bundle'} cannot be used",
        "  found:   it lacks check.png",
        "  do:      copy it again from where it was made, or make it there again: "
        "cd step3_testing/prediction && bash export.sh",
    ]
    with pytest.raises(Refusal, match="there is no such bundle"):
        read_bundle(workspace / "none.bundle")


# --- what only looks like a bundle -----------------------------------------------------------------


def _swapped(members: dict[str, bytes]) -> dict[str, object]:
    members[CLS_0], members[CLS_1] = members[CLS_1], members[CLS_0]
    return {}


def _relabelled(members: dict[str, bytes]) -> dict[str, object]:
    members[CLS_1] = _retouched(members[CLS_0], lambda metadata: metadata.update(fold=1))
    return {}


def _noisy(members: dict[str, bytes]) -> dict[str, object]:
    members[CLS_3] = _retouched(members[CLS_3], lambda metadata: None, noise=1e-3)
    return {}


def _of_other_films(members: dict[str, bytes]) -> dict[str, object]:
    members[CLS_3] = _retouched(members[CLS_3], lambda metadata: metadata.update(content="0" * 64))
    return {}


def _fetching(members: dict[str, bytes]) -> dict[str, object]:
    def fetch(metadata: dict) -> None:
        metadata["network"]["encoder"] = "hf-hub:somebody/network"

    members[CLS_3] = _retouched(members[CLS_3], fetch)
    return {}


def _loading(members: dict[str, bytes]) -> dict[str, object]:
    def load_pickle(metadata: dict) -> None:
        metadata["network"]["encoder_args"] = {"checkpoint_path": "pickle.pth"}

    members[CLS_3] = _retouched(members[CLS_3], load_pickle)
    return {}


def _without_metadata(members: dict[str, bytes]) -> dict[str, object]:
    members[CLS_3] = save(load(members[CLS_3]))
    return {}


def _pickled(members: dict[str, bytes]) -> dict[str, object]:
    members[CLS_3] = pickle.dumps({"a": 1})
    return {}


def _thresholds(**changes: object) -> Callable[[dict[str, bytes]], dict[str, object]]:
    def change(members: dict[str, bytes]) -> dict[str, object]:
        members["thresholds.json"] = json.dumps(json.loads(members["thresholds.json"]) | changes).encode()
        return {}

    return change


def _film(*shape: int) -> Callable[[dict[str, bytes]], dict[str, object]]:
    def change(members: dict[str, bytes]) -> dict[str, object]:
        members["check.png"] = cv2.imencode(".png", np.zeros(shape, dtype=np.uint8))[1].tobytes()
        return {}

    return change


def _manifest(**changes: object) -> Callable[[dict[str, bytes]], dict[str, object]]:
    return lambda members: changes


def _extra(name: str) -> Callable[[dict[str, bytes]], dict[str, object]]:
    def change(members: dict[str, bytes]) -> dict[str, object]:
        members[name] = b"x"
        return {}

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_manifest(format="other"), "its manifest is of something else"),
        (_manifest(version=2), "it is of version 2"),
        (_manifest(system="vit"), "it lacks fold_0_vit_cls_ntuh"),
        (_manifest(system="../eff"), "it is of the system ../eff"),
        (_manifest(preprocessing={"geometry": "letterboxed"}), "brought to the networks in another way"),
        (_manifest(identity="0" * 64), "it says another identity"),
        (_manifest(image_size=128), "it says another image_size"),
        (_manifest(made_from={}), "it says another made_from"),
        (_manifest(check={"folds": [0.5]}), "damaged, or no bundle"),
        (_manifest(note=" " * 2**20), "it has no manifest of less than a megabyte"),
        (_swapped, "fold_0_eff_cls_ntuh.safetensors holds other weights than its name says"),
        (_relabelled, "thresholds were computed from other networks"),
        (_noisy, "thresholds were computed from other networks"),
        (_of_other_films, "folds 0 and 3 of the eff NTUH classification weights do not belong together"),
        (_fetching, "a network that this project does not make: hf-hub:somebody/network"),
        (_loading, "a network that this project does not make"),
        (_without_metadata, "damaged, or no bundle"),
        (_pickled, "damaged, or no bundle"),
        (_thresholds(cls_threshold=0.25), "it says another identity"),
        (_thresholds(cls_threshold=float("nan")), "impossible thresholds"),
        (_thresholds(seg_threshold=0), "impossible thresholds"),
        (_thresholds(seg_threshold=10**400), "impossible thresholds"),
        (_thresholds(image_size=128), "other networks or another working size"),
        (_thresholds(system="vit"), "thresholds.json is of the system vit, not eff"),
        (_thresholds(novelty={}), "does not say what the training films look like"),
        (_film(4096, 4096), "check.png is no check film"),
        (_film(1024, 1024, 3), "check.png is no check film"),
        (_extra("patients.csv"), "no part of a bundle: 'patients.csv'"),
        (_extra("../../outside.txt"), "no part of a bundle"),
        (_extra("last.pt"), "no part of a bundle"),
    ],
)
def test_forgery_with_true_hashes_is_refused(
    change: Callable, said: str, packed: Path, workspace: Path
) -> None:
    members = _members(packed)
    changes = change(members)
    with pytest.raises(Refusal, match="cannot be used") as refused:
        read_bundle(_forged(workspace / "forged.bundle", members, **changes))
    assert said in refused.value.details["found"]
    assert os.listdir(workspace) == ["forged.bundle"]


def test_forgery_of_nothing_is_read(packed: Path, tmp_path: Path) -> None:
    """So the refusals above are not for how these tests write bundles."""
    assert _same(read_bundle(_forged(tmp_path / "a", _members(packed))), read_bundle(packed))


def test_member_that_is_not_what_the_manifest_says_is_refused(packed: Path, tmp_path: Path) -> None:
    members = _members(packed)
    members[CLS_3] += b"\0"
    with pytest.raises(Refusal) as refused:
        read_bundle(_write(tmp_path / "a", members))
    assert f"{CLS_3} is not what the manifest says" in refused.value.details["found"]


def test_member_that_only_the_zip_or_only_the_manifest_has_is_refused(packed: Path, tmp_path: Path) -> None:
    more = _members(packed) | {"more.txt": b"x"}
    less = {name: content for name, content in _members(packed).items() if name != CLS_3}
    for members, said in ((more, "no part of a bundle: 'more.txt'"), (less, f"it lacks {CLS_3}")):
        with pytest.raises(Refusal) as refused:
            read_bundle(_write(tmp_path / "a", members))
        assert said in refused.value.details["found"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_member_twice_is_refused(packed: Path, tmp_path: Path) -> None:
    shutil.copy(packed, tmp_path / "a")
    with zipfile.ZipFile(tmp_path / "a", "a") as archive:
        bundle._add(archive, CLS_3, b"another")
    with pytest.raises(Refusal) as refused:
        read_bundle(tmp_path / "a")
    assert "a member is there twice" in refused.value.details["found"]


def test_bytes_that_belong_to_no_member_are_refused(packed: Path, tmp_path: Path) -> None:
    """A zip file may begin with anything."""
    (tmp_path / "a").write_bytes(bytes(100_000) + packed.read_bytes())
    with pytest.raises(Refusal) as refused:
        read_bundle(tmp_path / "a")
    assert "bytes were added, taken away or changed" in refused.value.details["found"]


def test_zip_bomb_is_refused_before_it_is_read(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("a member was read"))
    content = BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", bytes(50_000_000))
    (tmp_path / "bomb").write_bytes(content.getvalue())
    assert len(content.getvalue()) < 100_000
    with pytest.raises(Refusal) as refused:
        read_bundle(tmp_path / "bomb")
    assert "bytes were added, taken away or changed" in refused.value.details["found"]


def test_members_that_share_their_bytes_are_refused(packed: Path, tmp_path: Path) -> None:
    """The other kind of bomb (Fifield, WOOT 2019): many entries of the directory, one content."""
    shutil.copy(packed, tmp_path / "a")
    with zipfile.ZipFile(tmp_path / "a", "a") as archive:
        archive.filelist += archive.filelist[1:] * 5
        archive.comment = b"written anew"
    with pytest.raises(Refusal) as refused:
        read_bundle(tmp_path / "a")
    assert "bytes were added, taken away or changed" in refused.value.details["found"]
