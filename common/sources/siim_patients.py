"""Which films of SIIM-ACR are of one patient? A table tells, since the headers do not.

SIIM-ACR gives nearly every film a PatientID of its own. Its films are films of NIH ChestX-ray14, whose names
begin with the patient, and public solutions of the challenge found out which is which: `docs/data.md` says
where, and how the table is made of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from common.files import canonical_json, digest
from common.paths import shown
from common.refusal import Refusal
from common.sources.csv_rows import RAGGED, read_rows

TABLE = "patients.csv"  # beside the label file, unless another one is named
COLUMNS = ("ImageId", "patient")
ORIGIN = "input/nih_id.csv of earhian/SIIM-ACR-Pneumothorax-Segmentation-5th on GitHub"
RECIPE = "docs/data.md says how the table is made"


@dataclass(frozen=True)
class PatientTable:
    """Which film is of which patient.

    Attributes:
        file: Path of the table.
        patients: ImageId -> identifier of the patient.
    """

    file: Path
    patients: Mapping[str, str]

    @cached_property
    def content(self) -> str:
        """SHA-256 of the entries, whatever their order."""
        return digest(canonical_json(dict(self.patients)))

    def refuse_strange(self, identifiers: Iterable[str]) -> None:
        """Refuse a table that knows none of the films with these ImageIds: it is of others."""
        if self.patients.keys().isdisjoint(identifiers):
            raise Refusal(
                f"{shown(self.file)} names none of the SIIM-ACR films",
                found=f"{len(self.patients):,} entries of other films",
                do=f"its column ImageId must hold what the download calls so; {RECIPE}",
            )


def find_patients(folder: Path, named: str | None) -> PatientTable | None:
    """Read the table that was named, else `patients.csv` of the download; None where there is none.

    Args:
        folder: The SIIM-ACR download.
        named: Path of the table, or None.

    Raises:
        Refusal: The named table is missing; see `read_patients`.
    """
    file = Path(named).expanduser().resolve() if named else folder / TABLE
    if not file.is_file():
        if named:
            raise Refusal("there is no such table of patients", missing=shown(file), do=RECIPE)
        return None
    return PatientTable(file, read_patients(file))


def read_patients(path: Path) -> dict[str, str]:
    """Read a table with the columns ImageId and patient; further columns are ignored.

    Returns:
        ImageId -> identifier of the patient.

    Raises:
        Refusal: It cannot be read or lacks a column; a row is ragged or has an empty cell; a film has two
            patients. Cells are never shown.
    """
    (_, header), *body = read_rows(path) or [(1, [])]
    header = [name.strip() for name in header]
    if lacking := [name for name in COLUMNS if header.count(name) != 1]:
        raise Refusal(
            f"{shown(path)}: the columns ImageId and patient must be there once",
            missing=", ".join(lacking),
            do=RECIPE,
        )
    places = [header.index(name) for name in COLUMNS]
    patients: dict[str, str] = {}
    rows: dict[str, int] = {}
    for number, cells in body:
        if len(cells) != len(header):
            raise Refusal(f"{shown(path)}, row {number}: {RAGGED}")
        film, patient = (cells[place].strip() for place in places)
        if not (film and patient):
            raise Refusal(f"{shown(path)}, row {number}: ImageId or patient is empty")
        if patients.setdefault(film, patient) != patient:
            raise Refusal(
                f"{shown(path)} gives one film two patients",
                found=f"rows {rows[film]} and {number}",
                do="find out which is right, and delete the other row",
            )
        rows.setdefault(film, number)
    if not patients:
        raise Refusal(f"{shown(path)} names no film", do=RECIPE)
    return patients
