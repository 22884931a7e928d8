"""What this program may delete: files by names that only it gives, in folders that carry its mark.

Everything else there is a user's (notes, exported pictures, links to other disks) and stays. No link is
followed and none is deleted, since this program makes none.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from common.files import TEMPORARY
from common.paths import shown
from common.refusal import Refusal

_MOST = 8  # foreign files that are named; the others are counted


@dataclass(frozen=True)
class Written:
    """The files that this program writes into one kind of folder.

    Attributes:
        names: Patterns of file names relative to the folder, as a shell has them, in the order of removal.
        marks: File name -> text that it holds when it is ours. At least one of these files lies in the folder
            for as long as any other file of ours does: it is written first and removed last.
    """

    names: tuple[str, ...]
    marks: Mapping[str, str]

    @property
    def subfolders(self) -> set[str]:
        """Folders inside the folder in which files of ours lie."""
        return {str(PurePosixPath(name).parent) for name in self.names} - {"."}


def refuse_foreign(folder: Path, written: Written) -> None:
    """Refuse a folder in which somebody else's files have the names that we are about to write.

    Raises:
        Refusal: A name is taken by a link or a folder, or files are there and no mark of ours.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise Refusal(f"{shown(folder)} is not a folder", do="move it away")
    files = [path for name in written.names for path in _found(folder, name)]
    taken = [path for path in files if not _is_file(path)]
    for path in (folder / name for name in sorted(written.subfolders)):
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            taken.append(path)
    if taken:
        raise Refusal(
            f"{shown(taken[0])} is in the way",
            found="a link" if taken[0].is_symlink() else "a folder" if taken[0].is_dir() else "a file",
            do="move it away: this program makes no such thing there, and deletes none",
        )
    if files and not _is_marked(folder, written.marks):
        raise Refusal(
            f"{shown(folder)} holds files that this program would replace and did not write",
            found=_listed(files),
            do="move them away",
        )


def remove_written(folder: Path, written: Written, spared: Iterable[str] = ()) -> list[Path]:
    """Remove the files that this program wrote into a folder, and say what else is there.

    Args:
        folder: The folder, which stays; nothing happens where it is missing.
        written: The files that it may hold.
        spared: Names, relative to the folder, of files of ours that stay.

    Returns:
        Files, folders and links of others, which were left alone.
    """
    stays = {folder / name for name in spared}
    names = [name for name in written.names if folder / name not in stays]
    for name in names:
        for path in filter(_is_file, _found(folder, name)):
            path.unlink(missing_ok=True)
    remove_temporaries(folder, *names)
    for name in written.subfolders:
        with suppress(OSError):  # a link, or not empty
            (folder / name).rmdir()
    kept = [path for path in _entries(folder, written.subfolders) if path not in stays]
    if kept:
        print(f"kept, not ours: {_listed(kept)}", flush=True)
    return kept


def remove_temporaries(folder: Path, *names: str) -> None:
    """Remove what killed processes left of files that they were writing, where nobody writes them now.

    Args:
        folder: The folder.
        names: Patterns of the files' names, relative to it.
    """
    for parent in {PurePosixPath(name).parent for name in names}:
        for path in filter(_is_file, _found(folder, str(parent / f".*{TEMPORARY}"))):
            written, _, process = path.name[1:].removesuffix(TEMPORARY).rpartition(".")
            place = path.relative_to(folder).with_name(written or "-").as_posix()
            if process.isdigit() and any(fnmatchcase(place, name) for name in names):
                path.unlink(missing_ok=True)


def move_along(kept: Iterable[Path], source: Path, target: Path) -> None:
    """Move what is not ours from a folder into the one that takes its place.

    Args:
        kept: What `remove_written` returned for `source`.
        source: The folder that is replaced; its own subfolders are gone afterwards.
        target: The folder that replaces it.

    Raises:
        Refusal: Something of this name is there already; it stays where it is.
    """
    for path in kept:
        place = target / path.relative_to(source)
        if place.exists() or place.is_symlink():
            raise Refusal(
                f"{shown(path)} cannot be kept", found=f"{shown(place)} is there, too", do="move one away"
            )
        place.parent.mkdir(exist_ok=True)
        path.rename(place)
        if path.parent != source:
            with suppress(OSError):  # others are still to be moved
                path.parent.rmdir()


def _found(folder: Path, name: str) -> list[Path]:
    """What has this name, in a subfolder only where that is no link."""
    if set(name) & set("*?["):
        paths = sorted(folder.glob(name))
    else:  # which glob would not find where it is a link to nothing
        paths = [folder / name] if os.path.lexists(folder / name) else []
    return [path for path in paths if path.parent == folder or not path.parent.is_symlink()]


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _is_marked(folder: Path, marks: Mapping[str, str]) -> bool:
    for name, text in marks.items():
        with suppress(OSError):
            if text in (folder / name).read_text(encoding="utf-8", errors="replace"):
                return True
    return False


def _entries(folder: Path, subfolders: set[str]) -> Iterator[Path]:
    """All that lies in a folder and in our subfolders."""
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.name in subfolders and path.is_dir() and not path.is_symlink():
            yield from sorted(path.iterdir())
        else:
            yield path


def _listed(paths: list[Path]) -> str:
    more = f" and {len(paths) - _MOST} more" if len(paths) > _MOST else ""
    return ", ".join(map(shown, paths[:_MOST])) + more
