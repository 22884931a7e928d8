"""Which Python runs the project: supported versions only, others are refused by name."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import REPOSITORY

SCRIPTS = ["demo.sh", "test.sh", "common", "tests/requirements.txt", "requirements.txt"]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The scripts alone, in a folder of their own."""
    folder = tmp_path / "clone"
    (folder / "tests").mkdir(parents=True)
    for name in SCRIPTS:
        source = REPOSITORY / name
        shutil.copytree(source, folder / name) if source.is_dir() else shutil.copy(source, folder / name)
    return folder


def _python(path: Path, version: str) -> None:
    """Something that says it is this Python when asked for its version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(0o755)


def _run(clone: Path, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    tools = clone.parent / "tools"  # a machine with nothing but these
    tools.mkdir(exist_ok=True)
    for tool in ("bash", "sh", "dirname", "rm", "touch", "mkdir"):
        if not (tools / tool).exists():
            (tools / tool).symlink_to(shutil.which(tool))
    kept = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "CONDA_PREFIX")}
    return subprocess.run(
        [str(tools / "bash"), script],
        cwd=clone,
        env={**kept, "PATH": str(tools), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("script", ["demo.sh", "test.sh"])
@pytest.mark.parametrize("version", ["3.9", "3.14", "2.7"])
def test_active_environment_of_another_python_is_refused(clone: Path, script: str, version: str) -> None:
    _python(clone.parent / "env" / "bin" / "python", version)
    done = _run(clone, script, VIRTUAL_ENV=str(clone.parent / "env"))
    assert done.returncode == 2
    assert f"error: Python {version} is not supported" in done.stderr


def test_machine_without_a_supported_python_is_refused(clone: Path) -> None:
    _python(clone.parent / "tools" / "python3", "3.9")
    done = _run(clone, "demo.sh")
    assert done.returncode == 2
    assert "no supported Python was found (found: 3.9)" in done.stderr
    assert not (clone / ".venv").exists()


def test_python_without_venv_is_refused_with_the_remedy(clone: Path) -> None:
    python = clone.parent / "tools" / "python3.12"
    _python(python, "3.12")
    python.write_text('#!/bin/sh\n[ "$1" = -c ] && echo 3.12 && exit 0\nexit 1\n')
    done = _run(clone, "demo.sh")
    assert done.returncode == 2
    assert "python3.12-venv" in done.stderr


@pytest.mark.parametrize("there", ["nothing", "an environment", "a link to one", "something else"])
def test_failed_environment_takes_nothing_along(clone: Path, there: str) -> None:
    """Only what was begun just now is removed."""
    python = clone.parent / "tools" / "python3.12"
    _python(python, "3.12")
    python.write_text(
        '#!/bin/sh\n[ "$1" = -c ] && echo 3.12 && exit 0\nmkdir -p "$3" && touch "$3/half"\nexit 1\n'
    )
    theirs = clone / ".venv"
    if there == "a link to one":
        theirs = clone.parent / "elsewhere"
        (clone / ".venv").symlink_to(theirs)
    if there != "nothing":
        theirs.mkdir()
        (theirs / "notes.txt").write_text("a user's")
        if there != "something else":
            (theirs / "pyvenv.cfg").touch()
    done = _run(clone, "demo.sh")
    assert done.returncode == 2
    if there == "nothing":
        assert not theirs.exists()
    else:
        assert (theirs / "notes.txt").read_text() == "a user's"
        assert (clone / ".venv").is_symlink() == (there == "a link to one")
    assert (theirs / "half").exists() == (there in ("an environment", "a link to one"))
    assert ("move it away" in done.stderr) == (there == "something else")


def test_all_shell_scripts_parse() -> None:
    folders = [REPOSITORY / "common", *REPOSITORY.glob("step*")]
    scripts = [*REPOSITORY.glob("*.sh"), *(path for folder in folders for path in folder.rglob("*.sh"))]
    assert len(scripts) >= 12
    for script in scripts:
        subprocess.run(["bash", "-n", str(script)], check=True)
