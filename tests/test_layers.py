"""Imports go down only, as `pyproject.toml` says."""

import subprocess
import sys
from pathlib import Path

from conftest import REPOSITORY


def test_layers_hold() -> None:
    tool = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([tool, "--no-cache"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "1 kept, 0 broken" in done.stdout
