"""A few validation films to look at while a network learns."""

from __future__ import annotations

import numpy as np

from common.inference.film_sheets import Example
from common.inference.run_networks import Predictor
from common.networks.unet import PneumothoraxNet
from common.preparation.film_store import PreparedSet

COUNT = 8
_NEGATIVES = 2  # of these, where the validation films have negatives


def example_rows(prepared: PreparedSet, validation: np.ndarray) -> np.ndarray:
    """Choose the films: positives from the smallest lesion to the largest, then negatives.

    Args:
        prepared: Set that the films are from.
        validation: (n,) rows of the validation films.

    Returns:
        At most `COUNT` rows.
    """
    masked = prepared.has_mask[validation]
    positives, negatives = validation[masked], validation[~masked][:_NEGATIVES]
    area = prepared.cases["mask_area_fraction"].to_numpy()[positives]
    by_area = positives[np.argsort(area, kind="stable")]
    # Evenly by rank, not by area: small lesions, of which there are most, are the hard ones.
    places = np.linspace(0, len(by_area) - 1, min(COUNT - len(negatives), len(by_area)))
    return np.concatenate([by_area[places.round().astype(int)], negatives])


def examples(predictor: Predictor, net: PneumothoraxNet, rows: np.ndarray) -> list[Example]:
    """What a network sees on these films now."""
    size = predictor.image_size
    return [
        Example(predictor.prepared.film(each.row, size), each.truth, each.found, each.probability)
        for each in predictor.with_maps(net, rows)
        if each.found is not None  # none is: their maps were asked for
    ]
