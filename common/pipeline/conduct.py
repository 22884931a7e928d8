"""Running a stage by its own customer script, in processes that end with this one."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from threading import Thread

from common.devices import devices_named
from common.paths import REPOSITORY, shown
from common.pipeline import record
from common.pipeline.asked import Asked
from common.pipeline.planned_stages import PlannedStage
from common.refusal import Refusal

_PR_SET_PDEATHSIG = 1  # of Linux's prctl
_LIBC = ctypes.CDLL(None)  # here: between fork and exec nothing may be loaded


def command_of(stage: PlannedStage, gpu: str, words: Sequence[str]) -> list[str]:
    """The command that a user would give for a stage."""
    script = str(REPOSITORY / stage.script)
    program = [sys.executable] if script.endswith(".py") else ["bash"]
    return [*program, script, *([gpu] if stage.takes_gpu else []), *words]


def run_stage(
    stage: PlannedStage, gpu: str, words: Sequence[str], systems: Sequence[str], again: str
) -> None:
    """Run a stage to its end; what it says is printed and written into its log.

    On a CPU, systems are trained side by side, each with its part of the cores, which a small network alone
    does not fill. What the others than the first one say is printed when all have ended.

    Args:
        stage: The stage.
        gpu: The GPU argument.
        words: Its flags.
        systems: The systems that it has to train; empty where it trains none.
        again: The command that goes on from here, for the refusal.

    Raises:
        Refusal: It failed; the stage, its log and the command to go on are named.
    """
    command = command_of(stage, gpu, words)
    record.note(stage.key, record.RUNNING)
    if len(systems) > 1 and devices_named(gpu) == ["cpu"]:
        share = {"OMP_NUM_THREADS": str(max(1, _threads() // len(systems)))}
        children = [
            _Child([*command, "--system", system], share, record.log_file(stage.number, system), number == 0)
            for number, system in enumerate(systems)
        ]
    else:
        children = [_Child(command, {}, record.log_file(stage.number), True)]
    failed = [child for child, status in zip(children, _ends(children), strict=True) if status]
    for child in children[1:]:
        print(child.said(), end="", flush=True)
    if any(child.status in (130, -signal.SIGINT) for child in failed):
        raise KeyboardInterrupt
    record.note(stage.key, record.FAILED if failed else record.DONE)
    if failed:
        raise Refusal(
            f"step {stage.number} ({stage.title}) failed: {failed[0].how}",
            log=", ".join(shown(child.log) for child in failed),
            do=f"mend what it says; then go on: {again}",
        )


def run_plainly(asked: Asked) -> None:
    """Run the trainings of a phase with this process's own terminal, and end as the first one that fails.

    Raises:
        SystemExit: One of them failed, with its exit status.
    """
    for stage in asked.stages:
        command = command_of(stage, asked.gpu, [*asked.words[stage.key], *asked.modes])
        with subprocess.Popen(command, preexec_fn=_end_with_us) as process:
            try:
                status = process.wait()
            except KeyboardInterrupt:  # the stage got it, too, and says how to go on
                raise SystemExit(process.wait() or 130) from None
        if status:
            raise SystemExit(status if status > 0 else 128 - status)


def _threads() -> int:
    """Threads that a script would compute with."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) else len(os.sched_getaffinity(0))


class _Child:
    """A script at work, whose words are written into a log, and printed if it is `loud`."""

    def __init__(self, command: Sequence[str], variables: Mapping[str, str], log: Path, loud: bool) -> None:
        self.log, self._loud, self.status = log, loud, 0
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(f"=== {datetime.now():%Y-%m-%d %H:%M:%S}\n")
        self._begins = log.stat().st_size
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **variables},
            preexec_fn=_end_with_us,
        )
        self._words = Thread(target=self._listen, daemon=True)
        self._words.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with self.log.open("ab") as file:
            for line in self.process.stdout:
                file.write(line)
                file.flush()
                if self._loud:
                    sys.stdout.write(line.decode(errors="replace"))
                    sys.stdout.flush()

    def end(self) -> int:
        """Wait for its end; its exit status."""
        self.status = self.process.wait()
        self._words.join()
        return self.status

    def said(self) -> str:
        """What it has said since it was started."""
        with self.log.open("rb") as file:
            file.seek(self._begins)
            return file.read().decode(errors="replace")

    @property
    def how(self) -> str:
        """How it failed, in words."""
        return f"exit status {self.status}" if self.status > 0 else f"killed by signal {-self.status}"


def _ends(children: Sequence[_Child]) -> list[int]:
    """The exit statuses of all; interrupted, it waits until they have saved what they do."""
    try:
        return [child.end() for child in children]
    except KeyboardInterrupt:
        for child in children:
            child.end()  # the terminal has interrupted them, too
        raise
    finally:
        for child in children:
            with suppress(ProcessLookupError):
                child.process.terminate()


def _end_with_us() -> None:
    """A script must not train on where nobody waits for it any more (Linux)."""
    with suppress(AttributeError):
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
