"""requirements.lock pins what requirements.txt asks for, on every supported Python."""

from __future__ import annotations

import pytest
from conftest import REPOSITORY
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def _needed(file: str, python: str) -> dict[str, Requirement]:
    """What a file asks for on Linux with this Python, by the package's name; each package once."""
    machine = default_environment() | {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
    }
    lines = [line.split(" #")[0].strip() for line in (REPOSITORY / file).read_text().splitlines()]
    asked = [Requirement(line) for line in lines if line and not line.startswith("#")]
    here = [each for each in asked if each.marker is None or each.marker.evaluate(machine)]
    found = {canonicalize_name(each.name): each for each in here}
    assert len(found) == len(here), "a package is asked for twice"
    return found


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_every_package_is_pinned_once(python: str) -> None:
    pinned = _needed("requirements.lock", python)
    for name, wanted in _needed("requirements.txt", python).items():
        (pin,) = pinned[name].specifier
        assert pin.operator == "==", name
        assert wanted.specifier.contains(pin.version), f"{name}: {pin.version} is not {wanted.specifier}"


def test_other_packages_are_pinned_too() -> None:
    """What the packages need themselves, of which pip would otherwise take the newest."""
    pinned = _needed("requirements.lock", "3.12")
    assert {"sympy", "networkx"} <= set(pinned)  # of torch
    assert all([each.operator for each in pin.specifier] == ["=="] for pin in pinned.values())
