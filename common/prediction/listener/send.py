"""Sends what was found to its destination by C-STORE, however often that takes."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pydicom
from pydicom import uid

from common.prediction.listener.log import Log, plain
from common.prediction.listener.spool import Spool, case_of, label
from common.refusal import Refusal

if TYPE_CHECKING:
    from pynetdicom.association import Association
    from pynetdicom.events import Event
from common.command_line import Destination

_AT_ONCE = 64  # films whose objects go over one association
_TRIES = 3  # of an object that the destination refuses for good
_LONGEST_WAIT = 60.0  # seconds between two tries to reach the destination
_LONGEST_PAUSE = 600.0  # seconds between two tries of an object that it refuses for now
_DAY = 86400.0  # seconds

# Answers to C-STORE (PS3.4 B.2.3, PS3.7 annex C)
_DUPLICATE = 0x0111  # it has the object: the same film and system give the same one
_OUT_OF_RESOURCES = range(0xA700, 0xA800)
_FOR_GOOD = (0x0106, 0x0117, 0x0122, *range(0xA900, 0xAA00))  # what no later try changes


def growing(first: float, longest: float = _LONGEST_WAIT) -> Iterator[float]:
    """Seconds to wait between tries, growing."""
    wait = first
    while True:
        yield wait
        wait = min(2 * wait, longest)


class _Away(Refusal):
    """The destination takes nothing now; the message says why."""


class _NotTaken(Exception):
    """The destination does not take an object.

    Args:
        reason: Why, without text of a header.
        for_good: Whether no later try can change it.
    """

    def __init__(self, reason: str, for_good: bool) -> None:
        super().__init__(reason)
        self.reason, self.for_good = reason, for_good


@dataclass
class _Delivery:
    """Objects of a film that are to be sent, and how often that failed.

    Attributes:
        name: Name of the film.
        place: Name under which it came first, which is its place in the order of arrival.
        objects: Paths of the objects that the destination has not taken.
        pauses: Seconds to wait after each try that failed, growing.
        failures: Tries that failed.
        refusals: Path of an object -> how often it was refused for good.
        due: Time of the next try by the monotonic clock, seconds.
    """

    name: str
    place: str
    objects: list[Path]
    pauses: Iterator[float]
    failures: int = 0
    refusals: Counter[Path] = field(default_factory=Counter)
    due: float = 0.0


class Sender:
    """Sends the objects of films to their destination, in order of arrival, for as long as it takes.

    Each object stands for itself: one that is not taken holds up neither those of its film nor of others.
    It is put aside when it was refused three times for good, or for now and too many days have passed.

    Args:
        spool: Spool that the objects lie in.
        destination: Program that the objects are sent to.
        ae_title: AE title of this sender.
        log: Log of what was sent and what was not.
        first_wait: Seconds before the second try.
        give_up: Days after which an object is put aside that is still not taken; 0: never.
    """

    def __init__(
        self,
        spool: Spool,
        destination: Destination,
        ae_title: str,
        log: Log,
        first_wait: float = 1.0,
        give_up: float = 0.0,
    ) -> None:
        self._spool, self._destination, self._ae_title, self._log = spool, destination, ae_title, log
        self._first_wait, self._give_up = first_wait, give_up
        self._stop = threading.Event()
        self._new: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._waiting: dict[str, _Delivery] = {}  # by the film that the objects are of
        self._away = self._told = ""

    def put(self, name: str) -> None:
        """Send the objects of a film."""
        self._new.put(name)

    def stop(self) -> None:
        """Finish the object at hand and return from `run`."""
        self._stop.set()
        self._new.put(None)

    def run(self) -> None:
        """Send until `stop` is called."""
        waits = growing(self._first_wait)
        while not self._stop.is_set():
            self._collect()
            sent, now = self._log.counts["sent"], time.monotonic()
            due = [each for each in self._waiting.values() if each.due <= now]
            # First what never failed: an object that is refused again and again holds nothing up.
            there = not due or self._send_some(sorted(due, key=lambda each: (each.failures, each.place)))
            if there or self._log.counts["sent"] > sent:
                waits = growing(self._first_wait)
            if not there:
                self._stop.wait(next(waits))

    def _collect(self) -> None:
        """Take over what is new; wait for it where there is nothing else to do now.

        A film that came again has the objects of the one before, under the same paths: they are sent once,
        in the place of the first.
        """
        with suppress(queue.Empty):
            while (name := self._new.get(timeout=self._idle())) is not None:
                objects = self._spool.objects(name)
                film = case_of(objects[0]) if objects else name
                earlier = self._waiting.pop(film, None)
                place = earlier.place if earlier else name
                pauses = growing(self._first_wait, _LONGEST_PAUSE)
                self._waiting[film] = _Delivery(name, place, objects, pauses)
                if earlier and earlier.name != name:
                    self._waiting[film].failures = earlier.failures
                    self._spool.delivered(earlier.name)

    def _idle(self) -> float | None:
        """Seconds until something is to be tried again; None where nothing waits."""
        if not self._waiting:
            return None
        return max(min(each.due for each in self._waiting.values()) - time.monotonic(), 0)

    def _send_some(self, due: Sequence[_Delivery]) -> bool:
        """Send over one association; whether the destination was there."""
        chosen = due[:_AT_ONCE]
        try:
            association = self._associate([path for each in chosen for path in each.objects])
            try:
                for delivery in chosen:
                    if self._stop.is_set():
                        break
                    self._send(association, delivery)
            finally:
                association.release()
        except (Refusal, OSError) as error:
            reason = plain(error)
            if reason != self._away:
                waiting = f"those of {len(self._waiting)} films wait"
                self._log.say(f"{self._destination} takes no results now: {reason}; {waiting}")
            self._away = reason
            with suppress(Refusal, OSError):  # a full disk: next time
                self._put_old_aside(due, reason)
            return False
        if self._away:
            self._log.say(f"{self._destination} takes results again")
            self._away = ""
        return True

    def _associate(self, objects: Sequence[Path]) -> Association:
        """An association for these objects; without contexts where the destination takes none of them."""
        from pynetdicom import AE, evt

        ae = AE(self._ae_title)
        ae.connection_timeout, ae.acse_timeout, ae.dimse_timeout, ae.network_timeout = 10, 30, 60, 60
        for sop_class, syntaxes in sorted({found for path in objects if (found := _context(path))}):
            ae.add_requested_context(sop_class, list(syntaxes))
        if not ae.requested_contexts:  # an association cannot be asked for without one
            ae.add_requested_context(uid.SecondaryCaptureImageStorage)
        to = self._destination
        association = ae.associate(
            to.host, to.port, ae_title=to.ae_title, evt_handlers=[(evt.EVT_CONN_OPEN, _send_at_once)]
        )
        if not association.is_established and not association.rejected_contexts:
            raise _Away("it rejects the association" if association.is_rejected else "it cannot be reached")
        return association

    def _send(self, association: Association, delivery: _Delivery) -> None:
        """Send the objects of a film that the destination has not.

        Raises:
            _Away: The destination takes nothing now.
        """
        for path in list(delivery.objects):
            try:
                self._send_object(association, path)
                self._log.count("sent")
                delivery.objects.remove(path)
            except _Away:
                delivery.failures += 1
                raise
            except _NotTaken as fault:
                delivery.refusals[path] += fault.for_good
                if delivery.refusals[path] >= _TRIES or self._is_old(delivery):
                    self._put_aside(delivery, path, fault.reason)
                elif not fault.for_good and fault.reason != self._told:
                    self._told = fault.reason
                    self._log.say(f"film {label(delivery.name)} waits: {fault.reason}")
        if delivery.objects:
            delivery.failures += 1
            delivery.due = time.monotonic() + next(delivery.pauses)
        self._finish(delivery)

    def _finish(self, delivery: _Delivery) -> None:
        """A film whose objects were all taken or put aside waits no more."""
        if not delivery.objects:
            self._spool.delivered(delivery.name)
            self._waiting = {film: each for film, each in self._waiting.items() if each is not delivery}

    def _put_old_aside(self, due: Sequence[_Delivery], reason: str) -> None:
        for delivery in filter(self._is_old, due):
            for path in list(delivery.objects):
                self._put_aside(delivery, path, reason)
            self._finish(delivery)

    def _is_old(self, delivery: _Delivery) -> bool:
        return 0 < self._give_up * _DAY < self._spool.age(delivery.name)

    def _put_aside(self, delivery: _Delivery, path: Path, reason: str) -> None:
        self._spool.refuse(delivery.name, path, f"not sent: {reason}")
        delivery.objects.remove(path)
        self._log.count("not sent")
        self._log.say(f"film {label(delivery.name)} not sent: {reason}")

    def _send_object(self, association: Association, path: Path) -> None:
        """Send an object.

        Raises:
            _Away: The destination takes nothing now.
            _NotTaken: It does not take this object.
        """
        from pynetdicom.status import code_to_category

        kind = "an object"
        try:
            dataset = pydicom.dcmread(path)
            kind = f"a {uid.UID(dataset.SOPClassUID).name}"
            status = association.send_c_store(dataset)
        except RuntimeError:  # no association
            if association.accepted_contexts:
                raise _Away("the association broke") from None
            raise _NotTaken(f"the destination does not take {kind}", for_good=True) from None
        except ValueError:  # no context for it
            raise _NotTaken(f"the destination does not take {kind}", for_good=True) from None
        except FileNotFoundError:  # its film came again, so that it is being written anew
            raise _NotTaken(f"{kind} is not there", for_good=False) from None
        except Exception as error:  # of a file that somebody changed
            raise _NotTaken(f"{kind} cannot be sent ({type(error).__name__})", for_good=True) from None
        if "Status" not in status:
            raise _Away("the association broke")
        code = int(status.Status)
        if code in _OUT_OF_RESOURCES:
            raise _Away("it is out of resources")
        if code != _DUPLICATE and code_to_category(code) not in ("Success", "Warning"):
            reason = f"the destination refuses {kind} (status {code:04X})"
            raise _NotTaken(reason, for_good=code in _FOR_GOOD)


def _send_at_once(event: Event) -> None:
    """Without this, each object waits 40 ms for the acknowledgement of the message before it."""
    connected = event.assoc.dul.socket
    if connected is not None and connected.socket is not None:
        connected.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _context(path: Path) -> tuple[str, tuple[str, ...]] | None:
    """SOP class and transfer syntaxes by which an object can be sent; None where it cannot be read."""
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        sop_class, syntax = str(header.SOPClassUID), header.file_meta.TransferSyntaxUID
    except Exception:  # of a file that somebody changed
        return None
    plain = (str(uid.ExplicitVRLittleEndian), str(uid.ImplicitVRLittleEndian))
    return sop_class, plain if syntax in plain else (str(syntax),)
