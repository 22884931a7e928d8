"""The commands in a refusal: as the user can type them, with the flags given that hold for them, too."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from common.paths import REPOSITORY, shown

_COMMAND = re.compile(r"bash (?:[\w/]+/)?(\w+)\.sh(?P<gpu> (?:cpu|[0-9])[\w,]*)?")
_OURS = re.compile(r"\b(cd|bash|-r) ((?:common|step\d_\w+)/[\w/.]*\w)")  # from the root of the repository
_PATHS = {"siim", "siim_patients", "ntuh", "unlabelled", "imagenet", "recipe"}
_SOURCES = {"siim", "siim_patients", "ntuh", "unlabelled"}
# What is meant for the whole chain. What is meant for one step, such as --epochs, is not repeated for others
_SHARED = (*sorted(_PATHS), "system", "preset", "image_size", "workers")

_NOT_AGAIN = ("gpu", "fresh")  # the first is no flag; the second is for who repeats the command to say
_BARE = ("checkpointing",)  # flags without a value

_given: dict[str, object] = {}
_takes: dict[str, frozenset[str]] = {}


def remember(given: Mapping[str, object], takes: Mapping[str, frozenset[str]]) -> None:
    """Remember what this process was asked for.

    Args:
        given: Values of the flags that the user gave, by name (`siim_patients`), and `gpu`.
        takes: The flags of each shell script, by its name without `.sh`.
    """
    _given.clear()
    _given.update(given)
    _takes.clear()
    _takes.update(takes)


def with_flags(text: str) -> str:
    """A refusal's text, in which each command of ours repeats the flags that were given and that it takes.

    The commands are written for the root of the repository, and become those for where the user stands.
    """
    return from_here("\n".join(map(_line, text.split("\n"))))


def again(command: str) -> str:
    """The command of a step with what was given for this step alone, too, such as `--epochs`.

    Args:
        command: One of our commands, without flags; `with_flags` adds what holds for the whole chain.
    """
    found = _COMMAND.search(command)
    takes = _takes.get(found[1], frozenset()) if found else frozenset()
    words = []
    for name in sorted(set(_given) & takes - {*_SHARED, *_NOT_AGAIN}):
        words += [f"--{name.replace('_', '-')}", *([] if name in _BARE else _words(name, _given[name]))]
    return " ".join([command, *words])


def from_here(text: str) -> str:
    """A text in which our commands can be typed from where the user stands, not only from the root."""
    return _OURS.sub(lambda found: f"{found[1]} {shlex.quote(shown(REPOSITORY / found[2]))}", text)


def _line(line: str) -> str:
    found = _COMMAND.search(line)
    if found is None or found[1] not in _takes:
        return line
    takes, rest = _takes[found[1]], line[found.end() :]
    named = re.findall(r"--(siim|ntuh|unlabelled) ", rest) if found[1] == "prepare" else []
    words: list[str] = []
    if "gpu" in takes and not found["gpu"] and _given.get("gpu", "0") != "0":
        words.append(str(_given["gpu"]))
    for name in _SHARED:
        flag = f"--{name.replace('_', '-')}"
        if named and name in _SOURCES and name.split("_")[0] not in named:
            continue  # other films, perhaps prepared by other rules, stay as they are
        if name in _given and name in takes and f"{flag} " not in f"{rest} ":
            words += [flag, *_words(name, _given[name])]
    return line[: found.end()] + "".join(f" {word}" for word in words) + rest


def _words(name: str, value: object) -> list[str]:
    values = value if isinstance(value, tuple) else (value,)
    # The hint's command is given in another folder: a path must hold from there, too.
    texts = [str(Path(v).expanduser().resolve()) if name in _PATHS else str(v) for v in values]
    return [shlex.quote(text) for text in texts]
