"""Sends what was found to its destination by C-STORE, however often that takes."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pydicom
from pydicom import uid

from common.prediction.listener.log import Log, plain
from common.prediction.listener.spool import Spool, label
from common.refusal import Refusal

if TYPE_CHECKING:
    from pynetdicom.association import Association
    from pynetdicom.events import Event
from common.command_line import Destination

_AT_ONCE = 64  # films whose objects go over one association
_TRIES = 3  # of an object that the destination refuses
_LONGEST_WAIT = 60.0  # seconds between two tries


def growing(first: float) -> Iterator[float]:
    """Seconds to wait between tries, growing."""
    wait = first
    while True:
        yield wait
        wait = min(2 * wait, _LONGEST_WAIT)


class _Away(Refusal):
    """The destination takes nothing now; the message says why."""


@dataclass
class _Delivery:
    """Objects of a film that are to be sent, and how often that failed."""

    name: str
    objects: list[Path]
    failures: int = 0
    refusals: int = 0


class Sender:
    """Sends the objects of films to their destination, in order of arrival, for as long as it takes.

    An object at which the association breaks goes behind the others; one that is refused three times is put
    aside.

    Args:
        spool: Spool that the objects lie in.
        destination: Program that the objects are sent to.
        ae_title: AE title of this sender.
        log: Log of what was sent and what was not.
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
        waits = growing(self._first_wait)
        while not self._stop.is_set():
            self._collect()
            left = len(self._waiting)
            if self._waiting and not self._send_some():
                if len(self._waiting) < left:
                    waits = growing(self._first_wait)
                self._stop.wait(next(waits))
            else:
                waits = growing(self._first_wait)

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
            reason = plain(error)
            if reason != self._away:
                waiting = f"those of {len(self._waiting)} films wait"
                self._log.say(f"{self._destination} takes no results now: {reason}; {waiting}")
            self._away = reason
            return False
        if self._away:
            self._log.say(f"{self._destination} takes results again")
            self._away = ""
        return not failed

    def _associate(self, objects: Sequence[Path]) -> Association:
        """An association for these objects; without contexts where the destination takes none of them."""
        from pynetdicom import AE, evt

        ae = AE(self._ae_title)
        ae.connection_timeout, ae.acse_timeout, ae.dimse_timeout, ae.network_timeout = 10, 30, 60, 60
        for sop_class, syntaxes in sorted({found for path in objects if (found := _context(path))}):
            ae.add_requested_context(sop_class, list(syntaxes))
        if not ae.requested_contexts:
            ae.add_requested_context(uid.SecondaryCaptureImageStorage)
        to = self._destination
        association = ae.associate(
            to.host, to.port, ae_title=to.ae_title, evt_handlers=[(evt.EVT_CONN_OPEN, _send_at_once)]
        )
        if not association.is_established and not association.rejected_contexts:
            raise _Away("it rejects the association" if association.is_rejected else "it cannot be reached")
        return association

    def _send(self, association: Association, delivery: _Delivery) -> bool:
        """Send the objects of a film; whether all were taken, or are put aside.

        Raises:
            _Away: The destination takes nothing now.
        """
        reason = ""
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
            self._log.say(f"film {label(delivery.name)} not sent: {reason}")
        self._waiting.remove(delivery)
        return True

    def _send_object(self, association: Association, path: Path) -> str:
        """Send an object; returns why it was refused, `""` where it was taken."""
        from pynetdicom.status import code_to_category

        kind = "an object"
        try:
            dataset = pydicom.dcmread(path)
            kind = f"a {uid.UID(dataset.SOPClassUID).name}"
            status = association.send_c_store(dataset)
        except RuntimeError:  # no association
            if association.accepted_contexts:
                raise _Away("the association broke") from None
            return f"the destination does not take {kind}"
        except ValueError:  # no context for it
            return f"the destination does not take {kind}"
        except Exception as error:  # of a file that somebody changed
            return f"{kind} cannot be sent ({type(error).__name__})"
        if "Status" not in status:
            raise _Away("the association broke")
        if 0xA700 <= status.Status <= 0xA7FF:
            raise _Away("it is out of resources")
        if code_to_category(status.Status) in ("Success", "Warning"):
            return ""
        return f"the destination refuses {kind} (status {status.Status:04X})"


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
