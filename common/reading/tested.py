"""The rooms of the test films: what inference found in each, beside the truth and the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import cv2
import numpy as np

from common.files import read_json
from common.inference.result_files import Result, read_results, read_unlabelled
from common.missing import systems_with_results
from common.paths import result_folder, workspace
from common.prediction.finding import NO_ANSWER, ROUNDING
from common.reading.grid import Grid
from common.reading.pictures import TRUTH, outline_path
from common.reading.prepared_films import PreparedRoom
from common.reading.room import Facts, Query, ShownFilm, Summary, counted, inside
from common.report.tables import Cell, table
from common.stages import BOOTSTRAP_COMMAND, INFERENCE_COMMAND, N_FOLDS, TESTING_FOLDER
from common.statistics.overlap import MAP_THRESHOLD
from common.statistics.strata import STRATA, UNKNOWN, lesion_sizes, variables
from common.statistics.tested_films import Cases

_METRICS = (
    *("auroc", "sensitivity", "specificity", "ppv", "npv", "dice_segmentation", "dice_positives"),
    *("tp", "fn", "fp", "tn"),
)
_FIGURES = {"ROC": "roc", "Calibration": "calibration", "Net benefit": "net_benefit"}


class TestedRoom(PreparedRoom):
    """A room of the test films of the systems whose results are there.

    Args:
        labelled: Whether it is of the films with a label, which the metrics count, or of the others.

    Raises:
        Refusal: There are no results, or what belongs to them is missing or of other films.
    """

    __test__ = False  # no test, whatever pytest reads into the name

    def __init__(self, labelled: bool = True) -> None:
        read = read_results if labelled else read_unlabelled
        self._labelled = labelled
        self.name = "tested" if labelled else "unlabelled"
        self.title = "Test films" if labelled else "Test films without a label"
        self.results: dict[str, Result] = read(systems_with_results())
        first = next(iter(self.results.values()))
        super().__init__("ntuh_test", [first.meta["films"]], INFERENCE_COMMAND)
        self.cases: Cases = first.cases
        self.case, self.meta = first.cases.case, first.meta
        self.metrics: dict[str, list[list[str]]] = {}
        self.notes = ["Nobody has said whether these films show a pneumothorax: no truth, and in no metric."]
        if labelled:
            self.metrics, self.notes = _metrics(self.results)
            self.figures = [title for title in _FIGURES if self.figure(title, {})]
        if first.meta["preset"] == "demo":
            self.notes.insert(0, "These films are synthetic: the demo says nothing about patients.")

    def figure(self, title: str, query: Query) -> bytes | None:
        """A figure of the report, as bootstrap.py left it beside the metrics."""
        path = workspace() / TESTING_FOLDER / "figures" / f"{_FIGURES.get(title)}.svg"
        return path.read_bytes() if self.metrics and path.is_file() else None

    # --- the grid ----------------------------------------------------------------------------------

    def grid(self, query: Query) -> Grid:
        return self._grid

    @cached_property
    def _grid(self) -> Grid:
        cases = self.cases
        truth = np.where(cases.has_mask, "positive", "negative").tolist()
        tiles = truth if self._labelled else ["no label"] * len(cases)
        facets: dict[str, np.ndarray] = {}
        orders: dict[str, np.ndarray] = {}
        for system, result in self.results.items():
            own = result.cases
            near = np.abs(own.probability - result.meta["cls_threshold"])
            signs = np.where(own.two_stage, "+", "−")
            said = zip(tiles, signs.tolist(), own.probability.tolist(), strict=True)
            tiles = [f"{before} · {system} {sign}{each:.3f}" for before, sign, each in said]
            facets |= {
                f"{system} outcome": self.outcomes(system),
                f"{system} rule": own.column("rule"),
                f"{system} borderline": np.where(near <= ROUNDING, "yes", "no"),
            }
            orders |= {
                f"{system} probability": own.probability,
                f"{system} distance from threshold": near,
                f"{system} spread of folds": np.ptp(_folds(own), axis=0),
                f"{system} area": own.area_fraction,
                f"{system} Dice": own.dice_segmentation,
            }
        every = [result.cases for result in self.results.values()]
        if len(every) > 1:
            called = np.array([each.two_stage for each in every])
            facets["systems"] = np.where((called == called[0]).all(axis=0), "agree", "differ")
            orders["difference of probabilities"] = np.ptp([each.probability for each in every], axis=0)
        declined = np.max([each.column("no_answer") for each in every], axis=0)
        known = np.where(declined == 0, "answered", UNKNOWN)
        facets["as a new film"] = np.where(declined == 1, NO_ANSWER, known)
        if self._labelled:
            facets["lesion"] = lesion_sizes(cases.has_mask, cases.mask_area_fraction)
            facets["report"] = np.where(cases.report, "positive", "negative")
            orders["lesion area"] = cases.mask_area_fraction
        facets |= variables(cases)
        orders["age"] = cases.age
        return Grid(cases.case, facets, orders, tiles)

    def outcomes(self, system: str) -> np.ndarray:
        """True or false, positive or negative, by the two-stage decision under the mask reference, (n,) str.

        Without a label, a film is positive or negative only.
        """
        cases = self.results[system].cases
        called = np.where(cases.two_stage, "positive", "negative")
        right = np.where(cases.has_mask == cases.two_stage, "true ", "false ")
        return np.char.add(right, called) if self._labelled else called

    # --- the metrics -------------------------------------------------------------------------------

    def summary(self, query: Query, rows: np.ndarray) -> Summary:
        """The metrics of the stratum that the query names, or of all films, as the report prints them."""
        said = [f"{system}: {counted(self.outcomes(system)[rows])}" for system in self.results]
        if not self.metrics:
            return Summary(said)
        stratum = self._stratum(query)
        where = "all test films" if stratum in (None, "all") else f"the stratum “{stratum}”"
        where += " (its lesions against all negatives)" if stratum in STRATA[1:] else ""
        caption = (
            f"metrics.csv of {where}: mask reference, two-stage decision, 95% confidence interval, n; "
            "positives + negatives where both count"
        )
        if stratum is None:
            caption += ". This choice of films is no stratum of metrics.csv: only its counts are shown above"
        return Summary(said, self.metrics[stratum or "all"], caption)

    def _stratum(self, query: Query) -> str | None:
        """What metrics.csv calls the films of a query; None: nothing."""
        named = [(key, value) for key, value in query.items() if key in self._grid.facets]
        if not named:
            return "all"
        (facet, value), *more = named
        name = value if facet == "lesion" else f"{facet} {value}"
        return name if not more and name in self.metrics else None

    # --- a film ------------------------------------------------------------------------------------

    def areas(self, row: int) -> dict[str, np.ndarray | None]:
        found = {system: self._area(row, system) for system in self.results}
        return {TRUTH: self.truth(row), **found} if self._labelled else found

    def _area(self, row: int, system: str) -> np.ndarray | None:
        """Where a system's map exceeds its threshold, as in `areas`."""
        found = self.map(row, system)
        threshold = self.results[system].meta.get("map_threshold", MAP_THRESHOLD)
        return None if found is None else self.stretched(row, found.astype(np.float32) / 255, threshold)

    def map(self, row: int, system: str) -> np.ndarray | None:
        """A system's map, (s, s) uint8, 0-255 for 0-1; None where stage 2 did not run."""
        if system not in self.results:
            return None
        path = inside(result_folder(system) / "maps", f"{self.case[row]}.png")
        return cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) if path.is_file() else None

    def as_read(self, row: int, system: str | None) -> ShownFilm:
        """A film as a reader of a study sees it: no truth, and of a system only what it shows of a new film.

        Args:
            row: Row of the film.
            system: System that helps; None: none does.
        """
        parts, outlines = {}, {}
        if system is not None:
            cases, threshold = self.results[system].cases, self.results[system].meta["cls_threshold"]
            declined, called = cases.column("no_answer")[row] == 1, bool(cases.two_stage[row])
            said = NO_ANSWER if declined else "pneumothorax" if called else "no pneumothorax"
            probability = f"{cases.probability[row]:.6f}, positive from {threshold:.6f}"
            parts[system] = {"says": said, "probability": probability}
            # Other films have an outline only for the metrics, where there is a lesion: it would tell.
            outlines[system] = outline_path(self._area(row, system) if called and not declined else None)
        return ShownFilm("", self.size(row), self.mm(row), True, outlines, (), parts)

    def parts(self, row: int) -> Mapping[str, Facts]:
        """The two rules step by step, then how good the outline is."""
        return {system: self._of_system(row, system) for system in self.results}

    def _of_system(self, row: int, system: str) -> Facts:
        cases, threshold = self.results[system].cases, self.results[system].meta["cls_threshold"]
        folds = _folds(cases)[:, row]
        among = "one network" if np.isnan(folds).any() else f"folds {folds.min():.3f} to {folds.max():.3f}"
        reached = "reaches" if cases.stage_1[row] else "does not reach"
        probability = f"probability {cases.probability[row]:.6f} ({among})"
        facts = {
            "stage 1": f"{probability} {reached} the threshold {threshold:.6f}",
            "stage 2": self._stage_2(row, system),
            "decision": str(cases.column("rule")[row]),
        }
        if cases.column("no_answer")[row] == 1:
            facts["new film"] = f"{NO_ANSWER}: unlike the training films, a human would read it"
        if cases.has_mask[row]:
            distance = f"{cases.hd95[row]:.1f} {'mm' if cases.in_mm[row] else 'pixels'}"
            facts["outline"] = f"Dice {cases.dice_segmentation[row]:.3f}, HD95 {distance}"
        return facts

    def _stage_2(self, row: int, system: str) -> str:
        cases, threshold = self.results[system].cases, self.results[system].meta["seg_threshold"]
        pixels = cases.column("area_pixels")[row]
        if np.isnan(pixels):
            return "not run, since stage 1 says negative"
        missing = "" if self.map(row, system) is not None else "; its picture is missing"
        area = f"{pixels:,.0f} pixels ({self.in_words(row, cases.area_fraction[row])}{missing})"
        if not cases.stage_1[row]:
            return f"{area}, for the metrics only: stage 1 says negative"
        return f"{area} {'reach' if cases.two_stage[row] else 'do not reach'} the threshold {threshold:,}"


def _folds(cases: Cases) -> np.ndarray:
    """Probability by each fold, (folds, n); NaN of a student."""
    return np.array([cases.column(f"fold_{fold}") for fold in range(N_FOLDS)])


# --- the metrics that bootstrap.py left --------------------------------------------------------------


def _metrics(results: Mapping[str, Result]) -> tuple[dict[str, list[list[str]]], list[str]]:
    """Lines of a table of the metrics, by stratum, if they are of these results, and what to know of them."""
    path = workspace() / TESTING_FOLDER / "metrics.json"  # the rows of metrics.csv, with numbers as numbers
    if not path.is_file():
        return {}, [f"There are no metrics yet; made by: {BOOTSTRAP_COMMAND}"]
    content = read_json(path, BOOTSTRAP_COMMAND)
    known = {system: facts.get("cases_sha256") for system, facts in content.get("systems", {}).items()}
    for system, result in results.items():
        if known.get(system, result.meta["cases_sha256"]) != result.meta["cases_sha256"]:
            return {}, [f"The metrics are of other results of {system}; make them again: {BOOTSTRAP_COMMAND}"]
    rows = [
        row
        for row in content["rows"]
        if (row["reference"], row["decision"]) == ("mask", "two_stage") and row["metric"] in _METRICS
    ]
    systems = [system for system in results if system in known]
    lines = {
        stratum: [["", *systems], *([line.title, *map(_told, line.cells)] for line in of_stratum)]
        for stratum, of_stratum in table(rows, systems, "", {}).groups
    }
    absent = [system for system in results if system not in known]
    again = f"{BOOTSTRAP_COMMAND} --system {' '.join(absent[:2])}"
    return lines, [f"The metrics are not of {' and '.join(absent)}: {again}"] if absent else []


def _told(cell: Cell | None) -> str:
    return "" if cell is None else f"{cell.text}, n {cell.n}"
