"""Films by DICOM: they are received, processed in order of arrival, and what was found is sent on.

    inbox/<number>_<case>.dcm     films that were received and are not finished
    outbox/<number>_<case>.json   films that were processed, and the objects that are to be sent
    rejected/, rejected.csv       films that could not be read, objects that were refused for good, and why

The disk is the only memory: a film is in the inbox before its sender is told so, leaves it when the
destination has all that was made of it, and a listener that is started on the folder goes on from what lies
there. So a film may be processed and sent twice, but never lost; twice is harmless, since the same film and
the same system give the same objects. The inbox, the rejected films and the objects hold the patients'
identity; file names, rejected.csv and what is printed do not.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import queue
import re
import shutil
import signal
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

import pydicom
import tyro
from pydicom import uid
from pydicom.pixels import get_decoder

from common import artefacts
from common.artefacts import pseudonym, shown, whole_file, workspace
from common.config import Gpu, System, flag
from common.data.dicom import PLUGINS
from common.data.faults import FilmFault
from common.prediction import RESEARCH_ONLY
from common.refusal import Refusal

if TYPE_CHECKING:
    from pynetdicom.association import Association
    from pynetdicom.events import Event
    from pynetdicom.transport import ThreadedAssociationServer

Process = Callable[[Path, Path], Sequence[Path]]  # see `Listener`

FOLDER = "step3_testing/prediction/listener"
_NAMES = "[0-9]" * 9 + "_c*"  # of a film, without suffix: its number in order of arrival, and its pseudonym
_COLUMNS = ("number", "case", "reason", "note")
_MB = 2**20
_PDU = 2**17  # bytes of a protocol data unit: the largest that dcmtk knows
_LONGEST_PDU = 2 * _PDU  # an association request may be longer than what follows it
_AT_ONCE = 64  # films whose objects go over one association
_TRIES = 3  # of an object that its destination refuses, or of a film at which the code fails
_DEATHS = 5  # of the whole process at one film, after which the film is put aside
_LONGEST_WAIT = 60.0  # seconds between two tries
_REPORT_SECONDS = 600.0
_TICK = 0.2  # seconds until a signal is heeded

# Answers to C-STORE (PS3.4 B.2.3)
_SUCCESS, _OUT_OF_RESOURCES, _CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000


# --- the command line ------------------------------------------------------------------------------


@dataclass(frozen=True)
class ListenOptions:
    """Who may send films, where results go, and by what they are found."""

    gpu: Gpu = "0"
    caller: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """AE title of a device that may send films; give the flag once for each. At least one is needed."""
    destination: flag(
        str, "archive that gets the results, as AE_TITLE@HOST:PORT", "none, they only lie in the folder", "AE"
    ) = None
    folder: flag(str, "where films wait and results lie", FOLDER, "PATH") = None
    ae_title: str = "PTX"
    """Our own AE title; a caller must call it."""
    host: str = "127.0.0.1"
    """Address to listen on. Beyond this machine, only in a network that you trust: DICOM sends films
    unencrypted, and anybody can claim an AE title."""
    port: int = 11112
    """TCP port to listen on."""
    system: flag(System, "system to use", "eff, or the bundle's") = None
    bundle: flag(
        str, "file made by export.sh; without it the system trained in this workspace", "none", "FILE"
    ) = None
    backend: Literal["torch", "openvino"] = "torch"
    """What computes; openvino is faster on a CPU (pip install openvino)."""
    largest_film: int = 256
    """MB; a larger one is refused."""
    keep_free: int = 1024
    """MB of the disk to keep free: with less, films are refused (status A700) and their senders keep them."""
    associations: int = 8
    """Callers served at the same time."""
    idle: float = 60.0
    """Seconds after which a caller that says nothing is cut off."""


@dataclass(frozen=True)
class Destination:
    """Where results are sent.

    Attributes:
        ae_title: As it wants to be called.
        host: Name or address.
        port: TCP port.
    """

    ae_title: str
    host: str
    port: int

    @classmethod
    def of(cls, text: str) -> Destination:
        """From `AE_TITLE@HOST:PORT`.

        Raises:
            Refusal: It is not written so.
        """
        parts = re.fullmatch(r"([^@]+)@(.+):(\d{1,5})", text)
        if not parts or not 0 < int(parts[3]) < 65536:
            raise Refusal(f"--destination {text} names no destination", do="write it as PACS@127.0.0.1:11113")
        return cls(_ae_title("--destination", parts[1]), parts[2].strip("[]"), int(parts[3]))

    def __str__(self) -> str:
        return f"{self.ae_title}@{self.host}:{self.port}"


def parse_listen(description: str, arguments: Sequence[str] | None = None) -> ListenOptions:
    """Read the command line of listen.

    Raises:
        Refusal: No caller is named, or a value that cannot be.
    """
    options = tyro.cli(ListenOptions, args=arguments, description=description)
    if not options.caller:
        raise Refusal(
            "nobody may send films", do="name each device that may: --caller AE_TITLE, once for each"
        )
    for name, titles in (("--caller", options.caller), ("--ae-title", (options.ae_title,))):
        for title in titles:
            _ae_title(name, title)
    if options.destination is not None:
        Destination.of(options.destination)
    for name in ("largest_film", "associations", "idle"):
        if not getattr(options, name) > 0:
            raise Refusal(f"--{name.replace('_', '-')} {getattr(options, name)} must be positive")
    if options.keep_free < 0:
        raise Refusal(f"--keep-free {options.keep_free} must not be negative")
    if not 0 <= options.port < 65536:
        raise Refusal(f"--port {options.port} is no port")
    if options.backend == "openvino" and options.gpu != "cpu":
        raise Refusal("--backend openvino computes on the CPU", do="name cpu as the device")
    return options


def _ae_title(name: str, title: str) -> str:
    """An AE title (PS3.5 6.2): at most 16 characters of ASCII, no backslash, not only spaces."""
    if not re.fullmatch(r"[ -\[\]-~]{1,16}", title) or not title.strip():
        raise Refusal(f"{name} {title!r} is no AE title", do="use 1 to 16 letters, digits and underscores")
    return title


def main(description: str, prepare: Callable[[ListenOptions], Process]) -> None:
    """Listen until SIGTERM or Ctrl-C.

    Args:
        description: Of the script.
        prepare: From the options, what processes a film; see `Listener`.

    Raises:
        Refusal: pynetdicom is missing, another process works in the folder, the port is in use; or of `prepare`.
    """
    options = parse_listen(description)
    _require_pynetdicom()
    _hush()
    listener = Listener(options)
    listener.run(prepare(options))


def _require_pynetdicom() -> None:
    try:
        import pynetdicom  # noqa: F401
    except ImportError:
        raise Refusal(
            "the listener needs pynetdicom, which is not installed", do="pip install 'pynetdicom>=3.0'"
        ) from None


def _hush() -> None:
    """Keep what libraries say off the terminal: they quote headers, which name patients."""
    from pynetdicom import _config

    _config.LOG_HANDLER_LEVEL = "none"
    for name in ("pynetdicom", "pydicom"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    warnings.simplefilter("ignore")
    threading.excepthook = lambda _: None  # of pynetdicom's threads; ours catch their own


class Log:
    """What the terminal is told, and counts of what happened; from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()

    def say(self, text: str) -> None:
        """Print a line. No text of a header may be in it."""
        with self._lock, suppress(OSError):  # a full disk below the log must not end the listener
            print(f"{datetime.now():%Y-%m-%d %H:%M:%S} {text}", flush=True)

    def count(self, what: str, number: int = 1) -> None:
        """Count something that happened."""
        with self._lock:
            self.counts[what] += number


# --- what lies on the disk -------------------------------------------------------------------------


class Spool:
    """The films of a folder, each in the state in which it is found.

    A film is known by its name: a number in order of arrival, and the pseudonym of its SOP Instance UID. No
    part of it is text that a sender chose.

    Args:
        folder: Made where it is missing.
        reserve: Bytes of the disk to keep free.

    Raises:
        Refusal: Another process works in the folder, or it cannot be written.
    """

    def __init__(self, folder: Path, reserve: int = 0) -> None:
        self.folder, self.reserve = folder, reserve
        self.inbox, self.outbox, self.rejected = (folder / name for name in ("inbox", "outbox", "rejected"))
        try:
            self._lock = artefacts.alone(folder / ".lock", f"another process works in {shown(folder)}")
            for each in (self.inbox, self.outbox, self.rejected):
                each.mkdir(mode=0o700, exist_ok=True)
            for left in folder.rglob(".*.tmp"):  # of a killed listener: nobody else writes here
                left.unlink(missing_ok=True)
            self._listed = self._read_rejected()
            self._numbers = os.open(folder / "last_number", os.O_RDWR | os.O_CREAT, 0o600)
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
        return sorted({path.stem for path in self.inbox.glob(f"{_NAMES}.dcm")} - set(self.deliveries()))

    def deliveries(self) -> list[str]:
        """Films whose objects wait to be sent, in order of arrival."""
        return sorted(path.stem for path in self.outbox.glob(f"{_NAMES}.json"))

    def keep(self, content: bytes, instance: str) -> str:
        """Take a film in: when this returns, it lies on the disk, whole. Not for two threads at once.

        Args:
            content: Of its file.
            instance: Its SOP Instance UID.

        Returns:
            Its name.

        Raises:
            Refusal: The disk is full, or will not be written.
            OSError: Likewise.
        """
        if shutil.disk_usage(self.folder).free - len(content) < self.reserve:
            raise Refusal("the disk is full")
        self._last += 1
        os.pwrite(self._numbers, f"{self._last:09d}".encode(), 0)
        name = f"{self._last:09d}_{pseudonym('case', instance)}"
        with whole_file(self.film(name)) as temporary:
            temporary.write_bytes(content)
        _to_disk(self.inbox)
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
            name: Of the film.
            objects: Files in the folder, to be sent.

        Raises:
            Refusal: The disk is full, or will not be written.
            OSError: Likewise.
        """
        if not objects:
            self.film(name).unlink(missing_ok=True)
            return
        for folder in {path.parent for path in objects}:
            _to_disk(folder)
        paths = [str(path.relative_to(self.folder)) for path in objects]
        artefacts.write_json(self.delivery(name), {"note": RESEARCH_ONLY, "objects": paths})
        _to_disk(self.outbox)

    def objects(self, name: str) -> list[Path]:
        """The objects of a film that are to be sent; none where one of them is gone."""
        try:
            content = json.loads(self.delivery(name).read_text(encoding="utf-8"))
            paths = [self.folder / path for path in content["objects"]]
        except (OSError, ValueError, KeyError, TypeError):
            return []
        return paths if all(path.is_file() for path in paths) else []

    def delivered(self, name: str) -> None:
        """A film is finished: its destination has all of its objects."""
        self.film(name).unlink(missing_ok=True)
        self.delivery(name).unlink(missing_ok=True)  # last: else the film would be processed again

    def forget(self, name: str) -> None:
        """The objects of a film are gone: it is to be processed again."""
        self.delivery(name).unlink(missing_ok=True)

    def reject(self, name: str, reason: str) -> None:
        """A film cannot be processed: list it, and put it aside.

        Raises:
            OSError: The disk is full, or will not be written.
        """
        self._list(name, reason)
        os.replace(self.film(name), self.rejected / f"{name}.dcm")

    def refuse(self, name: str, reason: str) -> None:
        """The destination will not take an object of a film: list it, and put the delivery aside.

        Raises:
            OSError: The disk is full, or will not be written.
        """
        self._list(name, reason)
        os.replace(self.delivery(name), self.rejected / f"{name}.json")
        self.film(name).unlink(missing_ok=True)

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

    def _read_number(self) -> int:
        digits = os.pread(self._numbers, 9, 0)
        return int(digits) if digits.isdigit() else 0

    def _names(self) -> Iterator[str]:
        for folder in (self.inbox, self.outbox, self.rejected):
            yield from (path.stem for path in folder.glob(f"{_NAMES}.*"))


def case_of(film: Path) -> str:
    """The pseudonym of a film in the inbox; the same whenever the same film is sent."""
    return film.stem.split("_")[1]


def _to_disk(folder: Path) -> None:
    """What was renamed in a folder is so after a power failure, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _waits(first: float) -> Iterator[float]:
    """Seconds to wait between tries, growing."""
    wait = first
    while True:
        yield wait
        wait = min(2 * wait, _LONGEST_WAIT)


# --- sending ---------------------------------------------------------------------------------------


class _Away(Refusal):
    """The destination takes nothing now; the message says why."""


@dataclass
class _Delivery:
    """Objects of a film that are to be sent, and how often that failed."""

    name: str
    objects: list[Path]
    failures: int = 0
    refusals: int = 0


class Courier:
    """Sends the objects of films to their destination, in order of arrival, for as long as it takes.

    An object at which the association breaks goes behind the others; one that is refused three times is put
    aside.

    Args:
        spool: Where they lie.
        destination: Where to.
        ae_title: Our own.
        log: Told of it.
        first_wait: Seconds before the second try.
    """

    def __init__(
        self, spool: Spool, destination: Destination, ae_title: str, log: Log, first_wait: float = 1.0
    ) -> None:
        self._spool, self._destination, self._ae_title, self._log = spool, destination, ae_title, log
        self._first_wait = first_wait
        self._stop = threading.Event()
        self._new: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._waiting: list[_Delivery] = []
        self._away = ""

    def put(self, name: str) -> None:
        """Send the objects of a film."""
        self._new.put(name)

    def stop(self) -> None:
        """Finish the object at hand and return from `run`."""
        self._stop.set()
        self._new.put(None)

    def run(self) -> None:
        """Send until `stop` is called."""
        waits = _waits(self._first_wait)
        while not self._stop.is_set():
            self._collect()
            left = len(self._waiting)
            if self._waiting and not self._send_some():
                if len(self._waiting) < left:
                    waits = _waits(self._first_wait)
                self._stop.wait(next(waits))
            else:
                waits = _waits(self._first_wait)

    def _collect(self) -> None:
        """Take over what is new; wait for it where there is nothing else to do."""
        with suppress(queue.Empty):
            while (name := self._new.get(block=not self._waiting)) is not None:
                self._waiting.append(_Delivery(name, self._spool.objects(name)))

    def _send_some(self) -> bool:
        """Send over one association; whether nothing failed."""
        chosen = sorted(self._waiting, key=lambda each: (each.failures + each.refusals, each.name))[:_AT_ONCE]
        failed = False
        try:
            association = self._associate([path for each in chosen for path in each.objects])
            try:
                for delivery in chosen:
                    if self._stop.is_set():
                        break
                    failed |= not self._send(association, delivery)
            finally:
                association.release()
        except (Refusal, OSError) as error:
            reason = _plain(error)
            if reason != self._away:
                self._log.say(
                    f"{self._destination} takes no results now: {reason}; those of {len(self._waiting)} films wait"
                )
            self._away = reason
            return False
        if self._away:
            self._log.say(f"{self._destination} takes results again")
            self._away = ""
        return not failed

    def _associate(self, objects: Sequence[Path]) -> Association:
        """An association for these objects; not established where the destination takes none of their kinds."""
        from pynetdicom import AE

        ae = AE(self._ae_title)
        ae.connection_timeout, ae.acse_timeout, ae.dimse_timeout, ae.network_timeout = 10, 30, 60, 60
        for sop_class, syntaxes in sorted({_context(path) for path in objects} - {None}):
            ae.add_requested_context(sop_class, list(syntaxes))
        if not ae.requested_contexts:
            ae.add_requested_context(uid.SecondaryCaptureImageStorage)
        to = self._destination
        association = ae.associate(to.host, to.port, ae_title=to.ae_title)
        if not association.is_established and not association.rejected_contexts:
            raise _Away("it rejects the association" if association.is_rejected else "it cannot be reached")
        return association

    def _send(self, association: Association, delivery: _Delivery) -> bool:
        """Send the objects of a film; whether all were taken, or are put aside.

        Raises:
            _Away: The destination takes nothing now.
        """
        reason = "an object is gone" if not delivery.objects else ""
        for path in list(delivery.objects):
            try:
                reason = self._send_object(association, path)
            except _Away:
                delivery.failures += 1
                raise
            if reason:
                break
            delivery.objects.remove(path)
            self._log.count("sent")
        if not reason:
            self._spool.delivered(delivery.name)
        else:
            delivery.refusals += 1
            if delivery.refusals < _TRIES:
                return False
            self._spool.refuse(delivery.name, f"not sent: {reason}")
            self._log.count("not sent")
            self._log.say(f"film {_number(delivery.name)} not sent: {reason}")
        self._waiting.remove(delivery)
        return True

    def _send_object(self, association: Association, path: Path) -> str:
        """Send an object; returns why it was refused, `""` where it was taken."""
        from pynetdicom.status import code_to_category

        kind = "object"
        try:
            dataset = pydicom.dcmread(path)
            kind = uid.UID(dataset.SOPClassUID).name
            status = association.send_c_store(dataset)
        except RuntimeError:  # no association
            if association.accepted_contexts:
                raise _Away("the association broke") from None
            return f"the destination takes no {kind}"
        except ValueError:  # no context for it
            return f"the destination takes no {kind}"
        except Exception as error:  # of a file that somebody changed
            return f"an {kind} cannot be sent ({type(error).__name__})"
        if "Status" not in status:
            raise _Away("the association broke")
        if 0xA700 <= status.Status <= 0xA7FF:
            raise _Away("it is out of resources")
        if code_to_category(status.Status) in ("Success", "Warning"):
            return ""
        return f"the destination refuses a {kind} (status {status.Status:04X})"


def _context(path: Path) -> tuple[str, tuple[str, ...]] | None:
    """SOP class and transfer syntaxes by which an object can be sent; None where it cannot be read."""
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        sop_class, syntax = str(header.SOPClassUID), header.file_meta.TransferSyntaxUID
    except Exception:  # of a file that somebody changed
        return None
    plain = (str(uid.ExplicitVRLittleEndian), str(uid.ImplicitVRLittleEndian))
    return sop_class, plain if syntax in plain else (str(syntax),)


# --- receiving and processing ----------------------------------------------------------------------


class Listener:
    """Receives, processes and sends films.

    Args:
        options: Of the command line.
        first_wait: Seconds before the second try of what failed.

    Raises:
        Refusal: Another process works in the folder, or it cannot be written.
    """

    def __init__(self, options: ListenOptions, first_wait: float = 1.0) -> None:
        self.options, self._first_wait = options, first_wait
        self.log = Log()
        self.port = options.port
        folder = Path(options.folder).absolute() if options.folder else workspace() / FOLDER
        self.spool = Spool(folder, options.keep_free * _MB)
        self._receiving = threading.Lock()
        self._films: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._largest = options.largest_film * _MB
        self._held: WeakKeyDictionary[Association, int] = WeakKeyDictionary()
        self._courier = None
        if options.destination:
            to = Destination.of(options.destination)
            self._courier = Courier(self.spool, to, options.ae_title, self.log, first_wait)
        self._threads: list[threading.Thread] = []

    def run(self, process: Process) -> None:
        """Listen until SIGTERM or Ctrl-C; a second one ends the process at once.

        Args:
            process: As for `start`.

        Raises:
            Refusal: The port cannot be listened on.
        """
        asked = []

        def ask(number: int, _: object) -> None:
            asked.append(number)
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, ask)
        self.start(process)
        said, at = Counter(self.log.counts), time.monotonic()
        while not asked and self._failure is None:
            time.sleep(_TICK)
            if time.monotonic() - at > _REPORT_SECONDS:
                if self.log.counts != said:
                    self.log.say(self.summary())
                said, at = Counter(self.log.counts), time.monotonic()
        self.log.say("ending: no more films are received, the one at hand is finished")
        self.stop()

    def start(self, process: Process) -> None:
        """Go on with what lies in the folder, and receive.

        Args:
            process: `process(film, folder)` reads the DICOM file `film` (`case_of` gives its pseudonym), writes
                what it finds into `folder`, whole files only, and returns the DICOM objects among them that are
                to be sent. It raises FilmFault where the film cannot be read; a Refusal or an OSError is a full
                disk, which is waited for; anything else is a bug, which costs this film only.

        Raises:
            Refusal: The port cannot be listened on.
        """
        self._process = process
        for name in self.spool.deliveries():
            if not self.spool.objects(name) and self.spool.film(name).is_file():
                self.spool.forget(name)
            elif self._courier:
                self._courier.put(name)
        left = self.spool.films()
        for name in left:
            self._films.put(name)
        self._server = self._listen()
        options, to = self.options, self.options.destination
        self.log.say(
            f"{options.ae_title} listens on {options.host}:{self.port} for {', '.join(options.caller)}; "
            f"results lie in {shown(self.spool.folder)}{f' and go to {to}' if to else ''}; {RESEARCH_ONLY}"
        )
        waiting = len(self.spool.deliveries())
        if left or waiting:
            self.log.say(f"from before: {len(left)} films to process, results of {waiting} to send")
        for work in (self._work, self._courier.run if self._courier else None):
            if work:
                thread = threading.Thread(target=self._guarded, args=(work,), daemon=True)
                thread.start()
                self._threads.append(thread)

    def stop(self) -> None:
        """Receive no more, finish the film and the object at hand, and say what became of all.

        Raises:
            BaseException: What ended a thread of this listener before.
        """
        self._server.shutdown()
        for association in self._server.active_associations:
            association.abort(block=False)
        self._stop.set()
        self._films.put(None)
        if self._courier:
            self._courier.stop()
        for thread in self._threads:
            thread.join()
        self.log.say(self.summary())
        with self._receiving:
            self.spool.close()
        if self._failure is not None:
            raise self._failure

    def summary(self) -> str:
        """What became of all films since the start, and what waits now."""
        counts = self.log.counts
        return (
            f"{counts['received']} films received, {counts['processed']} processed, "
            f"{counts['rejected']} rejected, {counts['sent']} objects sent; "
            f"{len(self.spool.films())} films wait to be processed, results of "
            f"{len(self.spool.deliveries())} to be sent; {counts['refused']} films and "
            f"{counts['turned away']} callers refused, {counts['not sent']} not sent"
        )

    def _guarded(self, work: Callable[[], None]) -> None:
        """A thread that fails ends the listener: one that receives and does nothing more is of no use."""
        try:
            work()
        except BaseException as error:
            self._failure = error

    # --- receiving, in threads of pynetdicom ---

    def _listen(self) -> ThreadedAssociationServer:
        from pynetdicom import AE, evt
        from pynetdicom.sop_class import Verification

        options = self.options
        ae = AE(options.ae_title)
        ae.require_called_aet, ae.require_calling_aet = True, list(options.caller)
        ae.maximum_associations, ae.maximum_pdu_size = options.associations, _PDU
        ae.network_timeout = ae.dimse_timeout = options.idle
        ae.acse_timeout = min(options.idle, 10)
        for sop_class in _image_classes():
            ae.add_supported_context(sop_class, _syntaxes())
        ae.add_supported_context(Verification)
        handlers = [
            (evt.EVT_CONN_OPEN, self._on_connection),
            (evt.EVT_REJECTED, self._on_rejection),
            (evt.EVT_PDU_RECV, self._on_pdu),
            (evt.EVT_C_STORE, self._on_film),
        ]
        try:
            server = ae.start_server((options.host, options.port), block=False, evt_handlers=handlers)
        except OSError as error:
            self.spool.close()
            raise Refusal(
                f"cannot listen on {options.host}:{options.port}",
                found=error.strerror or error,
                do="end what listens there, or choose another --port",
            ) from None
        self.port = server.server_address[1]
        return server

    def _on_connection(self, event: Event) -> None:
        """Cut off who is silent within a message, or claims one longer than we agreed to.

        pynetdicom would wait, and take the memory, before it knows who calls.
        """
        connected = event.assoc.dul.socket
        connected.socket.settimeout(self.options.idle)
        receive = connected.recv

        def receive_some(count: int) -> bytearray:
            if count > _LONGEST_PDU:
                raise OSError("too long")
            return receive(count)

        connected.recv = receive_some

    def _on_rejection(self, event: Event) -> None:
        caller, called = event.assoc.requestor.ae_title, event.assoc.requestor.primitive.called_ae_title
        if called != self.options.ae_title.strip():
            why = f"it calls {called!r}"
        elif caller not in [title.strip() for title in self.options.caller]:
            why = "it is none of the callers"
        else:
            why = "too many callers at the same time"
        self.log.count("turned away")
        self.log.say(f"association of {caller!r} rejected: {why}")

    def _on_pdu(self, event: Event) -> None:
        """Drop what a message holds beyond the largest film; `_on_film` refuses the rest."""
        for item in getattr(event.pdu, "presentation_data_value_items", ()):
            value = item.presentation_data_value
            held = self._held.get(event.assoc, 0)
            if held > self._largest:
                item.presentation_data_value = value[:1]
            # the second bit of the control header (PS3.8 E.2): the last fragment
            self._held[event.assoc] = 0 if value[0] & 2 else held + len(value) - 1
        if event.assoc.dimse.msg_queue.qsize() > 1:  # sent without waiting for an answer, which nobody may
            event.assoc.abort(block=False)

    def _on_film(self, event: Event) -> int:
        """Answer C-STORE; success only when the film lies on the disk."""
        if len(event.request.DataSet.getbuffer()) > self._largest:
            self.log.count("refused")
            self.log.say(f"a film of more than {self.options.largest_film} MB refused")
            return _CANNOT_UNDERSTAND
        content, instance = event.encoded_dataset(), str(event.request.AffectedSOPInstanceUID)
        try:
            with self._receiving:
                self._films.put(self.spool.keep(content, instance))
        except (Refusal, OSError) as error:
            self.log.count("refused")
            self.log.say(f"a film refused: {_plain(error)}")
            return _OUT_OF_RESOURCES
        self.log.count("received")
        return _SUCCESS

    # --- processing, in one thread ---

    def _work(self) -> None:
        for name in iter(self._films.get, None):
            if self._stop.is_set():
                break
            self._finish(name, self.spool.begin(name))
        self.spool.rest()

    def _finish(self, name: str, deaths: int) -> None:
        """Process a film, and try again for as long as the disk is full."""
        start = time.monotonic()
        for tries, wait in enumerate(_waits(self._first_wait), start=1):
            try:
                reason = f"the listener ended {deaths} times at it" if deaths >= _DEATHS else ""
                reason = reason or self._process_film(name, tries)
                if reason:
                    self.spool.reject(name, reason)
                break
            except Exception as error:  # a full disk, or what may not happen again
                self.log.say(f"film {_number(name)} waits {wait:.0f} s: {_plain(error)}")
            if self._stop.wait(wait):
                return
        seconds = time.monotonic() - start
        self.log.count("rejected" if reason else "processed")
        said = f"rejected: {reason}" if reason else _decision(self.spool.folder, name)
        self.log.say(f"film {_number(name)} {said}, {seconds:.1f} s")

    def _process_film(self, name: str, tries: int) -> str:
        """Process a film; returns why that cannot be done, `""` where it was."""
        try:
            objects = self._process(self.spool.film(name), self.spool.folder)
        except FilmFault as fault:
            return str(fault)
        except (Refusal, OSError, MemoryError):
            raise
        except Exception as error:
            if tries < _TRIES:
                raise
            return f"could not be processed ({_plain(error)})"
        self.spool.processed(name, objects if self._courier else ())
        if self._courier and objects:
            self._courier.put(name)
        return ""


def _image_classes() -> list[str]:
    """The SOP classes of images, radiographs and others: a film may come as any of them."""
    from pynetdicom import AllStoragePresentationContexts

    classes = [context.abstract_syntax for context in AllStoragePresentationContexts]
    return [each for each in classes if "Image Storage" in each.name]


def _syntaxes() -> list[str]:
    """The transfer syntaxes that the intake decodes."""
    compressed = [syntax for syntax in PLUGINS if get_decoder(syntax).is_available]
    return [*uid.UncompressedTransferSyntaxes, *compressed]


def _number(name: str) -> str:
    """A film as the terminal names it."""
    number, case = name.split("_")
    return f"{int(number)} ({case})"


def _decision(folder: Path, name: str) -> str:
    """What was found, where `process` wrote that down as predict.sh does."""
    try:
        content: dict[str, Any] = json.loads((folder / "findings" / f"{name.split('_')[1]}.json").read_text())
        return str(content["finding"]["decision"])
    except (OSError, ValueError, KeyError, TypeError):
        return "processed"


def _plain(error: Exception) -> str:
    """An error without text of a header: only our own refusals and the system's words are safe."""
    if isinstance(error, Refusal):
        return ", ".join(str(part) for part in (error.what, error.details.get("found")) if part)
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} at {Path(frames[-1].filename).name}:{frames[-1].lineno}"
