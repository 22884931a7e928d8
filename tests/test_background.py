"""What is written while training goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from common.paths import REPOSITORY
from common.training.background import Background


def test_work_is_done_in_order_while_others_go_on() -> None:
    held, done = threading.Event(), []
    with Background() as background:
        background.do(held.wait, lambda: done.append(1), lambda: done.append(2))
        assert done == []  # it is held, and this goes on
        held.set()
        background.do(lambda: done.append(3))  # waits for what was given before
        assert done[:2] == [1, 2]
    assert done == [1, 2, 3]


@pytest.mark.parametrize("ask", ["check", "do", "finish", "leave"])
def test_what_goes_wrong_is_raised_and_nothing_is_tried_after_it(ask: str) -> None:
    done: list[int] = []

    def fail() -> None:
        raise OSError("the disk is full")

    def run() -> None:
        with Background() as background:
            background.do(fail, lambda: done.append(1))
            background._thread.submit(int).result()  # behind it: the failure is there
            if ask != "leave":
                getattr(background, ask)()

    with pytest.raises(OSError, match="disk is full"):
        run()
    assert done == []


def test_an_error_of_training_waits_for_what_is_under_way() -> None:
    held, done = threading.Event(), []

    def run() -> None:
        with Background() as background:
            background.do(held.wait, lambda: done.append(1))
            threading.Timer(0.05, held.set).start()
            raise KeyError

    with pytest.raises(KeyError):
        run()
    assert done == [1]


# In a process of its own: tests have one thread in torch, which would hide a second team.
_TEAMS = """
import torch
{imports}
def threads():
    (torch.ones(1 << 20) + 1).sum()
    return torch.get_num_threads()
{work}
"""
_WRITING = """
before, there = threads(), []
with Background() as background:
    background.do(lambda: there.append(threads()))
    background.finish()
    print(before, *there, threads())
"""
_LISTENING = """
FilmPredictor.open = lambda *_: SimpleNamespace(process=threads())
there = start._load_predictor(parse_listen("", ["--caller", "A"]))
with ThreadPoolExecutor(1) as other:
    print(2, there, other.submit(threads).result())
"""


@pytest.mark.parametrize(
    ("imports", "work"),
    [
        ("from common.training.background import Background", _WRITING),
        (
            "from concurrent.futures import ThreadPoolExecutor\n"
            "from types import SimpleNamespace\n"
            "from common import start\n"
            "from common.command_line import parse_listen\n"
            "from common.prediction.predictor import FilmPredictor\n",
            _LISTENING,
        ),
    ],
    ids=["training", "listener"],
)
def test_two_threads_do_not_both_compute_on_all_cores(imports: str, work: str) -> None:
    """libgomp's teams fall asleep after each operation once they are more threads than cores."""
    done = subprocess.run(
        [sys.executable, "-c", _TEAMS.format(imports=imports, work=work)],
        cwd=REPOSITORY, env=os.environ | {"OMP_NUM_THREADS": "2"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["2", "1", "2"]
