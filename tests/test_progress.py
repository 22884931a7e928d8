"""How far work has come, without a terminal; what a run says and writes down; what is left of all runs."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

from common import progress as module
from common.progress import Lines, in_words, progress
from common.refusal import Refusal
from common.training.run_log import RunLog
from common.training.time_left import TimeLeft


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_lines_come_now_and_then_and_to_the_end(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Lines(1000, "preparing", done=100) as bar:
        for _ in range(900):
            clock[0] += 1.0
            bar.update()
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "preparing: 130 of 1000 films, 30 s, about 14 min left"  # 870 films at 1 s
    assert said[-1] == "preparing: 1000 of 1000 films, 15 min"
    assert len(said) == 5


def test_short_work_and_work_without_a_title_say_nothing(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Lines(20, "preparing") as bar:
        clock[0] += 20
        bar.update(20)
    with progress(5, None) as bar:
        clock[0] += 1000
        bar.update(2)
        bar.update(3)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "said"), [(89.4, "89 s"), (90, "2 min"), (7500, "2 h 5 min"), (190_000, "2 d 4 h")]
)
def test_times_in_words(seconds: float, said: str) -> None:
    assert in_words(seconds) == said


def test_time_left_of_this_run_and_of_all() -> None:
    left = TimeLeft([("a", "eff", 2), ("b", "eff", 2), ("c", "vit", 2)])
    assert left.after_epoch("a", 600, 1) == (
        "10 min left of this run, 50 min of all 3 that are left (vit counted as eff)"
    )
    left.after_epoch("a", 600, 0)
    left.after_epoch("b", 1200, 1)  # mean 800 s
    assert (
        left.after_epoch("b", 800, 0)
        == "0 s left of this run, 27 min of all 2 that are left (vit counted as eff)"
    )
    assert left.after_epoch("c", 60, 1) == "60 s left of this run"
    assert TimeLeft().after_epoch("x", 60, 2) == "2 min left of this run"


def test_run_log_holds_what_is_said_warnings_and_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = RunLog(tmp_path)
    with log.watching():
        log.say("eff: starts")
        logging.getLogger("timm.somewhere").warning("odd %s", "thing")
    with pytest.raises(Refusal), log.watching():
        raise Refusal("the loss is not finite", do="lower --learning-rate")
    with pytest.raises(KeyboardInterrupt), log.watching():
        raise KeyboardInterrupt
    with pytest.raises(ZeroDivisionError), log.watching():
        _ = 1 / 0
    logging.getLogger("timm.somewhere").warning("after the run")
    text = (tmp_path / "log.txt").read_text()
    for part in (
        " eff: starts\n",
        " warning of timm.somewhere: odd thing\n",
        " error: the loss is not finite\n  do:      lower --learning-rate\n",
        " interrupted\n",
        "ZeroDivisionError",
    ):
        assert part in text
    assert "after the run" not in text
    assert capsys.readouterr().out == "eff: starts\n"
    RunLog(None).say("of another process")
    assert capsys.readouterr().out == ""


def test_a_run_that_is_terminated_says_so_in_its_log(tmp_path: Path) -> None:
    """As SLURM does at its limit: the process ends by the signal, and its log by a line."""
    program = (
        "import pathlib, sys, time\n"
        "from common.training.run_log import RunLog\n"
        "log = RunLog(pathlib.Path(sys.argv[1]))\n"
        "with log.watching():\n"
        "    log.say('at work')\n"
        "    while True:\n"  # not one long sleep, which a signal just before it would not end
        "        time.sleep(0.01)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n"
        process.terminate()
        assert process.wait(300) == -signal.SIGTERM
    last = (tmp_path / "log.txt").read_text().splitlines()[-1]
    assert last.endswith("ended by SIGTERM; the same command goes on from the last checkpoint")


def test_log_that_cannot_be_written_is_refused_and_hides_no_error(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "missing")
    with pytest.raises(Refusal, match=r"cannot write .*log\.txt\n.*No such file"):
        log.note("x")
    with pytest.raises(ZeroDivisionError), log.watching():
        _ = 1 / 0


def test_scripts_show_no_raw_warnings() -> None:
    code = (
        "import logging, warnings\nfrom common.refusal import run_script\n"
        "def main():\n    warnings.warn('raw')\n    logging.getLogger('lib').warning('raw')\n"
        "    print('done')\n"
        "run_script(main)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("done\n", "")
