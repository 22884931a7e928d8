"""Which recipe a stage obeys, what does not fit, and that a run's recipe can be given back."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from conftest import STEP_1_1, STEP_2_2, TINY, Scripts

from common.command_line import parse_train
from common.distributed import Processes
from common.networks.weights import network_facts
from common.recipes.chosen import ChosenRecipe
from common.recipes.presets import PRESETS, read_preset
from common.recipes.recipe_file import read_recipes, recipes_text
from common.refusal import Refusal
from common.stages import STAGES
from common.training.inputs import check_inputs
from common.training.recipe_fit import keeps_size, refuse_misfit

FIRST, LATER = STAGES["siim_segmentation"], STAGES["ntuh_segmentation"]


def _own(folder: Path, text: str, name: str = "my.toml") -> ChosenRecipe:
    path = folder / name
    path.write_text(text)
    return ChosenRecipe.of_file(path)


def _weights(chosen: ChosenRecipe, system: str = "eff", **network: object) -> dict:
    """Metadata of step 1.1's weights."""
    recipe = dataclasses.asdict(chosen.recipes.stages[FIRST.key, system])
    facts = network_facts(chosen.recipes.networks[system]) | network
    own = {} if chosen.file is None else {"own_recipe": chosen.file}
    return {"stage": FIRST.key, "preset": chosen.name, "network": facts, "recipe": recipe} | own


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("named", [True, False])
def test_written_recipes_are_read_as_the_same(preset: str, named: bool, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(recipes_text(read_preset(preset), preset if named else None))
    assert read_recipes(path) == read_preset(preset)
    found = ChosenRecipe.of_file(path)
    assert found.name == (preset if named else "own")
    assert (found.file is None) == named  # then it is the preset itself


def test_named_recipe_goes_before_the_recorded_one_and_that_before_the_published_one(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text('based_on = "demo"\n[every_stage]\nepochs = 77')
    demo, quick = ChosenRecipe.of_preset("demo"), ["--recipe", str(tmp_path / "my.toml")]
    assert parse_train(LATER, "", []).recipe(LATER, "eff").epochs == 100
    assert parse_train(LATER, "", []).recipe(LATER, "eff", demo).epochs == 4
    assert parse_train(LATER, "", quick).recipe(LATER, "eff", demo).epochs == 77
    assert parse_train(LATER, "", [*quick, "--epochs", "5"]).recipe(LATER, "eff", demo).epochs == 5
    with pytest.raises(Refusal, match=r"two recipes\n.*based_on = \"demo\""):
        parse_train(LATER, "", [*quick, "--preset", "demo"])


def test_weights_record_an_own_recipe_whole(tmp_path: Path) -> None:
    own = _own(tmp_path, 'based_on = "demo"\n[ntuh_segmentation]\nepochs = 77\nlearning_rate = { vit = 0.5 }')
    metadata = json.loads(json.dumps(_weights(own)))
    found = ChosenRecipe.of_weights(metadata, tmp_path / "eff.safetensors")
    assert (found.name, found.recipes) == ("demo", own.recipes)
    with pytest.raises(Refusal, match=r"not known here\n.*fancy"):
        ChosenRecipe.of_weights(metadata | {"preset": "fancy", "own_recipe": None}, tmp_path)


@pytest.mark.parametrize("stage", ["siim_segmentation", "ntuh_segmentation"])
def test_resolved_recipe_holds_what_flags_changed(stage: str, tmp_path: Path) -> None:
    stage = STAGES[stage]
    flags = "--system vit --preset demo --epochs 3 --image-size 64 --encoder resnet18"
    request = parse_train(stage, "", flags.split())
    recipe, network = request.recipe(stage, "vit"), request.network("vit")
    again = _own(tmp_path, request.chosen(None).resolved(stage, "vit", recipe, network))
    assert again.name == "demo"
    assert again.recipes.stages[stage.key, "vit"] == recipe
    assert again.recipes.networks["vit"] == network
    demo = read_preset("demo")
    assert again.recipes.stages[stage.key, "eff"] == demo.stages[stage.key, "eff"]
    # what starts from this stage's weights stays at their size; what leads to them had its own
    sizes = {key: again.recipes.stages[key, "vit"].image_size for key in STAGES}
    later = set(STAGES) if stage is FIRST else {stage.key}
    assert sizes == {key: 64 if key in later else 96 for key in STAGES}


def test_recipe_of_other_networks_is_refused_and_both_are_named() -> None:
    demo, published = ChosenRecipe.of_preset("demo"), ChosenRecipe.of_preset("published")
    with pytest.raises(Refusal) as refusal:
        refuse_misfit(LATER, "eff", published, demo, _weights(demo))
    said = str(refusal.value)
    assert "preset published does not fit the eff weights" in said
    assert "asked:   preset published: encoder tf_efficientnetv2_s.in21k_ft_in1k" in said
    assert "found:   preset demo: encoder tf_efficientnetv2_b0" in said
    assert "working size 512" in said
    assert "working size 96" in said
    strong = ChosenRecipe.of_preset("strong")  # the same encoder, another decoder
    with pytest.raises(Refusal, match=r"decoder_channels \[256, .*\n.*decoder_channels \[64, 64"):
        refuse_misfit(LATER, "eff", published, strong, _weights(strong))


def test_flags_of_the_first_step_are_no_misfit(tmp_path: Path) -> None:
    demo = ChosenRecipe.of_preset("demo")
    metadata = _weights(demo, encoder="resnet18", encoder_args={})
    metadata["recipe"]["image_size"] = 64
    refuse_misfit(LATER, "eff", demo, demo, metadata)
    assert keeps_size(LATER, "eff", demo)
    other = _own(tmp_path, 'based_on = "demo"\n[ntuh_segmentation]\nimage_size = 128')
    refuse_misfit(LATER, "eff", other, demo, metadata)
    assert not keeps_size(LATER, "eff", other)
    started = _own(tmp_path, 'based_on = "demo"\n[networks.eff]\ninitial_weights = "imagenet"')
    refuse_misfit(LATER, "eff", started, demo, metadata)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[every_stage]\nepochs = 0", r"\[every_stage\] epochs = 0 must be positive"),
        ("[every_stage]\nimage_size = 100", "image_size = 100 must be a multiple of 32"),
        ("[ntuh_segmentation]\nema_decay = 1", "ema_decay = 1.0 must be at least 0 and below 1"),
        ("[every_stage]\nshare_first = 80", "share_first = 80.0 must lie between 0 and 1"),
        ("[every_stage]\nfilms_per_epoch = -1", "films_per_epoch = -1 must not be negative"),
        ('[networks.eff]\nencoder_args = { checkpoint_path = "x" }', "must not hold checkpoint_path"),
    ],
)
def test_numbers_that_no_run_could_use_are_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=said):
        _own(tmp_path, f'based_on = "demo"\n{text}')


def test_finished_runs_know_their_recipe_again(
    chain: Scripts, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a preset, and given back as the file that the run left: the same run, so nothing waits."""
    monkeypatch.setenv("PTX_WORKSPACE", str(chain.workspace))

    def waiting(stage: str, *flags: str) -> int:
        films = ["--siim", str(sources / "siim"), "--ntuh", str(sources / "ntuh")]
        line = ["--gpu", "cpu", "--system", "vit", *films, *flags]
        request = parse_train(STAGES[stage], "", line)
        return len(check_inputs(STAGES[stage], request, Processes(torch.device("cpu"))).waiting)

    numbers = [*TINY[2:], "--films-per-epoch", "8"]
    assert waiting("ntuh_classification", *numbers) == 0
    runs = chain.workspace / STEP_2_2 / "runs"
    assert waiting("ntuh_classification", "--recipe", str(runs / "fold_0_vit_cls_ntuh" / "recipe.toml")) == 0
    first = chain.workspace / STEP_1_1 / "runs" / "vit_seg_siim" / "recipe.toml"
    assert waiting("siim_segmentation", "--recipe", str(first)) == 0
    with pytest.raises(Refusal, match=r"recipe\.epochs: 1 -> 5"):
        waiting("ntuh_classification", "--epochs", "5")
    with pytest.raises(Refusal, match="preset published does not fit the vit weights"):
        waiting("ntuh_classification", "--preset", "published")
