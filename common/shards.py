"""Shards: the films that each of several processes takes, by a rule that none of them has to ask another for.

The processes may be on several machines that share a disk, and need not run at the same time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from common.files import LOCK, alone, held
from common.refusal import Refusal

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Shard:
    """The share of one process.

    Attributes:
        index: Number of the shard, from 0.
        count: Number of shards; 1: there is only this process.
    """

    index: int = 0
    count: int = 1

    @classmethod
    def named(cls, text: str | None) -> Shard:
        """The shard that `--shard` names, such as `0/4`; without the flag, all films.

        Raises:
            Refusal: There is no such shard.
        """
        if text is None:
            return WHOLE
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        if not found or int(found[1]) >= int(found[2]):
            raise Refusal(
                f"--shard {text}: there is no such shard",
                do="the shards of four are 0/4, 1/4, 2/4 and 3/4; a SLURM array of four is --array=0-3",
            )
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def name(self) -> str:
        """Its name among files: `0_of_4`."""
        return f"{self.index}_of_{self.count}"

    def among(self, rank: int, count: int) -> Shard:
        """The share of one of the processes that divide this shard further."""
        return Shard(self.index * count + rank, self.count * count)

    def share(self, items: Sequence[_Item], together: int = 1) -> list[_Item]:
        """This shard's items: of the groups of `together` items, the last perhaps smaller, every count-th.

        A group is whole in one shard, so that what is computed at once is the same for any number of them.
        """
        return [item for place, item in enumerate(items) if self.takes(place // together)]

    def takes(self, group: int) -> bool:
        """Whether a group, by its number from 0, is of this shard."""
        return group % self.count == self.index

    def claim(self, folder: Path, busy: str) -> IO[str]:
        """Hold this shard in a folder, until the file that is returned is closed or this process ends.

        Other shards of the same count may be held by others meanwhile; no shards of another count.

        Raises:
            Refusal: Another process holds this shard, or one of another count; `busy` says what it does.
        """
        lock = alone(folder / self._lock, busy)
        # Held first and then looked around: of two that come at once, at most one goes on.
        for other in sorted(folder.glob(f"{LOCK}*")):
            if not self._may_stand_beside(other.name) and held(other):
                lock.close()
                raise Refusal(busy, do="wait for it, or end it first")
        return lock

    @property
    def _lock(self) -> str:
        return LOCK if self.count == 1 else f"{LOCK}.{self.name}"

    def _may_stand_beside(self, lock: str) -> bool:
        return lock == self._lock or (self.count > 1 and lock.endswith(f"_of_{self.count}"))


WHOLE = Shard()  # all films
