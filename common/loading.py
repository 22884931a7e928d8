"""Libraries are loaded without Python's search for garbage among them."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """Imports: what they make stays, so that nothing of it need be looked at, now or later.

    torch and timm make half a million objects. To look for garbage among them takes an eighth of the time to
    load them, and once more half a second when the process ends (measured). So the search begins again when
    they are there, and passes them over from then on, with all else that is there: for the start of a script.
    Where all was loaded before, nothing is passed over.
    """
    was, modules = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > modules:
            gc.freeze()
        if was:
            gc.enable()
