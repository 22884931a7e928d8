"""The smooth calibration curve against SciPy's natural cubic spline fitted by scikit-learn."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.interpolate import CubicSpline
from scipy.special import expit, logit
from scipy.stats import t
from sklearn.linear_model import LogisticRegression

from common.report.plots import calibration_plot
from common.statistics.calibration_curve import smooth_calibration
from common.statistics.curves import Curve, calibration
from common.statistics.tested_films import Cases
from tests.test_bootstrap import simulated


def natural_basis(x: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """SciPy's natural cubic splines that are 1 at one knot and 0 at the others; straight beyond the ends."""
    columns = []
    for own in np.eye(3):
        spline, inside = CubicSpline(knots, own, bc_type="natural"), np.clip(x, knots[0], knots[-1])
        columns.append(spline(inside) + spline(inside, 1) * (x - inside))
    return np.stack(columns, axis=1)


def films() -> Cases:
    """150 films, two a patient; the probabilities are too low in the middle and too high at the ends."""
    rng = np.random.default_rng(4)
    said = np.round(expit(rng.normal(-0.5, 1.5, 150)), 3)
    has_mask = rng.random(150) < expit(0.5 + 0.8 * logit(said) - 0.2 * logit(said) ** 2)
    patient = np.array([f"p{i // 2}" for i in range(150)])
    return replace(simulated(1, 150), probability=said, has_mask=has_mask, patient=patient)


def test_curve_is_that_of_scipy_and_scikit_learn_and_the_band_is_by_patients() -> None:
    cases = films()
    curve = smooth_calibration(cases, "mask")
    x = logit(cases.probability)
    knots = np.quantile(x, [0.1, 0.5, 0.9])
    assert (curve.grid[[0, -1]] == np.quantile(cases.probability, [0.01, 0.99])).all()
    model = LogisticRegression(C=np.inf, fit_intercept=False, solver="newton-cholesky", tol=1e-12)
    basis, at_grid = natural_basis(x, knots), natural_basis(logit(curve.grid), knots)
    said = model.fit(basis, cases.has_mask).predict_proba(basis)[:, 1]
    assert curve.y == pytest.approx(model.predict_proba(at_grid)[:, 1], abs=1e-6)

    inverse = np.linalg.inv(sum(p * (1 - p) * np.outer(row, row) for p, row in zip(said, basis, strict=True)))
    names, between = sorted(set(cases.patient.tolist())), np.zeros((3, 3))
    for name in names:
        own = cases.patient == name
        score = (basis[own] * (cases.has_mask - said)[own, None]).sum(axis=0)
        between += np.outer(score, score)
    variance = np.diag(at_grid @ inverse @ between @ inverse @ at_grid.T) * len(names) / (len(names) - 1)
    fewest = min(len(set(cases.patient[own].tolist())) for own in (cases.has_mask, ~cases.has_mask))
    half = t.ppf(0.975, fewest - 1) * np.sqrt(variance)
    assert curve.low == pytest.approx(expit(logit(curve.y) - half), abs=1e-6)
    assert curve.high == pytest.approx(expit(logit(curve.y) + half), abs=1e-6)
    assert (curve.high - curve.low).min() > 0.01


def test_copies_of_films_of_the_same_patients_narrow_nothing() -> None:
    cases = films()
    once, thrice = (smooth_calibration(cases.taken(np.tile(np.arange(150), n)), "mask") for n in (1, 3))
    for each in ("y", "low", "high"):
        assert getattr(once, each) == pytest.approx(getattr(thrice, each), abs=0.02)


def test_there_is_none_where_it_would_mean_nothing() -> None:
    cases = films()
    order, n = np.argsort(cases.probability), np.arange(150)
    assert smooth_calibration(replace(cases, has_mask=n % 15 == 0), "mask") is not None  # 10 positives
    for changed in (
        {"has_mask": (n % 15 == 0) & (n > 0)},  # 9
        {"has_mask": np.isin(n, order[100:])},  # separated
        {"has_mask": (n % 15 == 0), "patient": np.where(n % 15 == 0, "p", cases.patient)},  # of one patient
        {"probability": np.full(150, 0.3)},
    ):
        assert smooth_calibration(replace(cases, **changed), "mask") is None, changed


def test_the_plot_says_of_how_many_films_or_that_there_is_none() -> None:
    cases = films()
    tenths, curve = {"eff": calibration(cases, "mask")}, smooth_calibration(cases, "mask")

    def drawn(each: Curve | None) -> str:
        return calibration_plot(tenths, {"eff": each}, {"eff": cases}, lambda system, metric: "").decode()

    told = f"n 150, {cases.has_mask.sum()} positive"
    assert [told in drawn(each) for each in (curve, None)] == [True, True]
    assert ["no smooth curve" in drawn(each) for each in (curve, None)] == [False, True]
    others = [replace(curve, **{each: getattr(curve, each) / 2}) for each in ("y", "low", "high")]
    assert len({drawn(each) for each in (curve, curve, None, *others)}) == 5
