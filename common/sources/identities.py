"""Which identifiers name a patient, and which spellings name the same one?

Spreadsheets drop leading zeros and round long numbers, people type blanks and capitals, and anonymisers give
every film one placeholder. Two spellings of a patient must not hide a leak, nor may a placeholder make one
patient of all.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import Any

from common.refusal import Refusal

_PLACEHOLDERS = re.compile(
    r"0*([.,]0+)?|[-_.?*x#]+|#(n/a|ref!|value!|name[?]|null!|num!|div/0!)|n[/.]?a[.]?|nan|null|none|nil|empty|missing|unknown|unbekannt|inconnu|undefined|unspecified|"
    r"(pat(ient)?|id|name|case|subject)?[-_^ ]*(anon[a-z]*|de-?ident[a-z]*|redacted|removed|deleted|"
    r"withheld|hidden|masked|dummy|default|unnamed|noname|noid)[-_^ ]*(pat(ient)?|id|name|case|subject)?|"
    r"(no|not)[-_ ]*(id|name|known|available|given|applicable|specified|provided)|pat(ient)?[-_ ]?(id|name)?"
)
# As 1.23E+12, or with zeros in place of all digits beyond the 15 that a spreadsheet holds
_ROUNDED = re.compile(r"[0-9]+([.,][0-9]+)?e\+[0-9]+|[1-9][0-9]{14}0{3,}")
PLACEHOLDER = (
    "its PatientID is a placeholder (such as ANON, 0 or unknown), so its patient is unknown; "
    "the column patient of the case table can name the patient"
)
ROUNDED = (
    "its patient is a number that a spreadsheet rounded (such as 1.23E+12), so its patient is unknown; "
    "make the column text before the numbers are put in"
)
ALIKE = (
    "its patient is spelt in several ways (leading zeros, case or blanks) and taken as one; "
    "spell a patient in one way, and two patients in ways that differ by more"
)
STUDY_UNKNOWN = (
    "its study is a placeholder or a number that a spreadsheet rounded, so its study is unknown; "
    "the column study of the case table can name it, as text"
)
ALIKE_STUDY = (
    "its study is spelt in several ways (leading zeros, case or blanks) and taken as one; "
    "spell a study in one way, and two studies in ways that differ by more"
)
ALIKE_CASE = (
    "its case differs from another one only by leading zeros, case or blanks; "
    "leave one out if they are the same film, else call them in ways that differ by more"
)
ROUNDED_CASE = (
    "its case is a number that a spreadsheet rounded (such as 1.23E+12), so it may not be found again; "
    "make the column text before the numbers are put in"
)
MOST_OF_ONE = 0.5  # of a set's films
FEWEST = 10  # films of which one patient may have the most


def canonical(identifier: str) -> str:
    """An identifier without leading zeros, capitals and blanks, and without the `.0` of a spreadsheet.

    Letters and digits of full width, as Chinese and Japanese keyboards type them, are those of half width.
    """
    text = re.sub(r"\s+", "", unicodedata.normalize("NFKC", identifier)).casefold()
    text = re.sub(r"^([0-9]+)[.,]0+$", r"\1", text)
    return re.sub(r"(?<![0-9.])0+(?=[0-9])", "", text)  # not after a point, as in the parts of a UID


def is_rounded(identifier: str) -> bool:
    """Whether an identifier is a number as a spreadsheet shows a long one."""
    return bool(_ROUNDED.fullmatch(identifier.strip().casefold()))


def why_unknown(identifier: str) -> str | None:
    """Why an identifier names no patient; None where it does."""
    text = identifier.strip().casefold()
    if text and _PLACEHOLDERS.fullmatch(text):
        return PLACEHOLDER
    return ROUNDED if is_rounded(text) else None


def unite(rows: list[dict[str, Any]], keys: list[str | None], column: str = "patient") -> list[int]:
    """Give all spellings of a patient, or of a study, the name of the first one.

    Args:
        rows: Rows of prepared cases, whose `column` is changed.
        keys: The pseudonym of each row's canonical identifier; None where it is unknown.
        column: `patient` or `study`.

    Returns:
        The rows whose patient or study was spelt in several ways.
    """
    spellings: dict[str, dict[str, None]] = {}
    for row, key in zip(rows, keys, strict=True):
        if key:
            spellings.setdefault(key, {})[row[column]] = None
    alike = [i for i, key in enumerate(keys) if key and len(spellings[key]) > 1]
    for i in alike:
        rows[i][column] = next(iter(spellings[keys[i] or ""]))
    return alike


def refuse_one_patient(name: str, patients: Iterable[tuple[str, int]]) -> None:
    """Refuse a set of which one patient has most of the films.

    Args:
        name: The set.
        patients: (pseudonym, 1 where known) of each film.

    Raises:
        Refusal: It is a placeholder that no list of words has.
    """
    held = list(patients)
    largest = max(Counter(patient for patient, is_known in held if is_known).values(), default=0)
    if len(held) >= FEWEST and largest > MOST_OF_ONE * len(held):
        raise Refusal(
            f"{name}: {largest:,} of {len(held):,} films carry one PatientID, which is no patient's",
            do="give each film its patient in the column patient of the case table",
        )
