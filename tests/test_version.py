"""The version is recorded in what is made, and neither resuming nor a compared hash depends on it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import STEP_2_2, TESTING, TINY, Scripts

import common
from common.command_line import parse_train
from common.distributed import Processes
from common.inference.result_files import read_results
from common.networks import weights
from common.prediction.deployed import Deployed
from common.stages import STAGES
from common.training.inputs import check_inputs

RESULT = "result_eff/meta.json"


def test_version_is_recorded(chain: Scripts) -> None:
    files = sorted(chain.workspace.rglob("*.safetensors"))
    assert len(files) == 24
    assert {weights.read_metadata(file)["version"] for file in files} == {common.__version__}
    testing = chain.workspace / TESTING
    assert json.loads((testing / RESULT).read_text())["version"] == common.__version__
    page = (testing / "report.html").read_text()
    assert f'<th scope="row">This project</th><td><code>{common.__version__}</code></td>' in page


@pytest.mark.parametrize("version", [None, "99.0"])  # None: made before it was recorded
def test_another_version_changes_nothing(
    version: str | None, chain: Scripts, sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = chain.copy(tmp_path / "there").workspace
    monkeypatch.setenv("PTX_WORKSPACE", str(there))
    identity = Deployed.of_workspace("eff", "test").identity
    for file in there.rglob("*.safetensors"):
        state, metadata = weights.read_weights(file, "test")
        del metadata["sha256"]
        weights.save_weights(file, state, _changed(metadata, version))
    meta = there / TESTING / RESULT
    meta.write_text(json.dumps(_changed(json.loads(meta.read_text()), version)))

    assert Deployed.of_workspace("eff", "test").identity == identity  # and the thresholds still belong to it
    assert read_results(["eff"])["eff"].meta.get("version") == version
    stage = STAGES["ntuh_classification"]
    flags = ["--gpu", "cpu", *TINY, "--ntuh", str(sources / "ntuh"), "--films-per-epoch", "8"]
    inputs = check_inputs(stage, parse_train(stage, "", flags), Processes(torch.device("cpu")))
    assert len(inputs.runs) == 10
    assert not inputs.waiting
    run = there / STEP_2_2 / "runs" / inputs.runs[0].name
    assert "version" not in json.loads(
        (run / "config.json").read_text()
    )  # with which a killed run is compared


def _changed(record: dict, version: str | None) -> dict:
    rest = {key: value for key, value in record.items() if key != "version"}
    return rest if version is None else rest | {"version": version}
