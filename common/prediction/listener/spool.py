"""The listener's memory: a folder in which each film lies in the state that it is in.

    inbox/<number>_<case>.dcm     films that were received and are not finished
    outbox/<number>_<case>.json   films that were processed, and the objects that are to be sent
    rejected/, rejected.csv       films that could not be read, objects that were refused for good, and why

A film is in the inbox before its sender is told so, and leaves it when the destination has all that was made
of it; whoever starts on the folder goes on from what lies there. The inbox and the rejected films hold the
patients' identity; file names and rejected.csv do not.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from common.files import CASE, LOCK, alone, settle, whole_file, write_json
from common.films.own_outputs import RESEARCH_ONLY
from common.paths import shown
from common.pseudonyms import pseudonym
from common.refusal import Refusal
from common.removal import remove_temporaries

_NUMBERS = "[0-9]" * 9
_NAMES = f"{_NUMBERS}_{CASE}"  # of a film, without suffix: its number in order of arrival, and its pseudonym
_CASE_LENGTH = 17  # characters
_LAST_NUMBER = "last_number"  # the mark of a listener's folder, too
# What is written whole: films, deliveries, and what is found, in whichever subfolder.
_WRITTEN = (f"*/{_NAMES}.dcm", f"*/{_NAMES}.json", f"*/{CASE}*")
_COLUMNS = ("number", "case", "reason", "note")


class Spool:
    """The films of a folder, each in the state in which it is found.

    A film is known by its name: a number in order of arrival, and the pseudonym of its SOP Instance UID. No
    part of it is text that a sender chose.

    Args:
        folder: Folder of the spool, made where it is missing.
        reserve: Bytes to keep free on the disk.

    Raises:
        Refusal: Another process works in the folder, it cannot be written, or its films are no listener's.
    """

    def __init__(self, folder: Path, reserve: int = 0) -> None:
        self.folder, self.reserve = folder, reserve
        self.inbox, self.outbox, self.rejected = (folder / name for name in ("inbox", "outbox", "rejected"))
        try:
            self._lock = alone(folder / LOCK, f"another process works in {shown(folder)}")
            self._refuse_foreign()
            for each in (self.inbox, self.outbox, self.rejected):
                each.mkdir(exist_ok=True)
            remove_temporaries(folder, *_WRITTEN)  # of a killed listener: nobody else writes here
            self._listed = self._read_rejected()
            self._numbers = os.open(folder / _LAST_NUMBER, os.O_RDWR | os.O_CREAT, 0o600)
            settle(folder)
        except OSError as error:
            raise Refusal(f"cannot write {shown(folder)}", found=error.strerror or error) from error
        self._last = max(self._read_number(), *(int(name[:9]) for name in self._names()), 0)

    def close(self) -> None:
        """Let others work in the folder."""
        numbers, self._numbers = self._numbers, -1
        os.close(numbers)
        self._lock.close()

    def film(self, name: str) -> Path:
        """A film that is not finished."""
        return self.inbox / f"{name}.dcm"

    def delivery(self, name: str) -> Path:
        """The objects of a film that are to be sent."""
        return self.outbox / f"{name}.json"

    def films(self) -> list[str]:
        """Films that wait to be processed, in order of arrival."""
        # A film stays in the inbox until its objects are sent, and is processed no more meanwhile.
        return sorted({path.stem for path in self.inbox.glob(f"{_NAMES}.dcm")} - set(self.deliveries()))

    def deliveries(self) -> list[str]:
        """Films whose objects wait to be sent, in order of arrival."""
        return sorted(path.stem for path in self.outbox.glob(f"{_NAMES}.json"))

    def keep(self, content: bytes, instance: str) -> str:
        """Take a film in: when this returns, it lies on the disk, whole. Not for two threads at once.

        Args:
            content: Bytes of the film's file.
            instance: SOP Instance UID of the film.

        Returns:
            Its name.

        Raises:
            Refusal: The disk is full, or will not be written.
            OSError: The disk is full, or will not be written.
        """
        if shutil.disk_usage(self.folder).free - len(content) < self.reserve:
            raise Refusal("the disk is full")
        self._last += 1
        # before the film: whenever the process is killed, no number is given twice
        os.pwrite(self._numbers, f"{self._last:09d}".encode(), 0)
        name = f"{self._last:09d}_{pseudonym('case', instance)}"
        with whole_file(self.film(name)) as temporary:
            temporary.write_bytes(content)
        return name

    def begin(self, name: str) -> int:
        """Note that a film is at hand; returns how often the process ended when it was before."""
        path = self.folder / "at_hand"
        with suppress(OSError, ValueError):  # none, or cut short by a kill
            held, deaths = path.read_text().split()
            if held == name:
                path.write_text(f"{name} {int(deaths) + 1}")
                return int(deaths)
        with suppress(OSError):  # a full disk: the film itself will tell
            path.write_text(f"{name} 1")
        return 0

    def rest(self) -> None:
        """Note that no film is at hand."""
        (self.folder / "at_hand").unlink(missing_ok=True)

    def processed(self, name: str, objects: Sequence[Path]) -> None:
        """A film was processed; it is finished when there is nothing to send.

        Args:
            name: Name of the film.
            objects: Names of the files in the folder that are to be sent.

        Raises:
            Refusal: The disk is full, or will not be written.
            OSError: The disk is full, or will not be written.
        """
        if not objects:
            self.film(name).unlink(missing_ok=True)
            return
        self._write_delivery(self.delivery(name), objects)

    def objects(self, name: str) -> list[Path]:
        """The objects of a film that are to be sent."""
        return self._read_delivery(self.delivery(name))

    def _read_delivery(self, path: Path) -> list[Path]:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return [self.folder / each for each in content["objects"]]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def _write_delivery(self, path: Path, objects: Iterable[Path]) -> None:
        paths = [str(each.relative_to(self.folder)) for each in objects]
        write_json(path, {"note": RESEARCH_ONLY, "objects": paths})

    def age(self, name: str) -> float:
        """Seconds since the objects of a film came into the outbox, over restarts."""
        try:  # not the time of its content, which a delivery keeps that somebody moves back from rejected/
            return time.time() - self.delivery(name).stat().st_ctime
        except OSError:
            return 0.0

    def unfinished(self) -> set[str]:
        """Pseudonyms of the films that wait to be processed or sent, or were put aside."""
        deliveries = [path for folder in (self.outbox, self.rejected) for path in folder.glob("*.json")]
        found = {case_of(path) for each in deliveries for path in self._read_delivery(each)}
        return found | {name.split("_")[1] for name in self._names()}

    def delivered(self, name: str) -> None:
        """A film is finished: its destination has all of its objects, or they were put aside."""
        self.film(name).unlink(missing_ok=True)
        self.delivery(name).unlink(missing_ok=True)  # last: else the film would be processed again

    def mend(self) -> None:
        """Have films processed again of whose objects one is gone."""
        for name in self.deliveries():
            objects = self.objects(name)
            if self.film(name).is_file() and not (objects and all(path.is_file() for path in objects)):
                self.delivery(name).unlink()

    def reject(self, name: str, reason: str) -> None:
        """A film cannot be processed: list it, and put it aside.

        Raises:
            OSError: The disk is full, or will not be written.
        """
        self._list(name, reason)
        with suppress(FileNotFoundError):  # somebody took it away
            os.replace(self.film(name), self.rejected / f"{name}.dcm")
            settle(self.rejected)

    def refuse(self, name: str, path: Path, reason: str) -> None:
        """The destination will not take an object of a film: list it, and put it aside.

        Raises:
            Refusal: The disk is full, or will not be written.
            OSError: The disk is full, or will not be written.
        """
        self._list(name, reason)
        aside = self.rejected / f"{name}.json"
        self._write_delivery(aside, dict.fromkeys([*self._read_delivery(aside), path]))

    def _list(self, name: str, reason: str) -> None:
        """Add a line to rejected.csv, unless a killed listener came as far as that."""
        number, case = name.split("_")
        row = (str(int(number)), case, reason, RESEARCH_ONLY)
        if row in self._listed:
            return
        with open(self.folder / "rejected.csv", "a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            if file.tell() == 0:
                writer.writerow(_COLUMNS)
            writer.writerow(row)
            file.flush()
            os.fsync(file.fileno())
        settle(self.folder)
        self._listed.add(row)

    def _read_rejected(self) -> set[tuple[str, ...]]:
        """The lines of rejected.csv, of which the last may have been cut short: it is cut off."""
        path = self.folder / "rejected.csv"
        if not path.is_file():
            return set()
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            os.truncate(path, len(whole))
        return {tuple(row) for row in csv.reader(whole.decode("utf-8").splitlines())}

    def _refuse_foreign(self) -> None:
        """Refuse a folder whose films would be processed and deleted although no listener received them."""
        foreign = [*self._names(), *self.folder.glob("rejected.csv")]
        if foreign and not (self.folder / _LAST_NUMBER).is_file():
            raise Refusal(
                f"{shown(self.folder)} holds films or a rejected.csv, and no listener worked there",
                missing=shown(self.folder / _LAST_NUMBER),
                do="choose another folder",
            )

    def _read_number(self) -> int:
        digits = os.pread(self._numbers, 9, 0)
        return int(digits) if digits.isdigit() else 0

    def _names(self) -> Iterator[str]:
        for folder in (self.inbox, self.outbox, self.rejected):
            yield from (path.stem for path in folder.glob(f"{_NAMES}.*"))


def label(name: str) -> str:
    """A film as people are told of it."""
    number, case = name.split("_")
    return f"{int(number)} ({case})"


def case_of(path: Path) -> str:
    """Pseudonym of the film that a result is of."""
    return path.name[:_CASE_LENGTH]
