"""How long training will still take: this run, and all that was asked for, from the epochs done so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from common.progress import in_words


@dataclass
class TimeLeft:
    """The runs that are left, and what their epochs took.

    Attributes:
        runs: Name, system and number of epochs left of each run that waits, in order.
    """

    runs: Sequence[tuple[str, str, int]] = ()
    _seconds: dict[str, list[float]] = field(default_factory=dict)  # of the epochs of this session, by system

    def after_epoch(self, name: str, seconds: float, epochs: int) -> str:
        """What is left, in words.

        Args:
            name: Run of which an epoch ended.
            seconds: Time that the epoch took.
            epochs: Number of the run's epochs left.
        """
        place = next((i for i, run in enumerate(self.runs) if run[0] == name), None)
        system = "" if place is None else self.runs[place][1]
        taken = self._seconds.setdefault(system, [])
        taken.append(seconds)
        own = sum(taken) / len(taken) * epochs
        later = [] if place is None else self.runs[place + 1 :]
        text = f"{in_words(own)} left of this run"
        if not later:
            return text
        whole, untimed = own, []
        for _, other, left in later:
            known = self._seconds.get(other) or taken  # until one of its epochs was timed: as this system's
            whole += sum(known) / len(known) * left
            untimed += [other] if other not in self._seconds else []
        text += f", {in_words(whole)} of all {1 + len(later)} that are left"
        return text + "".join(f" ({each} counted as {system})" for each in dict.fromkeys(untimed))
