"""What a map says of a film, and how well it does against the film's mask: values of the tested cases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from common.films.resample import resample
from common.inference.two_stage_rule import OperatingPoint
from common.preparation.film_store import SIDE, PreparedSet
from common.statistics.localisation import hit, laterality, outline_laterality, outlines
from common.statistics.overlap import dice, iou
from common.statistics.surface_distance import Scale, surface_metrics


def film_scale(prepared: PreparedSet, row: int, image_size: int) -> Scale:
    """How large the pixels of a prepared film are at a working size."""
    facts = prepared.cases.iloc[row]
    return Scale.of(
        image_size, *(facts[name] for name in ("width", "height", "spacing_row", "spacing_column"))
    )


def measured_map(prepared: PreparedSet, row: int, found: np.ndarray, point: OperatingPoint) -> dict[str, Any]:
    """What a map found in a film, and how well where the film has a mask.

    Args:
        prepared: The set of the film.
        row: Row of the film in the set.
        found: (height, width) float32, the map of the whole film, 0-1.
        point: Working size and threshold of the map.

    Returns:
        Values by the names in `COLUMNS`; those that need a mask only where the film has one.
    """
    # At the working size, as the decision counts; then at full size, against the mask as it is there.
    predicted = resample(found, point.image_size) > point.map_threshold
    measured: dict[str, Any] = {"area_pixels": int(predicted.sum())}
    full, lesion = resample(found, SIDE), prepared.mask(row)
    outline = full > point.map_threshold
    parts = outlines(full, outline, lesion)
    measured |= {"false_outlines": len(parts.false), "false_scores": _joined(parts.false)}
    if prepared.has_mask[row]:
        truth = prepared.mask(row, point.image_size)
        distance, share = surface_metrics(predicted, truth, film_scale(prepared, row, point.image_size))
        facts = prepared.cases.iloc[row]
        measured |= {
            "dice_segmentation": dice(predicted, truth),
            "iou": iou(predicted, truth),
            "hd95": distance,
            "nsd": share,
            "dice_full_size": dice(outline, lesion),
            "laterality": laterality(full, lesion),
            "outline_laterality": outline_laterality(outline, lesion),
            "hit": hit(full, lesion, int(facts["width"]), int(facts["height"])),
            "lesions": len(parts.lesions),
            "lesions_found": sum(score > 0 for score in parts.lesions),
            "lesion_scores": _joined(parts.lesions),
        }
        second = prepared.second_mask(row)
        if second is not None:
            measured["dice_second"] = dice(outline, second)
    return measured


def _joined(scores: Sequence[float]) -> str:
    return " ".join(f"{score:.6g}" for score in scores)
