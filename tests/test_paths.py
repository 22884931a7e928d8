"""Where the files that users know lie."""

from __future__ import annotations

from pathlib import Path

from common.paths import run_folder, thresholds_file, weights_file
from common.stages import STAGES


def test_names_of_the_contract(workspace: Path) -> None:
    siim, ntuh = STAGES["siim_segmentation"], STAGES["ntuh_classification"]
    assert weights_file(siim, "eff").name == "eff_seg_siim.safetensors"
    assert weights_file(ntuh, "vit", 0).name == "fold_0_vit_cls_ntuh.safetensors"
    assert run_folder(siim, "vit").relative_to(workspace) == Path(siim.folder, "runs", "vit_seg_siim")
    assert thresholds_file("eff").relative_to(workspace) == Path(
        "step2_ntuh_training/get_thres/cls_eff_5fold_result/5cv_avg.json"
    )
