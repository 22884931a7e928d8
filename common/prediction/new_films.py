"""New films: read, and seen by the evaluation loop as a prepared set is."""

from __future__ import annotations

import os
import stat
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import overload

import cv2
import numpy as np
import pydicom
from pydicom.dataset import Dataset

from common.films.decode import Film, decode_film
from common.films.fault import FilmFault
from common.films.pictures import is_picture
from common.films.resample import resample
from common.preparation.crash_safe_pool import Lost, Workers, in_workers
from common.preparation.film_store import SIDE
from common.preparation.film_task import read_content
from common.preparation.fingerprints import file_digest
from common.refusal import Refusal

# Inode, bytes, time of the last change in ns; a device has another number on each machine that shares it
Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class FileState:
    """What a file was when it was read.

    Attributes:
        digest: Digest of the file's content.
        stamp: Identity of the file on the disk.
    """

    digest: str
    stamp: Stamp

    def changed(self, path: Path) -> str:
        """Why the file at a path is no longer the one that was read; empty where it still is."""
        try:
            now = path.stat()
            if _stamp(now) == self.stamp:
                return ""
            same = stat.S_ISREG(now.st_mode) and file_digest(path.read_bytes()) == self.digest
        except OSError as error:
            return f"its file went away before the end ({error.strerror})"
        return "" if same else "its file was changed before the end"


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_ino, status.st_size, status.st_mtime_ns


@dataclass(frozen=True)
class NewFilm:
    """A film that was read once: its pixels, its identity and its objects all come from the same bytes.

    Attributes:
        film: Pixels and facts of the header.
        square: (1024, 1024) uint8: what a prepared set would hold of it.
        file: State of the file when it was read; None for a film without a file.
        dicom: Whether the file is DICOM.
        header: DICOM header without the pixels; None for other files, and where it cannot be read.
    """

    film: Film
    square: np.ndarray
    file: FileState | None = None
    dicom: bool = False
    header: Dataset | None = None

    @classmethod
    def of(cls, film: Film) -> NewFilm:
        """A film without a file, as preparation brings it to its grid."""
        return cls(film, resample(film.pixels, SIDE))


class NewFilms:
    """Films without masks, in the place of a prepared set."""

    def __init__(self, squares: Sequence[np.ndarray]) -> None:
        self._squares = squares
        self.has_mask = np.zeros(len(squares), dtype=bool)

    def film(self, row: int, side: int) -> np.ndarray:
        """A film stretched to a side in pixels, such as the working size: (side, side) uint8."""
        return resample(self._squares[row], side)

    def mask(self, row: int, side: int) -> np.ndarray:
        """None is known: (side, side) bool, all false."""
        return np.zeros((side, side), dtype=bool)


# --- in processes that may be lost -----------------------------------------------------------------


@dataclass(frozen=True)
class _Task:
    place: int
    path: Path
    known: str | None


@overload
def read_new_film(path: Path) -> NewFilm: ...


@overload
def read_new_film(path: Path, known: str | None, alive: Callable[[], None]) -> NewFilm | FileState: ...


def read_new_film(
    path: Path, known: str | None = None, alive: Callable[[], None] = lambda: None
) -> NewFilm | FileState:
    """Read a film file, once.

    Args:
        path: Path of a DICOM, PNG, JPEG or TIFF file.
        known: Digest of the file when it was last read; None: never.
        alive: Function that is called as the file is read.

    Returns:
        The film; or the state of the file alone where its content is still the known one.

    Raises:
        FilmFault: It cannot be read, or changed meanwhile; the message says why.
    """
    try:
        stamp = _stamp(path.stat())
        content = read_content(path, alive)
        if _stamp(path.stat()) != stamp:  # a film that is still being copied into the folder
            raise FilmFault("its file was changed while it was read")
    except OSError as error:
        raise FilmFault(f"its file cannot be read ({error.strerror})") from error
    alive()
    file = FileState(file_digest(content), stamp)
    if file.digest == known:
        return file
    film = decode_film(content)
    dicom = content[128:132] == b"DICM" or not is_picture(content[:132])
    return NewFilm(film, resample(film.pixels, SIDE), file, dicom, _header(content) if dicom else None)


def _header(content: bytes) -> Dataset | None:
    """The header for the objects that go back to the archive; None where pydicom cannot read it again."""
    try:
        with warnings.catch_warnings():  # they may quote the header
            warnings.simplefilter("ignore")
            return pydicom.dcmread(BytesIO(content), stop_before_pixels=True, force=True)
    except Exception:  # of a header that only just could be read
        return None


def _read(task: _Task, alive: Callable[[], None]) -> NewFilm | FileState | FilmFault:
    cv2.setNumThreads(1)
    try:
        return read_new_film(task.path, task.known, alive)
    except FilmFault as fault:
        return fault
    except MemoryError:
        return FilmFault("needs more memory than any film should")
    except Exception as error:  # whatever it is, it costs this film only
        return FilmFault(f"cannot be read ({type(error).__name__})")


def film_readers() -> Workers:
    """One process that reads film files; it can `grow`."""
    return Workers(_read, 1)


def read_in_order(
    readers: Workers, paths: Sequence[Path], known: Sequence[str | None]
) -> Iterator[NewFilm | FileState | FilmFault]:
    """Read files in the processes of `film_readers`: of each, in order, what `read_new_film` returns, or its
    fault."""
    tasks = (_Task(place, *each) for place, each in enumerate(zip(paths, known, strict=True)))
    waiting: dict[int, NewFilm | FileState | FilmFault] = {}
    place = 0
    for task, result in readers.results(tasks):
        waiting[task.place] = FilmFault(result.reason) if isinstance(result, Lost) else result
        while place in waiting:
            yield waiting.pop(place)
            place += 1


class FilmReader:
    """Reads one film after the other, as they come, in a process of its own."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._paths: deque[Path] = deque()
        # A task is asked for only within `read`, which has just put a path there.
        tasks = iter(lambda: _Task(0, self._paths.popleft(), None), None)
        self._results = in_workers(_read, tasks, count=1)

    def read(self, path: Path) -> NewFilm:
        """Read a film file.

        Raises:
            FilmFault: It cannot be read, or its decoder crashed or hung.
            Refusal: The process cannot be started.
        """
        self._paths.append(path)
        try:
            _, result = next(self._results)
        except Refusal:
            self._begin()  # that one is finished; the next film gets another process
            raise
        if isinstance(result, Lost):
            raise FilmFault(result.reason)
        if isinstance(result, FilmFault):
            raise result
        return result

    def close(self) -> None:
        """End the process."""
        self._results.close()
