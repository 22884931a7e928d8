"""What was written into a folder of results, so that nothing else is ever replaced or deleted there."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from common.files import whole_file
from common.journal import Journal, read_journal
from common.paths import shown
from common.refusal import Refusal
from common.shards import WHOLE, Shard

MANIFEST = "written.jsonl"
SHARDS = "shards"  # folder of what the processes note that share the films
_MANIFESTS = f"{SHARDS}/[0-9]*_of_[0-9]*.jsonl"


class NotOurs(Exception):
    """A file lies where a result belongs, and this program did not write it, or somebody changed it since.

    Args:
        path: Path of that file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path


class WrittenFiles:
    """The manifest of a folder: `written.jsonl`, a line a file with its path and the SHA-256 of its content.

    A line is on the disk before its file is, so that a file of ours without a line cannot be. One process at
    a time may use a folder, or one a shard: each of these notes its own files in `shards/`, and knows what
    the others had noted when it began.

    Args:
        folder: Folder of the results, which may be missing.
        shard: Share of this process.

    Raises:
        Refusal: A manifest cannot be read.
    """

    def __init__(self, folder: Path, shard: Shard = WHOLE) -> None:
        self.folder = folder
        self._manifest = folder / (MANIFEST if shard.count == 1 else f"{SHARDS}/{shard.name}.jsonl")
        # Several a file: a killed process has noted a content that it may not have written.
        self._digests: defaultdict[str, set[str]] = defaultdict(set)
        for manifest in _manifests(folder):
            for entry in _lines(manifest):
                with suppress(KeyError, TypeError):  # somebody else's line
                    self._digests[entry["path"]].add(entry["sha256"])

    @staticmethod
    def known_in(folder: Path) -> bool:
        """Whether a folder has a manifest."""
        return bool(_manifests(folder))

    def gather(self) -> None:
        """Bring the manifests of shards into the one of the folder, which nobody else may use now."""
        for manifest in _manifests(self.folder):
            if manifest != self._manifest:
                self._append(_lines(manifest))
                manifest.unlink()

    def is_ours(self, path: Path) -> bool:
        """Whether nothing lies at a path, or just what was written there."""
        if not os.path.lexists(path):
            return True
        if path.is_symlink() or not path.is_file():
            return False
        known = self._digests.get(self._name(path), set())
        # Plain SHA-256, not `digest`, so that `sha256sum` gives the same to whoever checks a folder.
        return bool(known) and hashlib.sha256(path.read_bytes()).hexdigest() in known

    def write(self, contents: Mapping[Path, bytes]) -> None:
        """Write files, each whole or not at all, in this order.

        Args:
            contents: Path of each file in the folder, and its content.

        Raises:
            NotOurs: A file of somebody else lies at one of the paths; nothing was written.
            Refusal: The disk is full, or the folder cannot be written.
        """
        for path in contents:
            self._require_ours(path)
        self._note({self._name(path): hashlib.sha256(data).hexdigest() for path, data in contents.items()})
        for path, data in contents.items():
            with whole_file(path) as temporary:
                temporary.write_bytes(data)

    def remove(self, paths: Iterable[Path]) -> None:
        """Delete files that were written here, in this order.

        Raises:
            NotOurs: One of them is somebody else's; nothing was deleted.
        """
        paths = list(paths)
        for path in paths:
            self._require_ours(path)
        for path in paths:
            path.unlink(missing_ok=True)

    def remove_all(self) -> list[Path]:
        """Delete every file that was written here and is still as it was written.

        Returns:
            The files that somebody changed since, which stay where they are.
        """
        kept = []
        for name in sorted(self._digests):
            path = self.folder / name
            if self.is_ours(path):
                path.unlink(missing_ok=True)
            else:
                kept.append(path)
        return kept

    def adopt(self, paths: Iterable[Path]) -> None:
        """Note files that an earlier version of this program wrote without a manifest."""
        self._note({self._name(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths})

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _require_ours(self, path: Path) -> None:
        if not self.is_ours(path):
            raise NotOurs(path)

    def _note(self, digests: Mapping[str, str]) -> None:
        """Bring the lines of files to the disk, before the files themselves."""
        new = {name: digest for name, digest in digests.items() if digest not in self._digests[name]}
        self._append({"path": name, "sha256": digest} for name, digest in new.items())
        for name, digest in new.items():
            self._digests[name].add(digest)

    def _append(self, lines: Iterable[Mapping[str, str]]) -> None:
        try:
            self._manifest.parent.mkdir(parents=True, exist_ok=True)
            with Journal(self._manifest) as manifest:
                manifest.add(*lines, settle=True)
        except OSError as error:
            raise Refusal(
                f"cannot write {shown(self._manifest)}",
                found=error.strerror or error,
                do="free space or mend the rights",
            ) from error


def _manifests(folder: Path) -> list[Path]:
    """The manifest of a folder and those of shards in it."""
    return [path for path in (folder / MANIFEST, *sorted(folder.glob(_MANIFESTS))) if path.is_file()]


def _lines(manifest: Path) -> list[dict[str, Any]]:
    try:
        return read_journal(manifest)
    except OSError as error:
        raise Refusal(f"{shown(manifest)} cannot be read", found=error.strerror or error) from None
