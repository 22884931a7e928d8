"""Why one film cannot be used, and what is odd about one that can."""

from __future__ import annotations

from collections.abc import Callable

Note = Callable[[str], None]  # hears a clause; like the message of a fault, it repeats no text of the film


class FilmFault(Exception):
    """A fault of one film or its annotation: the film is listed with this reason, the others go on.

    The message names no path, identifier or other text of the film: it is printed and stored.
    """
