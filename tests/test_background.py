"""What is written while training goes on."""

from __future__ import annotations

import threading

import pytest

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
