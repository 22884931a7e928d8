"""A recipe's TOML file: what it takes from its preset, and what in it is refused by name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from common.recipes.presets import preset_network, preset_recipe, read_preset
from common.recipes.recipe_file import PRESETS, Recipes, preset_file, read_recipes
from common.refusal import Refusal
from common.stages import STAGES, STUDENT_STAGES

PUBLISHED = preset_file("published").read_text()


def _read(folder: Path, text: str, base: str = "published") -> Recipes:
    path = folder / "my.toml"
    path.write_text(f'based_on = "{base}"\n{text}', encoding="utf-8")
    return read_recipes(path)


def test_every_published_value_names_its_source() -> None:
    values = [line for line in PUBLISHED.splitlines() if re.match(r"\w+ *=", line)]
    assert len(values) > 50
    assert [line for line in values if not re.search(r"# (published|ours)\b", line)] == []


@pytest.mark.parametrize("preset", ["demo", "strong"])
def test_other_presets_state_only_what_differs(tmp_path: Path, preset: str) -> None:
    text = preset_file(preset).read_text()
    path = tmp_path / "my.toml"
    stated = 0
    for i, line in enumerate(lines := text.splitlines()):
        if re.match(r"\w+ *=", line) and "based_on" not in line:
            stated += 1
            path.write_text("\n".join(lines[:i] + lines[i + 1 :]))
            assert read_recipes(path) != read_preset(preset), line
    assert stated > 15


@pytest.mark.parametrize("preset", PRESETS)
def test_a_file_without_changes_is_its_preset(tmp_path: Path, preset: str) -> None:
    assert _read(tmp_path, "", preset) == read_preset(preset)


def test_a_whole_file_needs_no_preset(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text(PUBLISHED)
    assert read_recipes(path) == read_preset("published")


def test_the_nearer_table_goes_before(tmp_path: Path) -> None:
    mine = _read(
        tmp_path, "[every_stage]\nepochs = 3\nclip_norm = 1\n[siim_segmentation]\nepochs = 7", "demo"
    )
    for (key, system), recipe in mine.stages.items():
        assert recipe.epochs == (
            7 if key == "siim_segmentation" else 3
        )  # before the stages of the preset, too
        assert (recipe.clip_norm, type(recipe.clip_norm)) == (1, float)
        assert (
            recipe.learning_rate
            == preset_recipe("demo", (STAGES | STUDENT_STAGES)[key], system).learning_rate
        )


def test_values_of_one_system(tmp_path: Path) -> None:
    mine = _read(tmp_path, "[ntuh_segmentation]\nlearning_rate = { vit = 0.5 }")
    assert mine.stages["ntuh_segmentation", "vit"].learning_rate == 0.5
    assert mine.stages["ntuh_segmentation", "eff"].learning_rate == 1e-5


def test_another_encoder_leaves_the_arguments_of_the_earlier_one(tmp_path: Path) -> None:
    network = _read(tmp_path, '[networks.vit]\nencoder = "resnet18"').networks["vit"]
    assert network.encoder_args == {}
    assert network.decoder_channels == preset_network("published", "vit").decoder_channels


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[siim_segmentatoin]\nepochs = 3", "'siim_segmentatoin' .* write siim_segmentation$"),
        ("[siim_segmentation]\nepoch = 3", r"'epoch' .* \[siim_segmentation\]\n.* write epochs$"),
        ("[every_stage]\nlearning_rte = 3", "'learning_rte' .* write learning_rate$"),
        ("[every_stage]\nxyz = 3", "'xyz' .* use one of image_size, epochs"),
        ("[networks.efff]", "'efff' .* write eff$"),
        ("[networks.eff]\nencodr = 'a'", r"'encodr' .* \[networks.eff\]\n.* write encoder$"),
        ("[augmentation]\nzom = 1", "'zom' .* write zoom"),
        ("[every_stage]\nweight_decay = { vitt = 1 }", "'vitt' .* weight_decay\n.* write vit$"),
        ("[every_stage]\nprecision = 'fp23'", "'fp23' .* precision\n.* write fp32$"),
        ("[every_stage]\nepochs = 'twenty'", "epochs is not a whole number\n.*'twenty'"),
        ("[every_stage]\nepochs = 2.5", "epochs is not a whole number"),
        ("[every_stage]\nepochs = true", "epochs is not a whole number"),
        ("[every_stage]\nflip = 1", "flip is not true or false"),
        ("[every_stage]\nclip_norm = nan", "clip_norm is not a finite number"),
        ("[every_stage]\naugmentation = 1", "'augmentation' is not known"),
        ("[augmentation]\nzoom = 1.2", "zoom is not 2 numbers in brackets"),
        ("[augmentation]\nzoom = [1, 1, 1]", "zoom is not 2 numbers in brackets"),
        ("[augmentation]\nzoom = [1, 'a']", "zoom is not a finite number"),
        ("[networks.eff]\ndecoder_channels = []", "decoder_channels is not whole numbers in brackets"),
        ("[networks.eff]\nencoder = 5", "encoder is not a text in quotes"),
        ("every_stage = 5", "every_stage is no table"),
        ("[networks]\neff = 5", "networks.eff is no table"),
        ("[every_stage]\nepochs = ", "is no TOML file\n.*Invalid value"),
    ],
)
def test_wrong_keys_and_values_are_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(Refusal) as refusal:
        _read(tmp_path, text)
    assert "my.toml" in str(refusal.value)
    assert re.search(said, str(refusal.value), re.DOTALL)


def test_unknown_preset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"'publishd' is not known .*\n.* write published"):
        _read(tmp_path, "", "publishd")


def test_a_file_that_lacks_a_value_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text(re.sub(r"\nbatch_size.*", "", PUBLISHED))
    with pytest.raises(Refusal, match=r"\[siim_segmentation\] is not complete\n.*batch_size\n.*based_on"):
        read_recipes(path)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_unreadable_files_are_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "my.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Refusal, match=r"my\.toml (cannot be read|is no TOML file)"):
        read_recipes(path)
