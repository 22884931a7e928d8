"""Why one film cannot be used."""

from __future__ import annotations


class FilmFault(Exception):
    """A fault of one film or its annotation: the film is listed with this reason, the others go on.

    The message names no path, identifier or other text of the film: it is printed and stored.
    """
