"""What a film gives away without its lesion: logistic regressions that no network is needed for.

Positives and negatives that come from different sources, devices or wards can be told apart by how their
films look as a whole, or by their headers. Where such a shortcut separates the test films as well as the
system does, the system's AUROC proves nothing about pneumothorax.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from common.preparation.film_store import PreparedSet

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

SIDE = 24  # of the reduced films
_STRENGTH = 0.01  # of scikit-learn's C: 576 pixels are as many as there are positives
_NUMBERS = ("age", "width", "height", "spacing_row", "spacing_column")
_WORDS = ("sex", "view", "position", "manufacturer")


def shortcut_probabilities(training: PreparedSet, test: PreparedSet) -> dict[str, np.ndarray]:
    """Probability of pneumothorax of each test film, by what is no lesion.

    Both regressions are fitted on the training films and their masks. The test films' labels are never seen.

    Args:
        training: Training films.
        test: Test films, n of them.

    Returns:
        (n,) float64, 0-1, by name: `thumbnail`, the film at 24 x 24 pixels; `header`, age, sex, view,
        position, device, size and spacing, as far as the training films have them. One is missing where
        there is nothing to fit it on.
    """
    positive = training.has_mask
    if positive.all() or not positive.any():
        return {}
    found = {}
    found["thumbnail"] = (
        _regression().fit(thumbnails(training), positive).predict_proba(thumbnails(test))[:, 1]
    )
    facts = header_facts(training.cases)
    facts = facts.loc[:, facts.nunique() > 1]  # what all films have in common tells nothing
    if facts.shape[1]:
        # A word that only test films have is dropped: no weight was fitted for it.
        facts_of_test = header_facts(test.cases).reindex(columns=facts.columns, fill_value=0.0)
        found["header"] = _regression().fit(facts, positive).predict_proba(facts_of_test)[:, 1]
    return found


def thumbnails(films: PreparedSet) -> np.ndarray:
    """Films reduced by area: (n, 576) float64, 0-1."""
    return np.array([films.film(row, SIDE).ravel() for row in range(len(films.cases))]) / 255


def header_facts(cases: pd.DataFrame) -> pd.DataFrame:
    """Facts of the header as columns (float64): one a number, 0 where unknown, and one a word, 0 or 1."""
    columns: dict[str, np.ndarray] = {}
    for name in _NUMBERS:
        values = pd.to_numeric(cases[name], errors="coerce").to_numpy(dtype=float)
        columns[name] = np.nan_to_num(values)
    for name in _WORDS:
        words = cases[name].fillna("").astype(str)
        columns |= {f"{name} {word}": (words == word).to_numpy(dtype=float) for word in sorted(set(words))}
    return pd.DataFrame(columns)


def _regression() -> Pipeline:
    from sklearn.linear_model import LogisticRegression  # takes seconds, which a refusal need not wait
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=_STRENGTH, max_iter=1000))
