"""A smooth calibration curve: the share of positives at each probability, with a band.

The log odds of a positive are a restricted cubic spline of the logit of the probability (a "flexible
calibration curve": Van Calster et al., J Clin Epidemiol 2016;74:167-176), with three knots at the quantiles
0.1, 0.5 and 0.9 (Harrell, Regression Modeling Strategies, 2015, section 2.4.6), fitted by maximum likelihood.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit, logit, stdtrit

from common.statistics.bootstrap import patient_numbers
from common.statistics.calibration import CLIP, damping
from common.statistics.curves import Curve
from common.statistics.intervals import too_few
from common.statistics.tested_films import Cases

_KNOTS = (0.1, 0.5, 0.9)  # quantiles of the logits
_SHOWN = (0.01, 0.99)  # quantiles of the probabilities: beyond these few films speak
_POINTS = 50
_TOLERANCE = 1e-4  # largest change of a film's log odds in the last step; the error left is of its square
_MAX_STEPS = 100


def smooth_calibration(cases: Cases, reference: str) -> Curve | None:
    """Share of positives against the probability, from the 1st to the 99th percentile of the probabilities.

    The band is pointwise, 95% at each probability: on the log odds, with the variance by patients (Liang &
    Zeger, Biometrika 1986;73:13-22) and Student's t at the patients of the rarer class. In 6,000 simulated
    sets of 263 or 1,071 films it held the truth in 91 to 98% at each probability; in 500 of them a percentile
    band of resampled patients did so in 76 to 98%.

    Args:
        cases: The films.
        reference: `mask`, `report` or `mask_or_clear`.

    Returns:
        The curve at 50 probabilities; None with fewer than 10 films or 5 patients of either class, where
        most films share one probability, or where the probability separates the classes, so that no best fit
        exists.
    """
    positive = cases.positive(reference)
    patients = [cases.patient[films] for films in (positive, ~positive)]
    x = _logit(cases.probability)
    knots = np.quantile(x, _KNOTS)
    if any(map(too_few, patients)) or len(np.unique(knots)) < len(knots):
        return None
    design = _spline(x, knots)
    fit = _best_fit(design, positive)
    if fit is None:
        return None
    first, last = np.quantile(cases.probability, _SHOWN)
    grid = np.linspace(first, last, _POINTS)
    at_grid = _spline(_logit(grid), knots)
    covariance = _by_patients(design, positive, fit, patient_numbers(cases.patient))
    error = np.sqrt(np.einsum("ij,jk,ik->i", at_grid, covariance, at_grid))
    half = stdtrit(min(len(np.unique(each)) for each in patients) - 1, 0.975) * error
    middle = at_grid @ fit
    return Curve(grid, expit(middle), expit(middle - half), expit(middle + half), grid)


def _logit(probability: np.ndarray) -> np.ndarray:
    return logit(np.clip(probability, CLIP, 1 - CLIP))


def _spline(x: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """1, x and a cubic term that is straight beyond the outer of the three knots: (n, 3) float64."""
    first, middle, last = knots
    cubes = [np.maximum(x - knot, 0) ** 3 for knot in knots]
    inner = cubes[1] * (last - first) - cubes[2] * (middle - first)
    return np.stack([np.ones_like(x), x, (cubes[0] - inner / (last - middle)) / (last - first) ** 2], axis=1)


def _best_fit(design: np.ndarray, positive: np.ndarray) -> np.ndarray | None:
    """Coefficients (k,) of the logistic regression, by Newton's method; None: they grow without end.

    Args:
        design: (n, k) float64.
        positive: (n,) bool.
    """
    fit = np.zeros(design.shape[1])
    for _ in range(_MAX_STEPS):
        share = expit(design @ fit)
        try:
            step = np.linalg.solve(_information(design, share), design.T @ (positive - share))
        except np.linalg.LinAlgError:  # no film's share is open any more
            return None
        reach = np.abs(design @ step).max()
        fit = fit + step * damping(np.array(reach))
        if reach < _TOLERANCE:
            return fit
    return None


def _information(design: np.ndarray, share: np.ndarray) -> np.ndarray:
    return (design.T * (share * (1 - share))) @ design


def _by_patients(
    design: np.ndarray, positive: np.ndarray, fit: np.ndarray, patient: np.ndarray
) -> np.ndarray:
    """Covariance of the coefficients, (k, k), whatever ties the films of a patient together.

    Args:
        design, positive, fit: As in `_best_fit`.
        patient: (n,) int, number of each film's patient.
    """
    share = expit(design @ fit)
    scores = np.zeros((int(patient.max()) + 1, design.shape[1]))
    np.add.at(scores, patient, design * (positive - share)[:, None])
    inverse = np.linalg.inv(_information(design, share))
    return inverse @ (scores.T @ scores) @ inverse * len(scores) / (len(scores) - 1)
