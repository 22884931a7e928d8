"""The same patient, study or picture in two parts of the data is an error.

Parts are the test set, the folds of the training set, and SIIM; films of one part may share whatever they
like. Patients, studies and pictures (by the hash of the prepared pixels) are compared exactly. A copy that
was encoded, resized or windowed again has other pixels, so pictures are compared by a perceptual hash too;
that only nominates pairs, which the correlation of the two films confirms (error) or does not (warning).
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from common.paths import shown
from common.preparation.near_copies import (
    MOST_PAIRS,
    RADIUS,
    SAME_PICTURE,
    nominated,
    pair_correlations,
)
from common.refusal import Refusal

_LINES = 10  # of a message
_REASONS = {1: "same patient", 2: "same study", 4: "same picture"}  # bits, so a pair may have several
_PICTURE = 4


class Pair(NamedTuple):
    """Two films of different parts; `a` is the one that stands first in the `ComparedFilms`.

    `correlation` (of the pixels, -1 to 1, negative where one film is inverted) is None where not computed.
    """

    case_a: str
    part_a: str
    case_b: str
    part_b: str
    why: str
    correlation: float | None


PAIR_COLUMNS = {
    "kind": "error, or warning: alike by the perceptual hash or but for spelling, yet not the same",
    "case_a": "pseudonym of the film",
    "part_a": "where it is, such as ntuh_train fold 3",
    "case_b": "pseudonym of the other film",
    "part_b": "where that one is",
    "why": "what they share, or why they were nominated",
    "correlation": "of the two films at 256 x 256 pixels, negative where inverted; empty where not computed",
}


@dataclass(frozen=True)
class ComparedFilms:
    """The films that are compared, entry i of each array belonging to film i; lists are taken too.

    Attributes:
        case: (n,) pseudonyms of the films.
        patient: (n,) pseudonyms of the patients (of the exams where they are unknown), or `""`.
        patient_known: (n,) bool, whether the patient is known by PatientID.
        study: (n,) pseudonyms of the studies, `""` where unknown.
        picture: (n,) SHA-256 of the prepared pixels, `""` where unknown.
        perceptual: (n,) uint64, from `perceptual_hash`.
        part: (n,) labels of the parts, such as `ntuh_train fold 3`. All of SIIM is one part. A few labels.
        film_256: Row -> (256, 256) uint8 film; called only for the few pairs that need confirmation.

    Raises:
        ValueError: The arrays differ in length, or the hashes are no uint64.
    """

    case: np.ndarray
    patient: np.ndarray
    patient_known: np.ndarray
    study: np.ndarray
    picture: np.ndarray
    perceptual: np.ndarray
    part: np.ndarray
    film_256: Callable[[int], np.ndarray]

    def __post_init__(self) -> None:
        for name in ("case", "patient", "study", "picture", "part"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=object))
        hashes = np.asarray(self.perceptual)
        if hashes.size and hashes.dtype != np.uint64:
            raise ValueError(f"perceptual hashes are {hashes.dtype}, not uint64")
        object.__setattr__(self, "perceptual", hashes.astype(np.uint64))
        object.__setattr__(self, "patient_known", np.asarray(self.patient_known, dtype=bool))
        shapes = {name: getattr(self, name).shape for name in _ARRAYS}
        if set(shapes.values()) != {(len(self.case),)}:
            raise ValueError(f"arrays of different shapes: {shapes}")

    def __len__(self) -> int:
        return len(self.case)

    @classmethod
    def of(
        cls,
        rows: Sequence[Mapping[Any, Any]],
        picture: Sequence[str],
        perceptual: Sequence[str],
        part: Sequence[str],
        film_256: Callable[[int], np.ndarray],
    ) -> ComparedFilms:
        """From rows of prepared cases, and hashes as hexadecimal text."""
        case, patient, study = (
            np.array(["" if pd.isna(row[name]) else row[name] for row in rows], dtype=object)
            for name in ("case", "patient", "study")
        )
        return cls(
            case=case,
            patient=patient,
            patient_known=np.array([row["patient_known"] == 1 for row in rows], dtype=bool),
            study=study,
            picture=np.array(picture, dtype=object),
            perceptual=np.array([int(value, 16) for value in perceptual], dtype=np.uint64),
            part=np.array(part, dtype=object),
            film_256=film_256,
        )


_ARRAYS = ("case", "patient", "patient_known", "study", "picture", "perceptual", "part")


def concatenate(several: Sequence[ComparedFilms]) -> ComparedFilms:
    """All films of several, in their order. `film_256` asks the one that holds the film."""
    ends = np.cumsum([len(films) for films in several])

    def film_256(row: int) -> np.ndarray:
        which = int(np.searchsorted(ends, row, side="right"))
        return several[which].film_256(row - int(ends[which]) + len(several[which]))

    arrays = {name: np.concatenate([getattr(films, name) for films in several]) for name in _ARRAYS}
    return ComparedFilms(film_256=film_256, **arrays)


@dataclass(frozen=True)
class Leaks:
    """What `find_leaks` found.

    Attributes:
        errors: Pairs that share a patient, a study or a picture, in the order of the films.
        warnings: Pairs alike by the perceptual hash only, the most similar first.
        unlisted: Further errors, counted for each reason, beyond `MOST_PAIRS`.
        unconfirmed: Nominated pairs beyond `MOST_PAIRS`, the least alike, whose films were not compared.
    """

    errors: list[Pair] = field(default_factory=list)
    warnings: list[Pair] = field(default_factory=list)
    unlisted: int = 0
    unconfirmed: int = 0


# --- the search ------------------------------------------------------------------------------------


def find_leaks(
    films: ComparedFilms, reviewed: Iterable[tuple[str, str]] = frozenset(), radius: int | None = RADIUS
) -> Leaks:
    """Compare all films of different parts.

    Args:
        films: At 1,000,000 films the exact checks take seconds. The perceptual search takes time by the
            square of their number: seconds at 50,000.
        reviewed: Pairs of cases, in either order, that a reader found to be different pictures (or one that
            may stay), from `read_reviewed`. They clear a pair of its nomination and of "same picture", never
            of "same patient" or "same study".
        radius: Largest distance of two hashes, in bits (0 to 31), that nominates a pair; None: no search.
    """
    part = _codes(films.part)
    reviewed = {(min(pair), max(pair)) for pair in reviewed}
    most = MOST_PAIRS + len(reviewed)  # so that the limit never leaves only pairs that are cleared
    is_reviewed = _reviewed_test(films.case, reviewed)
    found, unlisted = [], 0
    # What is shared exactly: patient, study, pixels.
    for reason, values in zip(_REASONS, (films.patient, films.study, films.picture), strict=True):
        first, second, beyond = _sharing(_codes(values), part, most)
        if reason == _PICTURE:
            kept = ~is_reviewed(first, second)
            first, second = first[kept], second[kept]
        found.append((first, second, np.full(len(first), reason)))
        unlisted += beyond
    correlations, warnings, unconfirmed = {}, [], 0
    # What only looks alike: hashes nominate pairs, their films decide.
    if radius is not None:
        first, second, distance, unconfirmed = nominated(films.perceptual, part, radius)
        known = (films.picture[first] == films.picture[second]) & (films.picture[first] != "")
        kept = ~(known | is_reviewed(first, second))
        first, second, distance = first[kept], second[kept], distance[kept]
        value = pair_correlations(films.film_256, first, second)
        same = np.abs(value) >= SAME_PICTURE
        found.append((first[same], second[same], np.full(same.sum(), _PICTURE)))
        correlations = dict(
            zip(zip(first[same].tolist(), second[same].tolist(), strict=True), value[same], strict=True)
        )
        warnings = [
            (i, j, f"similar picture ({d} of 64 bits differ)", float(c))
            for i, j, d, c in zip(*(x[~same].tolist() for x in (first, second, distance, value)), strict=True)
        ]
    errors: list[tuple[int, int, str, float | None]] = [
        (i, j, _why(reasons, correlations.get((i, j))), correlations.get((i, j)))
        for i, j, reasons in _merged(found, len(films))
    ]
    told = {(i, j) for i, j, *_ in errors}  # an error is no warning as well
    warnings = [w for w in warnings if w[:2] not in told]
    warnings.sort(key=lambda w: (-abs(w[3]), w[0], w[1]))
    return Leaks(_pairs(films, errors), _pairs(films, warnings), unlisted, unconfirmed)


def _codes(values: np.ndarray) -> np.ndarray:
    """(n,) whole numbers, equal for equal values; -1 for `""` (unknown)."""
    codes, unique = pd.factorize(values)
    return np.where(np.append(unique == "", False)[codes], -1, codes) if len(unique) else codes


def _sharing(key: np.ndarray, part: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Pairs of films with the same key in different parts.

    Args:
        key: (n,) int, what films may share; -1 where unknown.
        part: (n,) int, part that each film belongs to.
        most: Largest number of pairs to return.

    Returns:
        Rows of the first films, rows of the second ones (first < second), and how many more pairs there are.
    """
    order = np.lexsort((part, key))
    order = order[key[order] >= 0]
    if not len(order):
        return order, order, 0
    # Sorted by key, then part: a film's partners are those between the end of its part and the end of its key
    partners = _ends(key[order]) - (start := _ends(key[order], part[order]))
    order_a = np.flatnonzero(partners)
    reached = np.cumsum(partners[order_a])
    total = int(reached[-1]) if len(reached) else 0
    order_a = order_a[: np.searchsorted(reached, most) + 1]
    taken = partners[order_a]
    if total > most:
        taken[-1] -= int(taken.sum()) - most
    # The k-th partner of a film stands k places behind the end of the film's own part.
    step = np.arange(taken.sum()) - np.repeat(np.cumsum(taken) - taken, taken)
    a, b = order[np.repeat(order_a, taken)], order[np.repeat(start[order_a], taken) + step]
    return np.minimum(a, b), np.maximum(a, b), max(total - most, 0)


def _ends(*columns: np.ndarray) -> np.ndarray:
    """For each row, where its run of rows that are equal in all columns ends (exclusive)."""
    changes = np.zeros(len(columns[0]), dtype=bool)
    changes[-1] = True
    for column in columns:
        changes[:-1] |= column[1:] != column[:-1]
    ends = np.flatnonzero(changes) + 1
    return np.repeat(ends, np.diff(ends, prepend=0))


def _reviewed_test(
    case: np.ndarray, pairs: Collection[tuple[str, str]]
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """A function of (first, second) rows: which pairs were reviewed, (pairs,) bool."""

    def test(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        if not pairs:
            return np.zeros(len(first), dtype=bool)
        names = zip(case[first].tolist(), case[second].tolist(), strict=True)
        return np.array([(min(pair), max(pair)) in pairs for pair in names], dtype=bool)

    return test


def _merged(found: list[tuple[np.ndarray, np.ndarray, np.ndarray]], count: int) -> list[tuple[int, int, int]]:
    """(first, second, reasons) of each pair once, by row; its reasons are added up as bits."""
    first, second, reason = (np.concatenate(arrays).astype(np.int64) for arrays in zip(*found, strict=True))
    # a pair as one number
    pair, which = np.unique(first * count + second, return_inverse=True)
    reasons = np.zeros(len(pair), dtype=np.int64)
    np.bitwise_or.at(reasons, which.ravel(), reason)  # `at`, because a pair may be there several times
    return list(
        zip((pair // max(count, 1)).tolist(), (pair % max(count, 1)).tolist(), reasons.tolist(), strict=True)
    )


def _why(reasons: int, value: float | None) -> str:
    texts = [text for bit, text in _REASONS.items() if reasons & bit]
    if value is not None and value < 0:
        texts[-1] += ", inverted"
    return ", ".join(texts)


def _pairs(films: ComparedFilms, rows: Sequence[tuple[int, int, str, float | None]]) -> list[Pair]:
    return [
        Pair(
            films.case[i],
            films.part[i],
            films.case[j],
            films.part[j],
            why,
            None if value is None else round(float(value), 4),
        )
        for i, j, why, value in rows
    ]


# --- messages and files ----------------------------------------------------------------------------


def first_pairs(pairs: Sequence[Pair], more: int = 0, origins: Mapping[str, str] | None = None) -> str:
    """The first pairs as one text, then how many more there are.

    Args:
        pairs: The pairs.
        more: How many there are beyond those given.
        origins: Pseudonym of a film -> where its source lists it, for the films of which this is known.
    """
    name = {case: case for pair in pairs for case in (pair.case_a, pair.case_b)} | dict(origins or {})
    texts = [
        f"{name[p.case_a]} ({p.part_a}) and {name[p.case_b]} ({p.part_b}): {p.why}" for p in pairs[:_LINES]
    ]
    rest = len(pairs) - len(texts) + more
    return "; ".join(texts) + (f"; ... and {rest:,} more" if rest else "")


def pair_rows(leaks: Leaks) -> list[dict[str, Any]]:
    """Rows of the table of pairs (`PAIR_COLUMNS`): the errors, then the warnings."""
    return [
        {"kind": kind, **pair._asdict()}
        for kind, pairs in (("error", leaks.errors), ("warning", leaks.warnings))
        for pair in pairs
    ]


def read_reviewed(path: Path) -> frozenset[tuple[str, str]]:
    """Read the pairs that a reader has looked at: a CSV file (UTF-8) with the columns case_a and case_b.

    Further columns (`reviewer`, `note`) are ignored. A pair clears pictures only: see `find_leaks`. Where
    there is no such file, nothing was reviewed.

    Returns:
        Pairs of cases, each in alphabetical order.

    Raises:
        Refusal: The file cannot be read, lacks a column, or a row does not name two films.
    """
    if not path.exists():
        return frozenset()
    pairs = set()
    number = 1
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:  # spreadsheets begin with a mark
            rows = csv.reader(file, strict=True)
            header = [name.strip() for name in next(rows, [])]
            for name in ("case_a", "case_b"):
                if header.count(name) != 1:
                    raise Refusal(
                        f"{shown(path)}, row 1: the column {name} must be there once",
                        found=", ".join(header) or "nothing",
                    )
            places = header.index("case_a"), header.index("case_b")
            for number, row in enumerate(rows, start=2):
                if not any(value.strip() for value in row):
                    continue
                a, b = (row[place].strip() if place < len(row) else "" for place in places)
                # the row itself is not shown: a note may name a patient
                if len(row) != len(header) or not (a and b) or a == b:
                    raise Refusal(
                        f"{shown(path)}, row {number}: not two different films in {len(header)} fields",
                        do="name a film in case_a, another in case_b; put quotes around a note with commas",
                    )
                pairs.add((min(a, b), max(a, b)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Refusal(f"{shown(path)}, after row {number}, cannot be read", found=error) from None
    return frozenset(pairs)


def not_checkable(films: ComparedFilms, leaks: Leaks | None = None, by_table: int = 0) -> list[str]:
    """Sentences on what was not, or can not be, compared.

    Args:
        films: Films that were compared. What stands before the first blank of a part's label is its set.
        leaks: Leaks that were found, for pairs that were too many.
        by_table: SIIM-ACR films whose patient a table tells.
    """
    sets = pd.Series(films.part, dtype=object).str.split(" ").str[0].to_numpy()
    siim = sets == "siim"
    sentences = []
    if unknown := int(siim.sum()) - by_table:
        whose = "without an entry in the table of patients" if by_table else "without a table of patients"
        sentences.append(
            f"{whose}: {unknown:,} films of SIIM-ACR, whose download gives nearly every film a PatientID of "
            "its own: where it does, a patient with two films, or who is in NTUH too, is not recognised, "
            "only the same picture"
        )
    if counts := _counts(sets[~films.patient_known & ~siim]):
        sentences.append(
            f"without PatientID: {counts}; they are grouped by exam, so other exams of the same patient are "
            "not recognised"
        )
    if counts := _counts(sets[films.study == ""]):
        sentences.append(
            f"without StudyInstanceUID: {counts}; other films of the same study are not recognised"
        )
    if leaks and leaks.unconfirmed:
        sentences.append(
            f"{leaks.unconfirmed:,} pairs of films with similar hashes, the least alike: too many to compare"
        )
    return sentences


def _counts(sets: np.ndarray) -> str:
    """`1,200 films of ntuh_train, 3 films of ntuh_test`"""
    names, counts = (x.tolist() for x in np.unique(sets.astype(str), return_counts=True))
    return ", ".join(f"{n:,} film{'s' * (n != 1)} of {name}" for name, n in zip(names, counts, strict=True))
