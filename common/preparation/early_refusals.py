"""What a source's table tells of its films before one is read: refused at once, not hours later."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from itertools import islice

import pydicom

from common.command_line import Rules
from common.films.header import facts
from common.preparation.film_task import exclusion
from common.preparation.notes import grouped
from common.refusal import Refusal
from common.sources.source_film import SourceFilm
from common.sources.table_check import Shared, shared_patients, where
from common.stages import PREPARE_COMMAND

_MOST = 5  # patients, or reasons, of a message


def refuse_by_table(listed: Mapping[str, list[SourceFilm]], rules: Rules) -> None:
    """Refuse what preparing would refuse after it has read the films, as far as their table tells.

    Args:
        listed: The films that the source lists, by the name of their set.
        rules: Rules to prepare by.

    Raises:
        Refusal: More rows have a fault than the rules allow; or patients have films in several sets.
    """
    for name, films in listed.items():
        _refuse_many_faults(name, films, rules)
    _refuse_shared_patients(listed, rules)


def _refuse_many_faults(name: str, films: list[SourceFilm], rules: Rules) -> None:
    faults = [(film, film.fault) for film in films if film.fault]
    if len(faults) <= rules.max_fault_share * len(films):
        return
    raise Refusal(
        f"{name}: {len(faults):,} of {len(films):,} films have a fault in their table, more than "
        f"{rules.max_fault_share:.0%}",
        found="; ".join(grouped(faults)[:_MOST]),
        do="mend the table or the folder, or allow more: "
        f"{PREPARE_COMMAND} --{name.partition('_')[0]} PATH --max-fault-share SHARE",
    )


def _refuse_shared_patients(listed: Mapping[str, list[SourceFilm]], rules: Rules) -> None:
    remaining = (shared for each in shared_patients(listed) if (shared := _without_excluded(each, rules)))
    found = list(islice(remaining, _MOST + 1))
    if found:
        several = "more than " if len(found) > _MOST else ""
        count = f"{several}{min(len(found), _MOST)}"
        raise Refusal(
            f"{count} {'patient has' if count == '1' else 'patients have'} films in training and in testing",
            found="; ".join(f"one patient: {where(each)}" for each in found[:_MOST]),
            do="leave out a patient's films of one set, or put them into the other; "
            "all of them: bash common/prepare.sh --check-table PATH",
        )


def _without_excluded(shared: Shared, rules: Rules) -> Shared | None:
    """The films of a patient that no rule leaves out; None where they are no longer in every set."""
    kept = {name: [film for film in films if not _is_left_out(film, rules)] for name, films in shared.items()}
    return kept if all(kept.values()) else None


def _is_left_out(film: SourceFilm, rules: Rules) -> bool:
    """Whether age, view or burned-in text leaves a film out, by its header as far as its table is silent."""
    known = {"age": None, "view": None, "burned_in": False}
    try:
        with warnings.catch_warnings():  # pydicom warns of oddities that it can live with
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(film.file, stop_before_pixels=True)
            known |= facts(header, lambda _: None)
    except Exception:  # a picture, which has no header; or no film at all, as reading it will say
        pass
    return exclusion(known | dict(film.facts), rules) is not None
