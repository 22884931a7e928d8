"""The room of the test films: what inference found in each, beside the truth and the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from common.files import read_json
from common.inference.result_files import Result, read_results
from common.missing import systems_with_results
from common.paths import result_folder, workspace
from common.prediction.finding import ROUNDING, on_film
from common.reading.grid import Grid
from common.reading.pictures import map_png, outline_path
from common.reading.prepared_films import PreparedFilms
from common.reading.room import Facts, Query, Room, ShownFilm, Summary, inside
from common.report.estimates import Row, estimate_text, films_text
from common.stages import INFERENCE_COMMAND, N_FOLDS, TESTING_FOLDER
from common.statistics.metric_catalogue import METRICS
from common.statistics.overlap import MAP_THRESHOLD
from common.statistics.strata import STRATA, groups, strata
from common.statistics.tested_films import Cases

BOOTSTRAP_COMMAND = f"cd {TESTING_FOLDER} && python bootstrap.py"
_GROUPS = ("sex", "age", "view", "device", "chest tube")
_METRICS = (
    *("auroc", "sensitivity", "specificity", "ppv", "npv", "dice_segmentation", "dice_positives"),
    *("tp", "fn", "fp", "tn"),
)
_FIGURES = {"ROC": "roc", "Calibration": "calibration", "Net benefit": "net_benefit"}


class TestedRoom(Room):
    """The room of the test films of the systems whose results are there.

    Raises:
        Refusal: There are no results, or what belongs to them is missing or of other films.
    """

    __test__ = False  # no test, whatever pytest reads into the name
    name, title = "tested", "Test films"

    def __init__(self) -> None:
        self.results: dict[str, Result] = read_results(systems_with_results())
        self.cases: Cases = next(iter(self.results.values())).cases
        meta = next(iter(self.results.values())).meta
        self.films = PreparedFilms("ntuh_test", meta["films"], INFERENCE_COMMAND)
        self.rows = [self.films.row_of[case] for case in self.cases.case.tolist()]  # in the prepared set
        self.metrics, found = _metrics(self.results)
        unlabelled = next(iter(self.results.values())).unlabelled
        self.figures = [title for title in _FIGURES if self.metrics and _figure(title).is_file()]
        self.notes = [note for note in (_demo(meta), _unlabelled(unlabelled), found) if note]

    def figure(self, title: str, query: Query) -> bytes | None:
        return _figure(title).read_bytes() if title in self.figures else None

    # --- the grid ----------------------------------------------------------------------------------

    def grid(self, query: Query) -> Grid:
        return self._grid

    @cached_property
    def _grid(self) -> Grid:
        cases = self.cases
        facets, orders = {}, {}
        for system, result in self.results.items():
            facets[f"{system} outcome"] = outcomes(result.cases)
            facets[f"{system} rule"] = result.cases.column("rule")
            near = np.abs(result.cases.probability - result.meta["cls_threshold"])
            facets[f"{system} borderline"] = np.where(near <= ROUNDING, "yes", "no")
            orders[f"{system} probability"] = result.cases.probability
            orders[f"{system} distance from threshold"] = near
            orders[f"{system} spread of folds"] = _spread(result.cases)
            orders[f"{system} area"] = result.cases.area_fraction
            orders[f"{system} Dice"] = result.cases.dice_segmentation
        if len(self.results) > 1:
            one, other = (result.cases for result in self.results.values())
            facets["systems"] = np.where(one.two_stage == other.two_stage, "agree", "differ")
            orders["difference of probabilities"] = np.abs(one.probability - other.probability)
        facets["lesion"] = lesion_sizes(cases)
        facets["report"] = np.where(cases.report, "positive", "negative")
        for group in _GROUPS:
            found = {
                n.removeprefix(f"{group} "): m for n, m in groups(cases).items() if n.startswith(f"{group} ")
            }
            if found:
                facets[group] = np.select(list(found.values()), list(found), "")
        orders |= {"lesion area": cases.mask_area_fraction, "age": cases.age}
        return Grid(cases.case, facets, orders, [self._tile(row) for row in range(len(cases))])

    def _tile(self, row: int) -> str:
        found = (
            f"{system} {'+' if r.cases.two_stage[row] else '−'} {r.cases.probability[row]:.3f}"
            for system, r in self.results.items()
        )
        return f"{'positive' if self.cases.has_mask[row] else 'negative'} · {' · '.join(found)}"

    # --- the metrics -------------------------------------------------------------------------------

    def summary(self, query: Query, rows: np.ndarray) -> Summary:
        """The metrics of the stratum that the query names, or of all films, as the report prints them."""
        stratum = self._stratum(query)
        found = {
            (row["system"], row["metric"]): row
            for row in self.metrics
            if (row["reference"], row["decision"], row["stratum"]) == ("mask", "two_stage", stratum or "all")
        }
        lines = [
            [METRICS[metric].title, *(_told(found.get((system, metric))) for system in self.results)]
            for metric in _METRICS
            if any((system, metric) in found for system in self.results)
        ]
        where = f"the stratum “{stratum}”" if stratum not in (None, "all") else "all test films"
        where += " (its lesions against all negatives)" if stratum in STRATA[1:] else ""
        caption = (
            f"metrics.csv of {where}: mask reference, two-stage decision, 95% confidence interval, n; "
            "positives + negatives where both count"
        )
        if stratum is None:
            caption += ". This choice of films is no stratum of metrics.csv: only its counts are shown above"
        said = []
        for system, result in self.results.items():
            own = outcomes(result.cases)[rows]
            said.append(f"{system}: {', '.join(f'{(own == each).sum()} {each}' for each in OUTCOMES)}")
        return Summary(said, ["", *self.results], lines, caption)

    def _stratum(self, query: Query) -> str | None:
        """What metrics.csv calls the films of a query; None: nothing."""
        named = {key: value for key, value in query.items() if key in self._grid.facets and value}
        if not named:
            return "all"
        (facet, value), *more = named.items()
        if more:
            return None
        if facet == "lesion":
            return value if value in STRATA else None
        return f"{facet} {value}" if facet in _GROUPS else None

    # --- a film ------------------------------------------------------------------------------------

    def film(self, row: int) -> ShownFilm:
        own, areas = self.rows[row], self._areas(row)
        width, height = self.films.size(own)
        return ShownFilm(
            case=str(self.cases.case[row]),
            size=(width, height),
            mm=self.films.mm(own),
            plain=True,
            outlines={name: None if area is None else outline_path(area) for name, area in areas.items()},
            maps=[system for system in self.results if areas[system] is not None],
            parts={
                "Film": self._of_film(row),
                **{s: _of_system(r, row, areas[s] is not None) for s, r in self.results.items()},
            },
        )

    def as_read(self, row: int, system: str | None) -> ShownFilm:
        """A film as a reader of a study sees it: no truth, and of a system only what it shows of a new film.

        Args:
            row: Row of the film.
            system: System that helps; None: none does.
        """
        own, parts, outlines = self.rows[row], {}, {}
        if system is not None:
            cases, meta = self.results[system].cases, self.results[system].meta
            called = bool(cases.two_stage[row])
            said = f"{cases.probability[row]:.6f}, positive from {meta['cls_threshold']:.6f}"
            parts[system] = [("says", "pneumothorax" if called else "no pneumothorax"), ("probability", said)]
            # Other films have an outline only for the metrics, where there is a lesion: it would tell.
            area = self._areas(row)[system] if called else None
            outlines[system] = None if area is None else outline_path(area)
        return ShownFilm("", self.films.size(own), self.films.mm(own), True, outlines, (), parts)

    def _areas(self, row: int) -> dict[str, np.ndarray | None]:
        """Truth and what each system segmented, on the pixels of the picture; None where there is none."""
        areas = {"truth": self.films.truth(self.rows[row])}
        width, height = self.films.size(self.rows[row])
        for system, result in self.results.items():
            found = self._map(row, system)
            threshold = result.meta.get("map_threshold", MAP_THRESHOLD)
            areas[system] = (
                None if found is None else on_film(found.astype(np.float32) / 255, height, width, threshold)
            )
        return areas

    def _map(self, row: int, system: str) -> np.ndarray | None:
        """The map of a film, (s, s) uint8; None where stage 2 did not run."""
        path = inside(result_folder(system) / "maps", f"{self.cases.case[row]}.png")
        return cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) if path.is_file() else None

    def picture(self, row: int) -> bytes:
        return self.films.picture(self.rows[row])

    def thumbnail(self, row: int) -> bytes:
        return self.films.thumbnail(self.rows[row])

    def outlined(self, row: int) -> bytes:
        return self.films.outlined(self.rows[row], self._areas(row))

    def map(self, row: int, system: str) -> bytes | None:
        found = self._map(row, system) if system in self.results else None
        return None if found is None else map_png(found)

    def _of_film(self, row: int) -> Facts:
        cases, own = self.cases, self.rows[row]
        truth = "no annotated lesion"
        if cases.has_mask[row]:
            size = lesion_sizes(cases.taken(np.array([row])))[0]
            truth = f"lesion, {cases.mask_area_fraction[row]:.2%} of the film ({size})"
            if np.isfinite(cases.film_cm2[row]):
                truth += f", {cases.mask_area_fraction[row] * cases.film_cm2[row]:.1f} cm²"
        mm = self.films.mm(own)
        facts = [
            ("truth", truth),
            ("report", "positive" if cases.report[row] else "negative"),
            ("size", f"{mm[0]:.0f} × {mm[1]:.0f} mm" if mm else "unknown: the film names no spacing"),
            ("original", self.films.pixels(own)),
            ("age", "" if np.isnan(cases.age[row]) else f"{cases.age[row]:.0f}"),
            *((name, str(getattr(cases, key)[row])) for name, key in _OF_FILM),
        ]
        return [(name, words or "unknown") for name, words in facts]


def _figure(title: str) -> Path:
    """The figure of the report, as bootstrap.py left it."""
    return workspace() / TESTING_FOLDER / "figures" / f"{_FIGURES[title]}.svg"


OUTCOMES = ("true positive", "false negative", "false positive", "true negative")
_OF_FILM = (("sex", "sex"), ("view", "view"), ("device", "manufacturer"))


def outcomes(cases: Cases) -> np.ndarray:
    """True or false, positive or negative: the two-stage decision under the mask reference, (n,) str."""
    right = np.where(cases.has_mask == cases.two_stage, "true", "false")
    called = np.where(cases.two_stage, " positive", " negative")
    return np.char.add(right, called)


def lesion_sizes(cases: Cases) -> np.ndarray:
    """`none`, or the size of the annotated lesion as in the strata, (n,) str."""
    found = strata(cases, "mask")
    return np.select([found[size] & cases.has_mask for size in STRATA[1:]], STRATA[1:], "none")


def _spread(cases: Cases) -> np.ndarray:
    """Largest less smallest probability of the folds."""
    return np.ptp([cases.column(f"fold_{fold}") for fold in range(N_FOLDS)], axis=0)


def _of_system(result: Result, row: int, mapped: bool) -> Facts:
    """The two rules step by step, then how good the outline is."""
    cases, meta = result.cases, result.meta
    folds = [cases.column(f"fold_{fold}")[row] for fold in range(N_FOLDS)]
    reached = "reaches" if cases.stage_1[row] else "does not reach"
    facts = [
        (
            "stage 1",
            f"probability {cases.probability[row]:.6f} (folds {min(folds):.3f} to {max(folds):.3f}) "
            f"{reached} the threshold {meta['cls_threshold']:.6f}",
        ),
        ("stage 2", _stage_2(result, row, mapped)),
        ("decision", "positive" if cases.two_stage[row] else str(cases.column("rule")[row])),
    ]
    if cases.has_mask[row]:
        unit = "mm" if cases.in_mm[row] else "pixels"
        facts.append(
            ("outline", f"Dice {cases.dice_segmentation[row]:.3f}, HD95 {cases.hd95[row]:.1f} {unit}")
        )
    return facts


def _stage_2(result: Result, row: int, mapped: bool) -> str:
    cases, threshold = result.cases, result.meta["seg_threshold"]
    pixels = cases.column("area_pixels")[row]
    if np.isnan(pixels):
        return "not run, since stage 1 says negative"
    area = f"{pixels:,.0f} pixels ({cases.area_fraction[row]:.2%} of the film"
    if np.isfinite(cases.film_cm2[row]):
        area += f", {cases.area_fraction[row] * cases.film_cm2[row]:.1f} cm²"
    area += ")" if mapped else "; its picture is missing)"
    if not cases.stage_1[row]:
        return f"{area}, for the metrics only: stage 1 says negative"
    return f"{area} {'reach' if cases.two_stage[row] else 'do not reach'} the threshold {threshold:,}"


# --- the metrics that bootstrap.py left --------------------------------------------------------------


def _metrics(results: Mapping[str, Result]) -> tuple[list[Row], str]:
    """The rows of the metrics, if they are of these results, and else a sentence that says why not."""
    path = workspace() / TESTING_FOLDER / "metrics.json"  # the rows of metrics.csv, with numbers as numbers
    if not path.is_file():
        return [], f"There are no metrics yet; made by: {BOOTSTRAP_COMMAND}"
    content = read_json(path, BOOTSTRAP_COMMAND)
    for system, result in results.items():
        if content.get("systems", {}).get(system, {}).get("cases_sha256") != result.meta["cases_sha256"]:
            return [], f"The metrics are of other results of {system}; make them again: {BOOTSTRAP_COMMAND}"
    return content["rows"], ""


def _told(row: Row | None) -> str:
    return "" if row is None else f"{estimate_text(row)}, n {films_text(row)}"


def _demo(meta: Mapping[str, Any]) -> str:
    return (
        "These films are synthetic: the demo says nothing about patients." if meta["preset"] == "demo" else ""
    )


def _unlabelled(films: int) -> str:
    return f"{films} test films without a label are not shown: no metric counts them." if films else ""
