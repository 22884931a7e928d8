"""The prepared grid: stretching by area, and masks that lie where they should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from common.films.resample import resample, resample_mask
from common.preparation.run import open_prepared
from common.pseudonyms import pseudonym


def test_resample_by_area() -> None:
    film = np.zeros((8, 4), np.uint8)
    film[:4, :2] = 100
    assert (resample(film, 2) == [[100, 0], [0, 0]]).all()
    mask = np.zeros((4, 4), bool)
    mask[0, :2] = mask[1, 0] = True  # three of four pixels
    mask[2, 2] = mask[3, 3] = True  # half: not more than half
    assert (resample_mask(mask, 2) == [[True, False], [False, False]]).all()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "folder"), [("siim", "siim"), ("ntuh_test", "hospital")])
def test_prepared_masks_of_real_films_lie_where_the_truth_says(
    real: Path, workspace: Path, name: str, folder: str
) -> None:
    prepared = open_prepared(name, str(real / "semisynthetic" / folder), "test")
    truth = pd.read_csv(real / "semisynthetic" / "truth.csv").set_index("case_id")
    names = {pseudonym("case", identifier): identifier for identifier in truth.index}
    rows = np.flatnonzero(prepared.has_mask)
    assert len(rows) == {"siim": 64, "ntuh_test": 17}[name]
    for row in rows:
        known = truth.loc[names[prepared.cases["case"][row]]]
        # the patient's right is on the picture's left; a transposed mask would be on the wrong side
        centre = np.nonzero(prepared.mask(row))[1].mean() / 1024
        assert (centre < 0.5) == (known["side"] == "right")
        # rectangles cover the lesion, run lengths are it
        assert prepared.cases["mask_area_fraction"][row] >= 0.9 * known["mask_area_frac"]
