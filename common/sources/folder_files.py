"""What lies in a folder of films that no table lists, every entry accounted for."""

from __future__ import annotations

import os
import stat
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
