"""What lies in the input of a prediction, every entry accounted for, and apart from the results."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.paths import shown
from common.refusal import Refusal

_INDEX = "DICOMDIR"  # lists the files of a medium, and is no film
_KINDS = {
    stat.S_IFIFO: "is a named pipe, no file",
    stat.S_IFSOCK: "is a socket, no file",
    stat.S_IFCHR: "is a device, no file",
    stat.S_IFBLK: "is a device, no file",
}


@dataclass(frozen=True)
class Entry:
    """What lies in the input.

    Attributes:
        path: Path of a file, or of something that is no file.
        fault: Reason why it cannot be read as a file; empty for a file.
    """

    path: Path
    fault: str = ""


@dataclass(frozen=True)
class Listing:
    """Everything in the input.

    Attributes:
        entries: Files and everything that cannot be read as one, sorted by path.
        links: Paths that are symbolic links.
        passed_over: Number of hidden files, hidden folders and DICOMDIR indices.
    """

    entries: list[Entry]
    links: list[Path]
    passed_over: int


def list_input(source: Path) -> Listing:
    """The file, or everything under the folder. Links to files are read, links to folders are not followed.

    Raises:
        Refusal: There is nothing, or the folder cannot be read.
    """
    try:
        mode = source.stat().st_mode
    except OSError:
        mode = 0
    if stat.S_ISREG(mode):
        return Listing([Entry(source)], [], 0)
    if not stat.S_ISDIR(mode):
        raise Refusal(f"{shown(source)} is neither a file nor a folder")
    entries: list[Entry] = []
    links: list[Path] = []
    passed_over = 0
    # Not `rglob`, which passes over folders that it cannot read, and says nothing.
    folders = [source]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as scanned:
                found = list(scanned)
        except OSError as error:
            if folder == source:
                raise Refusal(f"{shown(source)} cannot be read", found=error.strerror or error) from None
            entries.append(Entry(folder, f"its folder cannot be read ({error.strerror})"))
            continue
        for each in found:
            path = Path(each.path)
            if each.is_symlink():
                links.append(path)
            if each.name.startswith(".") or each.name == _INDEX:
                passed_over += 1
            elif each.is_dir(follow_symlinks=False):
                folders.append(path)
            else:
                entries.append(Entry(path, _no_file(path)))
    if not entries:
        raise Refusal(f"there is no file in {shown(source)}")
    entries.sort(key=lambda entry: entry.path.relative_to(source).as_posix())
    return Listing(entries, links, passed_over)


def _no_file(path: Path) -> str:
    """Why a path is no file that can be read; empty for a file, and for a link to one."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return f"is a link that leads nowhere ({error.strerror})" if path.is_symlink() else "went away"
    if stat.S_ISREG(mode):
        return ""
    if stat.S_ISDIR(mode):
        return "is a link to a folder, which is not followed"
    return _KINDS.get(stat.S_IFMT(mode), "is no file")


# --- input and output must be apart ------------------------------------------------------------------


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
