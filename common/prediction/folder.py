"""A system on a folder of new films: the work of `predict.py`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from common import artefacts
from common.artefacts import pseudonym, shown
from common.config import PredictOptions, parse_prediction
from common.data.faults import FilmFault
from common.data.workers import cores
from common.evaluation.decision import POSITIVE
from common.prediction import RESEARCH_ONLY
from common.prediction.films import UNCHANGED, NewFilm, find_files, read_in_order
from common.prediction.finding import COLUMN_MEANINGS, NO_ANSWER
from common.prediction.outputs import FindingFiles, write_finding
from common.prediction.predictor import FilmPredictor
from common.refusal import Refusal

SOME_NOT_READ = 3  # exit status
_AT_ONCE = 16  # films read before they are predicted together
_FOLDERS = ("findings", "overlays", "dicom")
_UNREAD_COLUMNS = ("number", "case", "file", "reason", "note")


def main(description: str) -> None:
    """Predict the films named on the command line.

    Raises:
        Refusal: The system is incomplete, there is no film, none can be read, or the output folder is of
            another system or other films.
        SystemExit: Status 3: some films could not be read.
    """
    options = parse_prediction(description)
    predictor = FilmPredictor.open(options.system, options.bundle, options.gpu, options.backend)
    run = _Folder.of(options, predictor)
    with artefacts.alone(run.output / ".lock", f"another process writes into {shown(run.output)}"):
        run.begin(options.fresh)
        run.predict()
        run.finish()
    if run.unread:
        raise SystemExit(SOME_NOT_READ)


@dataclass
class _Folder:
    """The films of one input, and what became of them.

    Attributes:
        predictor: The system.
        source: The input: a file or folder.
        output: Where results lie.
        paths: Of the films, in order.
        keep_identifiers: Write the films' paths.
        findings: Place of a film among `paths` -> content of its JSON file.
        unread: Likewise, why it could not be read.
    """

    predictor: FilmPredictor
    source: Path
    output: Path
    paths: list[Path]
    keep_identifiers: bool
    findings: dict[int, dict[str, Any]] = field(default_factory=dict)
    unread: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, options: PredictOptions, predictor: FilmPredictor) -> _Folder:
        source, output = Path(options.input).absolute(), Path(options.output).absolute()
        if output.resolve().is_relative_to(source.resolve()):
            raise Refusal(
                "the output folder lies in the input", do="name one outside: its pictures would be films"
            )
        return cls(predictor, source, output, find_files(source), options.keep_identifiers)

    @property
    def made_by(self) -> dict[str, Any]:
        return self.predictor.provenance

    def name(self, path: Path) -> str:
        """A film's path in the input."""
        return path.name if path == self.source else path.relative_to(self.source).as_posix()

    def files(self, path: Path) -> FindingFiles:
        return FindingFiles(self.output, pseudonym("case", self.name(path)))

    def begin(self, fresh: bool) -> None:
        """Keep what an earlier run of the same command left; refuse what is of something else."""
        if fresh:
            for name in _FOLDERS:
                shutil.rmtree(self.output / name, ignore_errors=True)
        cases = {self.files(path).case for path in self.paths}
        left = {path.stem for path in (self.output / "findings").glob("*.json")}
        again = "choose another output folder, or add --fresh to delete the findings there"
        if left - cases:
            raise Refusal(
                f"{shown(self.output)} holds findings of {len(left - cases)} films that are not in the input",
                do=again,
            )
        for case in sorted(left):
            content = FindingFiles(self.output, case).read()
            if content is not None and content["made_by"] != self.made_by:
                raise Refusal(
                    f"{shown(self.output)} holds findings that were made otherwise",
                    found=_difference(content["made_by"], self.made_by),
                    do=again,
                )

    def predict(self) -> None:
        """Read and predict every film that has no finding yet."""
        kept = [self.files(path).read() for path in self.paths]
        known = [content and content["film"]["file"] for content in kept]
        read = read_in_order(self.paths, known, min(cores(), len(self.paths)))
        with tqdm(
            total=len(self.paths), desc=self.predictor.deployed.system, unit="film", disable=None
        ) as bar:
            for chunk in _chunks(enumerate(read)):
                films = {place: each for place, each in chunk if isinstance(each, NewFilm)}
                for place, each in chunk:
                    if each == UNCHANGED:
                        self.findings[place] = kept[place]
                    elif isinstance(each, FilmFault):
                        self.unread[place] = str(each)
                found = self.predictor.findings(list(films.values()))
                for (place, film), finding in zip(films.items(), found, strict=True):
                    files, path = self.files(self.paths[place]), self.paths[place]
                    self.findings[place], _ = write_finding(files, path, film, finding, self.made_by)
                    bar.update()
                bar.update(len(chunk) - len(films))

    def finish(self) -> None:
        """Write the tables, and say what was found.

        Raises:
            Refusal: No film could be read.
        """
        rows = [
            {**self._heading(place), **content["finding"]} for place, content in sorted(self.findings.items())
        ]
        artefacts.write_csv(self.output / "findings.csv", tuple(COLUMN_MEANINGS), rows)
        unread = [
            {**self._heading(place), "reason": reason, "note": RESEARCH_ONLY}
            for place, reason in sorted(self.unread.items())
        ]
        artefacts.write_csv(self.output / "unread.csv", _UNREAD_COLUMNS, unread)
        lines = [f"film {row['number']} ({row['case']}) {row['reason']}" for row in unread]
        if not rows:
            raise Refusal("none of the films can be read", found="\n           ".join(lines[:20]))
        counts = {
            word: sum(row["decision"] == word for row in rows) for word in (POSITIVE, "negative", NO_ANSWER)
        }
        print(
            f"{self.predictor.deployed.system}: {len(self.paths)} films: "
            + ", ".join(f"{count} {word}" for word, count in counts.items())
            + f", {len(unread)} not read; {sum(row['borderline'] for row in rows)} borderline"
        )
        for line in lines:
            print(f"  not read: {line}")
        print(f"{RESEARCH_ONLY} -> {shown(self.output)}/findings.csv, overlays/, findings/, dicom/")

    def _heading(self, place: int) -> dict[str, Any]:
        path = self.paths[place]
        return {
            "number": place + 1,
            "case": self.files(path).case,
            "file": self.name(path) if self.keep_identifiers else None,
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
