"""The readers' calls as a file that iMRMC reads, a program for studies of several readers and cases.

Its format is that of the manual (https://didsr.github.io/iMRMC, section 4.1, Study Raw Data): free text with
the numbers of cases without (N0) and with (N1) the disease, of readers (NR) and of modalities (NM), a line
`BEGIN DATA:`, and rows `reader,case,modality,score`; the reader -1 gives the truth of each case, 0 or 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import numpy as np

from common.files import whole_file
from common.paths import workspace
from common.refusal import Refusal
from common.removal import Written, refuse_foreign
from common.stages import TESTING_FOLDER
from common.statistics.human_readers import Reading
from common.statistics.tested_films import Cases

NAME = "readers.imrmc"
_TITLE = "Calls of human readers on the test films"
_FILES = Written((NAME,), {NAME: _TITLE})


def refuse_foreign_imrmc() -> None:
    """Refuse to replace a file of this name that somebody else wrote.

    Raises:
        Refusal: There is one.
    """
    refuse_foreign(workspace() / TESTING_FOLDER, _FILES)


def remove_earlier_imrmc() -> None:
    """Remove the file that an earlier run with readers left; somebody else's stays."""
    with suppress(Refusal):
        refuse_foreign_imrmc()
        (workspace() / TESTING_FOLDER / NAME).unlink(missing_ok=True)


def write_imrmc(cases: Cases, readers: Mapping[str, Reading]) -> Path:
    """Write `readers.imrmc` beside metrics.csv.

    Args:
        cases: The test films.
        readers: Calls of the readers on these films.
    """
    path = workspace() / TESTING_FOLDER / NAME
    with whole_file(path) as temporary:
        temporary.write_text(imrmc_text(cases, readers), encoding="ascii")
    return path


def imrmc_text(cases: Cases, readers: Mapping[str, Reading]) -> str:
    """The file's content: against `mask`, the films that anybody read, by pseudonym.

    Readers are numbered in order of their first call. The score is the confidence, 0 to 100, where every
    reader gave one, else the call. A comma or blank in an identifier that was kept is percent-encoded.

    Args:
        cases: The test films.
        readers: Calls of the readers on these films.
    """
    numbers: dict[str, int] = {}
    for reading in readers.values():
        numbers.setdefault(reading.reader, 1 + len(numbers))
    read = np.unique(np.concatenate([reading.rows for reading in readers.values()]))
    positive = cases.has_mask[read]
    confident = all(reading.has_confidence for reading in readers.values())
    score = "confidence" if confident else "call"
    lines = [
        _TITLE,
        f"Reference mask; score is the {score}; cases are films, of which one patient may have several",
        f"N0: {int((~positive).sum())}",
        f"N1: {int(positive.sum())}",
        f"NR: {len(numbers)}",
        f"NM: {len({reading.aided for reading in readers.values()})}",
        "BEGIN DATA:",
        *(f"-1,{quote(cases.case[row])},0,{cases.has_mask[row]:d}" for row in read.tolist()),
    ]
    for reading in readers.values():
        scores = 100 * reading.cases.probability if confident else reading.cases.two_stage
        who, how = f"reader{numbers[reading.reader]}", "aided" if reading.aided else "unaided"
        # Ten decimals undo the division by 100 and keep ties.
        lines += [
            f"{who},{quote(case)},{how},{round(float(score), 10):.12g}"
            for case, score in zip(reading.cases.case.tolist(), scores.tolist(), strict=True)
        ]
    return "\n".join(lines) + "\n"
