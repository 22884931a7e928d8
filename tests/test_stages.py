"""The stages: what they start from, and the scripts that begin them."""

from __future__ import annotations

from conftest import REPOSITORY

from common.stages import STAGES


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
    for stage in STAGES.values():
        folder = REPOSITORY / stage.folder
        launched.add((folder / "train.sh").read_text())
        _, manual, code = (folder / "train.py").read_text().split('"""')
        assert "bash train.sh" in manual
        assert f'start.train("{stage.key}", __doc__)' in code
        trained.add(code.replace(stage.key, "STAGE"))
    assert (len(launched), len(trained)) == (1, 1)
