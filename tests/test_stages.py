"""The stages: what they start from, and the scripts that begin them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from conftest import REPOSITORY

from common.paths import weights_file
from common.stages import N_FOLDS, STAGES, STUDENT_STAGES
from common.training.stage import _folds_left, _warn_of_nothing


def test_stages_start_from_the_right_ones() -> None:
    assert {key: stage.parent for key, stage in STAGES.items()} == {
        "siim_segmentation": None,
        "siim_classification": "siim_segmentation",
        "ntuh_segmentation": "siim_segmentation",
        "ntuh_classification": "siim_classification",
    }


def test_scripts_of_the_stages_differ_by_docstring_and_stage() -> None:
    """So what holds for one of them when it runs holds for all."""
    launched, trained = set(), set()
    for stage in (STAGES | STUDENT_STAGES).values():
        folder = REPOSITORY / stage.folder
        up = len(Path(stage.folder).parts)
        launched.add((folder / "train.sh").read_text().replace("../" * up, "UP/"))
        _, manual, code = (folder / "train.py").read_text().split('"""')
        assert "bash train.sh" in manual
        assert f'start.train("{stage.key}", __doc__)' in code
        trained.add(code.replace(stage.key, "STAGE").replace(f"parents[{up}]", "parents[UP]"))
    assert (len(launched), len(trained)) == (1, 1)


def test_partial_run_says_which_folds_are_left(workspace: Path) -> None:
    stage = STAGES["ntuh_segmentation"]
    weights_file(stage, "eff", 0).parent.mkdir(parents=True)
    for system, folds in (("eff", range(N_FOLDS)), ("vit", (0, 2))):
        for fold in folds:
            weights_file(stage, system, fold).touch()
    runs = [SimpleNamespace(stage=stage, system=system, fold=0) for system in ("eff", "vit", "vit")]
    assert _folds_left(runs) == "vit fold 1, fold 3, fold 4"
    assert _folds_left(runs[:1]) == ""
    assert _folds_left([SimpleNamespace(stage=STAGES["siim_segmentation"], system="eff")]) == ""


def test_partial_run_of_students_says_that_the_final_one_is_left(workspace: Path) -> None:
    stage = STUDENT_STAGES["student_classification"]
    weights_file(stage, "eff", None).parent.mkdir(parents=True)
    for fold in range(N_FOLDS):
        weights_file(stage, "eff", fold).touch()
    run = SimpleNamespace(stage=stage, system="eff", fold=0)
    assert _folds_left([run]) == "eff all films"
    weights_file(stage, "eff", None).touch()
    assert _folds_left([run]) == ""


def test_network_that_has_learnt_nothing_is_warned_of() -> None:
    said: list[str] = []
    _warn_of_nothing("eff_seg_siim", 0.0004, said.append)
    _warn_of_nothing("vit_seg_siim", 0.0005, said.append)
    (line,) = said
    assert line.startswith("warning: eff_seg_siim: it has learnt nothing.")
