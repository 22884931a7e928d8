"""Films by DICOM: they are received, processed in order of arrival, and what was found is sent on.

A film lies on the disk before its sender is told that it was taken, and stays there until the destination has
all that was made of it (`spool.py`). So whenever the listener is killed, a film may be processed and sent
twice, but never lost; twice is harmless, since the same film and the same system give the same objects.
"""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import cv2
from pydicom import uid
from pydicom.pixels import get_decoder

from common.command_line import Destination
from common.films.decode import PLUGINS
from common.films.fault import FilmFault
from common.films.own_outputs import RESEARCH_ONLY
from common.paths import shown, workspace
from common.prediction.finding_files import remove_old_findings
from common.prediction.listener.log import Log, hush, plain
from common.prediction.listener.send import Sender, growing
from common.prediction.listener.spool import Spool, case_of, label
from common.refusal import Refusal

if TYPE_CHECKING:
    from pynetdicom.association import Association
    from pynetdicom.events import Event
    from pynetdicom.transport import ThreadedAssociationServer
from common.command_line import ListenOptions
from common.stages import LISTENER_FOLDER

Process = Callable[[Path, Path], Sequence[Path]]  # see `Listener.start`
_MB = 2**20
_PDU = 2**17  # bytes of a protocol data unit: the largest that dcmtk knows
_LONGEST_PDU = 2 * _PDU  # an association request may be longer than what follows it
_TRIES = 3  # of a film at which the code fails
_DEATHS = 5  # of the whole process at one film, after which the film is put aside
_REPORT_SECONDS = 600.0
_CLEANING_SECONDS = 3600.0  # between two looks for old results
_DAY = 86400.0  # seconds
_MOST_SILENT = 32  # connections whose callers have not named themselves
_MACHINE = re.compile(
    r"CUDA|cuDNN|cuBLAS|(out of|insufficient) memory|bad.?alloc|(can't|cannot|failed to) allocate",
    re.IGNORECASE,
)
_TICK = 0.2  # seconds until a signal is heeded

_VERIFICATION = "1.2.840.10008.1.1"  # SOP class of C-ECHO (PS3.4 A.4)

# Answers to C-STORE (PS3.4 B.2.3)
_SUCCESS, _OUT_OF_RESOURCES, _CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000


def run_listener(options: ListenOptions, load: Callable[[ListenOptions], Process]) -> None:
    """Listen until SIGTERM or Ctrl-C.

    Args:
        options: Options of the command line.
        load: Function of the options that returns what processes a film; see `Listener.start`.

    Raises:
        Refusal: pynetdicom is missing, another process works in the folder, or the port is in use; or of
            `load`.
    """
    _require_pynetdicom()
    hush()
    os.umask(0o077)  # nearly all that is written holds the patients' identity
    listener = Listener(options)
    listener.run(load(options))


def _require_pynetdicom() -> None:
    try:
        import pynetdicom  # noqa: F401
    except ImportError:
        raise Refusal(
            "the listener needs pynetdicom, which is not installed", do="pip install 'pynetdicom>=3.0'"
        ) from None


class Listener:
    """Receives, processes and sends films.

    Args:
        options: Options of the command line.
        first_wait: Seconds before the second try of what failed.

    Raises:
        Refusal: Another process works in the folder, or it cannot be written.
    """

    def __init__(self, options: ListenOptions, first_wait: float = 1.0) -> None:
        self.options, self._first_wait = options, first_wait
        self.log = Log()
        self.port = options.port
        folder = Path(options.folder).absolute() if options.folder else workspace() / LISTENER_FOLDER
        self.spool = Spool(folder, options.keep_free * _MB)
        self._receiving = threading.Lock()
        self._films: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._largest = options.largest_film * _MB
        # Weak, so that associations that ended drop out by themselves.
        self._held: WeakKeyDictionary[Association, int] = WeakKeyDictionary()
        self._sender: Sender | None = None
        if options.destination:
            to = Destination.of(options.destination)
            self._sender = Sender(self.spool, to, options.ae_title, self.log, first_wait, options.give_up)
        self._threads: list[threading.Thread] = []
        self._cleaning_due = 0.0

    def run(self, process: Process) -> None:
        """Listen until SIGTERM or Ctrl-C; a second one ends the process at once.

        Args:
            process: Function that processes a film; see `start`.

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
            process: `process(film, folder)` reads the DICOM file `film`, `<number>_<case>.dcm`, writes what
                it finds into `folder`, whole files only, and returns the DICOM objects among them that are
                to be sent. It raises FilmFault where the film cannot be read; a fault of the machine
                (`of_the_machine`) is waited for, with this film and all behind it; anything else is a bug,
                which costs this film only.

        Raises:
            Refusal: The port cannot be listened on.
        """
        self._process = process
        self.spool.mend()
        left, unsent = self.spool.films(), self.spool.deliveries()
        for name in left:
            self._films.put(name)
        if self._sender:
            for name in unsent:
                self._sender.put(name)
        self._server = self._listen()
        options, to = self.options, self.options.destination
        self.log.say(
            f"{options.ae_title} listens on {options.host}:{self.port} for {', '.join(options.caller)}; "
            f"results lie in {shown(self.spool.folder)}{f' and go to {to}' if to else ''}; {RESEARCH_ONLY}"
        )
        if left or unsent:
            self.log.say(f"from before: {len(left)} films to process, results of {len(unsent)} to send")
        for work in [self._work, *([self._sender.run] if self._sender else [])]:
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
        self._films.put(None)  # wakes the thread that waits for a film
        if self._sender:
            self._sender.stop()
        for thread in self._threads:
            thread.join()
        self.log.say(self.summary())
        with self._receiving:  # not while a film is being kept
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

        options = self.options

        class Entity(AE):
            """Counts those who have named themselves: connections of strangers lock nobody out."""

            @property
            def active_associations(self) -> list[Association]:
                own = threading.current_thread()  # the association that is being negotiated
                return [each for each in super().active_associations if each.is_established or each is own]

        ae = Entity(options.ae_title)
        ae.require_called_aet, ae.require_calling_aet = True, list(options.caller)
        ae.maximum_associations, ae.maximum_pdu_size = options.associations, _PDU
        ae.network_timeout = ae.dimse_timeout = options.idle
        ae.acse_timeout = min(options.idle, 10)  # a caller names itself at once, or is none
        for sop_class in _image_classes():
            ae.add_supported_context(sop_class, _syntaxes())
        ae.add_supported_context(_VERIFICATION)
        handlers: list[evt.EventHandlerType] = [
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
        assert server is not None  # it would be of a call that blocks
        self.port = server.server_address[1]
        return server

    def _on_connection(self, event: Event) -> None:
        """Cut off who is silent within a message, or claims one longer than we agreed to.

        pynetdicom would wait, and take the memory, before it knows who calls.
        """
        connected = event.assoc.dul.socket
        if connected is None or connected.socket is None:
            return  # it went away meanwhile
        self._cut_off_the_silent()
        connected.socket.settimeout(self.options.idle)
        receive = connected.recv

        def receive_some(nr_bytes: int) -> bytearray:
            if nr_bytes > _LONGEST_PDU:
                raise OSError("too long")
            return receive(nr_bytes)

        connected.recv = receive_some  # type: ignore[method-assign] # no other place to refuse a length

    def _cut_off_the_silent(self) -> None:
        """End the oldest of too many connections whose callers have not named themselves.

        A named caller does so at once; each connection takes two threads and a file.
        """
        silent = [each for each in self._server.active_associations if each.requestor.primitive is None]
        for association in silent[:-_MOST_SILENT]:
            connected = association.dul.socket
            if connected is not None and connected.socket is not None:
                with suppress(OSError):  # it went away meanwhile
                    connected.socket.shutdown(socket.SHUT_RDWR)

    def _on_rejection(self, event: Event) -> None:
        requestor = event.assoc.requestor
        caller, called = requestor.ae_title, requestor.primitive and requestor.primitive.called_ae_title
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
        from pynetdicom.dimse_primitives import C_STORE

        request = event.request
        assert isinstance(request, C_STORE)  # pynetdicom has seen to both
        assert request.DataSet is not None
        if len(request.DataSet.getbuffer()) > self._largest:
            self.log.count("refused")
            self.log.say(f"a film of more than {self.options.largest_film} MB refused")
            return _CANNOT_UNDERSTAND
        content, instance = event.encoded_dataset(), str(request.AffectedSOPInstanceUID)
        try:
            with self._receiving:
                self._films.put(self.spool.keep(content, instance))
        except (Refusal, OSError) as error:
            self.log.count("refused")
            self.log.say(f"a film refused: {plain(error)}")
            return _OUT_OF_RESOURCES
        self.log.count("received")
        return _SUCCESS

    # --- processing, in one thread ---

    def _work(self) -> None:
        for name in iter(self._next_film, None):
            if self._stop.is_set():
                break
            self._finish(name, self.spool.begin(name))
        self.spool.rest()

    def _next_film(self) -> str | None:
        """Wait for the next film, and delete old results meanwhile; None: there is none any more."""
        while True:
            self._delete_old_results()
            with suppress(queue.Empty):
                return self._films.get(timeout=_CLEANING_SECONDS)

    def _delete_old_results(self) -> None:
        """Delete the results that are older than was asked for, at most once in an hour.

        In this thread, since it is the one that writes results.
        """
        if not self.options.keep_days or time.monotonic() < self._cleaning_due:
            return
        self._cleaning_due = time.monotonic() + _CLEANING_SECONDS
        before = time.time() - self.options.keep_days * _DAY
        try:
            number = remove_old_findings(self.spool.folder, before, self.spool.unfinished())
        except (Refusal, OSError) as error:
            self.log.say(f"old results cannot be deleted: {plain(error)}")
            return
        if number:
            self.log.say(f"results of {number} films deleted that were older than --keep-days")

    def _finish(self, name: str, deaths: int) -> None:
        """Process a film, and try again for as long as the machine cannot."""
        start = time.monotonic()
        for tries, wait in enumerate(growing(self._first_wait), start=1):
            try:
                objects: Sequence[Path] = ()
                # A film at which the process dies, as for want of memory, would hold up all behind it.
                reason = f"the listener ended {deaths} times at it" if deaths >= _DEATHS else ""
                if not reason:
                    objects, reason = self._process_film(name, tries)
                if reason:
                    self.spool.reject(name, reason)
                break
            except Exception as error:
                who = "and all behind it wait" if of_the_machine(error) else "waits"
                self.log.say(f"film {label(name)} {who} {wait:.0f} s: {plain(error)}")
            if self._stop.wait(wait):
                return
        seconds = time.monotonic() - start
        self.log.count("rejected" if reason else "processed")
        said = f"rejected: {reason}" if reason else _decision(self.spool.folder, name, objects)
        self.log.say(f"film {label(name)} {said}, {seconds:.1f} s")

    def _process_film(self, name: str, tries: int) -> tuple[Sequence[Path], str]:
        """Process a film; returns its objects, and why that cannot be done, `""` where it was."""
        try:
            objects = self._process(self.spool.film(name), self.spool.folder)
        except FilmFault as fault:
            return (), str(fault)
        except Exception as error:
            if of_the_machine(error) or tries < _TRIES:
                raise
            return (), f"could not be processed ({plain(error)})"
        self.spool.processed(name, objects if self._sender else ())
        if self._sender and objects:
            self._sender.put(name)
        return objects, ""


def of_the_machine(error: Exception) -> bool:
    """Whether the machine is at fault and not the film: then the next film would fail as well.

    PyTorch, OpenVINO and OpenCV have no types of their own for a lost GPU or for memory that is short.
    """
    if isinstance(error, RuntimeError | cv2.error):
        return bool(_MACHINE.search(str(error)))
    return isinstance(error, Refusal | OSError | MemoryError)


def _image_classes() -> list[str]:
    """The SOP classes of images, radiographs and others: a film may come as any of them."""
    from pynetdicom import AllStoragePresentationContexts

    classes = [context.abstract_syntax for context in AllStoragePresentationContexts]
    return [each for each in classes if each is not None and "Image Storage" in each.name]


def _syntaxes() -> list[str]:
    """The transfer syntaxes that the intake decodes: another plug-in of pydicom is of no use to it."""
    compressed = [
        syntax for syntax, plugin in PLUGINS.items() if plugin in get_decoder(syntax).available_plugins
    ]
    return [*uid.UncompressedTransferSyntaxes, *compressed]


def _decision(folder: Path, name: str, objects: Sequence[Path]) -> str:
    """What was found, where `process` wrote that down as predict.sh does."""
    received = name.split("_")[1]
    case = case_of(objects[0]) if objects else received
    second = "" if case == received else f", another film under a SOP Instance UID that came before: {case}"
    try:
        content = json.loads((folder / "findings" / f"{case}.json").read_text())
        return str(content["finding"]["decision"]) + second
    except (OSError, ValueError, KeyError, TypeError):
        return "processed" + second
