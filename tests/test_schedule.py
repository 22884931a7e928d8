"""Learning rate and sampling curves against values computed by hand."""

from __future__ import annotations

import pytest

from common.training.schedule import learning_rate, positive_share, warmup


@pytest.mark.parametrize(("steps", "expected"), [(3000, 1500), (2999, 299), (100, 10), (9, 0)])
def test_warmup(steps: int, expected: int) -> None:
    assert warmup(steps, 1500) == expected


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (1, 1e-4 / 1500),
        (750, 0.5e-4),
        (1500, 1e-4),
        (9000, 1e-7 + (1e-4 - 1e-7) * 0.5),  # half way of 1,500 to 16,500
        (16500, 1e-7),
    ],
)
def test_learning_rate_of_a_long_run(step: int, expected: float) -> None:
    assert learning_rate(step, 16500, 1e-4, 1e-7, 1500) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("step", "expected"), [(1, 1e-6), (9, 9e-6), (10, 1e-5), (55, 1e-7 + 0.5 * 9.9e-6), (100, 1e-7)]
)
def test_learning_rate_of_a_short_run(step: int, expected: float) -> None:
    assert learning_rate(step, 100, 1e-5, 1e-7, 1500) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_learning_rate_of_the_shortest_runs_is_defined(steps: int) -> None:
    rates = [learning_rate(step, steps, 1e-3, 1e-7, 1500) for step in range(1, steps + 1)]
    assert all(0 < rate <= 1e-3 for rate in rates)
    assert rates[-1] == pytest.approx(1e-7)


@pytest.mark.parametrize(
    ("epoch", "epochs", "expected"),
    [(0, 20, 0.8), (10, 20, 0.55), (19, 20, 0.325), (0, 50, 0.8), (49, 50, 0.31)],
)
def test_positive_share(epoch: int, epochs: int, expected: float) -> None:
    assert positive_share(epoch, epochs, 0.8, 0.5) == pytest.approx(expected)
