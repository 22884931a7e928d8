"""A system on a folder of new films: the work of `predict.py`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.command_line import PredictOptions
from common.files import canonical_json, csv_text, digest, in_turn
from common.films.fault import FilmFault
from common.films.own_outputs import RESEARCH_ONLY
from common.inference.two_stage_rule import POSITIVE
from common.loading import loading
from common.paths import shown
from common.prediction.finding import COLUMN_MEANINGS, NO_ANSWER, Finding
from common.prediction.finding_files import (
    FOLDERS,
    FindingFiles,
    remove_finding,
    same_maker,
    write_finding,
)
from common.prediction.input_files import refuse_overlap
from common.prediction.new_films import FileState, NewFilm, film_readers, read_in_order
from common.prediction.outcomes import Outcomes, clear_away, outcomes_file
from common.prediction.written_files import MANIFEST, SHARDS, WrittenFiles
from common.preparation.crash_safe_pool import Workers, cores
from common.progress import progress
from common.pseudonyms import pseudonym
from common.refusal import Refusal
from common.shards import Shard
from common.sources.folder_files import Entry, Listing, list_input

if TYPE_CHECKING:
    from common.distributed import Processes
    from common.prediction.predictor import FilmPredictor

SOME_NOT_READ = 3  # exit status
_AT_ONCE = 16  # films read before they are predicted together
_TABLES = ("findings.csv", "unread.csv")
_UNREAD_COLUMNS = ("number", "case", "file", "reason", "note")


def predict_folder(options: PredictOptions) -> None:
    """Predict the films named on the command line, or this process's share of them.

    Raises:
        Refusal: The system is incomplete, there is no film, none can be read, the output folder overlaps with
            the input, or it holds results of another system, of other films or of unknown origin.
        SystemExit: Status 3: some films could not be read.
    """
    source, output = Path(options.input).absolute(), Path(options.output).absolute()
    # Whatever can be refused by looking at the folders is, before the networks are read.
    listing = list_input(source)
    refuse_overlap(source, output, [output / name for name in (*FOLDERS, SHARDS)], listing.links)
    _refuse_unknown_results(output)
    with closing(film_readers()) as readers:
        _predict(options, source, output, listing, readers)


def _predict(options: PredictOptions, source: Path, output: Path, listing: Listing, readers: Workers) -> None:
    with loading():  # torch takes seconds, in which the first process that reads films starts
        from common.distributed import running
        from common.prediction.predictor import FilmPredictor

    with running(options.gpu) as processes:
        predictor = FilmPredictor.open(options.named, options.bundle, processes.gpu, options.backend)
        job = Shard.named(options.shard)
        run = _Folder(
            predictor, source, output, listing.entries, options.keep_identifiers, job, processes, readers
        )
        busy = f"another process writes into {shown(output)}"
        with job.claim(output, busy) if processes.first else nullcontext():
            processes.first_ahead(lambda: run.begin(options.fresh and processes.first))
            run.predict()
            if run.shard.count > 1:
                run.outcomes.hand_in(run.written, run.shard, run.work)
            processes.wait()
            if processes.first:
                run.finish(listing.passed_over)
    if processes.first and run.outcomes.unread:
        raise SystemExit(SOME_NOT_READ)


def _refuse_unknown_results(output: Path) -> None:
    found = [name for name in _TABLES if (output / name).exists()]
    found += [f"{name}/" for name in FOLDERS if (output / name).exists()]
    # Asked for last: another shard, which begins just now, notes a file before it writes it.
    if found and not WrittenFiles.known_in(output):
        raise Refusal(
            f"{shown(output)} holds results, but no list of what this program wrote there ({MANIFEST})",
            found=", ".join(found),
            do="choose another folder",
        )


@dataclass
class _Folder:
    """The films of one input, and what became of them.

    Attributes:
        predictor: Predictor of the system.
        source: Input, a file or a folder.
        output: Folder of the results.
        entries: Everything that lies in the input, in order.
        keep_identifiers: Whether the films' paths are written.
        job: Shard that all processes of this command predict together.
        processes: The processes of this command.
        readers: Processes that read films.
        outcomes: What became of this process's films; in the end, of all.
        written: Manifest of the output folder.
    """

    predictor: FilmPredictor
    source: Path
    output: Path
    entries: list[Entry]
    keep_identifiers: bool
    job: Shard
    processes: Processes
    readers: Workers
    outcomes: Outcomes = field(default_factory=Outcomes)
    written: WrittenFiles = field(init=False)

    @cached_property
    def shard(self) -> Shard:
        """The share of this process."""
        return self.job.among(self.processes.rank, self.processes.count)

    @cached_property
    def work(self) -> str:
        """SHA-256 of what all shards must agree in: the films, and what they are predicted by."""
        listed = (os.fsencode(self.name(each.path)) + each.fault.encode() for each in self.entries)
        # a machine with a key of its own would give the films other names
        return digest(canonical_json(self.made_by), self.files(0).case, *listed)

    @property
    def made_by(self) -> dict[str, Any]:
        return self.predictor.provenance

    def name(self, path: Path) -> str:
        """A film's path in the input."""
        return path.name if path == self.source else path.relative_to(self.source).as_posix()

    def files(self, place: int) -> FindingFiles:
        return FindingFiles(self.output, pseudonym("case", self.name(self.entries[place].path)))

    def begin(self, fresh: bool) -> None:
        """Keep what an earlier run of the same command left; refuse what is of something else."""
        self.written = WrittenFiles(self.output, self.shard)
        if self.job.count == 1 and self.processes.first:
            clear_away(self.written)
        tables = [*(self.output / name for name in _TABLES), outcomes_file(self.output, self.shard)]
        changed = [path for path in tables if not self.written.is_ours(path)]
        if changed:
            raise Refusal(
                f"a table in {shown(self.output)} is not as this program wrote it",
                kept=", ".join(path.relative_to(self.output).as_posix() for path in changed),
                do="move it away, or choose another output folder",
            )
        if fresh:
            for path in self.written.remove_all():
                print(f"kept, since it was changed after it was written: {shown(path)}")
            return
        # What is there must be of these films and this system: findings of others would pass for theirs.
        cases = {self.files(place).case for place in range(len(self.entries))}
        left = {path.stem for path in (self.output / "findings").glob("*.json") if self.written.is_ours(path)}
        again = "choose another output folder, or add --fresh to delete the findings there"
        if left - cases:
            raise Refusal(
                f"{shown(self.output)} holds findings of {len(left - cases)} films that are not in the input",
                do=again,
            )
        for case in sorted(left):
            content = FindingFiles(self.output, case).read()
            if content is not None and not same_maker(content["made_by"], self.made_by):
                raise Refusal(
                    f"{shown(self.output)} holds findings that were made otherwise",
                    found=_difference(content["made_by"], self.made_by),
                    do=again,
                )

    def predict(self) -> None:
        """Read and predict every film of this process that has no finding yet."""
        readable = [place for place, each in enumerate(self.entries) if not each.fault]
        places = self.shard.share(readable, _AT_ONCE)
        known = [content["film"]["file"] if content else None for content in map(self._kept, places)]
        self.readers.grow(min(cores() // self.processes.here, len(places)))
        read = read_in_order(self.readers, [self.entries[place].path for place in places], known)
        title = f"predicting by {self.predictor.deployed.system}"
        title += f", shard {self.shard}" if self.shard.count > 1 else ""
        with progress(len(places), title if self.processes.first else None) as bar:
            for chunk in _chunks(zip(places, read, strict=True)):
                films = {place: each for place, each in chunk if isinstance(each, NewFilm)}
                for place, each in chunk:
                    if isinstance(each, FileState):  # as it was when its finding was made
                        self.outcomes.read[place] = each
                    elif isinstance(each, FilmFault):
                        self.outcomes.unread[place] = str(each)
                found = self.predictor.findings(list(films.values()))
                for (place, film), finding in zip(films.items(), found, strict=True):
                    self._write(place, film, finding)
                    bar.update()
                bar.update(len(chunk) - len(films))

    def _kept(self, place: int) -> dict[str, Any] | None:
        """The finding as it was written; None where there is none, or somebody changed it."""
        files = self.files(place)
        return files.read() if self.written.is_ours(files.json) else None

    def _write(self, place: int, film: NewFilm, finding: Finding) -> None:
        """Write a finding, unless its film is no longer the one that was read."""
        assert film.file is not None  # it was read from one
        reason = film.file.changed(self.entries[place].path)
        try:
            if reason:
                raise FilmFault(reason)
            write_finding(self.files(place), film, finding, self.made_by, self.written)
        except FilmFault as fault:
            self.outcomes.unread[place] = str(fault)
            return
        self.outcomes.read[place] = film.file

    def finish(self, passed_over: int) -> None:
        """Write the tables, and say what was found; by the first process, and where other shards are done.

        Args:
            passed_over: Number of hidden files and DICOMDIR indices in the input.

        Raises:
            Refusal: No film could be read.
        """
        with in_turn(self.output / ".tables.lock") if self.job.count > 1 else nullcontext():
            if self.shard.count > 1:
                self.written = WrittenFiles(self.output, self.job)  # with what the others noted meanwhile
                if not self._complete():
                    return
            self._write_tables(passed_over)
            if self.job.count == 1:
                clear_away(self.written)

    def _complete(self) -> bool:
        """Take the outcomes of all shards, where all are there."""
        shards = [Shard(index, self.shard.count) for index in range(self.shard.count)]
        found = {each: Outcomes.handed_in(self.output, each, self.work) for each in shards}
        missing = [str(each) for each, outcomes in found.items() if outcomes is None]
        if not missing:
            self.outcomes.add(each for each in found.values() if each)
            return True
        if self.job.count == 1:  # this command's own processes, which found other films
            raise Refusal(
                "the input was changed while its films were listed", do="give the same command again"
            )
        print(
            f"shard {self.job}: its {len(self.outcomes.read)} films are predicted, "
            f"{len(self.outcomes.unread)} not read; the tables come with the last of the shards "
            f"({len(missing)} of {len(found)} are still at work, or not of the same films)"
        )
        return False

    def _drop_changed(self) -> None:
        """Take back the findings of films that are no longer those that were read."""
        for place, file in [*self.outcomes.read.items()]:
            reason = file.changed(self.entries[place].path)
            if reason:
                with suppress(FilmFault):  # somebody changed the finding, too
                    remove_finding(self.files(place), self.written)
                self._drop(place, reason)

    def _drop(self, place: int, reason: str) -> None:
        del self.outcomes.read[place]
        self.outcomes.unread[place] = reason

    def _rows(self) -> list[dict[str, Any]]:
        """The films' rows of the table of findings, as their findings say."""
        rows = []
        for place in sorted(self.outcomes.read):
            content = self._kept(place)
            if content is None:
                self._drop(place, "its finding was changed or removed before the end")
            else:
                rows.append({**self._heading(place), **content["finding"]})
        return rows

    def _write_tables(self, passed_over: int) -> None:
        self.outcomes.unread |= {place: each.fault for place, each in enumerate(self.entries) if each.fault}
        self._drop_changed()
        rows = self._rows()
        unread = [
            {**self._heading(place), "reason": reason, "note": RESEARCH_ONLY}
            for place, reason in sorted(self.outcomes.unread.items())
        ]
        tables = (csv_text(tuple(COLUMN_MEANINGS), rows), csv_text(_UNREAD_COLUMNS, unread))
        self.written.write(
            {self.output / name: text.encode() for name, text in zip(_TABLES, tables, strict=True)}
        )
        self._say(rows, unread, passed_over)

    def _say(self, rows: list[dict[str, Any]], unread: list[dict[str, Any]], passed_over: int) -> None:
        lines = [f"film {row['number']} ({row['case']}) {row['reason']}" for row in unread]
        if not rows:
            raise Refusal("none of the films can be read", found="\n           ".join(lines[:20]))
        counts = {
            word: sum(row["decision"] == word for row in rows) for word in (POSITIVE, "negative", NO_ANSWER)
        }
        print(
            f"{self.predictor.deployed.system}: {len(self.entries)} films: "
            + ", ".join(f"{count} {word}" for word, count in counts.items())
            + f", {len(unread)} not read; {sum(row['borderline'] for row in rows)} borderline"
        )
        for line in lines:
            print(f"  not read: {line}")
        if passed_over:
            print(f"  passed over: {passed_over} hidden files or folders, or DICOMDIR indices")
        if self.predictor.provenance["preset"] == "demo":
            print("Preset demo: small networks and short runs, which say nothing about patients.")
        print(f"{RESEARCH_ONLY} -> {shown(self.output)}/findings.csv, overlays/, findings/, dicom/")
        print(
            "A row's film: column file"
            if self.keep_identifiers
            else "A row's film: column number is its place among the input's files in the order of their "
            "paths, and case names its overlay and finding; --keep-identifiers writes the path, too"
        )

    def _heading(self, place: int) -> dict[str, Any]:
        name = self.name(self.entries[place].path)
        return {
            "number": place + 1,
            "case": self.files(place).case,
            # names on Linux are bytes, and not all of them are UTF-8
            "file": name.encode(errors="backslashreplace").decode() if self.keep_identifiers else None,
        }


def _chunks(films: Iterator) -> Iterator[list]:
    chunk = []
    for each in films:
        chunk.append(each)
        if len(chunk) == _AT_ONCE:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _difference(was: dict[str, Any], now: dict[str, Any]) -> str:
    return ", ".join(
        f"{key} {was.get(key)}, not {now[key]}" if isinstance(now[key], str | int | float) else f"other {key}"
        for key in now
        if was.get(key) != now[key]
    )
