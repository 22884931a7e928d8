"""Both systems on the test films: the work of `inference.py`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from common import __version__
from common.command_line import EvaluationOptions
from common.compute import film_readers, set_up
from common.distributed import Processes, running
from common.files import digest, write_csv, write_json
from common.hints import from_here
from common.inference.measured import film_scale, measured_map
from common.inference.result_columns import Column, fold_cells, written_columns
from common.inference.resumable_result import PICTURES, Entry, ResumableResult
from common.inference.run_networks import PRECISION, Predictor
from common.inference.shortcuts import shortcut_probabilities
from common.inference.trained_system import (
    CLASSIFICATION,
    SEGMENTATION,
    TrainedSystem,
    operating_point,
    pretraining_patients,
    read_trained,
    refuse_other_films,
    refuse_unseparated,
)
from common.inference.two_stage_rule import POSITIVE, OperatingPoint
from common.inference.unlike_training import TrainingLikeness
from common.paths import result_folder, shown
from common.preparation.film_store import PreparedSet
from common.preparation.run import open_prepared
from common.refusal import Refusal
from common.stages import BOOTSTRAP_COMMAND, INFERENCE_COMMAND, Stage
from common.statistics.overlap import dice
from common.statistics.surface_distance import TOLERANCE_MM, tolerance_px

PICTURE_SIDE = 512  # of the films kept for the report


def run_test_set(options: EvaluationOptions) -> None:
    """Run the systems asked for on the command line on the test films.

    Raises:
        Refusal: Networks or thresholds are missing or do not belong together, or a patient of the training
            films is in the test films.
    """
    with running(options.gpu) as processes:
        device = processes.device
        set_up(device)
        systems = read_trained(options.systems, "inference", options.preset)
        # Before the films are opened, which may first have to be prepared: a missing threshold is said now.
        points = {trained.system: operating_point(trained) for trained in systems}
        known = {s: TrainingLikeness.of_json(content.get("novelty")) for s, (_, content) in points.items()}
        prepared, training = (
            processes.first_ahead(partial(open_prepared, name, options.ntuh, "inference"))
            for name in ("ntuh_test", "ntuh_train")
        )
        for trained in systems:
            refuse_other_films(trained, training)
            refuse_unseparated(trained, prepared)
        _refuse_shared_patients(prepared, training)
        workers = film_readers(options.workers, device)
        shortcuts = shortcut_probabilities(training, prepared) if processes.first else {}
        for trained in systems:
            predictor = Predictor(prepared, trained.image_size, device, workers)
            (point, _), likeness = points[trained.system], known[trained.system]
            _Inference(trained, point, predictor, processes, likeness, shortcuts).run()
        print(f"Next, the metrics: {from_here(BOOTSTRAP_COMMAND)}")


def is_tested(trained: TrainedSystem, prepared: PreparedSet) -> bool:
    """Whether the result files that are there are of these very networks, their thresholds and these films.

    Raises:
        Refusal: The thresholds are missing, malformed, or of other networks.
    """
    point, _ = operating_point(trained)
    folder, second = result_folder(trained.system), prepared.second_annotator
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        cases = digest((folder / "cases.csv").read_bytes())
    except (OSError, ValueError):
        return False
    asked = {
        **point.facts(),
        "cases_sha256": cases,
        "films": prepared.content,
        "weights": trained.made_from,
        "precision": PRECISION,
    }
    same = all(meta.get(key) == value for key, value in asked.items())
    columns = list(written_columns(second is not None))
    return same and meta.get("second_masks") == second and [*meta.get("columns", {})] == columns


def _refuse_shared_patients(prepared: PreparedSet, training: PreparedSet) -> None:
    shared = prepared.cases["case"][prepared.cases["patient"].isin(training.cases["patient"])]
    if len(shared):
        raise Refusal(
            f"{len(shared)} test films are of patients who are in the training films",
            found=", ".join(shared[:10]),
            do="take these patients out of the test set",
        )


@dataclass(frozen=True)
class _Inference:
    """One system on the test films.

    Films are computed in the same batches whatever was done before and however many processes share them,
    so that an interrupted run ends with the same bytes as an uninterrupted one.
    """

    trained: TrainedSystem
    point: OperatingPoint
    predictor: Predictor[PreparedSet]
    processes: Processes
    likeness: TrainingLikeness
    shortcuts: Mapping[str, np.ndarray] = field(default_factory=dict)  # by name, in the first process

    @property
    def prepared(self) -> PreparedSet:
        return self.predictor.prepared

    @property
    def columns(self) -> dict[str, Column]:
        """The columns of this result."""
        return written_columns(self.prepared.second_annotator is not None)

    def run(self) -> None:
        """Score, segment and decide every test film; the result folder appears when all is done."""
        target = result_folder(self.trained.system)
        partial = ResumableResult(target, self._belongs_to(), self.processes)
        for name in PICTURES:
            (partial.folder / name).mkdir(exist_ok=True)
        rows = np.arange(len(self.prepared.cases))
        self._classify(rows, partial)
        scores = partial.found(1)
        # Read back from the journal even if just computed: resumed or not, these are the same numbers.
        by_fold = np.array([scores[row]["folds"] for row in rows.tolist()])
        probability = by_fold.mean(axis=1)
        stage_1 = np.array([self.point.stage_1(each) for each in probability])
        # Stage 2 is needed where stage 1 says positive; films with a mask are segmented all the same, for
        # the metrics of the segmentation model by itself, which the decision never sees.
        self._segment(rows[stage_1 | self.prepared.has_mask], partial)
        found = partial.found(2)
        if not self.processes.first:
            return
        cases = [self._case(row, by_fold[row], probability[row], found.get(row)) for row in rows.tolist()]
        self._write(partial.folder, cases)
        partial.finish()
        called = sum(case["two_stage"] for case in cases)
        unlabelled = sum(case["report"] is None for case in cases)
        print(
            f"{self.trained.system}: {len(cases)} films, {int(self.prepared.has_mask.sum())} with a mask"
            + (f", {unlabelled} without a label" if unlabelled else "")
            + f"; {int(stage_1.sum())} reach the probability, {called} also the area -> {shown(target)}"
        )

    def _belongs_to(self) -> dict[str, Any]:
        """What decides the result."""
        return {
            "weights": self.trained.made_from,
            "thresholds": self.point.facts(),
            "films": self.prepared.content,
            "cases": digest((self.prepared.folder / "cases.csv").read_bytes()),
            "device": self.predictor.device.type,  # as another kind of device does
            "precision": PRECISION,
            "batch_size": self.predictor.batch_size,  # another size may round otherwise
            "columns": list(self.columns),  # a journal of fewer is not gone on with
            **self._second_annotator(),
        }

    def _second_annotator(self) -> dict[str, str]:
        """The digest of the second annotator's masks, where there is any."""
        second = self.prepared.second_annotator
        return {"second_masks": second} if second else {}

    def _own(self, rows: np.ndarray, done: dict[int, Entry]) -> np.ndarray:
        """This process's share of the batches that are not done."""
        # A batch lacking one film is done again whole: a smaller one could be computed with other rounding.
        waiting = [batch for batch in self.predictor.cut(rows) if not all(row in done for row in batch)]
        return np.concatenate([rows[:0], *self.processes.share(waiting)])  # nothing to join is an error

    def _title(self, stage: int) -> str | None:
        return f"{self.trained.system} stage {stage}" if self.processes.first else None

    def _networks(self, stage: Stage) -> list:
        return self.trained.networks(stage, self.predictor.device)

    def _classify(self, rows: np.ndarray, partial: ResumableResult) -> None:
        """Stage 1 of this process's films."""
        own = self._own(rows, partial.found(1))
        if not len(own):
            return
        with partial.journal(1) as add:
            for row, folds in self.predictor.scores(self._networks(CLASSIFICATION), own, self._title(1)):
                add(row, case=self.prepared.cases["case"].iloc[row], folds=folds.tolist())

    def _segment(self, rows: np.ndarray, partial: ResumableResult) -> None:
        """Stage 2 of this process's films: numbers and pictures."""
        folder = partial.folder
        done = {
            row: entry
            for row, entry in partial.found(2).items()
            if entry["pictures"] == _pictures_digest(self._pictures(folder, row))  # whole, and still there
        }
        own = self._own(rows, done)
        if not len(own):
            return
        with partial.journal(2) as add:
            for row, found, truth in self.predictor.maps(self._networks(SEGMENTATION), own, self._title(2)):
                pictures = self._pictures(folder, row)
                # For eyes only: all that is measured is measured on the map itself, before this rounding.
                _write_picture(pictures[0], np.rint(found * 255).astype(np.uint8))
                _write_picture(pictures[1], truth.astype(np.uint8) * 255)
                _write_picture(pictures[2], self.prepared.film(row, PICTURE_SIDE))
                measured = measured_map(self.prepared, row, found, self.point)
                # Last, because an entry vouches for its pictures.
                add(row, **measured, pictures=_pictures_digest(pictures))

    def _pictures(self, folder: Path, row: int) -> list[Path]:
        """The probability map (8 bit), the true mask and the film of a case, for the report."""
        case = self.prepared.cases["case"].iloc[row]
        return [folder / kind / f"{case}{suffix}" for kind, suffix in PICTURES.items()]

    def _annotators(self, row: int, looked: bool) -> float | None:
        """Dice of both annotators' masks; None where one of them did not look at the film."""
        second = self.prepared.second_mask(row)
        return dice(self.prepared.mask(row), second) if looked and second is not None else None

    def _case(
        self, row: int, by_fold: np.ndarray, probability: float, segmented: Entry | None
    ) -> dict[str, Any]:
        """One row of the result: the raw probability and the decision are kept apart."""
        facts: dict[Any, Any] = {
            key: None if value != value else value  # NaN: an empty cell
            for key, value in self.prepared.cases.iloc[row].items()
        }
        scale, found = film_scale(self.prepared, row, self.point.image_size), segmented or {}
        area, overlap = found.get("area_pixels"), found.get("dice_segmentation")
        rule = self.point.rule(probability, area)
        fraction = None if area is None else area / scale.image_size**2
        film_cm2 = scale.film_cm2
        known = {
            "case": facts["case"],
            "patient": facts["patient"],
            "has_mask": int(facts["has_mask"]),
            "report": _whole(facts["report"]),
            "mask_area_fraction": float(facts["mask_area_fraction"]) if facts["has_mask"] else None,
            "probability": float(probability),
            **fold_cells(by_fold.tolist()),
            "area_fraction": fraction,
            "area_cm2": None if fraction is None or film_cm2 is None else fraction * film_cm2,
            "stage_1": int(self.point.stage_1(probability)),
            "two_stage": int(rule == POSITIVE),
            "rule": rule,
            # Multiplied, not left out: a film that was missed counts as 0.
            "dice_positives": None if overlap is None else overlap * (rule == POSITIVE),
            # Beside the decision, which stays what it is: every other metric counts these films, too.
            "no_answer": int(bool(self.likeness.objections(self.prepared.film(row)))),
            # Without a mask, only a negative film is known to hold nothing that was to be drawn.
            "dice_annotators": self._annotators(row, bool(facts["has_mask"]) or facts["report"] == 0),
            "distance_unit": scale.unit,
            "film_cm2": film_cm2,
            **{f"{name}_probability": float(each[row]) for name, each in self.shortcuts.items()},
            **{key: facts[key] for key in ("age", "sex", "view", "manufacturer")},
            "chest_tube": _whole(facts["chest_tube"]),
        }
        # What stage 2 measured passes as it is: a new value of `measured_map` needs nothing but its column.
        return {name: known[name] if name in known else found.get(name) for name in self.columns}

    def _write(self, folder: Path, cases: list[dict[str, Any]]) -> None:
        """Everything but the pictures, which are there."""
        write_csv(folder / "cases.csv", tuple(self.columns), cases)
        # Copied: `bootstrap.py` reads the result files alone, and the set may be prepared anew in between.
        shutil.copyfile(self.prepared.folder / "flow.json", folder / "flow.json")
        write_json(
            folder / "meta.json",
            {
                "system": self.trained.system,
                **self.point.facts(),
                "n_cases": len(cases),
                "cases_sha256": digest((folder / "cases.csv").read_bytes()),
                "films": self.prepared.content,
                "preset": self.trained.facts["preset"],
                "precision": PRECISION,
                "weights": self.trained.made_from,
                **({"patient_table": table} if (table := pretraining_patients(self.trained.facts)) else {}),
                "nsd_tolerance_mm": TOLERANCE_MM,
                "nsd_tolerance_px": tolerance_px(self.point.image_size),
                "dice_convention": "films with a mask only; both masks empty: 1, one empty: 0 (IoU likewise)",
                "surface_convention": "films with a mask only; an empty map: HD95 is the film's diagonal, "
                "NSD 0; in mm along both sides of the original film, or, where its spacing is unknown, in "
                "pixels of the working size; NSD at the tolerance of that unit",
                "surface_caution": "where lesions are annotated as rectangles the true outline is blocky: "
                "distances to its sides and corners say as much of the annotation as of the system",
                "columns": {name: column.meaning for name, column in self.columns.items()},
                **self._second_annotator(),
                "version": __version__,
            },
        )


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _pictures_digest(pictures: list[Path]) -> str | None:
    """SHA-256 of the files; None where one is missing: a power cut can lose what was written last."""
    try:
        return digest(*(path.read_bytes() for path in pictures))
    except OSError:
        return None


def _write_picture(path: Path, pixels: np.ndarray) -> None:
    if not cv2.imwrite(str(path), pixels):  # OpenCV does not raise: False is all it says
        raise Refusal(f"cannot write {shown(path)}", do=f"free space, then again: {INFERENCE_COMMAND}")
