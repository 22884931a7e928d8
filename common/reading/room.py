"""What every room of films gives to its pages, whatever its films come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from common.reading.grid import Grid
from common.refusal import Refusal

Query = Mapping[str, str]
Facts = Mapping[str, str]  # words by title


@dataclass(frozen=True)
class ShownFilm:
    """A film as its page shows it.

    Attributes:
        case: Pseudonym of the film.
        size: Width and height of its picture in pixels.
        mm: Width and height of the film in mm; None where its spacing is unknown.
        plain: Whether the picture is the film alone, so that window and level act on the film's grey levels.
        outlines: SVG path of each outline on the picture, by what it shows; empty where there is none.
        maps: Systems whose map can be laid over the film.
        parts: Blocks of facts by title: the film, then each system.
    """

    case: str
    size: tuple[int, int]
    mm: tuple[float, float] | None
    plain: bool
    outlines: Mapping[str, str]
    maps: Sequence[str]
    parts: Mapping[str, Facts]


@dataclass(frozen=True)
class Summary:
    """What stands beside a grid.

    Attributes:
        said: Counts among the chosen films, in words.
        lines: Lines of a table, as many cells each; the first one is its head.
        caption: What the table is of.
    """

    said: Sequence[str]
    lines: Sequence[Sequence[str]] = field(default_factory=list)
    caption: str = ""


class Room(ABC):
    """A room of films. Rows count its films from 0, in the order of its table."""

    name: str  # in addresses
    title: str
    notes: Sequence[str] = ()  # what is to be known of these films, a sentence each
    figures: Sequence[str] = ()  # titles
    thresholds: Mapping[str, float] = {}  # that a query may move, 0-1, by system, which is their name there

    @abstractmethod
    def grid(self, query: Query) -> Grid:
        """The grid, at the thresholds of a query."""

    @abstractmethod
    def summary(self, query: Query, rows: np.ndarray) -> Summary:
        """What is counted among the films of these rows, and the table beside the grid."""

    @abstractmethod
    def film(self, row: int) -> ShownFilm:
        """A film."""

    @abstractmethod
    def pixels(self, row: int) -> np.ndarray:
        """Its picture, (h, w) uint8, grey levels, air dark, or (h, w, 3) uint8, BGR."""

    def areas(self, row: int) -> dict[str, np.ndarray | None]:
        """What is outlined, (h, w) bool on the pixels of the picture, by what it shows; None: none is."""
        return {}

    def map(self, row: int, system: str) -> np.ndarray | None:
        """A system's map, (s, s) uint8, 0-255 for 0-1; None where there is none."""
        return None

    def figure(self, title: str, query: Query) -> bytes | None:
        """A figure as SVG; None where there is none."""
        return None


def counted(kinds: np.ndarray) -> str:
    """How many films are of each kind, (n,) str, in words."""
    found = zip(*np.unique(kinds, return_counts=True), strict=True)
    return ", ".join(f"{films} {kind}" for kind, films in found)


def inside(folder: Path, name: str) -> Path:
    """The path of a file in a folder, whatever the table says that names it.

    Raises:
        Refusal: It would lie elsewhere.
    """
    path = folder / name
    if "/" in name or "\0" in name or path.resolve().parent != folder.resolve():
        raise Refusal("a table names a file outside its folder")
    return path
