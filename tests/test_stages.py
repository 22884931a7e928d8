"""The stages and what they start from."""

from __future__ import annotations

from common.stages import STAGES


def test_stages_start_from_the_right_ones() -> None:
    assert {key: stage.parent for key, stage in STAGES.items()} == {
        "siim_segmentation": None,
        "siim_classification": "siim_segmentation",
        "ntuh_segmentation": "siim_segmentation",
        "ntuh_classification": "siim_classification",
    }
