"""What the training films look like, in numbers, so that a film unlike them, or turned, is noticed.

A film is described by a thumbnail of 6 x 6 pixels and seven grey-level statistics, and compared with the mean
and covariance of all training films. From these no film can be recovered, not even its thumbnail: the films'
differences from the mean, mixed by any rotation, would give the same. The limit is the distance of one film,
a single number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from common.films.resample import resample
from common.preparation.film_store import PreparedSet
from common.progress import progress
from common.refusal import Refusal
from common.stages import N_FOLDS, THRESHOLDS_COMMAND

FALSE_WARNINGS = 0.005  # share of out-of-fold films that may be called far
_BEYOND_ALL = 1e6  # a threshold above it would call no film far
NEARER = 1.1  # times as near must a changed copy be
TURNED, UPSIDE_DOWN, INVERTED = "turned by 90 degrees", "upside down", "inverted (air bright)"
# What may have been done to a film. A mirrored copy is as near as the film, so none of these needs one.
_CHANGES: tuple[tuple[str, Callable[[np.ndarray], np.ndarray]], ...] = (
    (TURNED, np.rot90),
    (TURNED, lambda film: np.rot90(film, 3)),
    (UPSIDE_DOWN, lambda film: np.rot90(film, 2)),
    (INVERTED, np.invert),
)
_GRID, _DETAIL = 6, 128  # pixels of the side: of the thumbnail, and where grey levels are measured
_N_FEATURES = _GRID**2 + 7
_FEATURES = "thumbnail of 6 x 6 ranks; mean, spread, black, white, symmetry, edges, texture"


@dataclass(frozen=True, eq=False)
class TrainingLikeness:
    """The training films as a normal distribution of their features.

    A film is far when its distance (Mahalanobis, Proc Natl Inst Sci India 1936;2:49) exceeds that of all but
    0.5% of the training films, each measured by the folds that it is not in. The covariance is shrunk (Ledoit
    & Wolf, J Multivar Anal 2004;88:365), so that a few films suffice. Between a film and its turned copy the
    one that is nearer is likelier: the film seems turned when that is the copy (compare Golan & El-Yaniv,
    NeurIPS 2018, who tell an outlier by whether its turn is recognised).

    Attributes:
        mean: (43,) float64, mean of the training films' features (`features`).
        covariance: (43, 43) float64, positive definite covariance of these features.
        threshold: Distance beyond which a film is far.
        n_films: Training films it was made from.
        false_warning_rate: Share of them, 0-1, that are far or seem changed by the folds they are not in.
    """

    mean: np.ndarray
    covariance: np.ndarray
    threshold: float
    n_films: int
    false_warning_rate: float

    @classmethod
    def of_films(cls, prepared: PreparedSet, show: bool = False) -> TrainingLikeness:
        """Measure all training films.

        Args:
            prepared: Training set and its folds.
            show: Whether to show a progress bar where it takes more than three seconds.
        """
        n = len(prepared.part)
        features = []
        with progress(n, "films' features" if show else None) as bar:
            for row in range(n):
                features.append(_with_changes(prepared.film(row)))
                bar.update()
        found = np.array(features)
        outside = np.empty(found.shape[:2])
        for fold in range(N_FOLDS):
            held = prepared.part == fold
            outside[held] = _distances(*_fit(found[~held, 0]), found[held])
        # `higher`, so that no more than the stated share is called far.
        threshold = float(np.quantile(outside[:, 0], 1 - FALSE_WARNINGS, method="higher"))
        warned = (outside[:, 0] > threshold) | (_nearest_change(outside) >= 0)
        mean, covariance = _fit(found[:, 0])
        # Rounded here, too, so that these judge exactly as what is read back from the thresholds file.
        return cls(_rounded(mean), _rounded(covariance), threshold, n, float(warned.mean()))

    def distance(self, film: np.ndarray) -> float:
        """How far a film is from the training films, 0 at their mean.

        Args:
            film: (side, side) uint8, air dark, 1024 pixels or reduced from that.
        """
        return float(_distances(self.mean, self.covariance, features(film)))

    def is_far(self, film: np.ndarray) -> bool:
        """Whether a film, as in `distance`, is unlike the training films."""
        return self.distance(film) > self.threshold

    def seems(self, film: np.ndarray) -> str:
        """What seems to have been done to a film: `TURNED`, `UPSIDE_DOWN`, `INVERTED`, or `""`: nothing.

        Then undoing it makes the film a tenth nearer at least, and no longer far.

        Args:
            film: (side, side) uint8, air dark, 1024 pixels or reduced from that.
        """
        distances = _distances(self.mean, self.covariance, _with_changes(film))
        change = int(_nearest_change(distances))
        return _CHANGES[change][0] if change >= 0 and distances[1 + change] <= self.threshold else ""

    def objections(self, film: np.ndarray) -> list[str]:
        """Why a film gets no answer by its picture, a short clause each; none: it is of the kind.

        Args:
            film: (1024, 1024) uint8, air dark: as a prepared set holds it.
        """
        found = []
        distance = self.distance(film)
        if distance > self.threshold:
            found.append(f"unlike the training films (distance {distance:.1f}, limit {self.threshold:.1f})")
        if seems := self.seems(film):
            found.append(f"seems {seems}")
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain finite numbers, few enough for the thresholds file; `of_json` gives the same back."""
        return {
            "features": _FEATURES,
            "n_films": self.n_films,
            "false_warning_rate": self.false_warning_rate,
            "threshold": self.threshold,
            "mean": self.mean.tolist(),
            "covariance": self.covariance[np.tril_indices(_N_FEATURES)].tolist(),
        }

    @classmethod
    def of_json(cls, content: Any) -> TrainingLikeness:
        """The reverse of `to_json`.

        Raises:
            Refusal: Malformed, or of other features than these.
        """
        try:
            lower = np.zeros((_N_FEATURES, _N_FEATURES))
            lower[np.tril_indices(_N_FEATURES)] = content["covariance"]
            mean = np.array(content["mean"], dtype=np.float64)
            covariance = lower + np.tril(lower, -1).T
            threshold, rate, count = (content[key] for key in ("threshold", "false_warning_rate", "n_films"))
            numbers = type(threshold) in (int, float) and type(rate) in (int, float) and type(count) is int
            if not (numbers and 0 < threshold < _BEYOND_ALL and 0 <= rate <= 1 and count > 0):
                raise ValueError("a threshold, a rate or a count that cannot be")
            finite = np.isfinite([*mean.ravel(), *covariance.ravel()]).all()
            if content["features"] != _FEATURES or mean.shape != (_N_FEATURES,) or not finite:
                raise ValueError("other features, or numbers that are not finite")
            np.linalg.cholesky(covariance)  # raises where it is not positive definite
            return cls(mean, covariance, float(threshold), count, float(rate))
        except (KeyError, TypeError, ValueError, OverflowError, np.linalg.LinAlgError) as error:
            raise Refusal(
                "the thresholds file does not say what the training films look like",
                found=f"{type(error).__name__}: {error}",
                do=f"make it again: {THRESHOLDS_COMMAND}",
            ) from None


def features(film: np.ndarray) -> np.ndarray:
    """The numbers that describe a film, (43,) float64.

    A thumbnail of the pixels' ranks (so that no window or gamma changes it), less its mean and over its
    standard deviation; then of the grey levels, 0-1, at 128 x 128: mean, standard deviation, square roots of
    the shares of black and of white, correlation with the mirrored film, and the logarithms of mean gradient
    and mean fine texture over the standard deviation.

    Args:
        film: (side, side) uint8, air dark.
    """
    grey = resample(film, _DETAIL)
    counts = np.bincount(grey.ravel(), minlength=256)
    ranks = ((counts.cumsum() - counts / 2) / grey.size).astype(np.float32)[grey]
    thumbnail = resample(ranks, _GRID)
    thumbnail = (thumbnail - thumbnail.mean()) / max(thumbnail.std(), 0.01)
    grey = grey.astype(np.float32) / 255
    spread = max(grey.std(), 0.01)  # a film of one grey is not divided by 0
    offset = grey - grey.mean()
    gradient = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    texture = np.abs(grey - cv2.GaussianBlur(grey, (0, 0), 2))
    statistics = [
        grey.mean(),
        grey.std(),
        np.sqrt(np.mean(grey < 0.02)),  # roots and logarithms: nearer to a normal distribution
        np.sqrt(np.mean(grey > 0.98)),
        np.mean(offset * offset[:, ::-1]) / spread**2,
        np.log(gradient.mean() / spread + 0.001),
        np.log(texture.mean() / spread + 0.001),
    ]
    return np.concatenate([thumbnail.ravel(), statistics]).astype(np.float64)


def _with_changes(film: np.ndarray) -> np.ndarray:
    """Features of a film and of its changed copies, (1 + changes, 43) float64."""
    grey = resample(film, _DETAIL)  # once, not by `features` for each copy
    return np.array([features(grey), *(features(change(grey)) for _, change in _CHANGES)])


def _fit(found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and shrunk covariance of features, (films, 43) float64, each film with its mirrored copy.

    So left and right are alike, and there are about half as many numbers to estimate.
    """
    mirrored = found.copy()
    thumbnails = mirrored[:, : _GRID**2].reshape(-1, _GRID, _GRID)
    mirrored[:, : _GRID**2] = thumbnails[:, :, ::-1].reshape(len(found), -1)
    from sklearn.covariance import ledoit_wolf  # takes seconds, which a refusal need not wait

    both = np.concatenate([found, mirrored])
    scale = both.std(axis=0) + 0.001  # shrinking is towards equal variances
    return both.mean(axis=0), ledoit_wolf(both / scale)[0] * np.outer(scale, scale)


def _distances(mean: np.ndarray, covariance: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Mahalanobis distances of features, (..., 43) float64."""
    whitened = np.linalg.solve(np.linalg.cholesky(covariance), (found - mean).reshape(-1, _N_FEATURES).T)
    return np.linalg.norm(whitened, axis=0).reshape(found.shape[:-1])


def _nearest_change(distances: np.ndarray) -> np.ndarray:
    """The change that brings a film nearest, of distances (..., 1 + changes); -1: none does by enough."""
    changed = distances[..., 1:]
    return np.where(distances[..., 0] > NEARER * changed.min(axis=-1), changed.argmin(axis=-1), -1)


def _rounded(values: np.ndarray) -> np.ndarray:
    """To six significant digits, as they are stored."""
    return np.vectorize(lambda value: float(f"{value:.6g}"))(values)
