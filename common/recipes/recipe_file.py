"""How is a recipe's TOML file read, what in it is refused, and how is a resolved recipe written?"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import sys
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from common.recipes.recipe import LOADING_ARGS, Augmentation, Network, Recipe, wrong_number
from common.refusal import Refusal
from common.stages import STAGES, STUDENT_STAGES, SYSTEMS, System

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PRESETS = ("published", "strong", "demo")
_BASE = "based_on"
_EVERY_STAGE = "every_stage"
_TABLES = ("networks", _EVERY_STAGE, *STAGES, *STUDENT_STAGES, "augmentation")

Table = dict[str, Any]
Kind = TypeVar("Kind", Network, Augmentation, Recipe)


@dataclass(frozen=True)
class Recipes:
    """Everything that one file decides, with what it takes from the preset that it is based on.

    Attributes:
        networks: The network of each system.
        augmentation: The one of all stages.
        stages: The recipe of each stage's key and system.
        students: What is stated for a student's stage, by its key and system: all other numbers are those of
            the stage whose networks teach it.
    """

    networks: dict[str, Network]
    augmentation: Augmentation
    stages: dict[tuple[str, str], Recipe]
    students: dict[tuple[str, str], Table]


def preset_file(preset: str) -> Path:
    """The file of a preset: it is beside this one, from whatever folder and for whatever workspace."""
    return Path(__file__).with_name(f"{preset}.toml")


def read_recipes(path: Path) -> Recipes:
    """Read a file that states everything, or what differs from the preset that it names in `based_on`.

    What the file states for a stage goes before what it states for every stage, and both before the preset.
    A student has the numbers of its teachers, but for what the file or its preset states for students.

    Raises:
        Refusal: The file is no TOML; a key or value in it is none of a recipe; one is missing.
    """
    return recipes_of(load_table(path), path)


def recipes_of(file: Table, path: Path) -> Recipes:
    """As `read_recipes`, of what stands in a file already read; `path` names it in refusals.

    Raises:
        Refusal: As `read_recipes`, but for a file that is no TOML.
    """
    file, base = dict(file), None
    if _BASE in file:
        base = read_recipes(preset_file(_choice(path, "the file", _BASE, file.pop(_BASE), PRESETS)))
    _known(path, "the file", file, _TABLES)
    tables = {name: _table(path, name, value) for name, value in file.items()}
    each = tables.get("networks", {})
    _known(path, "[networks]", each, SYSTEMS)
    networks: dict[str, Network] = {
        system: _network(path, system, _table(path, f"networks.{system}", each.get(system, {})), base)
        for system in SYSTEMS
    }
    stated = _checked(path, "augmentation", Augmentation, tables.get("augmentation", {}))
    augmentation = _filled(path, "augmentation", Augmentation, base.augmentation if base else None, stated)
    stages: dict[tuple[str, str], Recipe] = {}
    students: dict[tuple[str, str], Table] = {}
    for system in SYSTEMS:
        shared = _stage_numbers(path, _EVERY_STAGE, tables.get(_EVERY_STAGE, {}), system)
        for key in STAGES:
            own = _stage_numbers(path, key, tables.get(key, {}), system)
            numbers = shared | own | {"augmentation": augmentation}
            stages[key, system] = _filled(
                path, key, Recipe, base.stages[key, system] if base else None, numbers
            )
        for key, stage in STUDENT_STAGES.items():
            own = _stage_numbers(path, key, tables.get(key, {}), system)
            students[key, system] = (base.students[key, system] if base else {}) | own
            taught_by = stages[str(stage.teachers), system]
            stages[key, system] = _filled(path, key, Recipe, taught_by, students[key, system])
    return Recipes(networks, augmentation, stages, students)


def base_of(file: Table) -> str | None:
    """The preset that a file names in `based_on`, if any."""
    return file.get(_BASE)


def load_table(path: Path) -> Table:
    """What stands in a TOML file, unchecked.

    Raises:
        Refusal: It cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Refusal(f"{path} cannot be read", found=error.strerror) from None
    except ValueError as error:  # no UTF-8, or no TOML: then it names the line
        raise Refusal(f"{path} is no TOML file", found=error, do="mend it; # starts a comment") from None


def _network(path: Path, system: str, table: Table, base: Recipes | None) -> Network:
    where = f"networks.{system}"
    stated = _checked(path, where, Network, table)
    for key in stated.get("encoder_args", {}):
        if key in LOADING_ARGS:
            raise Refusal(
                f"{path}: [{where}] encoder_args must not hold {key}",
                do='take it out; what the encoder starts from is said by initial_weights = "imagenet"',
            )
    if "encoder" in stated:  # arguments fit one encoder only
        stated = {"encoder_args": {}} | stated
    return _filled(path, where, Network, base.networks[system] if base else None, stated)


def _stage_numbers(path: Path, where: str, table: Table, system: str) -> Table:
    """What a table states for a system; a value may be stated for each: { eff = 0.01, vit = 0.05 }."""
    numbers = {}
    for key, value in table.items():
        if isinstance(value, dict):
            _known(path, f"[{where}] {key}", value, SYSTEMS)
            if system in value:
                numbers[key] = value[system]
        else:
            numbers[key] = value
    return _checked(path, where, Recipe, numbers)


def _checked(path: Path, where: str, kind: type, table: Table) -> Table:
    """A table with values of the types that the fields of `kind` have."""
    types = {name: hint for name, hint in get_type_hints(kind).items() if hint is not Augmentation}
    _known(path, f"[{where}]", table, types)
    values = {key: _value(path, f"[{where}] {key}", types[key], value) for key, value in table.items()}
    for key, value in values.items():
        if wrong := wrong_number(key, value):
            raise Refusal(f"{path}: [{where}] {key} = {value} {wrong}")
    return values


def _filled(path: Path, where: str, kind: type[Kind], base: Kind | None, stated: Table) -> Kind:
    values = (
        {} if base is None else {item.name: getattr(base, item.name) for item in dataclasses.fields(base)}
    )
    values |= stated
    missing = [item.name for item in dataclasses.fields(kind) if item.name not in values]
    if missing:
        raise Refusal(
            f"{path}: [{where}] is not complete",
            missing=", ".join(missing),
            do=f'state them, or begin the file with {_BASE} = "published" to state only what differs',
        )
    return kind(**values)


# --- one key or value ------------------------------------------------------------------------------


def _known(path: Path, where: str, table: Table, names: Collection[str]) -> list[str]:
    """The keys of a table, all of which must be among the names."""
    for key in table:
        _choice(path, where, "a key", key, names)
    return list(table)


def _choice(path: Path, where: str, what: str, value: object, names: Collection[str]) -> str:
    if isinstance(value, str) and value in names:
        return value
    near = difflib.get_close_matches(str(value), names, 1)
    raise Refusal(
        f"{path}: {value!r} is not known as {what} of {where}",
        do=f"write {near[0]}" if near else f"use one of {', '.join(names)}",
    )


def _table(path: Path, where: str, value: object) -> Table:
    if not isinstance(value, dict):
        raise Refusal(f"{path}: {where} is no table", found=repr(value), do=f"write [{where}] above its keys")
    return value


def _value(path: Path, where: str, hint: Any, value: Any) -> Any:
    """A value of a field's type, which tuples and floats are written as in TOML: [1, 2] and 1."""
    if get_origin(hint) is Literal:
        return _choice(path, where, "a value", value, get_args(hint))
    kind = get_origin(hint) or hint
    if kind is tuple:
        one, *others = get_args(hint)
        count = None if others == [...] else 1 + len(others)
        if isinstance(value, list) and value and count in (None, len(value)):
            return tuple(_value(path, where, one, each) for each in value)
        wanted = f"{count} numbers in brackets" if count else "whole numbers in brackets"
    elif kind is float:
        if type(value) in (int, float) and math.isfinite(value):
            return float(value)
        wanted = "a finite number"
    elif type(value) is kind:  # not isinstance: true is no number
        return value
    else:
        words = {int: "a whole number", str: "a text in quotes", dict: "a table", bool: "true or false"}
        wanted = words[kind]
    raise Refusal(f"{path}: {where} is not {wanted}", found=repr(value))


# --- writing ---------------------------------------------------------------------------------------


def recipes_text(recipes: Recipes, base: str | None) -> str:
    """All values of all stages as the text of a TOML file, which `read_recipes` reads as the same recipes.

    A student's table has what is stated for it, since the rest is its teachers'.

    Args:
        recipes: What the file is to decide.
        base: The preset that it keeps the name of; None: it has none.
    """
    lines = [] if base is None else [f"{_BASE} = {_toml(base)}"]
    for system, network in recipes.networks.items():
        lines += ["", f"[networks.{system}]", *_assignments(asdict(network))]
    for key in STAGES:
        each = {system: asdict(recipes.stages[key, system]) for system in SYSTEMS}
        numbers = {name: _shared(each, name) for name in each[SYSTEMS[0]] if name != "augmentation"}
        lines += ["", f"[{key}]", *_assignments(numbers)]
    for key in STUDENT_STAGES:
        stated = {system: recipes.students[key, system] for system in SYSTEMS}
        names = dict.fromkeys(name for numbers in stated.values() for name in numbers)
        lines += ["", f"[{key}]", *_assignments({name: _shared(stated, name) for name in names})]
    lines += ["", "[augmentation]", *_assignments(asdict(recipes.augmentation))]
    return "\n".join(lines).lstrip("\n") + "\n"


def _shared(each: dict[System, Table], name: str) -> Any:
    """A number of all systems, or one for each where they differ or not all have it."""
    values = {system: numbers[name] for system, numbers in each.items() if name in numbers}
    first = next(iter(values.values()))
    return first if list(values.values()) == [first] * len(each) else values


def _assignments(table: Table) -> list[str]:
    return [f"{name} = {_toml(value)}" for name, value in table.items()]


def _toml(value: Any) -> str:
    """A value of the types that a recipe has, as TOML writes it: as JSON does, but for tables."""
    if isinstance(value, dict):
        return "{ " + ", ".join(_assignments(value)) + " }" if value else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)
