"""The DICOM listener: nothing that was accepted is lost, and nobody comes in who is not named."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

from common import start
from common.command_line import Destination, ListenOptions, parse_listen
from common.films.own_outputs import RESEARCH_ONLY
from common.prediction.listener import receive
from common.prediction.listener.receive import Listener
from common.prediction.listener.spool import Spool
from common.pseudonyms import pseudonym
from common.refusal import Refusal
from tests.conftest import PATIENCE, REPOSITORY, SECRETS, wait_for
from tests.listener_process import result_uid, stand_in

try:
    import pynetdicom
    from pynetdicom import AE, evt
except ImportError:
    pynetdicom = None

networked = pytest.mark.skipif(pynetdicom is None, reason="pynetdicom is not installed")
MODALITY, ARCHIVE = "MODALITY1", "PACS"
SUCCESS, OUT_OF_RESOURCES, CANNOT_UNDERSTAND, WRONG_CLASS = 0x0000, 0xA700, 0xC000, 0xA900


FAULTS = {  # of a film that storescu sends all the same -> the reason
    "no pixels": "holds no picture",
    "short": "is cut short",
    "bits": "holds pixels of 32 bits",
    "jpeg": "JPEG Baseline",
}


# --- films, a listener, an archive -----------------------------------------------------------------


def film(number: int, fault: str = "") -> Dataset:
    """A small film of which the header says all that must not be printed."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    made.SOPClassUID = uid.ComputedRadiographyImageStorage
    made.SOPInstanceUID = f"1.2.826.0.1.{number}"
    made.StudyInstanceUID, made.SeriesInstanceUID = f"1.2.826.0.2.{number}", f"1.2.826.0.3.{number}"
    made.PatientID, made.Modality = f"PAT-{number}", "CR"
    for name, value in SECRETS.items():
        setattr(made, name, value)
    made.Rows, made.Columns, made.SamplesPerPixel = 64, 64, 1
    made.PhotometricInterpretation = "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 8, 8, 7, 0
    pixels = np.random.default_rng(number).integers(0, 255, (64, 64), dtype=np.uint8)
    made.PixelData = pixels.tobytes()
    if fault == "no pixels":
        del made.PixelData
    elif fault == "short":
        made.PixelData = made.PixelData[:1000]
    elif fault == "bits":
        made.BitsAllocated, made.PixelData = 32, made.PixelData * 4
    elif fault == "jpeg":
        file = BytesIO()
        Image.fromarray(pixels).save(file, "JPEG")
        made.PixelData = encapsulate([file.getvalue()[:150]])
        made["PixelData"].VR = "OB"
        made.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    return made


def save(made: Dataset, path: Path) -> Path:
    made.save_as(path, enforce_file_format=True)
    return path


def _entity(title: str) -> AE:
    """An application entity that waits, however busy the machine is."""
    ae = AE(title)
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = PATIENCE
    return ae


class Archive:
    """Takes results, or does not: `answers` are the statuses of the first objects, then success."""

    def __init__(
        self,
        port: int = 0,
        answers: Sequence[int] = (),
        refused: Sequence[str] = (),
        classes: Sequence[str] = (uid.SecondaryCaptureImageStorage,),
        hangs_up_at: str = "",
    ) -> None:
        self.received: list[str] = []
        self.datasets: list[Dataset] = []
        self._answers, self._refused, self._hangs_up_at = list(answers), refused, hangs_up_at
        ae = _entity(ARCHIVE)
        for each in classes:
            ae.add_supported_context(each)
        ae.require_called_aet = True
        self.server = ae.start_server(
            ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )
        self.port = self.server.server_address[1]

    def _store(self, event: evt.Event) -> int:
        instance = str(event.request.AffectedSOPInstanceUID)
        if instance == self._hangs_up_at:
            event.assoc.abort()
            return SUCCESS
        if instance in self._refused:
            return WRONG_CLASS
        status = self._answers.pop(0) if self._answers else SUCCESS
        if status == SUCCESS or status & 0xF000 == 0xB000:
            self.datasets.append(event.dataset)
            self.received.append(instance)
        return status

    def close(self) -> None:
        threading.Thread(target=self.server.shutdown).start()  # which takes half a second


@contextmanager
def archive(**how: object) -> Iterator[Archive]:
    running = Archive(**how)
    try:
        yield running
    finally:
        running.close()


def options_of(folder: Path, to: Archive | int | None = None, **changes: object) -> ListenOptions:
    port = to.port if isinstance(to, Archive) else to
    destination = f"{ARCHIVE}@127.0.0.1:{port}" if port else None
    options = ListenOptions(caller=(MODALITY,), folder=str(folder), port=0, keep_free=0, idle=PATIENCE)
    return replace(options, destination=destination, **changes)


@contextmanager
def listening(
    folder: Path, to: Archive | int | None = None, process: Callable = stand_in, **changes: object
) -> Iterator[Listener]:
    listener = Listener(options_of(folder, to, **changes), first_wait=0.02)
    listener.start(process)
    try:
        yield listener
    finally:
        listener.stop()


@contextmanager
def set_at_last(event: threading.Event) -> Iterator[None]:
    """Else a test that fails would wait for the listener, which waits for the event."""
    try:
        yield
    finally:
        event.set()


def send(
    listener: Listener | Running, *films: Dataset, caller: str = MODALITY, called: str = "PTX"
) -> list[int]:
    """Send films over one association; their statuses, -1 where there was no answer."""
    ae = _entity(caller)
    for syntax in (uid.ExplicitVRLittleEndian, uid.JPEGBaseline8Bit):
        ae.add_requested_context(uid.ComputedRadiographyImageStorage, syntax)
    association = ae.associate("127.0.0.1", listener.port, ae_title=called)
    assert association.is_established
    statuses = [association.send_c_store(each).get("Status", -1) for each in films]
    association.release()
    return statuses


def done(listener: Listener) -> bool:
    """Whether nothing waits any more."""
    return not listener.spool.films() and not listener.spool.deliveries()


def rejected(folder: Path) -> list[dict[str, str]]:
    path = folder / "rejected.csv"
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- the command line ------------------------------------------------------------------------------


def test_command_line() -> None:
    options = parse_listen(
        "x", ["--gpu", "cpu", "--caller", "A", "--caller", "B", "--destination", "PACS@[::1]:104"]
    )
    assert options.caller == ("A", "B")
    assert (options.host, options.port, options.ae_title) == ("127.0.0.1", 11112, "PTX")
    assert Destination.of(options.destination) == Destination("PACS", "::1", 104)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nobody may send films"),
        (["--caller", "SEVENTEEN_LETTERS"], "no AE title"),
        (["--caller", "back\\slash"], "no AE title"),
        (["--caller", "  "], "no AE title"),
        (["--caller", "A", "--ae-title", "Jürgen"], "no AE title"),
        (["--caller", "A", "--destination", "PACS"], "names no destination"),
        (["--caller", "A", "--destination", "PACS@host:0"], "names no destination"),
        (["--caller", "A", "--destination", "PACS@host:65536"], "names no destination"),
        (["--caller", "A", "--port", "65536"], "no port"),
        (["--caller", "A", "--idle", "nan"], "must be positive"),
        (["--caller", "A", "--keep-free", "-1"], "must not be negative"),
        (["--caller", "A", "--give-up", "nan"], "must not be negative"),
        (["--caller", "A", "--keep-days", "-1"], "must not be negative"),
        (["--caller", "A", "--backend", "openvino"], "computes on the CPU"),
    ],
)
def test_command_line_that_cannot_be_is_refused(arguments: list[str], said: str) -> None:
    with pytest.raises(Refusal, match=said):
        parse_listen("x", arguments)


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, workspace: Path) -> None:
    monkeypatch.setitem(sys.modules, "pynetdicom", None)
    monkeypatch.setattr(sys, "argv", ["listen.py", "--caller", "A"])
    with pytest.raises(Refusal, match="pip install 'pynetdicom"):
        start.listen("x", lambda _: stand_in)


# --- receiving -------------------------------------------------------------------------------------


@networked
def test_film_is_processed_and_its_result_sent(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "listener"
    with archive() as pacs, listening(folder, pacs) as listener:
        assert send(listener, film(1), film(2, "short"), film(3)) == [SUCCESS] * 3
        wait_for(lambda: len(pacs.received) == 2 and done(listener))
    assert pacs.received == [result_uid("1.2.826.0.1.1"), result_uid("1.2.826.0.1.3")]
    case = pseudonym("case", "1.2.826.0.1.2")
    assert rejected(folder) == [
        {"number": "2", "case": case, "reason": "is cut short", "note": RESEARCH_ONLY}
    ]
    assert files(folder / "rejected") == [f"000000002_{case}.dcm"]
    assert files(folder / "inbox") == files(folder / "outbox") == []
    said = capsys.readouterr().out
    assert f"film 1 ({pseudonym('case', '1.2.826.0.1.1')}) negative" in said
    assert f"film 2 ({case}) rejected: is cut short" in said
    assert "3 films received, 2 processed, 1 rejected, 2 objects sent" in said
    assert RESEARCH_ONLY in said
    written = said + (folder / "rejected.csv").read_text() + " ".join(map(str, folder.rglob("*")))
    for secret in [*SECRETS.values(), "PAT-", "1.2.826"]:
        assert secret not in written


@networked
def test_film_lies_on_the_disk_before_its_sender_is_told(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done_so_far: list[str] = []
    fsync, rename = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        done_so_far.append(f"sync {'folder' if path.is_dir() else 'file'}")

    def renamed(old: Path, new: Path) -> None:
        rename(old, new)
        done_so_far.append("rename")

    go = threading.Event()

    def process(path: Path, folder: Path) -> list[Path]:
        go.wait(PATIENCE)
        return stand_in(path, folder)

    folder = tmp_path / "listener"
    pseudonym("case", "")  # which writes the workspace's key
    with listening(folder, process=process) as listener, set_at_last(go):
        monkeypatch.setattr(os, "fsync", synced)
        monkeypatch.setattr(os, "replace", renamed)
        assert send(listener, film(1)) == [SUCCESS]
        assert done_so_far == ["sync file", "rename", "sync folder"]
        kept = pydicom.dcmread(next((folder / "inbox").iterdir()))
        assert (kept.PatientID, kept.PixelData) == (film(1).PatientID, film(1).PixelData)
        go.set()
        wait_for(lambda: done(listener))
    assert files(folder / "inbox") == []  # without a destination it is finished when it was processed


@networked
def test_full_disk_is_told_to_the_sender(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "listener"
    go = threading.Event()

    def process(path: Path, folder: Path) -> list[Path]:
        go.wait(PATIENCE)
        return []

    with listening(folder, process=process, keep_free=10) as listener, set_at_last(go):
        with monkeypatch.context() as full:
            full.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10 * 2**20 + 4000))
            assert send(listener, film(1)) == [OUT_OF_RESOURCES]
        with monkeypatch.context() as full:

            def fsync(_: int) -> None:
                raise OSError(errno.ENOSPC, "No space left on device")

            full.setattr(os, "fsync", fsync)
            assert send(listener, film(2)) == [OUT_OF_RESOURCES]
        assert files(folder / "inbox") == []
        assert send(listener, film(3)) == [SUCCESS]
        assert len(files(folder / "inbox")) == 1
        assert listener.log.counts["refused"] == 2


@networked
def test_only_named_callers_come_in(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with listening(tmp_path / "listener", associations=1) as listener:

        def nobody_left() -> bool:  # who was turned away counts until his connection is closed
            return all(each.is_established for each in listener._server.active_associations)

        def reason(caller: str, called: str) -> tuple[int, int, int]:
            ae = _entity(caller)
            ae.add_requested_context(uid.ComputedRadiographyImageStorage)
            association = ae.associate("127.0.0.1", listener.port, ae_title=called)
            assert association.is_rejected
            answer = association.acceptor.primitive
            wait_for(nobody_left)
            return answer.result, answer.result_source, answer.diagnostic

        # PS3.8 9.3.4: permanent, by the user, calling or called AE title not recognised
        assert reason("STRANGER", "PTX") == (1, 1, 3)
        assert reason(MODALITY, "OTHER") == (1, 1, 7)
        ae = _entity(MODALITY)
        ae.add_requested_context("1.2.840.10008.1.1")
        echo = ae.associate("127.0.0.1", listener.port, ae_title="PTX")
        assert echo.send_c_echo().Status == SUCCESS
        assert reason(MODALITY, "PTX") == (2, 3, 2)  # transient: local limit exceeded
        echo.release()
        assert listener.log.counts["turned away"] == 3
    said = capsys.readouterr().out
    assert "'STRANGER' rejected: it is none of the callers" in said
    assert "'MODALITY1' rejected: it calls 'OTHER'" in said


@networked
def test_film_that_is_too_large_is_refused_and_takes_no_memory(workspace: Path, tmp_path: Path) -> None:
    large = film(1)
    large.Rows, large.Columns = 3000, 1000
    large.PixelData = bytes(3_000_000)
    held = []
    with listening(tmp_path / "listener", largest_film=1) as listener:
        on_film = listener._on_film
        listener._server.bind(
            evt.EVT_C_STORE,
            lambda event: held.append(len(event.request.DataSet.getvalue())) or on_film(event),
        )
        assert send(listener, large, film(2)) == [CANNOT_UNDERSTAND, SUCCESS]
        wait_for(lambda: done(listener))
    assert held[0] < 2**20 + 2**18
    assert rejected(tmp_path / "listener") == []


def _are_cut_off(listener: Listener, *openings: bytes) -> None:
    """The listener ends the connections of strangers who begin like this."""
    strangers = [socket.create_connection(("127.0.0.1", listener.port)) for _ in openings]
    for stranger, opening in zip(strangers, openings, strict=True):
        stranger.sendall(opening)
    for stranger in strangers:
        with stranger, suppress(ConnectionResetError):
            stranger.settimeout(PATIENCE)
            while stranger.recv(4096):
                pass


@networked
def test_who_speaks_no_dicom_is_cut_off(workspace: Path, tmp_path: Path) -> None:
    two_gigabytes = b"\x01\x00\x7f\xff\xff\xff" + bytes(3000)  # of which it would wait for the rest
    with listening(tmp_path / "listener", idle=2 * PATIENCE) as listener:
        _are_cut_off(listener, two_gigabytes, b"GET / HTTP/1.1\r\n\r\n")
        assert send(listener, film(1)) == [SUCCESS]


@networked
def test_who_does_not_end_what_he_begins_is_cut_off(workspace: Path, tmp_path: Path) -> None:
    with listening(tmp_path / "listener", idle=0.5) as listener:
        _are_cut_off(listener, b"\x01\x00\x00\x00\x10\x00" + bytes(10), b"\x01\x00", b"")
        wait_for(lambda: not listener._server.active_associations)


@networked
def test_silent_connections_of_strangers_lock_nobody_out(workspace: Path, tmp_path: Path) -> None:
    with (
        listening(tmp_path / "listener", associations=1, idle=2 * PATIENCE) as listener,
        ExitStack() as open_,
    ):
        strangers = [
            open_.enter_context(socket.create_connection(("127.0.0.1", listener.port))) for _ in range(40)
        ]
        assert send(listener, film(1)) == [SUCCESS]
        strangers[0].settimeout(PATIENCE)  # the first ones were cut off: each takes two threads
        with suppress(ConnectionResetError):
            assert strangers[0].recv(1) == b""
        wait_for(lambda: len(listener._server.active_associations) <= 40)
        for stranger in strangers:
            stranger.close()
        wait_for(lambda: not listener._server.active_associations)


@networked
def test_transfer_syntax_without_a_decoder_is_not_offered(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pydicom itself decodes RLE, but the intake does not decode by that plug-in
    monkeypatch.setitem(receive.PLUGINS, uid.RLELossless, "not installed")
    with listening(tmp_path / "listener") as listener:
        ae = _entity(MODALITY)
        for syntax in (uid.RLELossless, uid.JPEG2000Lossless, uid.MPEG2MPML, uid.ExplicitVRLittleEndian):
            ae.add_requested_context(uid.ComputedRadiographyImageStorage, syntax)
        association = ae.associate("127.0.0.1", listener.port, ae_title="PTX")
        accepted = {context.transfer_syntax[0] for context in association.accepted_contexts}
        association.release()
    assert accepted == {uid.JPEG2000Lossless, uid.ExplicitVRLittleEndian}


@networked
def test_caller_that_does_not_wait_for_answers_is_cut_off(workspace: Path, tmp_path: Path) -> None:
    with listening(tmp_path / "listener") as listener, listener._receiving:
        ae = _entity(MODALITY)
        ae.add_requested_context(uid.ComputedRadiographyImageStorage)
        association = ae.associate("127.0.0.1", listener.port, ae_title="PTX")
        request = pynetdicom.dimse_primitives.C_STORE()
        request.MessageID, request.Priority = 1, 2
        request.AffectedSOPClassUID = uid.ComputedRadiographyImageStorage
        for number in range(20):
            request.AffectedSOPInstanceUID = f"1.2.{number + 1}"
            request.DataSet = BytesIO(bytes(1000))
            association.dimse.send_msg(request, 1)
        wait_for(lambda: association.is_aborted)


# --- processing ------------------------------------------------------------------------------------


@networked
def test_film_received_twice_gives_the_same_object(workspace: Path, tmp_path: Path) -> None:
    with archive() as pacs, listening(tmp_path / "listener", pacs) as listener:
        send(listener, film(1), film(1))
        wait_for(lambda: len(pacs.received) == 2)
    assert len(set(pacs.received)) == 1
    assert pacs.datasets[0] == pacs.datasets[1]


@networked
def test_bug_costs_its_film_only_and_is_told_without_the_header(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = []

    def process(path: Path, folder: Path) -> list[Path]:
        patient = pydicom.dcmread(path).PatientID
        tried.append(patient)
        if patient == "PAT-1":
            raise KeyError(patient)
        return stand_in(path, folder)

    folder = tmp_path / "listener"
    with archive() as pacs, listening(folder, pacs, process) as listener:
        send(listener, film(1), film(2))
        wait_for(lambda: pacs.received)
    assert tried == ["PAT-1"] * 3 + ["PAT-2"]
    (row,) = rejected(folder)
    assert re.fullmatch(r"could not be processed \(KeyError at test_listener.py:\d+\)", row["reason"])
    assert "PAT-1" not in capsys.readouterr().out


@networked
def test_full_disk_is_waited_for(workspace: Path, tmp_path: Path) -> None:
    errors = [Refusal("cannot write x"), OSError(errno.ENOSPC, "full"), *[Refusal("cannot write x")] * 2]

    def process(path: Path, folder: Path) -> list[Path]:
        if errors:
            raise errors.pop()
        return stand_in(path, folder)

    folder = tmp_path / "listener"
    with archive() as pacs, listening(folder, pacs, process) as listener:
        send(listener, film(1), film(2))
        wait_for(lambda: len(pacs.received) == 2)
    assert pacs.received == [result_uid("1.2.826.0.1.1"), result_uid("1.2.826.0.1.2")]
    assert rejected(folder) == []


@networked
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
        MemoryError(),
        cv2.error("OpenCV: (-4:Insufficient memory) Failed to allocate 9 bytes"),
        OSError(errno.EIO, "Input/output error"),
    ],
)
def test_fault_of_the_machine_stops_the_queue_and_costs_no_film(
    workspace: Path, tmp_path: Path, error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    tried: list[str] = []
    mended = threading.Event()

    def process(path: Path, folder: Path) -> list[Path]:
        tried.append(path.name)
        if not mended.is_set():
            raise error
        return stand_in(path, folder)

    folder = tmp_path / "listener"
    with archive() as pacs, listening(folder, pacs, process) as listener:
        assert send(listener, film(1), film(2), film(3)) == [SUCCESS] * 3
        wait_for(lambda: len(tried) > 4)
        assert len(set(tried)) == 1
        assert len(files(folder / "inbox")) == 3
        mended.set()
        wait_for(lambda: done(listener))
    assert pacs.received == [result_uid(f"1.2.826.0.1.{number}") for number in (1, 2, 3)]
    assert rejected(folder) == []
    assert "and all behind it wait" in capsys.readouterr().out


@networked
def test_listener_without_its_worker_ends(workspace: Path, tmp_path: Path) -> None:
    listener = Listener(options_of(tmp_path / "listener"))
    listener.start(stand_in)
    listener.spool.begin = None
    send(listener, film(1))
    wait_for(lambda: listener._failure)
    with pytest.raises(TypeError):
        listener.stop()


# --- sending ---------------------------------------------------------------------------------------


@networked
def test_refused_object_is_listed_and_the_others_go_on(workspace: Path, tmp_path: Path) -> None:
    folder = tmp_path / "listener"
    bad = result_uid("1.2.826.0.1.1")
    with archive(refused=[bad], answers=[0xB000]) as pacs, listening(folder, pacs) as listener:
        send(listener, film(1), film(2), film(3))
        wait_for(lambda: done(listener))
    assert pacs.received == [result_uid("1.2.826.0.1.2"), result_uid("1.2.826.0.1.3")]  # one with a warning
    (row,) = rejected(folder)
    assert row["reason"] == (
        "not sent: the destination refuses a Secondary Capture Image Storage (status A900)"
    )
    (left,) = files(folder / "rejected")
    for name in json.loads((folder / "rejected" / left).read_text())["objects"]:
        assert pydicom.dcmread(folder / name).SOPInstanceUID == bad
    assert files(folder / "inbox") == []


@networked
def test_kind_that_the_destination_does_not_take_is_listed(workspace: Path, tmp_path: Path) -> None:
    folder = tmp_path / "listener"
    with archive(classes=["1.2.840.10008.1.1"]) as pacs, listening(folder, pacs) as listener:
        send(listener, film(1))
        wait_for(lambda: done(listener))
    (row,) = rejected(folder)
    assert row["reason"] == "not sent: the destination does not take a Secondary Capture Image Storage"


def both_objects(path: Path, folder: Path) -> list[Path]:
    """The stand-in's object, and before it one of another SOP class."""
    (capture,) = stand_in(path, folder)
    made = pydicom.dcmread(capture)
    made.SOPClassUID, made.SOPInstanceUID = uid.SegmentationStorage, f"{made.SOPInstanceUID}.1"
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    return [save(made, folder / "dicom" / f"{path.stem.split('_')[1]}_segmentation.dcm"), capture]


@networked
@pytest.mark.parametrize("how", ["no context", "status"])
def test_destination_that_takes_no_segmentations_gets_the_others(
    workspace: Path, tmp_path: Path, how: str
) -> None:
    folder = tmp_path / "listener"
    captures = [result_uid(f"1.2.826.0.1.{number}") for number in (1, 2)]
    takes = {"classes": [uid.SecondaryCaptureImageStorage]}
    if how == "status":
        both = [uid.SecondaryCaptureImageStorage, uid.SegmentationStorage]
        takes = {"classes": both, "refused": [f"{each}.1" for each in captures]}
    with archive(**takes) as pacs, listening(folder, pacs, both_objects) as listener:
        send(listener, film(1), film(2))
        wait_for(lambda: done(listener))
    assert pacs.received == captures
    assert len(rejected(folder)) == 2
    assert all("a Segmentation Storage" in row["reason"] for row in rejected(folder))
    for path in (folder / "rejected").iterdir():  # moved back into the outbox, these are sent again
        (name,) = json.loads(path.read_text())["objects"]
        assert name.endswith("_segmentation.dcm")
        path.rename(folder / "outbox" / path.name)
    with archive(classes=[uid.SegmentationStorage]) as pacs, listening(folder, pacs) as listener:
        wait_for(lambda: done(listener))
    assert pacs.received == [f"{each}.1" for each in captures]


@networked
@pytest.mark.parametrize("status", [0x0110, 0x0124, CANNOT_UNDERSTAND, OUT_OF_RESOURCES])
def test_refusal_that_may_pass_is_waited_for_over_restarts(
    workspace: Path, tmp_path: Path, status: int
) -> None:
    folder = tmp_path / "listener"
    for answers in (5, 6):
        with archive(answers=[status] * answers) as pacs, listening(folder, pacs) as listener:
            if answers == 5:
                send(listener, film(1))
                wait_for(lambda pacs=pacs: len(pacs._answers) < 3)
                assert len(files(folder / "inbox")) == 1
                pacs._answers += [status] * 10_000
            else:
                wait_for(lambda listener=listener: done(listener))
    assert pacs.received == [result_uid("1.2.826.0.1.1")]
    assert rejected(folder) == []


@networked
def test_refused_object_does_not_hold_up_others(workspace: Path, tmp_path: Path) -> None:
    folder = tmp_path / "listener"
    with archive() as pacs, listening(folder, pacs) as listener:
        store = pacs._store
        busy = result_uid("1.2.826.0.1.1")
        pacs.server.bind(
            evt.EVT_C_STORE,
            lambda event: CANNOT_UNDERSTAND if event.request.AffectedSOPInstanceUID == busy else store(event),
        )
        send(listener, *map(film, range(1, 6)))
        wait_for(lambda: len(pacs.received) == 4)
        wait_for(lambda: len(listener.spool.deliveries()) == 1)
    assert len(files(folder / "inbox")) == 1


@networked
@pytest.mark.parametrize("answers", [0x0110, OUT_OF_RESOURCES, None])
def test_what_is_refused_for_too_long_is_put_aside(
    workspace: Path, tmp_path: Path, answers: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "listener"
    age = [3600.0]
    monkeypatch.setattr(Spool, "age", lambda *_: age[0])
    with ExitStack() as running:
        pacs = running.enter_context(archive(answers=[answers or 0] * 1000))
        to: Archive | int = pacs
        if answers is None:  # nobody is there
            with socket.socket() as sock:
                sock.bind(("127.0.0.1", 0))
                to = sock.getsockname()[1]
        listener = running.enter_context(listening(folder, to, give_up=0.5))
        send(listener, film(1))
        wait_for(lambda: len(files(folder / "outbox")) == 1)
        assert rejected(folder) == []
        age[0] = 50_000.0  # more than half a day
        wait_for(lambda: done(listener))
    (row,) = rejected(folder)
    assert row["reason"].startswith("not sent: ")
    (left,) = files(folder / "rejected")
    (name,) = json.loads((folder / "rejected" / left).read_text())["objects"]
    assert (folder / name).is_file()
    assert files(folder / "inbox") == []


@networked
def test_object_that_the_destination_has_is_sent(workspace: Path, tmp_path: Path) -> None:
    folder = tmp_path / "listener"
    with archive(answers=[0x0111]) as pacs, listening(folder, pacs) as listener:
        send(listener, film(1))
        wait_for(lambda: done(listener))
        assert listener.log.counts["sent"] == 1
    assert rejected(folder) == []


@networked
def test_film_that_comes_many_times_is_one_result(workspace: Path, tmp_path: Path) -> None:
    folder = tmp_path / "listener"
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with listening(folder, port) as listener:
        assert send(listener, *[film(1)] * 60, film(2)) == [SUCCESS] * 61
        wait_for(lambda: not listener.spool.films())
        wait_for(lambda: len(listener.spool.deliveries()) == 2)
        with archive(port=port) as pacs:
            wait_for(lambda: done(listener))
        assert listener.log.counts["not sent"] == 0
    assert sorted(pacs.received) == sorted(result_uid(f"1.2.826.0.1.{number}") for number in (1, 2))
    assert rejected(folder) == []
    assert files(folder / "inbox") == []


@networked
def test_film_that_comes_again_keeps_its_place(workspace: Path, tmp_path: Path) -> None:
    """As the last film that a killed listener acknowledged, where it had kept one more: both come again."""
    folder = tmp_path / "listener"
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with listening(folder, port) as listener:
        assert send(listener, *map(film, (1, 2, 1, 3))) == [SUCCESS] * 4
        wait_for(lambda: listener.log.counts["processed"] == 4)
        with archive(port=port) as pacs:
            wait_for(lambda: done(listener))
    assert pacs.received == [result_uid(f"1.2.826.0.1.{number}") for number in (1, 2, 3)]


@networked
def test_destination_out_of_resources_is_waited_for(workspace: Path, tmp_path: Path) -> None:
    folder = tmp_path / "listener"
    with archive(answers=[OUT_OF_RESOURCES] * 4) as pacs, listening(folder, pacs) as listener:
        send(listener, film(1))
        wait_for(lambda: done(listener))
    assert pacs.received == [result_uid("1.2.826.0.1.1")]
    assert rejected(folder) == []


@networked
def test_object_at_which_the_destination_breaks_does_not_hold_up_others(
    workspace: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "listener"
    fatal = result_uid("1.2.826.0.1.1")
    with archive(hangs_up_at=fatal) as pacs, listening(folder, pacs) as listener:
        send(listener, film(1), film(2), film(3))
        wait_for(lambda: len(pacs.received) == 2)
        wait_for(lambda: len(listener.spool.deliveries()) == 1)
    with archive() as pacs, listening(folder, pacs):
        wait_for(lambda: pacs.received == [fatal])
    assert rejected(folder) == []


@pytest.fixture
def dcmtk() -> Callable[[str], str]:
    """Paths of dcmtk's programs, not of those in the environment: pynetdicom has some of the same names."""
    folders = os.environ["PATH"].split(os.pathsep)
    path = os.pathsep.join(folder for folder in folders if not Path(folder).is_relative_to(sys.prefix))
    if not shutil.which("storescu", path=path):
        pytest.skip("dcmtk is not installed")
    return lambda name: shutil.which(name, path=path)


@networked
def test_destination_may_be_away(workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "listener"
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with listening(folder, port) as listener:
        send(listener, film(1), film(2))
        wait_for(lambda: len(files(folder / "outbox")) == 2)
        wait_for(lambda: "it cannot be reached" in capsys.readouterr().out)
    assert len(files(folder / "inbox")) == 2  # until the destination has all
    with listening(folder, port) as listener:
        send(listener, film(3))
        wait_for(lambda: len(files(folder / "outbox")) == 3)
        with archive(port=port) as pacs:
            wait_for(lambda: done(listener))
    assert pacs.received == [result_uid(f"1.2.826.0.1.{number}") for number in (1, 2, 3)]
    assert files(folder / "inbox") == []


@networked
def test_archive_of_another_make_takes_the_results(
    workspace: Path, tmp_path: Path, dcmtk: Callable[[str], str]
) -> None:
    folder, taken = tmp_path / "listener", tmp_path / "taken"
    taken.mkdir()
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    command = [dcmtk("storescp"), "--aetitle", ARCHIVE, "--output-directory", str(taken), str(port)]
    storescp = subprocess.Popen(command)
    try:
        with listening(folder, port) as listener:
            send(listener, film(1), film(2))
            wait_for(lambda: done(listener), storescp)
    finally:
        storescp.kill()
        storescp.wait()
    expected = {result_uid(f"1.2.826.0.1.{number}") for number in (1, 2)}
    assert {pydicom.dcmread(path, force=True).SOPInstanceUID for path in taken.iterdir()} == expected


# --- what a kill leaves ----------------------------------------------------------------------------


@networked
def test_folder_and_port_are_of_one_listener(workspace: Path, tmp_path: Path) -> None:
    with listening(tmp_path / "listener") as listener:
        with pytest.raises(Refusal, match="another process works in"):
            Listener(options_of(tmp_path / "listener"))
        with pytest.raises(Refusal, match="cannot listen on"):
            Listener(options_of(tmp_path / "other", port=listener.port)).start(stand_in)
    Spool(tmp_path / "listener").close()


def _left(spool: Spool, number: int, fault: str = "") -> str:
    file = BytesIO()
    film(number, fault).save_as(file, enforce_file_format=True)
    return spool.keep(file.getvalue(), f"1.2.826.0.1.{number}")


@networked
def test_listener_goes_on_from_whatever_a_kill_left(workspace: Path, tmp_path: Path) -> None:
    folder = tmp_path / "listener"
    spool = Spool(folder)
    names = [_left(spool, number, "short" if number == 5 else "") for number in range(1, 6)]
    # 1 was sent, but its delivery is still there; 2 was processed; 3 likewise, and an object is gone;
    # 4 waits; 5 was listed, but not yet put aside
    for name in names[:3]:
        spool.processed(name, stand_in(spool.film(name), folder))
    spool.film(names[0]).unlink()
    spool.objects(names[2])[0].unlink()
    spool.reject(names[4], "is cut short")
    (folder / "rejected" / f"{names[4]}.dcm").rename(spool.film(names[4]))
    spool.close()
    with open(folder / "rejected.csv", "a") as file:
        file.write("4,c0123")  # cut short by the kill
    half = folder / "inbox" / ".000000006_c0000000000000000.dcm.77.tmp"
    half.write_bytes(b"half")
    with archive() as pacs, listening(folder, pacs) as listener:
        wait_for(lambda: done(listener))
        assert not half.exists()
        assert set(pacs.received) == {result_uid(f"1.2.826.0.1.{number}") for number in (1, 2, 3, 4)}
        send(listener, film(6))
        wait_for(lambda: done(listener) and len(pacs.received) == 5)
    assert [(row["number"], row["reason"]) for row in rejected(folder)] == [("5", "is cut short")]
    assert files(folder / "rejected") == [f"{names[4]}.dcm"]
    spool = Spool(folder)
    assert _left(spool, 7).startswith("000000007_")  # no number is used twice, though all films are gone
    spool.close()


@networked
def test_film_that_kills_the_process_again_and_again_is_put_aside(workspace: Path, tmp_path: Path) -> None:
    folder = tmp_path / "listener"
    spool = Spool(folder)
    fatal = _left(spool, 1)
    _left(spool, 2)
    assert [spool.begin(fatal) for _ in range(5)] == [0, 1, 2, 3, 4]
    spool.close()
    with archive() as pacs, listening(folder, pacs) as listener:
        wait_for(lambda: done(listener))
    assert pacs.received == [result_uid("1.2.826.0.1.2")]
    (row,) = rejected(folder)
    assert (row["number"], row["reason"]) == ("1", "the listener ended 5 times at it")


@networked
def test_orderly_end_is_no_death(workspace: Path, tmp_path: Path) -> None:
    at_hand = threading.Event()

    def process(_: Path, __: Path) -> list[Path]:
        at_hand.set()
        raise Refusal("cannot write x")

    folder = tmp_path / "listener"
    with listening(folder, process=process) as listener:
        send(listener, film(1))
        assert at_hand.wait(PATIENCE)
    spool = Spool(folder)
    (name,) = spool.films()
    assert spool.begin(name) == 0
    spool.close()


# --- as it is used ---------------------------------------------------------------------------------


class Running:
    """A listener in a process of its own. At the film of number `films`, if given, it waits to be killed."""

    def __init__(self, folder: Path, workspace: Path, pacs: Archive, films: int | None = None) -> None:
        command = [sys.executable, "-m", "tests.listener_process", "--gpu", "cpu", "--caller", MODALITY]
        command += ["--port", "0", "--folder", str(folder), "--keep-free", "0"]
        command += ["--destination", f"{ARCHIVE}@127.0.0.1:{pacs.port}"]
        environment = {**os.environ, "PTX_WORKSPACE": str(workspace), "STAND_IN_FILMS": str(films or "")}
        self.output: list[str] = []
        self.process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=lambda: self.output.extend(self.process.stdout), daemon=True)
        self._reader.start()
        wait_for(lambda: any("listens on" in line for line in self.output), self.process)
        self.port = int(re.search(r"listens on 127.0.0.1:(\d+)", "".join(self.output))[1])

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        status = self.process.wait(PATIENCE)
        self._reader.join()
        return status


@pytest.mark.slow
@networked
def test_killed_listener_goes_on_and_ends_when_asked(tmp_path: Path) -> None:
    folder, workspace = tmp_path / "listener", tmp_path / "workspace"
    with archive() as pacs, ExitStack() as ended:
        running = ended.enter_context(Running(folder, workspace, pacs, films=3))
        assert send(running, *map(film, range(1, 6))) == [SUCCESS] * 5
        wait_for(lambda: len(pacs.received) == 2, running.process)
        assert running.end(signal.SIGKILL) == -signal.SIGKILL
        running = ended.enter_context(Running(folder, workspace, pacs))
        wait_for(lambda: len(set(pacs.received)) == 5 and not files(folder / "inbox"), running.process)
        assert running.end(signal.SIGTERM) == 0
    assert list(dict.fromkeys(pacs.received)) == [
        result_uid(f"1.2.826.0.1.{number}") for number in range(1, 6)
    ]
    assert "0 films wait to be processed, results of 0 to be sent" in running.output[-1]
    assert not any(secret in "".join(running.output) for secret in [*SECRETS.values(), "PAT-", "1.2.826"])


@networked
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_two_hundred_films_survive_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dcmtk: Callable[[str], str]
) -> None:
    """storescu sends 200 films, 20 of them broken; the listener is killed in the middle."""

    def storescu(paths: Sequence[Path], caller: str = MODALITY, called: str = "PTX") -> list[str]:
        flags = ["-v", "-xy", "-aet", caller, "-aec", called]
        # sent at once, not when 40 ms have passed, as storescu would
        command = ["env", "TCP_NODELAY=1", dcmtk("storescu"), *flags]
        return [*command, "127.0.0.1", str(running.port), *map(str, paths)]

    films, folder, workspace = (tmp_path / name for name in ("films", "listener", "workspace"))
    films.mkdir()
    broken = {number: list(FAULTS)[number // 10 % 4] for number in range(5, 200, 10)}
    made = [film(n, broken.get(n, "")) for n in range(200)]
    made[1].StudyInstanceUID = "QUINCY 19370417"  # what pydicom quotes in its warning
    paths = [save(each, films / f"{n:03d}.dcm") for n, each in enumerate(made)]
    assert len(broken) == 20
    with archive() as pacs, ExitStack() as ended:
        running = ended.enter_context(Running(folder, workspace, pacs, films=30))
        sending = subprocess.Popen(
            storescu(paths), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        wait_for(lambda: len(pacs.received) >= 20, running.process)
        wait_for(lambda: len(files(folder / "inbox")) >= 20, running.process)
        assert running.end(signal.SIGKILL) == -signal.SIGKILL
        said, _ = sending.communicate()
        accepted = said.count("Received Store Response (Success)")
        assert len(set(pacs.received)) < accepted - 5
        assert files(folder / "inbox")

        first_output = running.output
        running = ended.enter_context(Running(folder, workspace, pacs))
        again = subprocess.run(storescu(paths[accepted - 1 :]), check=True, capture_output=True, text=True)
        assert (again.stdout + again.stderr).count("Received Store Response (Success)") == 201 - accepted
        whole = [result_uid(f"1.2.826.0.1.{number}") for number in range(200) if number not in broken]
        wait_for(lambda: len(set(pacs.received)) == 180 and not files(folder / "inbox"), running.process)

        for caller, called in (("STRANGER", "PTX"), (MODALITY, "OTHER")):
            refused = subprocess.run(
                storescu(paths[:1], caller, called),
                capture_output=True,
                text=True,
                check=False,
            )
            assert refused.returncode != 0
            assert "AE Title Not Recognized" in refused.stdout + refused.stderr
        subprocess.run(
            [dcmtk("echoscu"), "-aet", MODALITY, "-aec", "PTX", "127.0.0.1", str(running.port)], check=True
        )
        assert running.end(signal.SIGTERM) == 0
    assert list(dict.fromkeys(pacs.received)) == whole  # each, in order of arrival
    reasons = {row["case"]: row["reason"] for row in rejected(folder)}
    assert len(reasons) == 20
    monkeypatch.setenv("PTX_WORKSPACE", str(workspace))  # whose key made the pseudonyms
    for number, fault in broken.items():
        assert FAULTS[fault] in reasons[pseudonym("case", f"1.2.826.0.1.{number}")]
    assert files(folder / "outbox") == []
    assert not any(path.stat().st_mode & 0o077 for path in folder.rglob("*"))  # nobody else may read
    assert "2 callers refused" in running.output[-1]
    output = "".join([*first_output, *running.output])
    for secret in ["Traceback", *SECRETS.values(), "QUINCY", "PAT-", "1.2.826"]:
        assert secret not in output
