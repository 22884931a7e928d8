"""Libraries are loaded without Python's search for garbage among them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """Imports: what they make stays, so that nothing of it need be looked at, now or later.

    torch and timm make half a million objects. To look for garbage among them takes an eighth of the time to
    load them, and once more half a second when the process ends (measured). So it does not begin again until
    they are there, and passes them over from then on. Garbage that lies about at this moment stays, too: not
    for a place that is come by more than once.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was:
            gc.enable()
