"""How the project says no: one message, no traceback, exit status 2."""

from __future__ import annotations

import errno
import json
import logging
import os
import select
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from common.hints import with_flags

_Found = TypeVar("_Found")


class Refusal(Exception):
    """A stage cannot run, or must not go on.

    Args:
        what: One sentence: what was asked for and why it is refused.
        **details: What is wrong, where, and what to do, one line each; the key is the line's label
            (`made_by` is printed as "made by"). The usual keys are `missing`, `made_by`, `found`, `do`.
    """

    def __init__(self, what: str, **details: object) -> None:
        super().__init__(what)
        self.what = what
        self.details = details

    def __reduce__(self) -> tuple[Any, ...]:
        return _refusal, (self.what, self.details)  # for processes that hand it on

    def __str__(self) -> str:
        lines = [self.what]
        for key, value in self.details.items():
            if value is not None:
                lines.append(f"  {key.replace('_', ' ') + ':':<8} {value}")
        return "\n".join(lines)


def _refusal(what: str, details: dict[str, object]) -> Refusal:
    return Refusal(what, **details)


def gather(checks: Iterable[Callable[[], _Found]]) -> list[_Found]:
    """What several checks find, which are all made: who has to fetch things wants to know of all of them.

    Raises:
        Refusal: Some of them refused; each is named, once.
    """
    found, refused = [], []
    for check in checks:
        try:
            found.append(check())
        except Refusal as refusal:
            refused.append(str(refusal))
    if refused:
        raise Refusal("\nerror: ".join(dict.fromkeys(refused)))
    return found


def run_script(main: Callable[[], None]) -> None:
    """Run a script's `main`; a refusal becomes its message on stderr and exit status 2.

    In one of several processes it does not return: the process ends here, whatever became of `main`.
    """
    told = os.environ.get("TORCHELASTIC_ERROR_FILE")  # one of several processes: launch.py speaks for all
    status: object = 0
    try:
        _run(main, told)
    except BaseException as error:
        if not told:
            raise
        status = error.code if isinstance(error, SystemExit) else 1
        if not isinstance(error, SystemExit):
            sys.excepthook(type(error), error, error.__traceback__)
    if told:
        sys.stdout.flush()
        sys.stderr.flush()
        # Python's own way out would now and then be an abort: threads of gloo outlive their process group
        os._exit(status if isinstance(status, int) else status is not None)


def _run(main: Callable[[], None], told: str | None) -> None:
    # What libraries warn of tells a user nothing, and may quote a header; a run's log has it (`RunLog`).
    logging.captureWarnings(True)
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        _to_the_end(main)
    except Refusal as refusal:
        text = with_flags(str(refusal))
        if told:
            message = {"message": text, "extraInfo": {"timestamp": str(int(time.time()))}}
            Path(told).write_text(json.dumps({"message": message}), encoding="utf-8")
        else:
            sys.stderr.write(f"error: {text}\n")
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        if not told:
            sys.stderr.write("\ninterrupted; the same command goes on from here\n")
        raise SystemExit(130) from None


def _to_the_end(main: Callable[[], None]) -> None:
    """Run `main`, and have said all that it prints."""
    try:
        try:
            main()
        except SystemExit:  # as after --help
            sys.stdout.flush()
            raise
        sys.stdout.flush()
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _unread():
            raise SystemExit(141) from None  # as a shell says of a program that SIGPIPE ended
        if error.errno == errno.ENOSPC:
            do = "make room, and give the same command again"
            raise Refusal("the disk is full", found=error.filename, do=do) from None
        raise
    finally:
        _drop_unsaid()


def _unread() -> bool:
    """Whether nobody reads what is printed, as after `... | head`; else it is another pipe that broke."""
    printed = select.poll()
    printed.register(sys.stdout.fileno(), 0)  # for errors alone
    return bool(printed.poll(0))


def _drop_unsaid() -> None:
    """What cannot be printed would be tried again as Python ends, which would complain of it."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
