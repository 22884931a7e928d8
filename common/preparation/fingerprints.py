"""What a prepared set was made from, so that a changed, new or missing film is noticed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from common.files import digest, write_csv
from common.paths import shown
from common.pseudonyms import pseudonym
from common.refusal import Refusal
from common.sources.source_film import Annotation, SourceFilm

if TYPE_CHECKING:
    import pandas as pd

FILE = "fingerprints.csv"
_OF_FILE = ("bytes", "modified", "file")
_OF_FILM = ("picture", "perceptual")
COLUMNS = {
    "film": "pseudonym of the film, and how often it was listed before",
    "listing": "SHA-256 of what the source says of it: label, annotations, rules, faults",
    "bytes": "size of its image file; empty where it was not read",
    "modified": "time of that file's last change, in ns",
    "file": "its digest",
    "picture": "SHA-256 of the prepared film; empty where it is not prepared",
    "perceptual": "perceptual hash of the prepared film, hexadecimal",
}


def listing(films: Iterable[SourceFilm]) -> list[tuple[str, str]]:
    """(film, listing) of `COLUMNS` for films as their source lists them."""
    before: Counter[str] = Counter()
    found = []
    for film in films:
        name = pseudonym("case", film.identifier)
        found.append((f"{name} {before[name]}", _listed(film)))
        before[name] += 1
    return found


def _listed(film: SourceFilm) -> str:
    said = [film.report, film.excluded, film.fault, film.chest_tube, sorted(film.facts.items())]
    # A part of its own only where there is one: sets without a second annotator stay what they were.
    second = [_content(film.second)] if film.second else []
    # 64 bits notice a change; they prove nothing to a forger
    return digest(repr(said), _content(film.annotation), *second)[:16]


def _content(annotation: Annotation | None) -> bytes:
    try:
        return annotation.content() if annotation else b""
    except OSError:
        return b"cannot be read"


def file_digest(content: bytes) -> str:
    """XXH3 (128 bits, hexadecimal) of an image file: notices a change, ten times as fast as SHA-256.

    It proves nothing to anyone who means harm; what is trained on carries the SHA-256 of its pixels.
    """
    return xxhash.xxh3_128_hexdigest(content)


def of_file(path: Path, digest_of_file: str) -> dict[str, Any]:
    """Size, time and digest of an image file; size -1 where it is gone."""
    try:
        known = path.stat()
    except OSError:
        return {"bytes": -1, "modified": 0, "file": digest_of_file}  # -1: no size that was ever noted
    return {"bytes": known.st_size, "modified": known.st_mtime_ns, "file": digest_of_file}


def write(folder: Path, films: Sequence[SourceFilm], entries: Mapping[int, Mapping[str, Any]]) -> None:
    """Write the fingerprints of a set.

    Args:
        folder: Folder of the prepared set.
        films: Films as the source lists them.
        entries: The journal's entry of each film that was read, by its place in `films`.
    """
    rows = []
    for place, (name, listed) in enumerate(listing(films)):
        entry = entries.get(place, {})
        rows.append(
            {"film": name, "listing": listed}
            | {column: entry.get(column) for column in (*_OF_FILE, *_OF_FILM)}
        )
    write_csv(folder / FILE, list(COLUMNS), rows)


def read(folder: Path) -> pd.DataFrame:
    """Read the fingerprints of a set, all columns as text.

    Raises:
        Refusal: Missing or malformed.
    """
    import pandas as pd  # a new film does without

    try:
        table = pd.read_csv(folder / FILE, dtype=str, keep_default_na=False)  # empty cells stay texts
    except (OSError, ValueError) as error:
        raise Refusal(f"{shown(folder / FILE)} cannot be read", found=type(error).__name__) from None
    if list(table.columns) != list(COLUMNS):
        raise Refusal(f"{shown(folder / FILE)} has other columns", do="prepare the films anew")
    return table


def changes(folder: Path, films: Sequence[SourceFilm]) -> list[str]:
    """How the source differs from what the set in `folder` was prepared from; empty when it does not.

    An image file is read again only when its size or time differ, and counts as changed only when its
    content does.
    """
    table = read(folder)
    known = dict(zip(table["film"], table.to_dict("records"), strict=True))
    kinds: dict[str, list[str]] = {}
    for film, (name, listed) in zip(films, listing(films), strict=True):
        row = known.pop(name, None)  # what is left in the end is no longer listed
        if row is None:
            kinds.setdefault("new", []).append(film.origin)
        elif row["listing"] != listed:
            kinds.setdefault("with another label, annotation or state", []).append(film.origin)
        elif row["bytes"] and (film.path is None or _file_changed(film.path, row)):
            kinds.setdefault("with another image file", []).append(film.origin)
    found = [f"{len(where):,} {kind} ({', '.join(where[:3])})" for kind, where in kinds.items()]
    return found + ([f"{len(known):,} no longer listed"] if known else [])


def _file_changed(path: Path, row: Mapping[str, str]) -> bool:
    now = of_file(path, row["file"])
    if str(now["bytes"]) == row["bytes"] and str(now["modified"]) == row["modified"]:
        return False
    if str(now["bytes"]) != row["bytes"] or not row["file"]:
        return True
    return file_digest(path.read_bytes()) != row["file"]
