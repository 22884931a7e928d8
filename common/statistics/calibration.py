"""Whether the probabilities mean what they say: logistic recalibration, in any number of resamples at once.

Cox (Biometrika 1958;45:562-565): log odds of a positive = intercept + slope * logit(probability).

- The calibration slope is that slope: 1 is ideal; below 1 the probabilities are too extreme.
- The calibration intercept is fitted with the slope fixed at 1 (the logit is an offset), the calibration in
  the large (Van Calster et al., BMC Med 2019;17:230): 0 is ideal; below 0 the probabilities are too high.

Both depend on the case mix: a classifier trained at half positives must be far off at a tenth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from scipy.special import expit, logit, stdtrit

CLIP = 1e-6  # of a probability from 0 and 1, which have no logit
_TOLERANCE = 1e-4  # largest change of a film's log odds in the last step; the error left is of its square
_MAX_STEPS = 100
_NEAR = 1e-2  # the same in single precision: from there the next step in double precision mostly is the last
_ELEMENTS = 131_072  # resamples times films at once, so that what a step needs stays in the cache


class Calibration:
    """Slope and intercept of some films, prepared once.

    Args:
        probability: (n,) float64, probability of pneumothorax, 0-1.
        positive, negative: (n,) bool, positive and negative films.
    """

    def __init__(self, probability: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> None:
        clipped = np.clip(probability, CLIP, 1 - CLIP)
        logit = np.log(clipped) - np.log1p(-clipped)  # log1p: 1 - p would lose digits of a small p
        # In the order of the logits, so that the estimates do not depend on the order of the films.
        order = np.lexsort((positive, logit))
        self._order = order[(positive | negative)[order]]
        self._rows = _rows(len(self._order))
        self._x, self._positive = logit[self._order], positive[self._order]
        self._classes = np.flatnonzero(self._positive), np.flatnonzero(~self._positive)
        both, overlap = self._estimable(np.ones((1, len(self._x))))
        self._slope = _Fit(self._x, self._positive, True, start_is_best=bool(overlap[0]))
        self._intercept = _Fit(self._x, self._positive, False, start_is_best=bool(both[0]))

    def values(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Calibration slope and intercept in each resample; numerical error below 1e-7.

        Args:
            counts: Resamples, float64, (r, n).

        Returns:
            `calibration_slope` and `calibration_intercept`, length r. NaN where no finite best value exists:
            a class is absent or, for the slope, a threshold separates the classes, ties included (Albert &
            Anderson, Biometrika 1984;71:1-10).
        """
        slope, intercept = np.full((2, len(counts)), np.nan)
        for rows, ordered in self._blocks(counts):
            both, overlap = self._estimable(ordered)
            slope[rows][overlap] = self._slope(_taken(ordered, overlap))[:, 1]
            intercept[rows][both] = self._intercept(_taken(ordered, both))[:, 0]
        return {"calibration_slope": slope, "calibration_intercept": intercept}

    def resampled(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """The slope of `values`, most of the way to it in single precision, which takes half the time.

        The intercept's interval is made without resamples (`intercept_interval`).
        """
        slope = np.full(len(counts), np.nan)
        for rows, ordered in self._blocks(counts):
            _, overlap = self._estimable(ordered)
            slope[rows][overlap] = self._slope(_taken(ordered, overlap), by_way_of_single=True)[:, 1]
        return {"calibration_slope": slope}

    def _blocks(self, counts: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Some resamples after the other, their films in the order of the logits."""
        for start in range(0, len(counts), self._rows):
            rows = slice(start, start + self._rows)
            yield rows, np.take(counts[rows], self._order, axis=1)

    def _estimable(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Resamples with films of both classes, and those of them whose classes overlap (bool, length r)."""
        if self._positive.all() or not self._positive.any():
            return np.zeros(len(counts), dtype=bool), np.zeros(len(counts), dtype=bool)
        drawn = counts > 0
        (low, high, some), (low_negative, high_negative, some_negative) = (
            _span(self._x[films], np.take(drawn, films, axis=1)) for films in self._classes
        )
        both = some & some_negative
        return both, both & (high_negative > low) & (high > low_negative)


# --- calibration in the large: intervals by patients -------------------------------------------------


def intercept_interval(
    probability: np.ndarray, positive: np.ndarray, patient: np.ndarray
) -> tuple[float, float]:
    """95% interval of the calibration intercept, with the variance by patients (Liang & Zeger, Biometrika
    1986;73:13-22) and Student's t at the patients of the rarer class.

    How many positives there happen to be is what the intercept is about. A bootstrap that draws patients with
    and without a positive apart takes it as given, and held the truth in 67% of simulated sets.

    Args:
        probability: (n,) float64, probability of pneumothorax, 0-1.
        positive: (n,) bool, positive films; some, not all.
        patient: (n,) int, number of each film's patient.
    """
    fitted = Calibration(probability, positive, ~positive).values(np.ones((1, len(positive))))
    intercept = float(fitted["calibration_intercept"][0])
    share = expit(logit(np.clip(probability, CLIP, 1 - CLIP)) + intercept)
    error = _error_by_patients(positive - share, patient) / (share * (1 - share)).sum()
    half = _students_t(positive, patient) * error
    return intercept - half, intercept + half


def observed_over_expected_interval(
    probability: np.ndarray, positive: np.ndarray, patient: np.ndarray
) -> tuple[float, float]:
    """95% interval of positives over the sum of probabilities, on the logarithm, else as above.

    Args:
        probability, positive, patient: As in `intercept_interval`.
    """
    observed, expected = float(positive.sum()), float(probability.sum())
    if not expected:
        return math.inf, math.inf
    ratio = observed / expected
    error = _error_by_patients(positive - ratio * probability, patient) / observed
    half = _students_t(positive, patient) * error
    return ratio * math.exp(-half), ratio * math.exp(half)


def _error_by_patients(residual: np.ndarray, patient: np.ndarray) -> float:
    """Standard error of a sum over films, whatever ties the films of a patient together."""
    sums = np.bincount(np.unique(patient, return_inverse=True)[1], residual)
    return math.sqrt((sums**2).sum() * len(sums) / max(len(sums) - 1, 1))


def _students_t(positive: np.ndarray, patient: np.ndarray) -> float:
    patients = min(len(np.unique(patient[films])) for films in (positive, ~positive))
    return float(stdtrit(max(patients - 1, 1), 0.975))


class _Fit:
    """Logistic regression on x by Newton's method, of many resamples whose best fit is finite.

    With the log odds z and t = tanh(z / 2), which cannot overflow, a film's expected value is (1 + t) / 2,
    its variance (1 - t^2) / 4, and the derivative of that by z -t (1 - t^2) / 4.

    Args:
        x: (n,) float64, ascending logits of the probabilities.
        positive: (n,) bool, whether the film is positive.
        slope_is_free: Else the slope is 1, and only the intercept is fitted.
        start_is_best: Resamples start from the best fit of the full sample, which exists.
    """

    def __init__(self, x: np.ndarray, positive: np.ndarray, slope_is_free: bool, start_is_best: bool) -> None:
        self._x = x
        self._ends = x.min(initial=0.0), x.max(initial=0.0)
        self._sign = np.where(positive, 1.0, -1.0)
        self._powers = np.stack([np.ones_like(x), x, x**2, x**3], axis=1)
        self._signed = self._sign[:, None] * self._powers[:, :2]
        # What a step needs of each resample and film, kept: to ask for it anew takes longer than to fill it.
        self._scratch = np.empty((2, _rows(len(x)), len(x)))
        self._single_x, self._single_sign = x.astype(np.float32), self._sign.astype(np.float32)
        self._single_powers = self._powers[:, :3].astype(np.float32)
        self._single_scratch = np.empty((2, _rows(len(x)), len(x)), dtype=np.float32)
        self._free = slope_is_free
        self._set_start(np.array([0.0, 1.0]))
        if start_is_best:
            self._set_start(self(np.ones((1, len(x))))[0])

    def _set_start(self, start: np.ndarray) -> None:
        self._start = start
        t = np.tanh(self._powers[:, :2] @ start / 2)[:, None]
        residual, variance = (self._sign[:, None] - t) / 2, (1 - t**2) / 4
        self._at_start = np.concatenate(
            [residual * self._powers[:, :2], variance * self._powers[:, :3], -t * variance * self._powers],
            axis=1,
        )

    def __call__(self, counts: np.ndarray, by_way_of_single: bool = False) -> np.ndarray:
        """(intercept, slope) of each resample, (r, 2); NaN if the best fit is not found in _MAX_STEPS.

        Args:
            counts: Resamples, float64, (r, n), in the order of x.
            by_way_of_single: Go most of the way in single precision; the slope has to be free.
        """
        best = np.full((len(counts), 2), np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            step = self._first_step(counts)
            fit = self._start + step * damping(self._reach(step))
            if by_way_of_single:
                fit = self._nearly(counts, fit)
            signs, left = counts @ self._signed, np.arange(len(counts), dtype=np.intp)
            for _ in range(_MAX_STEPS):
                if not len(left):
                    break
                step = self._step(counts, signs, fit)
                reach = self._reach(step)
                fit = fit + step * damping(reach)
                done = reach[:, 0] < _TOLERANCE
                if done.any():
                    best[left[done]] = fit[done]
                    left, counts, signs, fit = left[~done], counts[~done], signs[~done], fit[~done]
        return best

    def _first_step(self, counts: np.ndarray) -> np.ndarray:
        """From the common start, where no film needs its own tanh: to second order, so that two more do."""
        moments = (counts @ self._at_start).T
        score, information, bend = moments[:2], moments[2:5], moments[5:]
        a, b = self._solved(score, information).T
        curved = bend[:2] * a**2 + 2 * bend[1:3] * a * b + bend[2:] * b**2
        return self._solved(score - curved / 2, information)

    def _step(self, counts: np.ndarray, signs: np.ndarray, fit: np.ndarray) -> np.ndarray:
        """Newton's step, (r, 2); `signs`: sum of sign and of sign times x, (r, 2)."""
        t, weighted = self._scratch[:, : len(counts)]
        np.multiply(self._x, fit[:, 1:] / 2, out=t)
        t += fit[:, :1] / 2
        np.tanh(t, out=t)
        np.multiply(counts, t, out=weighted)
        score = signs - weighted @ self._powers[:, :2]
        weighted *= t
        np.subtract(counts, weighted, out=weighted)
        information = weighted @ self._powers[:, :3]
        return self._solved(score.T / 2, information.T / 4)

    def _nearly(self, counts: np.ndarray, fit: np.ndarray) -> np.ndarray:
        """Fits after steps in single precision, up to the first below _NEAR; what has none stays as it is."""
        single, found, left = counts.astype(np.float32), fit.copy(), np.arange(len(fit), dtype=np.intp)
        for _ in range(_MAX_STEPS - 2):  # the double steps that follow are mostly one or two
            if not len(left):
                break
            step = self._step_in_single(single, fit)
            reach = self._reach(step)[:, 0]
            fit = fit + step * damping(reach[:, None])
            near = reach < _NEAR
            found[left[near]] = fit[near]
            going = reach >= _NEAR  # not so without a number
            left, single, fit = left[going], single[going], fit[going]
        return found

    def _step_in_single(self, counts: np.ndarray, fit: np.ndarray) -> np.ndarray:
        """As `_step`, but each film's difference is taken before the sum, which has 7 digits here."""
        t, weighted = self._single_scratch[:, : len(counts)]
        half = (fit / 2).astype(np.float32)
        np.multiply(self._single_x, half[:, 1:], out=t)
        t += half[:, :1]
        np.tanh(t, out=t)
        np.subtract(self._single_sign, t, out=weighted)
        weighted *= counts
        score = weighted @ self._single_powers[:, :2]
        np.multiply(t, t, out=t)
        np.subtract(1, t, out=t)
        t *= counts
        information = t @ self._single_powers
        return self._solved(score.T.astype(float) / 2, information.T.astype(float) / 4)

    def _solved(self, score: np.ndarray, information: np.ndarray) -> np.ndarray:
        """The inverse of the information times the score, (r, 2); the slope's part is 0 where it is fixed."""
        solved = np.zeros((score.shape[1], 2))
        if not self._free:
            solved[:, 0] = score[0] / information[0]
            return solved
        determinant = information[0] * information[2] - information[1] ** 2
        solved[:, 0] = (information[2] * score[0] - information[1] * score[1]) / determinant
        solved[:, 1] = (information[0] * score[1] - information[1] * score[0]) / determinant
        return solved

    def _reach(self, step: np.ndarray) -> np.ndarray:
        """The largest change of any film's log odds by a step, (r, 1)."""
        lowest, highest = (np.abs(step[:, :1] + step[:, 1:] * end) for end in self._ends)
        return np.maximum(lowest, highest)


def _taken(counts: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Some resamples; nothing is copied where they are all."""
    return counts if which.all() else counts[which]


def _rows(films: int) -> int:
    """How many resamples are fitted at once."""
    return max(2, _ELEMENTS // max(films, 1))


def damping(reach: np.ndarray) -> np.ndarray | float:
    """The part of Newton's step to take, so that each step improves the fit and none is tried in vain.

    log(1 + reach) / reach always does (Sun & Tran-Dinh, Math Program 2019;178:145-213); up to a reach of 1
    the whole step does as well.

    Args:
        reach: float64 of any shape, the largest change of a film's log odds by the step of each fit.
    """
    whole = reach <= 1
    return 1.0 if whole.all() else np.where(whole, 1.0, np.log1p(reach) / np.maximum(reach, 1))


def _span(ascending: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lowest and highest of the drawn values of each row, and whether any is drawn (else no meaning)."""
    return (
        ascending[drawn.argmax(axis=1)],
        ascending[::-1][drawn[:, ::-1].argmax(axis=1)],
        drawn.max(axis=1),
    )
