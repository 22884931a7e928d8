"""A system on a folder of new films: the work of `predict.py`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.command_line import PredictOptions
from common.files import alone, csv_text
from common.films.fault import FilmFault
from common.films.own_outputs import RESEARCH_ONLY
from common.inference.two_stage_rule import POSITIVE
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
from common.prediction.new_films import FileState, NewFilm, read_in_order
from common.prediction.predictor import FilmPredictor
from common.prediction.written_files import MANIFEST, WrittenFiles
from common.preparation.crash_safe_pool import cores
from common.progress import progress
from common.pseudonyms import pseudonym
from common.refusal import Refusal
from common.sources.folder_files import Entry, list_input

SOME_NOT_READ = 3  # exit status
_AT_ONCE = 16  # films read before they are predicted together
_TABLES = ("findings.csv", "unread.csv")
_UNREAD_COLUMNS = ("number", "case", "file", "reason", "note")


def predict_folder(options: PredictOptions) -> None:
    """Predict the films named on the command line.

    Raises:
        Refusal: The system is incomplete, there is no film, none can be read, the output folder overlaps with
            the input, or it holds results of another system, of other films or of unknown origin.
        SystemExit: Status 3: some films could not be read.
    """
    source, output = Path(options.input).absolute(), Path(options.output).absolute()
    # Whatever can be refused by looking at the folders is, before the networks are read.
    listing = list_input(source)
    refuse_overlap(source, output, [output / name for name in FOLDERS], listing.links)
    _refuse_unknown_results(output)
    predictor = FilmPredictor.open(options.named, options.bundle, options.gpu, options.backend)
    with alone(output / ".lock", f"another process writes into {shown(output)}"):
        run = _Folder(
            predictor, source, output, listing.entries, options.keep_identifiers, WrittenFiles(output)
        )
        run.begin(options.fresh)
        run.predict()
        run.finish(listing.passed_over)
    if run.unread:
        raise SystemExit(SOME_NOT_READ)


def _refuse_unknown_results(output: Path) -> None:
    if WrittenFiles.known_in(output):
        return
    found = [name for name in _TABLES if (output / name).exists()]
    found += [f"{name}/" for name in FOLDERS if (output / name).exists()]
    if found:
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
        written: Manifest of the output folder.
        findings: Content of a film's JSON file, by its place among `entries`.
        unread: Why an entry could not be read, by its place among `entries`.
        _read: State of a film's file when it was read, by its place among `entries`.
    """

    predictor: FilmPredictor
    source: Path
    output: Path
    entries: list[Entry]
    keep_identifiers: bool
    written: WrittenFiles
    findings: dict[int, dict[str, Any]] = field(default_factory=dict)
    unread: dict[int, str] = field(default_factory=dict)
    _read: dict[int, FileState] = field(default_factory=dict)

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
        changed = [name for name in _TABLES if not self.written.is_ours(self.output / name)]
        if changed:
            raise Refusal(
                f"a table in {shown(self.output)} is not as this program wrote it",
                kept=", ".join(changed),
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
        """Read and predict every film that has no finding yet."""
        self.unread |= {place: each.fault for place, each in enumerate(self.entries) if each.fault}
        places = [place for place in range(len(self.entries)) if place not in self.unread]
        kept = {place: content for place in places if (content := self._kept(place))}
        known = [kept[place]["film"]["file"] if place in kept else None for place in places]
        read = read_in_order([self.entries[place].path for place in places], known, min(cores(), len(places)))
        with progress(
            len(self.entries), f"predicting by {self.predictor.deployed.system}", done=len(self.unread)
        ) as bar:
            # Without a film `read` would start a process for each core.
            for chunk in _chunks(zip(places, read, strict=True)) if places else ():
                films = {place: each for place, each in chunk if isinstance(each, NewFilm)}
                for place, each in chunk:
                    if isinstance(each, FileState):  # as it was when its finding was made
                        self.findings[place], self._read[place] = kept[place], each
                    elif isinstance(each, FilmFault):
                        self.unread[place] = str(each)
                found = self.predictor.findings(list(films.values()))
                for (place, film), finding in zip(films.items(), found, strict=True):
                    self._write(place, film, finding)
                    bar.update()
                bar.update(len(chunk) - len(films))

    def _kept(self, place: int) -> dict[str, Any] | None:
        """The finding of an earlier run; None where there is none, or somebody changed it."""
        files = self.files(place)
        return files.read() if self.written.is_ours(files.json) else None

    def _write(self, place: int, film: NewFilm, finding: Finding) -> None:
        """Write a finding, unless its film is no longer the one that was read."""
        assert film.file is not None  # it was read from one
        reason = film.file.changed(self.entries[place].path)
        try:
            if reason:
                raise FilmFault(reason)
            content, _ = write_finding(self.files(place), film, finding, self.made_by, self.written)
        except FilmFault as fault:
            self.unread[place] = str(fault)
            return
        self.findings[place] = content
        self._read[place] = film.file

    def _drop_changed(self) -> None:
        """Take back the findings of films that are no longer those that were read."""
        for place, file in self._read.items():
            reason = file.changed(self.entries[place].path)
            if reason:
                with suppress(FilmFault):  # somebody changed the finding, too
                    remove_finding(self.files(place), self.written)
                del self.findings[place]
                self.unread[place] = reason

    def finish(self, passed_over: int) -> None:
        """Write the tables, and say what was found.

        Args:
            passed_over: Number of hidden files and DICOMDIR indices in the input.

        Raises:
            Refusal: No film could be read.
        """
        self._drop_changed()
        rows = [
            {**self._heading(place), **content["finding"]} for place, content in sorted(self.findings.items())
        ]
        unread = [
            {**self._heading(place), "reason": reason, "note": RESEARCH_ONLY}
            for place, reason in sorted(self.unread.items())
        ]
        tables = (csv_text(tuple(COLUMN_MEANINGS), rows), csv_text(_UNREAD_COLUMNS, unread))
        self.written.write(
            {self.output / name: text.encode() for name, text in zip(_TABLES, tables, strict=True)}
        )
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
