"""A short run of `benchmarks/listener.py`: three senders, a real archive, kills of it and of the listener."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import REPOSITORY

from benchmarks.archive_programs import machine_program


@pytest.mark.all
@pytest.mark.slow
def test_every_accepted_film_ends_in_one_set_of_objects_at_the_archive() -> None:
    pytest.importorskip("pynetdicom")
    for program in ("Orthanc", "storescu"):
        if machine_program(program) is None:
            pytest.skip(f"{program} is not installed")
    done = subprocess.run(
        [sys.executable, "benchmarks/listener.py", "--films", "60", "--kills", "4"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "60 films and 4 kills: 0 objects missing, 0 strange, 0 double, 0 different" in done.stdout
