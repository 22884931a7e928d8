"""New films: found, read, and seen by the evaluation loop as a prepared set is."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from common.artefacts import shown
from common.data.dicom import Film, decode_film
from common.data.faults import FilmFault
from common.data.film_worker import read_content
from common.data.fingerprints import file_digest
from common.data.pictures import is_picture
from common.data.store import SIDE, resample
from common.data.workers import Lost, in_workers
from common.refusal import Refusal

UNCHANGED = "unchanged"


@dataclass(frozen=True)
class NewFilm:
    """A film that was read.

    Attributes:
        film: Pixels and facts of the header.
        square: (1024, 1024) uint8: what a prepared set would hold of it.
        file: Digest of the file.
    """

    film: Film
    square: np.ndarray
    file: str = ""

    @classmethod
    def of(cls, film: Film, file: str = "") -> NewFilm:
        """As preparation brings a film to its grid."""
        return cls(film, resample(film.pixels, SIDE), file)


class NewFilms:
    """Films without masks, in the place of a prepared set."""

    def __init__(self, squares: Sequence[np.ndarray]) -> None:
        self._squares = squares
        self.has_mask = np.zeros(len(squares), dtype=bool)

    def film(self, row: int, side: int) -> np.ndarray:
        """The working-size view of a film, (side, side) uint8."""
        return resample(self._squares[row], side)

    def mask(self, row: int, side: int) -> np.ndarray:
        """None is known: (side, side) bool, all false."""
        return np.zeros((side, side), dtype=bool)


def find_files(source: Path) -> list[Path]:
    """The file, or all files under the folder, sorted by path; without hidden ones and DICOMDIR indices.

    Raises:
        Refusal: There is none.
    """
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise Refusal(f"{shown(source)} is neither a file nor a folder")
    found = [path for path in source.rglob("*") if path.name != "DICOMDIR" and path.is_file()]
    files = [path for path in found if not any(p.startswith(".") for p in path.relative_to(source).parts)]
    if not files:
        raise Refusal(f"there is no file in {shown(source)}")
    return sorted(files, key=lambda path: path.relative_to(source).as_posix())


def is_dicom(path: Path) -> bool:
    """Whether a file that was read as a film is DICOM."""
    with open(path, "rb") as file:
        start = file.read(132)
    return start[128:] == b"DICM" or not is_picture(start)


# --- in processes that may be lost -----------------------------------------------------------------


@dataclass(frozen=True)
class _Task:
    place: int
    path: Path
    known: str | None


def read_new_film(
    path: Path, known: str | None = None, alive: Callable[[], None] = lambda: None
) -> NewFilm | str:
    """Read a film file.

    Args:
        path: DICOM, PNG, JPEG or TIFF.
        known: Digest of the file when it was last read; None: never.
        alive: Called as the file is read.

    Returns:
        The film, or `UNCHANGED` where the file is still the known one.

    Raises:
        FilmFault: It cannot be read; the message says why.
    """
    try:
        content = read_content(path, alive)
    except OSError as error:
        raise FilmFault(f"its file cannot be read ({error.strerror})") from error
    alive()
    file = file_digest(content)
    return UNCHANGED if file == known else NewFilm.of(decode_film(content), file)


def _read(task: _Task, alive: Callable[[], None]) -> NewFilm | str | FilmFault:
    cv2.setNumThreads(1)
    try:
        return read_new_film(task.path, task.known, alive)
    except FilmFault as fault:
        return fault
    except MemoryError:
        return FilmFault("needs more memory than any film should")
    except Exception as error:  # whatever it is, it costs this film only
        return FilmFault(f"cannot be read ({type(error).__name__})")


def read_in_order(
    paths: Sequence[Path], known: Sequence[str | None], count: int
) -> Iterator[NewFilm | str | FilmFault]:
    """Read files in `count` processes: of each, in order, what `read_new_film` returns, or its fault."""
    tasks = (_Task(place, *each) for place, each in enumerate(zip(paths, known, strict=True)))
    waiting: dict[int, NewFilm | str | FilmFault] = {}
    place = 0
    for task, result in in_workers(_read, tasks, count):
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
