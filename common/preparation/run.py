"""Source films -> prepared sets: by itself in the first stage that needs them, or by `common/prepare.sh`.

Films are read in parallel by processes that may be lost (`crash_safe_pool.py`), each written into its row of
the growing arrays and noted in a journal, so that an interrupted preparation goes on. When all films of a
source are there, leakage is checked, and the sets are finished: all of them appear, or none.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.command_line import PrepareOptions, Rules
from common.files import alone, digest, in_turn, read_json, refuse_small_disk, write_csv, write_json
from common.films.resample import resample
from common.missing import (
    SOURCE_TITLES,
    folders_to_prepare,
    refuse_missing_films,
    refuse_missing_sets,
)
from common.paths import (
    SETS,
    leaks_file,
    prepared_folder,
    set_is_prepared,
    shown,
    source_folder,
    workspace,
)
from common.preparation import fingerprints, folds
from common.preparation.crash_safe_pool import Lost, cores, in_workers
from common.preparation.early_refusals import refuse_by_table
from common.preparation.film_store import (
    ARRAYS,
    FILM_BYTES,
    GROWING_ARRAYS,
    SIDE,
    GrowingArrays,
    PreparedSet,
)
from common.preparation.film_task import EXCLUDED, FULL, PREPARED, REJECTED, Outcome, Task, prepare_film
from common.preparation.flow_diagram import count_flow, draw_flow, print_flow
from common.preparation.leaks import (
    PAIR_COLUMNS,
    ComparedFilms,
    Pair,
    concatenate,
    find_leaks,
    first_pairs,
    not_checkable,
    pair_rows,
    read_reviewed,
)
from common.preparation.listed_films import ListedFilms
from common.preparation.near_copies import CONFIRM_SIDE, SAME_PICTURE
from common.preparation.noise import NOISE, are_noise
from common.preparation.notes import FILE as NOTES
from common.preparation.notes import grouped, print_notes, write_notes
from common.preparation.prepared_cases import COLUMNS
from common.preparation.resume_log import (
    JOURNAL,
    JOURNALS_OF_SHARDS,
    ResumeLog,
    started,
    started_otherwise,
)
from common.preparation.second_masks import FILE as SECOND_MASKS
from common.preparation.second_masks import masks_digest, write_second_masks
from common.preparation.spellings import FILE as SPELLINGS
from common.preparation.spellings import read_spellings, spelt_otherwise, write_spellings
from common.preparation.unlabelled import SET as UNLABELLED
from common.preparation.unlabelled import name_as_known, recognised
from common.progress import progress
from common.pseudonyms import pseudonym
from common.refusal import Refusal
from common.removal import Written, refuse_foreign, remove_written
from common.shards import WHOLE, Shard
from common.sources import case_table, ntuh, siim, unlabelled
from common.sources.identities import (
    ALIKE,
    ALIKE_CASE,
    ALIKE_STUDY,
    ROUNDED_CASE,
    STUDY_UNKNOWN,
    canonical,
    is_rounded,
    refuse_one_patient,
    unite,
    why_unknown,
)
from common.sources.siim_patients import PatientTable, find_patients
from common.sources.source_film import FOUND, SourceFilm
from common.stages import PREPARE_COMMAND

REVIEWED = "reviewed_pairs.csv"
BEGUN = "rules.json"  # of a set while it is prepared; then they stand in the manifest
# The manifest goes first: a set half of which is removed is not finished.
SET_FILES = Written(
    (
        "manifest.json",
        JOURNAL,
        JOURNALS_OF_SHARDS,
        *ARRAYS,
        *GROWING_ARRAYS,
        "cases.csv",
        SECOND_MASKS,
        "rejected.csv",
        NOTES,
        SPELLINGS,
        "fingerprints.csv",
        "flow.json",
        "flow.png",
        "folds.json",
        BEGUN,
    ),
    {"manifest.json": '"content"', BEGUN: '"minimum_age"'},
)
_LEAKS = Written(("leaks.csv",), {"leaks.csv": ",".join(PAIR_COLUMNS)})
UNMARKED = "its label is positive, but no lesion is marked"
_NEVER_PREPARED_BY = ("max_fault_share",)  # a rule that decides about the run, not about a film


def open_prepared(name: str, source: str | None, needed_for: str, patients: str | None = None) -> PreparedSet:
    """Open a prepared set, preparing it by the default rules when it is not there.

    Args:
        name: `siim`, `ntuh_train`, `ntuh_test` or `unlabelled`. The hospital's two are prepared together.
        source: Folder of the films; None: `data/siim` or `data/ntuh` of the workspace.
        needed_for: Stage that asks, as the refusal names it.
        patients: Table of SIIM-ACR's patients; None: `patients.csv` in its folder, where it exists.

    Raises:
        Refusal: No source; a source or table that changed since; leakage; too few films, or too many faults;
            unlabelled films that were compared with other films than are prepared now.
    """
    key = next(key for key, names in SETS.items() if name in names)
    refuse_missing_films(key, source, needed_for)
    with in_turn(_lock()):  # the one of two trainings that comes second waits for the films
        prepared = PreparedSet(prepared_folder(name))
        finished = _finished(key)
        folder = source_folder(key, source)
        table = find_patients(folder, patients) if key == "siim" else None
        if finished and table:
            _refuse_other_patients(prepared, table)
        if finished and key == UNLABELLED:
            _refuse_compared_with_others(prepared)
        if not folder.is_dir():  # prepared films are enough
            return prepared
        if finished:
            _refuse_changed(key, folder, Rules(**_plain(prepared.manifest["rules"])))
        else:
            rules = _begun_by(key) or Rules()
            rules = _of_hospital(rules.max_fault_share) if key == UNLABELLED else rules
            _prepare(key, folder, rules, table, fresh=False)
        return prepared


def prepare_sources(options: PrepareOptions) -> None:
    """Prepare the films of the sources that are named, or that lie in the workspace.

    Raises:
        Refusal: As in `open_prepared`; prepared before by other rules; no source at all.
    """
    folders = folders_to_prepare(options.siim, options.ntuh, options.unlabelled, options.siim_patients)
    shard = Shard.named(options.shard)
    for key, folder in folders.items():
        table = find_patients(folder, options.siim_patients) if key == "siim" else None
        if shard.count > 1:
            _prepare_shard(key, folder, _asked(key, options.rules), table, shard)
            continue
        with in_turn(_lock()):
            _prepare_by_rules(key, folder, _asked(key, options.rules), table, options.fresh)


def _prepare_by_rules(key: str, folder: Path, rules: Rules, table: PatientTable | None, fresh: bool) -> None:
    if fresh or not _finished(key):
        _prepare(key, folder, rules, table, fresh)
        return
    if table:
        _refuse_other_patients(PreparedSet(prepared_folder(key)), table)
    for name in SETS[key]:
        manifest = PreparedSet(prepared_folder(name)).manifest
        _refuse_other_rules(name, Rules(**_plain(manifest["rules"])), rules)
    if key == UNLABELLED:
        _refuse_compared_with_others(PreparedSet(prepared_folder(key)))
    _refuse_changed(key, folder, rules)
    for name in SETS[key]:
        print_flow(read_json(prepared_folder(name) / "flow.json", PREPARE_COMMAND))
    print(f"{SOURCE_TITLES[key]}: prepared before, nothing to do")


def _lock() -> Path:
    """Held by whoever prepares: alone, or together with other shards."""
    return workspace() / "data" / ".prepare.lock"


def look_ahead(
    key: str, source: str | None, patients: str | None, rules: Rules | None, needed_for: str
) -> dict[str, PreparedSet | ListedFilms]:
    """The films of a source before anything is written: the prepared sets, else what the source lists.

    Args:
        key: `siim` or `ntuh`.
        source: Folder of the download or export; None: that of the workspace.
        patients: Table of SIIM-ACR's patients, or None.
        rules: Rules to prepare by, which prepared films must have been prepared by; None: any.
        needed_for: Stage that asks, as the refusal names it.

    Returns:
        Films of each set of the source.

    Raises:
        Refusal: As preparing, but for what only reading the films and the space on the disk can tell.
    """
    refuse_missing_films(key, source, needed_for)
    folder = source_folder(key, source)
    table = find_patients(folder, patients) if key == "siim" else None
    if not _finished(key):
        rules = rules or _begun_by(key) or Rules()
        listed = _list(key, folder, rules)
        refuse_by_table(listed, _applying(SETS[key][0], rules))
        if table:
            table.refuse_strange(film.identifier for film in listed["siim"])
        _refuse_foreign(key, folder)
        return {name: ListedFilms.of(name, films) for name, films in listed.items()}
    prepared = {name: PreparedSet(prepared_folder(name)) for name in SETS[key]}
    by = Rules(**_plain(prepared[SETS[key][0]].manifest["rules"]))
    if table:
        _refuse_other_patients(prepared[key], table)
    if rules:
        _refuse_other_rules(key, by, rules)
    if folder.is_dir():
        _refuse_changed(key, folder, by)
    return dict(prepared)


def _finished(key: str) -> bool:
    return all(map(set_is_prepared, SETS[key]))


def _begun_by(key: str) -> Rules | None:
    """The rules by which an interrupted preparation began: whoever goes on with it keeps to them."""
    for name in SETS[key]:
        file = prepared_folder(name) / BEGUN
        if file.exists():
            return Rules(**_plain(read_json(file, PREPARE_COMMAND)))
    return None


def _of_hospital(max_fault_share: float) -> Rules:
    """The rules of unlabelled films: those of the hospital's, which networks have learnt from.

    Raises:
        Refusal: The hospital's films are not prepared.
    """
    refuse_missing_sets("ntuh", "preparing unlabelled films")
    rules = Rules(**_plain(PreparedSet(prepared_folder("ntuh_train")).manifest["rules"]))
    return dataclasses.replace(rules, max_fault_share=max_fault_share)


def _asked(key: str, asked: Rules) -> Rules:
    """The rules asked for; of unlabelled films the hospital's, where none or these very ones are."""
    if key != UNLABELLED:
        return asked
    rules = _of_hospital(asked.max_fault_share)
    if asked != Rules(max_fault_share=asked.max_fault_share):
        _refuse_other_rules("ntuh_train", rules, asked)
    return rules


def _plain(rules: dict[str, Any]) -> dict[str, Any]:
    """Rules read from JSON: lists as the tuples they were."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in rules.items()}


def _list(key: str, folder: Path, rules: Rules) -> dict[str, list[SourceFilm]]:
    """What a source lists for each of its sets, in order of the identifiers."""
    if key == "siim":
        listed = {"siim": siim.source_films(folder)}
    elif key == UNLABELLED:
        listed = {UNLABELLED: unlabelled.source_films(folder, rules)}
    else:
        reader = case_table if case_table.find_table(folder) else ntuh
        listed = {name: reader.source_films(folder, name, rules) for name in SETS[key]}
    # Not by pseudonyms: their key differs between machines, and no result may depend on it.
    return {name: sorted(films, key=lambda film: film.identifier) for name, films in listed.items()}


def _refuse_changed(key: str, folder: Path, rules: Rules) -> None:
    """Refuse a source that is no longer what the sets were prepared from."""
    changes = {
        name: fingerprints.changes(prepared_folder(name), films)
        for name, films in _list(key, folder, rules).items()
    }
    found = [f"{name}: {change}" for name, each in changes.items() for change in each]
    if found:
        raise Refusal(
            f"the films in {shown(folder)} are not those that were prepared",
            found="; ".join(found[:8]),
            do=f"name the folder they were prepared from (--{key} PATH), or prepare them anew: "
            f"{PREPARE_COMMAND} --{key} PATH --fresh",
        )


def _applying(name: str, rules: Rules) -> Rules:
    """What of the rules holds for a set: some are the hospital's, and pre-training takes every film."""
    if name != "siim":
        return rules
    return dataclasses.replace(rules, minimum_age=0, views=(), allow_chest_tube=False, test_from="")


def _refuse_other_rules(name: str, old: Rules, new: Rules) -> None:
    was, asked = (dataclasses.asdict(_applying(name, rules)) for rules in (old, new))
    different = [
        f"{key} was {was[key] or 'not given'}, is {asked[key] or 'not given'}"
        for key in asked
        if was[key] != asked[key] and key not in _NEVER_PREPARED_BY
    ]
    if different:
        raise Refusal(
            f"{name} was prepared by other rules",
            found="; ".join(different),
            do="give the same flags; or prepare it anew, and then train anew: "
            f"{PREPARE_COMMAND} --{name.partition('_')[0]} PATH --fresh",
        )


def _refuse_compared_with_others(prepared: PreparedSet) -> None:
    """Refuse unlabelled films that were not compared with the hospital's films as they are prepared now."""
    compared = prepared.manifest["compared_with"]
    if any(compared[name] != PreparedSet(prepared_folder(name)).content for name in SETS["ntuh"]):
        raise Refusal(
            "the unlabelled films were compared with other films of the hospital than are prepared now",
            do=f"compare them anew: {PREPARE_COMMAND} --unlabelled PATH --fresh",
        )


def _refuse_other_patients(prepared: PreparedSet, table: PatientTable) -> None:
    """Refuse a table of patients by which the set was not divided."""
    known = prepared.patient_table
    if known is None or known["sha256"] != table.content:
        raise Refusal(
            "the SIIM-ACR films were prepared "
            + ("without a table of patients" if known is None else "by another table of patients"),
            found=shown(table.file),
            do="move the table away to go on as they were prepared; or prepare and then train anew: "
            f"{PREPARE_COMMAND} --siim PATH --siim-patients FILE --fresh",
        )


# --- preparing -------------------------------------------------------------------------------------


@dataclass
class Growing:
    """A set while it is prepared: what the source lists, and the journal of its readable films."""

    name: str
    listed: list[SourceFilm]
    readable: list[SourceFilm]
    rules: Rules
    journal: ResumeLog
    table: PatientTable | None = None

    @property
    def folder(self) -> Path:
        return prepared_folder(self.name)

    def entries(self, kind: str) -> list[dict[str, Any]]:
        """The journal's entries of one kind, in the order of the films."""
        # by row: workers finish in any order
        return [e for _, e in sorted(self.journal.entries.items()) if e["kind"] == kind]

    def left_out(self, kind: str) -> list[tuple[SourceFilm, str]]:
        """Films that were excluded or rejected, by their row in the table or when they were read."""
        by_table = [
            (film, reason)
            for film in self.listed
            if (reason := film.fault or film.excluded) and bool(film.fault) == (kind == REJECTED)
        ]
        return by_table + [(self.readable[e["row"]], e["reason"]) for e in self.entries(kind)]

    def reasons(self, kind: str) -> list[str]:
        """Why films were left out, without the values that were found."""
        return [reason.partition(FOUND)[0] for _, reason in self.left_out(kind)]


def _prepare_shard(key: str, folder: Path, rules: Rules, table: PatientTable | None, shard: Shard) -> None:
    """Read a shard's films; whoever comes last finishes the sets, with all films before its eyes."""
    growing: list[Growing] = []
    with (
        in_turn(_lock(), shared=True),
        shard.claim(workspace() / "data" / ".prepare", f"another process prepares films in {workspace()}"),
    ):
        if not _finished(key):
            with in_turn(_lock().with_name(".prepare.begin.lock")):  # the first begins, the others find it
                growing = _start(key, folder, rules, table, fresh=False, shard=shard)
            _read_films(growing, SOURCE_TITLES[key], shard)
    try:
        lock = alone(_lock(), "other shards are at work")
    except Refusal as busy:
        print(f"shard {shard}: its films are read; {busy.what}, and the last of them finishes")
        return
    with lock:  # now that nobody is at work, it can be seen what is left
        left = sum(len(each.readable) - len(each.journal.rows_of_all()) for each in growing)
        if left and not _finished(key):
            print(f"shard {shard}: its films are read; {left:,} of other shards are not, the last finishes")
        else:
            _prepare_by_rules(key, folder, rules, table, fresh=False)


def _start(
    key: str, folder: Path, rules: Rules, table: PatientTable | None, fresh: bool, shard: Shard = WHOLE
) -> list[Growing]:
    """Begin the sets of a source, or go on with them; nothing is written where they cannot be prepared."""
    listed = _list(key, folder, rules)
    if table:
        table.refuse_strange(film.identifier for film in listed["siim"])
    _refuse_foreign(key, folder)
    total = sum(not (f.excluded or f.fault) for films in listed.values() for f in films)
    print(f"Preparing {total:,} {SOURCE_TITLES[key]} films once ({total * FILM_BYTES / 1e9:.1f} GB on disk)")
    # Before anything is written, not hours later.
    _refuse_full_disk(total, [prepared_folder(name) for name in listed])
    return [_begin(name, films, rules, table, fresh, shard) for name, films in listed.items()]


def _prepare(key: str, folder: Path, rules: Rules, table: PatientTable | None, fresh: bool) -> None:
    # All sets of a source are read before any is finished: they are searched for leaks together.
    growing = _start(key, folder, rules, table, fresh)
    _read_films(growing, SOURCE_TITLES[key])
    _reject_noise(growing)
    for each in growing:
        _refuse_many_faults(each)
    if key == UNLABELLED:
        _leave_out_known(growing[0])
    rows = {each.name: case_rows(each) for each in growing}
    # Within one hospital only: numbers of two hospitals may be alike and be of two people.
    if key == "ntuh":
        _unite_spellings(growing, rows)
    parts = {each.name: assign_parts(each.name, rows[each.name]) for each in growing}
    _refuse_leakage(growing, rows, parts)
    contents = [_finish(each, rows[each.name], parts[each.name]) for each in growing]
    # A set is finished once it has a manifest, so these come when all sets are whole.
    others = {name: PreparedSet(prepared_folder(name)).content for name in _finished_sets()}
    for each, content in zip(growing, contents, strict=True):
        compared = {"compared_with": others} if key == UNLABELLED else {}
        write_json(each.folder / "manifest.json", content | compared | {"rules": dataclasses.asdict(rules)})
    for each in growing:
        GrowingArrays(each.folder).remove_masks()  # not before: until then, an interrupted run goes on
        (each.folder / BEGUN).unlink()
        each.journal.remove()


def _refuse_foreign(key: str, source: Path) -> None:
    """Refuse to write among the source's files, or where something lies that preparing did not write."""
    for folder in map(prepared_folder, SETS[key]):
        if source.resolve().is_relative_to(folder.resolve()):
            raise Refusal(
                f"the {SOURCE_TITLES[key]} films lie where prepared films are written",
                found=f"{shown(source)} in {shown(folder)}",
                do="move them to another folder",
            )
        refuse_foreign(folder, SET_FILES)
    refuse_foreign(leaks_file().parent, _LEAKS)


def _refuse_full_disk(films: int, folders: list[Path]) -> None:
    workspace().mkdir(parents=True, exist_ok=True)
    # What an interrupted run has taken already, in blocks: rows that are not written yet are holes.
    held = sum(
        file.stat().st_blocks * 512
        for folder in folders
        for file in map(folder.joinpath, SET_FILES.names)
        if file.suffix == ".npy" and file.is_file()
    )
    refuse_small_disk(films * FILM_BYTES - held, "the prepared films")


def _begin(
    name: str,
    listed: list[SourceFilm],
    rules: Rules,
    table: PatientTable | None,
    fresh: bool,
    shard: Shard,
) -> Growing:
    """Begin a set, or go on where an earlier run stopped, unless it is to be prepared afresh."""
    # First, because by this file the folder is known as ours.
    write_json(prepared_folder(name) / BEGUN, dataclasses.asdict(rules))
    rules = _applying(name, rules)
    folder = prepared_folder(name)
    heading = _heading(listed, rules)
    if shard.count > 1 and started_otherwise(folder, heading):  # by others, who may be at work
        raise Refusal(
            f"{name} was begun by other rules, or of other films",
            found=", ".join(shown(path) for path in sorted(folder.glob("journal*.jsonl"))),
            do="give the same flags; or delete these files, when nobody prepares films, to begin anew",
        )
    if fresh or not started(folder, heading):
        remove_written(folder, SET_FILES, spared=[BEGUN])
    GrowingArrays(folder).begin()
    readable = [film for film in listed if not (film.excluded or film.fault)]
    return Growing(name, listed, readable, rules, ResumeLog(folder, heading, shard), table)


def _read_films(growing: list[Growing], title: str, shard: Shard = WHOLE) -> None:
    """Read all films of a shard that are not in the journals yet, into the growing arrays."""
    journals = {each.folder: each.journal for each in growing}
    tasks = [
        Task(row, film, each.folder, each.rules)
        for each in growing
        for row, film in enumerate(each.readable)
        if shard.takes(row) and row not in each.journal.entries
    ]
    total = sum(len(shard.share(each.readable)) for each in growing)
    with progress(total, f"preparing {title}", done=total - len(tasks)) as bar:
        # This process alone writes the journals, so that no two lines are ever mixed.
        for task, outcome in in_workers(prepare_film, tasks, min(cores(), max(len(tasks), 1))):
            journals[task.folder].add(journal_entry(task, outcome))
            bar.update()
    for journal in journals.values():
        journal.close()


def _reject_noise(growing: list[Growing]) -> None:
    """Reject films that are noise beside the others of their source, which are known only now."""
    read = [(each, e) for each in growing for e in each.entries(PREPARED) if "roughness" in e]
    noise = are_noise([entry["roughness"] for _, entry in read])
    for (each, entry), is_noise in zip(read, noise, strict=True):
        if is_noise:
            _leave_out(each, entry, REJECTED, NOISE)


def _leave_out(each: Growing, entry: dict[str, Any], kind: str, reason: str) -> None:
    """Leave out a film for what it is beside others: in memory only, since it is asked anew with others."""
    changed = {"kind": kind, "reason": reason, "picture": None, "perceptual": None}
    each.journal.entries[entry["row"]] = entry | changed


def _heading(listed: list[SourceFilm], rules: Rules) -> str:
    """SHA-256 of everything that decides what is prepared, but the content of the image files."""
    relevant = {k: v for k, v in dataclasses.asdict(rules).items() if k not in _NEVER_PREPARED_BY}
    return digest(str(sorted(relevant.items())), *(key + what for key, what in fingerprints.listing(listed)))


def journal_entry(task: Task, outcome: Outcome | Lost) -> dict[str, Any]:
    """The journal's line of a film, under pseudonyms."""
    if isinstance(outcome, Lost):
        outcome = Outcome(REJECTED, outcome.reason)
    if outcome.kind == FULL:
        raise Refusal(
            f"cannot write {shown(GrowingArrays(task.folder).films)}",
            found=outcome.reason,
            do="free space and run the same command again: it goes on where it stopped",
        )
    entry = {
        "row": task.row,
        "kind": outcome.kind,
        "reason": outcome.reason,
        **fingerprints.of_file(task.film.file, outcome.file),
    }
    if outcome.kind == PREPARED:
        entry |= {
            "picture": outcome.picture,
            "mask": outcome.mask,
            "area": outcome.area,
            "perceptual": outcome.perceptual,
            "roughness": outcome.roughness,
            "case": _named("case", task.film.identifier, task.rules),
            "notes": [*outcome.notes, *([ROUNDED_CASE] if is_rounded(task.film.identifier) else [])],
            **({"second": outcome.second} if outcome.second else {}),
        }
        facts = {name: value for name, value in outcome.facts.items() if name in COLUMNS}
        patient, study = outcome.facts["patient_id"], outcome.facts["study"]
        if patient and (unknown := why_unknown(patient)):
            patient = ""
            entry["notes"].append(unknown)
        if study and why_unknown(study):
            study = ""
            entry["notes"].append(STUDY_UNKNOWN)
        identifiers = {"patient": patient, "study": study, "case": task.film.identifier}
        # among the entry's own, not its facts, which are cells of the prepared cases
        entry["canonical"] = {
            kind: pseudonym(kind, canonical(name)) if name else None for kind, name in identifiers.items()
        }
        entry["facts"] = facts | {
            # `exam ` in front, or an exam's number could meet a patient's.
            "patient": _named("patient", patient or f"exam {task.film.identifier}", task.rules),
            "patient_known": int(bool(patient)),
            "study": _named("study", study, task.rules) if study else None,
        }
    return entry


def _named(kind: str, identifier: str, rules: Rules) -> str:
    return identifier if rules.keep_identifiers else pseudonym(kind, identifier)


def _refuse_many_faults(growing: Growing) -> None:
    left_out = [(kind, reason) for kind in (REJECTED, EXCLUDED) for reason in growing.reasons(kind)]
    # An exclusion is as intended; only faults say that the source is not what it should be.
    faults = sum(kind == REJECTED for kind, _ in left_out)
    share = faults / max(len(growing.listed), 1)
    reasons = "; ".join(f"{count:,} {kind}: {why}" for (kind, why), count in Counter(left_out).most_common(8))
    rows = "; ".join(grouped(growing.left_out(REJECTED))[:8]) or None
    # Listed here, since a refusal ends the run before `_finish` would.
    if not growing.entries(PREPARED):
        _write_rejected(growing)
        raise Refusal(
            f"no film of {growing.name} could be prepared",
            found=reasons or "an empty table",
            rows=rows,
            listed=shown(growing.folder / "rejected.csv"),
        )
    if share > growing.rules.max_fault_share:
        _write_rejected(growing)
        raise Refusal(
            f"{growing.name}: {faults:,} of {len(growing.listed):,} films have a fault, more than "
            f"{growing.rules.max_fault_share:.0%}",
            found=reasons,
            rows=rows,
            listed=shown(growing.folder / "rejected.csv"),
            do=f"mend the films or the table, or allow more: {PREPARE_COMMAND} "
            f"--{growing.name.split('_')[0]} PATH --max-fault-share {math.ceil(share * 100) / 100:.2f} "
            "(films that were read are not read again)",
        )


def _write_rejected(growing: Growing) -> None:
    """List every film that was not prepared: those with a fault first, then those that a rule excludes."""
    left_out = [
        {"case": pseudonym("case", film.identifier), "origin": film.origin, "kind": kind, "reason": reason}
        for kind in (REJECTED, EXCLUDED)
        for film, reason in growing.left_out(kind)
    ]
    write_csv(growing.folder / "rejected.csv", ["case", "origin", "kind", "reason"], left_out)


def case_rows(growing: Growing) -> list[dict[str, Any]]:
    """The prepared cases of a set."""
    rows, masks = [], 0
    for entry in growing.entries(PREPARED):
        film = growing.readable[entry["row"]]
        rows.append(
            {
                "case": entry["case"],
                "has_mask": int(bool(entry["mask"])),
                "report": film.report,
                "mask_row": masks if entry["mask"] else -1,
                "mask_area_fraction": entry["area"],
                "chest_tube": film.chest_tube,
                **entry["facts"],
                **_patient_by_table(growing, film.identifier),
            }
        )
        masks += bool(entry["mask"])
    return rows


def _canonical(growing: Growing) -> list[dict[str, str | None]]:
    """Pseudonyms of patient, study and case of each prepared film as they are whatever their spelling."""
    found = []
    for entry in growing.entries(PREPARED):
        each = dict.fromkeys(("patient", "study", "case")) | entry.get("canonical", {})
        patient = growing.table and growing.table.patients.get(growing.readable[entry["row"]].identifier)
        found.append(each | ({"patient": pseudonym("patient", canonical(patient))} if patient else {}))
    return found


def _unite_spellings(growing: list[Growing], rows: dict[str, list[dict[str, Any]]]) -> None:
    """Take the spellings of a patient or study as one, in training and testing; say which cases are alike.

    Raises:
        Refusal: One patient has most of the films.
    """
    entries = [entry for each in growing for entry in each.entries(PREPARED)]
    films = [each.readable[entry["row"]] for each in growing for entry in each.entries(PREPARED)]
    together = [row for each in growing for row in rows[each.name]]
    known = [each for one in growing for each in _canonical(one)]
    cases = Counter(each["case"] for each in known)
    alike = {
        ALIKE: unite(together, [each["patient"] for each in known]),
        ALIKE_STUDY: unite(together, [each["study"] for each in known], "study"),
        ALIKE_CASE: [i for i, each in enumerate(known) if each["case"] and cases[each["case"]] > 1],
    }
    for note, places in alike.items():
        for i in places:
            entries[i]["notes"] = [*entries[i].get("notes", []), note]
        for line in grouped((films[i], note) for i in places):
            print(f"  warning: {line}")
    for each in growing:
        patients = [(row["patient"], row["patient_known"]) for row in rows[each.name]]
        refuse_one_patient(each.name, patients)


def _patient_by_table(growing: Growing, identifier: str) -> dict[str, Any]:
    """What the table says of a film; nothing without an entry: then the header's PatientID counts."""
    patient = growing.table.patients.get(identifier) if growing.table else None
    return {"patient": _named("patient", patient, growing.rules), "patient_known": 1} if patient else {}


def _table_facts(growing: Growing, rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """What became of the table of patients, in numbers; None without one."""
    if growing.table is None:
        return None
    known = growing.table.patients
    named = [growing.readable[e["row"]].identifier in known for e in growing.entries(PREPARED)]
    patients = {row["patient"] for row, has_entry in zip(rows, named, strict=True) if has_entry}
    return {
        "films": sum(named),
        "patients": len(patients),
        "films_without_entry": len(named) - sum(named),
        "entries_without_film": len(known.keys() - {film.identifier for film in growing.listed}),
        "sha256": growing.table.content,
    }


def assign_parts(name: str, rows: list[dict[str, Any]]) -> list[int]:
    """The part each film belongs to: its fold, or 1 for the validation films of pre-training."""
    positive = np.array([row["has_mask"] == 1 for row in rows])
    patients = np.array([row["patient"] for row in rows])
    if name == "siim":
        return folds.choose_validation(positive, patients).astype(int).tolist()
    if name == "ntuh_train":
        return folds.assign_folds(positive, patients).tolist()
    return [0] * len(rows)


# --- leakage ---------------------------------------------------------------------------------------


def _refuse_leakage(
    growing: list[Growing], rows: dict[str, list[dict[str, Any]]], parts: dict[str, list[int]]
) -> None:
    """Refuse a patient, a study or a picture that lies in two parts that must not share any.

    Raises:
        Refusal: With the first pairs; all of them stand in `leaks.csv`. The films are not read again.
    """
    sets = [comparable(each, rows[each.name], parts[each.name]) for each in growing]
    own = {each.name for each in growing}
    # Sets of the other source, prepared before: SIIM-ACR and the hospital may not share a film either.
    finished = _finished_sets()
    sets += [_finished_pictures(name) for name in finished if name not in own]
    films = concatenate(sets)
    by_table = [_table_facts(each, rows[each.name]) for each in growing]
    by_table += [PreparedSet(prepared_folder(name)).patient_table for name in finished if name not in own]
    reviewed_file = workspace() / "data" / REVIEWED
    leaks = find_leaks(films, read_reviewed(reviewed_file))
    pairs_file = leaks_file()
    otherwise = _spelt_otherwise(growing, rows)
    listed = dataclasses.replace(leaks, warnings=[*leaks.warnings, *otherwise])
    write_csv(pairs_file, list(PAIR_COLUMNS), pair_rows(listed))  # before the refusal, which points to it
    if leaks.errors:
        raise Refusal(
            f"{len(leaks.errors) + leaks.unlisted:,} pairs of films leak between parts that must not share a "
            "patient, a study or a picture",
            found=first_pairs(leaks.errors, leaks.unlisted, _origins(growing, rows)),
            listed=shown(pairs_file),
            do="take one film of each pair out of its table; pairs of pictures that a reader found to differ "
            f"can be cleared in {shown(reviewed_file)} (columns case_a,case_b)",
        )
    print(f"leakage: {len(films):,} films compared, no patient, study or picture in two parts")
    for line in not_checkable(films, leaks, sum(facts["films"] for facts in by_table if facts)):
        print(f"  not checked: {line}")
    if otherwise:
        print(
            f"  warning: {len(otherwise):,} patients or studies of SIIM-ACR and NTUH differ only by leading "
            f"zeros, case or blanks: {shown(pairs_file)}; if they are the same, spell them in one way"
        )
    if leaks.warnings:
        print(
            f"  {len(leaks.warnings):,} pairs look alike but are not the same picture (correlation under "
            f"{SAME_PICTURE}): {shown(pairs_file)}"
        )


def _origins(growing: list[Growing], rows: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    """Pseudonym of each film that is being prepared -> where its source lists it."""
    return {
        row["case"]: each.readable[entry["row"]].origin
        for each in growing
        for row, entry in zip(rows[each.name], each.entries(PREPARED), strict=True)
    }


def _finished_sets() -> list[str]:
    """The sets that others must be apart from, as far as they are prepared.

    Unlabelled films are none: it is they that must be apart, and they are compared anew with other films.
    """
    return [name for key, names in SETS.items() if key != UNLABELLED and _finished(key) for name in names]


def _leave_out_known(each: Growing) -> None:
    """Leave out the unlabelled films that share a patient, a study or a picture with films of other sets.

    Raises:
        Refusal: Some share it with test films; no film is left; one patient has most of the films.
    """
    others = [_finished_pictures(name) for name in _finished_sets()]
    known = [_named_and_spelt(name) for name in SETS["ntuh"]]
    reviewed = read_reviewed(workspace() / "data" / REVIEWED)
    while True:  # more than once where there are more pairs than one search lists
        rows, entries = case_rows(each), each.entries(PREPARED)
        name_as_known(rows, _canonical(each), known)
        leaks = find_leaks(concatenate([comparable(each, rows, [0] * len(rows)), *others]), reviewed)
        of_test, of_others = recognised(leaks, rows)
        for place, why in of_test.items():
            _leave_out(each, entries[place], REJECTED, why)
        for place, why in of_others.items():
            _leave_out(each, entries[place], EXCLUDED, why)
        if of_test:
            write_csv(leaks_file(), list(PAIR_COLUMNS), pair_rows(leaks))
            films = [(each.readable[entries[place]["row"]], why) for place, why in of_test.items()]
            _refuse_test_patients(each, films)
        _refuse_many_faults(each)
        if not of_others:
            refuse_one_patient(each.name, [(row["patient"], row["patient_known"]) for row in rows])
            return


def _named_and_spelt(name: str) -> tuple[list[dict[Any, Any]], list[dict[str, str]]]:
    """Rows of the prepared cases of a finished set, and their canonical identifiers."""
    folder = prepared_folder(name)
    rows = PreparedSet(folder).cases.to_dict("records")
    return rows, read_spellings(folder, len(rows))


def _refuse_test_patients(each: Growing, of_test: list[tuple[SourceFilm, str]]) -> None:
    _write_rejected(each)
    raise Refusal(
        f"{len(of_test):,} of the unlabelled films are of the test set's patients, studies or pictures",
        found="; ".join(grouped(of_test)),
        listed=shown(each.folder / "rejected.csv"),
        do="take these films out of the folder, or their rows out of its table",
    )


def _spelt_otherwise(growing: list[Growing], rows: dict[str, list[dict[str, Any]]]) -> list[Pair]:
    """Films of SIIM-ACR and the hospital whose patient or study differ by their spelling only."""
    sets: dict[str, Any] = {each.name: (rows[each.name], _canonical(each)) for each in growing}
    for name in (name for name in _finished_sets() if name not in sets):
        sets[name] = _named_and_spelt(name)
    return spelt_otherwise(sets)


def _part_names(name: str, parts: list[int]) -> list[str]:
    """The part of each film as leakage sees it: folds apart, SIIM-ACR and the test set each as a whole."""
    return [f"{name} fold {part}" if name == "ntuh_train" else name for part in parts]


def comparable(growing: Growing, rows: list[dict[str, Any]], parts: list[int]) -> ComparedFilms:
    """What the leak check compares of a set that is not finished yet."""
    entries = growing.entries(PREPARED)
    arrays = GrowingArrays(growing.folder)
    return ComparedFilms.of(
        rows,
        [entry["picture"] for entry in entries],
        [entry["perceptual"] for entry in entries],
        _part_names(growing.name, parts),
        lambda i: resample(arrays.film(entries[i]["row"]), CONFIRM_SIDE),
    )


def _finished_pictures(name: str) -> ComparedFilms:
    prepared = PreparedSet(prepared_folder(name))
    known = fingerprints.read(prepared.folder)
    known = known[known["picture"] != ""]  # films that were left out have a fingerprint, but no row
    return ComparedFilms.of(
        prepared.cases.to_dict("records"),
        known["picture"].tolist(),
        known["perceptual"].tolist(),
        _part_names(name, prepared.part.tolist()),
        lambda i: prepared.film(i, CONFIRM_SIDE),
    )


# --- finishing -------------------------------------------------------------------------------------


def _finish(growing: Growing, rows: list[dict[str, Any]], part: list[int]) -> dict[str, Any]:
    """Give a set its final files, all but the manifest, whose content is returned."""
    folder, entries = growing.folder, growing.entries(PREPARED)
    GrowingArrays(growing.folder).pack_masks([entry["row"] for entry in entries if entry["mask"]])
    write_csv(folder / "cases.csv", list(COLUMNS), rows)
    second = {row: entry["second"] for row, entry in enumerate(entries) if "second" in entry}
    write_second_masks(folder, second)
    write_spellings(folder, _canonical(growing))
    _write_rejected(growing)
    notes = _notes(growing)
    write_notes(folder, notes)
    # By object, not by identifier: a table may list one twice.
    places = {id(film): place for place, film in enumerate(growing.listed)}
    by_place = {places[id(growing.readable[row])]: e for row, e in growing.journal.entries.items()}
    fingerprints.write(folder, growing.listed, by_place)
    excluded, rejected = (growing.reasons(kind) for kind in (EXCLUDED, REJECTED))
    table = _table_facts(growing, rows)
    flow = count_flow(growing.name, rows, excluded, rejected) | ({"patient_table": table} if table else {})
    write_json(folder / "flow.json", flow)
    draw_flow(flow, folder / "flow.png")
    write_json(folder / "folds.json", {"part": part})
    # Last: films move, and the journal no longer says where they are.
    GrowingArrays(growing.folder).close_gaps([entry["row"] for entry in entries])
    print_flow(flow)
    if second:
        print(f"  marked by a second annotator, too: {len(second):,} films")
    print_notes(folder, notes)
    unmarked = [
        (growing.readable[entry["row"]], UNMARKED)
        for entry, row in zip(entries, rows, strict=True)
        if row["report"] == 1 and not row["has_mask"]
    ]
    for line in grouped(unmarked):
        print(f"  note: {line}")
    for line in grouped(growing.left_out(REJECTED)):
        print(f"  rejected: {line}")
    if rejected:
        print(f"  all of them: {shown(folder / 'rejected.csv')}")
    # Neither pseudonyms nor files: the same films give the same hash on any machine.
    hashes = (
        f"{entry['picture']} {entry['mask']} {row['report']}"
        for entry, row in zip(entries, rows, strict=True)
    )
    return {
        "set": growing.name,
        "films": len(rows),
        "side": SIDE,
        "content": digest(*hashes),
        "split": digest(*map(str, part)),
        **({"second_masks": masks_digest(second)} if second else {}),  # no part of what is tested against
        **({"patient_table": table} if table else {}),
    }


def _notes(growing: Growing) -> list[tuple[SourceFilm, str]]:
    """What was odd about the films that were prepared, by their rows of the source and by their files."""
    return [
        (film, note)
        for entry in growing.entries(PREPARED)
        for film in (growing.readable[entry["row"]],)
        for note in (*film.notes, *entry.get("notes", []))
    ]
