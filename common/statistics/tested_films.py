"""What one system found in the test films, and the truth: what every metric is computed from.

Imports no torch: the metrics need neither it nor a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

# The masks read in another way: films positive by report without a mask, which `mask` takes as negatives, are
# left out, since nobody can say what they are.
CLEAR = "mask_or_clear"


def _unknown(value: Any = np.nan) -> Any:
    """A column of Cases that may be left out: it then holds this value for every film."""
    return field(default=None, metadata={"unknown": value})


@dataclass(frozen=True)
class Cases:
    """What one system found in n test films, and the truth. Arrays of length n, one element a film.

    Films without a label (no report) are not among them. Columns with a default may be left out: all unknown.

    Attributes:
        case: Pseudonym of the film (str).
        patient: Pseudonym of the patient (str).
        has_mask: Annotated lesion (bool), the `mask` reference.
        report: Positive by the radiology report (bool), the `report` reference.
        mask_area_fraction: Lesion area over film area, 0-1 (float64); NaN without a mask.
        probability: Probability of pneumothorax, by the ensemble, 0-1 (float64); never altered by a decision.
        stage_1: Probability reaches the threshold (bool).
        two_stage: The system's decision: stage 1 and the area rule (bool).
        dice_segmentation: Dice of the stage-2 map against the mask whatever the decision, 0-1 (float64);
            NaN without a mask.
        area_fraction: Segmented area over film area, 0-1 (float64), whatever the decision; NaN where stage 2
            did not run (stage 1 negative and no mask). The system shows it where `two_stage`, else 0.
        iou: Intersection over union of the stage-2 map and the mask, 0-1 (float64); NaN without a mask.
        hd95: 95th percentile of the surface distance, as `dice_segmentation`, in mm where `in_mm`, else in
            pixels of the working size; an empty map counts the film's diagonal.
        nsd: Normalised surface Dice at the tolerance of meta.json, 0-1, as `dice_segmentation`.
        in_mm: The film's spacing is known, so `hd95` and `nsd` are in mm (bool).
        film_cm2: Area of the whole film (float64); NaN where the spacing is unknown.
        age: Age in years (float64); NaN where unknown.
        sex: M, F or empty (str).
        view: View, such as `AP`, or empty (str).
        manufacturer: Maker of the device, or empty (str).
        chest_tube: Chest tube in the film, 1 or 0 (float64); NaN where unknown.
        further: All other columns of the result file, by name: flags and numbers (float64, NaN where empty),
            texts (str).
    """

    case: np.ndarray
    patient: np.ndarray
    has_mask: np.ndarray
    report: np.ndarray
    mask_area_fraction: np.ndarray
    probability: np.ndarray
    stage_1: np.ndarray
    two_stage: np.ndarray
    dice_segmentation: np.ndarray
    area_fraction: np.ndarray = _unknown()
    iou: np.ndarray = _unknown()
    hd95: np.ndarray = _unknown()
    nsd: np.ndarray = _unknown()
    in_mm: np.ndarray = _unknown(False)
    film_cm2: np.ndarray = _unknown()
    age: np.ndarray = _unknown()
    sex: np.ndarray = _unknown("")
    view: np.ndarray = _unknown("")
    manufacturer: np.ndarray = _unknown("")
    chest_tube: np.ndarray = _unknown()
    further: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for each in fields(self):
            if getattr(self, each.name) is None:
                object.__setattr__(self, each.name, np.full(len(self.case), each.metadata["unknown"]))

    def __len__(self) -> int:
        return len(self.case)

    def positive(self, reference: str) -> np.ndarray:
        """Films positive under `mask`, `report` or `mask_or_clear` (bool)."""
        return {"mask": self.has_mask, "report": self.report, CLEAR: self.has_mask}[reference]

    def counted(self, reference: str) -> np.ndarray:
        """Films that count under a reference (bool): all, but under `mask_or_clear` those it leaves out."""
        return ~(self.report & ~self.has_mask) if reference == CLEAR else np.ones(len(self), dtype=bool)

    def called(self, decision: str) -> np.ndarray:
        """Films positive by `two_stage` or `stage_1` (bool)."""
        return {"two_stage": self.two_stage, "stage_1": self.stage_1}[decision]

    def cohort(self) -> dict[str, int]:
        """How many films, patients and positives there are."""
        return {
            "films": len(self),
            "patients": len(set(self.patient.tolist())),
            "positive_by_mask": int(self.has_mask.sum()),
            "positive_by_report": int(self.report.sum()),
            "positive_by_report_without_mask": int((self.report & ~self.has_mask).sum()),
            "mask_but_negative_by_report": int((self.has_mask & ~self.report).sum()),
        }

    def taken(self, rows: np.ndarray) -> Cases:
        """The films of these rows, in this order."""
        own = {each.name: getattr(self, each.name)[rows] for each in fields(self) if each.name != "further"}
        return Cases(**own, further={name: values[rows] for name, values in self.further.items()})

    def column(self, name: str) -> np.ndarray:
        """A column of the result file; NaN for every film where the file's reader left it out."""
        if name in self.further:
            return self.further[name]
        return getattr(self, name, np.full(len(self), np.nan))
