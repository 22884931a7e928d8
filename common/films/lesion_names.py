"""Which of the things that an annotation names are the lesion?

Annotation tools mark several things on a film, each by its name: a chest tube beside the pneumothorax, both
lungs, the heart. A name is free text in any language, so one thing alone is the lesion whatever it is called,
unless it is called something else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from common.films.fault import FilmFault, Note

_LESION = re.compile(r"pneumothora|ptx|collapsed lung|氣胸|气胸")
_NEGATED = re.compile(r"\b(no|not|non|without)\b")
_ELSE = re.compile(
    r"lungs?\b|heart|cardiac|tube|drain|catheter|pacemaker|\brib|clavic|scapula|spine|diaphragm|mediastin|"
    r"trachea|effusion|consolidation|emphysema|background|ignore"
)
ONLY_ELSE = "its annotation marks other things, but no pneumothorax"
PICKED = "its annotation marks several things, of which the pneumothorax was taken"


def are_lesions(names: Sequence[str], note: Note) -> list[bool]:
    """Whether each of the things marked is the lesion.

    Args:
        names: What each of them is called.
        note: Hears that there is something else.

    Raises:
        FilmFault: Several kinds might be the lesion.
    """
    kinds = [_kind(name) for name in names]
    called = [bool(_LESION.search(kind)) and not _NEGATED.search(kind) for kind in kinds]
    possible = [not (_ELSE.search(kind) or _LESION.search(kind)) for kind in kinds]
    lesions = called if any(called) else possible
    if not any(called) and len({kind for kind, is_it in zip(kinds, possible, strict=True) if is_it}) > 1:
        raise FilmFault(
            "its annotation marks several kinds of things; call the lesion pneumothorax, or keep nothing else"
        )
    if not all(lesions):
        note(PICKED if any(lesions) else ONLY_ELSE)
    return lesions


def _kind(name: str) -> str:
    """A name in small letters, without what numbers the things of one kind."""
    return re.sub(r"[\W\d_]+", " ", name).strip().casefold()
