"""One command line for several scripts: each flag goes to those that have it, and none is lost."""

from __future__ import annotations

import dataclasses
import difflib
import textwrap
from collections.abc import Sequence

from common.pipeline.planned_stages import OF_ONE_STAGE, PlannedStage
from common.recipes.recipe import Recipe
from common.refusal import Refusal


def divide(words: Sequence[str], stages: Sequence[PlannedStage]) -> dict[str, list[str]]:
    """The words of each stage's own command line.

    Args:
        words: Flags with their values, as they were typed.
        stages: The stages that are to be run.

    Returns:
        Words by the stage's key; a flag that several stages have goes to each of them.

    Raises:
        Refusal: A flag that no stage has, or a word that belongs to no flag.
    """
    found: dict[str, list[str]] = {stage.key: [] for stage in stages}
    for flag in _flags(words):
        takers = [stage for stage in stages if _name(flag[0], stage.flags) is not None]
        if not takers:
            _refuse_unknown(flag[0], stages)
        for stage in takers:
            found[stage.key] += flag
    return found


def numbers_of_several(words: Sequence[str], stages: Sequence[PlannedStage]) -> list[str]:
    """What these words change in the recipes of more than one stage.

    Args:
        words: Flags with their values, each known to a stage.
        stages: The stages that are to be run.

    Returns:
        A line for each group of stages, with the flags as they were typed: in a recipe, segmentation and
        classification may have different numbers there.
    """
    numbers = {field.name for field in dataclasses.fields(Recipe)}
    typed: dict[str, list[str]] = {}
    for flag in _flags(words):
        takers = [stage.number for stage in stages if numbers & {_name(flag[0], stage.flags)}]
        if len(takers) > 1:
            typed.setdefault(", ".join(takers), []).extend(flag)
    return [f"steps {takers} take {' '.join(flags)}" for takers, flags in typed.items()]


def _flags(words: Sequence[str]) -> list[list[str]]:
    """Each flag with its values."""
    flags: list[list[str]] = []
    for word in words:
        if word.startswith("--"):
            flags.append([word])
        elif flags:
            flags[-1].append(word)
        else:
            raise Refusal(f"'{word}' belongs to no flag", do="name the GPU first, then flags: --help")
    return flags


def _name(word: str, known: frozenset[str]) -> str | None:
    """The option that a flag sets, `siim_patients` of `--siim-patients=FILE`; None: it is not known."""
    name = word[2:].partition("=")[0].replace("-", "_")
    positive = name.removeprefix("no_")  # of a flag without a value
    return name if name in known else positive if positive in known else None


def _refuse_unknown(word: str, stages: Sequence[PlannedStage]) -> None:
    asked = word.partition("=")[0]
    known = sorted({f"--{name.replace('_', '-')}" for stage in stages for name in stage.flags})
    if asked[2:].replace("-", "_") in OF_ONE_STAGE:
        raise Refusal(
            f"{asked} is for one step alone",
            do="give it to the step's own script, such as its train.sh; then give this command again",
        )
    near = difflib.get_close_matches(asked, known, 1)
    raise Refusal(
        f"no stage has the flag {asked}",
        stages=", ".join(stage.number for stage in stages),
        do=f"write {near[0]}" if near else "see --help for the flags of all stages",
    )


def table_of_flags(stages: Sequence[PlannedStage]) -> str:
    """All flags, by the stages that take them, as lines for `--help`."""
    takers: dict[str, list[str]] = {}
    for stage in stages:
        for name in sorted(stage.flags):
            takers.setdefault(name, []).append(stage.number)
    groups: dict[str, list[str]] = {}
    for name, numbers in takers.items():
        groups.setdefault(" ".join(dict.fromkeys(numbers)), []).append(f"--{name.replace('_', '-')}")
    lines = []
    for taken_by, flags in groups.items():
        lines += [f"  {taken_by}:", *_wrapped(flags)]
    return "\n".join(lines)


def _wrapped(words: Sequence[str], width: int = 100) -> list[str]:
    return textwrap.wrap(
        " ".join(words), width, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False
    )
