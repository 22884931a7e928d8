"""The listener, a real archive and three senders of films, each a process of its own: for `listener.py`.

Orthanc is the destination and one of the senders; dcmtk's `storescu` and pynetdicom are the others.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import pydicom

PATIENCE = 1800.0  # seconds until something is taken to hang
ARCHIVE, LISTENER = "PACS", "PTX"  # AE titles
SENDERS = ("STORESCU", "PYNETDICOM", "ORTHANC")
OUT_OF_RESOURCES = 0xA700  # answer to C-STORE (PS3.4 B.2.3)


def machine_program(name: str) -> str | None:
    """A program of the machine, not of the environment: pynetdicom has some of the same names as dcmtk."""
    folders = os.environ["PATH"].split(os.pathsep)
    outside = [each for each in folders if not Path(each).is_relative_to(sys.prefix)]
    return shutil.which(name, path=os.pathsep.join([*outside, "/usr/sbin"]))


def free_port() -> int:
    """A TCP port of this machine that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_until(event: Callable[[], object]) -> None:
    """Wait until something came about.

    Raises:
        TimeoutError: It did not.
    """
    limit = time.monotonic() + PATIENCE
    while not event():
        if time.monotonic() > limit:
            raise TimeoutError("waited in vain")
        time.sleep(0.05)


class Program:
    """A program that is started, killed and started again, always by the same command.

    Args:
        command: Command line.
        port: TCP port on which it listens when it is ready.
        log: File that gets what it prints.
        folder: Working folder.
        environment: Variables beside those of this process.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        port: int,
        log: Path,
        folder: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.port = port
        self._command, self._log, self._folder = command, log, folder
        self._environment = os.environ | (environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._sessions: list[int] = []

    def start(self) -> None:
        """Start it; it need not be ready yet."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._sessions.append(self._process.pid)

    def ready(self) -> bool:
        """Whether it listens.

        Raises:
            ChildProcessError: It ended by itself.
        """
        if self._process is None or self._process.poll() is not None:
            raise ChildProcessError(f"{self._command[0]} ended\n{self._log.read_text()[-2000:]}")
        with socket.socket() as asked:
            return asked.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """Kill it alone, by SIGKILL: its own processes must end by themselves."""
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def processes(self) -> list[int]:
        """Numbers of its processes, and of those that killed ones left."""
        found = []
        if self._process is not None:
            self._process.poll()  # else one that ended would still be there
        for each in Path("/proc").glob("[0-9]*"):
            with suppress(ProcessLookupError):
                if os.getsid(int(each.name)) in self._sessions:
                    found.append(int(each.name))
        return found

    def memory(self) -> int:
        """Bytes of memory that its processes hold now."""
        held = 0
        for each in self.processes():
            with suppress(OSError):  # it ended meanwhile
                held += int(Path(f"/proc/{each}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return held


class Orthanc(Program):
    """Orthanc, which keeps what it receives in `folder`, and sends it to the listener when asked.

    Args:
        title: Its AE title.
        folder: New folder of its files.
        port: TCP port of its DICOM server.
        to: TCP port of the listener.
    """

    def __init__(self, title: str, folder: Path, port: int, to: int) -> None:
        folder.mkdir()
        self._http = free_port()
        configuration = {
            "StorageDirectory": str(folder / "storage"), "IndexDirectory": str(folder / "storage"),
            "DicomAet": title, "DicomPort": port, "HttpPort": self._http, "AuthenticationEnabled": False,
            "Plugins": [], "DicomModalities": {"listener": [LISTENER, "127.0.0.1", to]},
        }  # fmt: skip
        file = folder / "orthanc.json"
        file.write_text(json.dumps(configuration))
        program = machine_program("Orthanc")
        assert program is not None  # as `main` has seen
        super().__init__([program, file], port, folder / "log.txt")

    def ask(self, path: str, body: bytes | None = None) -> bytes:
        """The answer to a request of its REST interface: GET, or POST where there is a body.

        Raises:
            OSError: It says no, or is away.
        """
        request = urllib.request.Request(f"http://127.0.0.1:{self._http}{path}", data=body)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.read()

    def instances(self) -> list[str]:
        """Its own names of what it holds."""
        return json.loads(self.ask("/instances"))


@contextmanager
def full_archive(port: int) -> Iterator[None]:
    """A destination on this port that answers A700, out of resources, whatever is sent."""
    from pynetdicom import AE, AllStoragePresentationContexts, evt

    entity = AE(ARCHIVE)
    entity.supported_contexts = AllStoragePresentationContexts
    server = entity.start_server(
        ("127.0.0.1", port),
        block=False,
        evt_handlers=[(evt.EVT_C_STORE, lambda _: OUT_OF_RESOURCES)],
    )
    assert server is not None  # it would be of a call that blocks
    yield
    server.shutdown()


# --- senders: each sends films over one association; those that the listener accepted --------------------

Send = Callable[[Sequence[Path]], set[Path]]


def by_storescu(port: int, title: str = SENDERS[0]) -> Send:
    """Send by dcmtk, to the listener on this port."""
    program = machine_program("storescu")
    assert program is not None  # as `main` has seen
    # sent at once, not when 40 ms have passed, as storescu would
    command = ["env", "TCP_NODELAY=1", program, "-v", "-aet", title, "-aec", LISTENER, "127.0.0.1", str(port)]

    def send(films: Sequence[Path]) -> set[Path]:
        done = subprocess.run([*command, *map(str, films)], capture_output=True, text=True, check=False)
        said = re.findall(r"Sending file: (\S+)|Store Response \((\w+)\)", done.stdout + done.stderr)
        return {Path(path) for (path, _), (_, answer) in pairwise(said) if path and answer == "Success"}

    return send


def by_pynetdicom(port: int) -> Send:
    """Send by pynetdicom, to the listener on this port."""
    from pynetdicom import AE

    def send(films: Sequence[Path]) -> set[Path]:
        entity = AE(SENDERS[1])
        datasets = {path: pydicom.dcmread(path) for path in films}
        for sop_class in {each.SOPClassUID for each in datasets.values()}:
            entity.add_requested_context(sop_class)
        association = entity.associate("127.0.0.1", port, ae_title=LISTENER)
        accepted = set()
        for path, dataset in datasets.items():
            with suppress(RuntimeError):  # no association any more
                if association.send_c_store(dataset).get("Status") == 0:
                    accepted.add(path)
        association.release()
        return accepted

    return send


def by_orthanc(orthanc: Orthanc, films: Sequence[Path]) -> Send:
    """Send by Orthanc, which takes all films over now and keeps its association from one film to the next."""
    names = {path: json.loads(orthanc.ask("/instances", path.read_bytes()))["ID"] for path in films}

    def send(chosen: Sequence[Path]) -> set[Path]:
        accepted = set()
        for path in chosen:
            with suppress(urllib.error.HTTPError):  # the listener is away
                orthanc.ask("/modalities/listener/store", names[path].encode())
                accepted.add(path)
        return accepted

    return send
