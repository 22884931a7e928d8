"""A short run of `benchmarks/hostile.py`, which reports any crash, hang, escape or unforeseen exception."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import REPOSITORY


@pytest.mark.slow
def test_hostile_input_costs_nothing_but_itself() -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/hostile.py", "--count", "150", "--seed", "1", "--systems", "12"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "weights and thresholds: 12 of 12 refused" in done.stdout
    assert "hostile input: 150 mutations, 0 exceptions" in done.stdout
