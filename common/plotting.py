"""A matplotlib figure -> a PNG file, without a screen."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no screen is needed
from matplotlib import pyplot as plt

from common.files import whole_file


def save_plot(figure: plt.Figure, path: Path) -> None:
    """Write a figure as PNG, the same bytes each time, and close it."""
    with whole_file(path) as temporary:
        # Without `Software`, or matplotlib's version would be in the bytes.
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})
    plt.close(figure)
