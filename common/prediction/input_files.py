"""Input and output of a prediction must lie apart, or films and results could be mixed up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from common.refusal import Refusal


def refuse_overlap(
    source: Path, output: Path, folders: Sequence[Path] = (), links: Sequence[Path] = ()
) -> None:
    """Refuse an output folder in which results and films could be mixed up.

    Args:
        source: A film, or a folder of films.
        output: Folder of the results, which may be missing.
        folders: Folders within `output` that are written to, and may be links.
        links: Symbolic links under `source`.

    Raises:
        Refusal: One lies in the other, by its name, a link or a mount.
    """
    written_to = [output, *folders]
    read_from = [source, *(link for link in links if link.exists())]
    for films in read_from:
        for results in written_to:
            if lies_in(films, results) or lies_in(results, films):
                raise Refusal(
                    "the films and the results would lie in each other's folder",
                    films=films if films.resolve() == films else f"{films} -> {films.resolve()}",
                    results=results if results.resolve() == results else f"{results} -> {results.resolve()}",
                    do="name an output folder outside the input",
                )


def lies_in(path: Path, folder: Path) -> bool:
    """Whether a path is a folder or lies in it, judged by the folders themselves and not by their names."""
    path, folder = path.resolve(), folder.resolve()
    return any(each == folder or _same(each, folder) for each in (path, *path.parents))


def _same(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except OSError:
        return False
