"""What every room of films gives to its pages, whatever its films come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from common.inference.film_sheets import TRUTH
from common.reading.grid import Grid
from common.refusal import Refusal

# As the overlays have the truth, and of Okabe & Ito what is told apart on a dark film by the colour-blind
COLOURS = {"truth": "#{:02x}{:02x}{:02x}".format(*TRUTH), "eff": "#56b4e9", "vit": "#ff8c42"}

Query = Mapping[str, str]
Facts = Sequence[tuple[str, str]]  # title and words


@dataclass(frozen=True)
class ShownFilm:
    """A film as its page shows it.

    Attributes:
        case: Pseudonym of the film.
        size: Width and height of its picture in pixels.
        mm: Width and height of the film in mm; None where its spacing is unknown.
        plain: Whether the picture is the film alone, so that window and level act on the film's grey levels.
        outlines: SVG path of each outline on the picture, by what it shows; None where there is none.
        maps: Systems whose map can be laid over the film.
        parts: Blocks of facts by title: the film, then each system.
    """

    case: str
    size: tuple[int, int]
    mm: tuple[float, float] | None
    plain: bool
    outlines: Mapping[str, str | None]
    maps: Sequence[str]
    parts: Mapping[str, Facts] = field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """What stands beside a grid.

    Attributes:
        said: Counts among the chosen films, in words.
        columns: Heads of a table's columns.
        lines: Its lines, as many cells each.
        caption: What the table is of.
    """

    said: Sequence[str]
    columns: Sequence[str]
    lines: Sequence[Sequence[str]]
    caption: str


class Room(ABC):
    """A room of films. Rows count its films from 0, in the order of its table."""

    name: str  # in addresses
    title: str
    notes: Sequence[str] = ()  # what is to be known of these films, a sentence each
    figures: Sequence[str] = ()  # titles
    thresholds: Mapping[str, float] = {}  # that a query may move, 0-1, by its name there

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
    def picture(self, row: int) -> bytes:
        """Its picture, PNG."""

    @abstractmethod
    def thumbnail(self, row: int) -> bytes:
        """A small picture, JPEG."""

    @abstractmethod
    def outlined(self, row: int) -> bytes:
        """Its picture with every outline, PNG."""

    def map(self, row: int, system: str) -> bytes | None:
        """The layer of a system's map, PNG; None where there is none."""
        return None

    def figure(self, title: str, query: Query) -> bytes | None:
        """A figure as SVG; None where there is none."""
        return None


def inside(folder: Path, name: str) -> Path:
    """The path of a file in a folder, whatever the table says that names it.

    Raises:
        Refusal: It would lie elsewhere.
    """
    path = folder / name
    if "/" in name or "\0" in name or path.resolve().parent != folder.resolve():
        raise Refusal("a table names a file outside its folder")
    return path
