"""The figures of the report and the manuscript, as SVG.

Text stays text (`svg.fonttype: none`), so that a journal can edit it and its font. Colours are of Okabe & Ito
(Color Universal Design, 2008), told apart by the colour-blind; in grey print the line styles and the markers
tell the systems apart. No clock, version or random number is in the files: the same results, the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import matplotlib

matplotlib.use("Agg")  # no screen is needed
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # not pyplot, which keeps each figure until it is closed
from matplotlib.ticker import FuncFormatter

from common.statistics.curves import Curve, Tenth, odds
from common.statistics.metrics import agreement, films_a_patient
from common.statistics.strata import SIZE_EDGES, STRATA
from common.statistics.tested_films import Cases

# Colour, line and marker of each system; the report is of two at most.
_STYLES = (
    ("#0072B2", "-", "o"),
    ("#D55E00", "--", "s"),
    ("#CC79A7", ":", "^"),
    ("#009E73", "-.", "D"),
)
_GREY = "0.45"

# The point estimate and interval of a metric of a system as text, or "" where there is none.
Told = Callable[[str, str], str]


def _svg(draw: Callable[[], Figure], name: str) -> bytes:
    """Draw and save a figure under settings that give the same bytes each time."""
    with matplotlib.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": name,  # else the identifiers in the file are random
            "font.family": "sans-serif",
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "legend.frameon": False,
        }
    ):
        buffer = io.BytesIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        draw().savefig(buffer, format="svg", metadata=nothing)
    return buffer.getvalue()


def _panels(names: Sequence[str], height: float) -> tuple[Figure, list[Axes]]:
    """One axes a system, side by side, of the same scales."""
    figure = Figure(figsize=(3.9 * max(len(names), 1), height), layout="constrained")
    axes = figure.subplots(1, len(names), sharex=True, sharey=True, squeeze=False)[0]
    for axis, name in zip(axes, names, strict=True):
        axis.set_title(name, loc="left", fontweight="bold")
    return figure, list(axes)


def _empty(axes: Axes, why: str) -> None:
    axes.text(0.5, 0.5, why, ha="center", va="center", color=_GREY, transform=axes.transAxes, wrap=True)


# --- detection -------------------------------------------------------------------------------------


def roc_plot(
    curves: Mapping[str, Curve | None],
    points: Mapping[str, Mapping[str, tuple[float, float]]],
    told: Told,
    readers: Sequence[tuple[float, float]] = (),
) -> bytes:
    """ROC curves with pointwise bands and the operating points.

    Args:
        curves: Curve by system; None where no curve can be drawn.
        points: 1 - specificity and sensitivity, by system and decision (`stage_1`, `two_stage`).
        told: Estimate and interval of `auroc` as text, by system.
        readers: 1 - specificity and sensitivity of each human reader.
    """

    def draw() -> Figure:
        figure, axes = _square("1 - specificity", "Sensitivity")
        axes.plot([0, 1], [0, 1], color="0.8", linewidth=0.8, zorder=0)
        _draw_curves(axes, curves, points, lambda system: f"AUROC {told(system, 'auroc')}")
        if readers:
            axes.plot(*zip(*readers, strict=True), "D", color="black", fillstyle="none", label="human reader")
        axes.legend(loc="lower right", fontsize=8)
        return figure

    return _svg(draw, "roc")


def precision_recall_plot(
    curves: Mapping[str, Curve | None],
    points: Mapping[str, Mapping[str, tuple[float, float]]],
    told: Told,
    prevalence: float,
) -> bytes:
    """Precision-recall curves with pointwise bands and the operating points.

    Args:
        curves: Curve by system; None where no curve can be drawn.
        points: Sensitivity and positive predictive value, by system and decision.
        told: Estimate and interval of `auprc` as text, by system.
        prevalence: Share of positive films: the precision of calling every film positive.
    """

    def draw() -> Figure:
        figure, axes = _square("Recall (sensitivity)", "Precision (positive predictive value)")
        axes.axhline(prevalence, color="0.8", linewidth=0.8, zorder=0)
        axes.text(0, prevalence + 0.01, f"prevalence {prevalence:.3f}", color=_GREY, fontsize=8)
        _draw_curves(axes, curves, points, lambda system: f"AUPRC {told(system, 'auprc')}", "pre")
        axes.legend(loc="lower left", bbox_to_anchor=(0, prevalence + 0.04), fontsize=8)
        return figure

    return _svg(draw, "precision_recall")


def net_benefit_plot(curves: Mapping[str, Curve | None], prevalence: float) -> bytes:
    """Net benefit against the threshold with pointwise bands, beside calling every film and none.

    Args:
        curves: Curve by system, as `curves.net_benefit` gives it; None where no curve can be drawn.
        prevalence: Share of positive films.
    """

    def draw() -> Figure:
        figure = Figure(figsize=(4.6, 4.6), layout="constrained")
        axes = figure.subplots()
        _draw_curves(axes, curves, {system: {} for system in curves}, lambda system: "by its probability")
        at = np.linspace(0.01, 0.5, 200)
        axes.plot(at, prevalence - (1 - prevalence) * odds(at), ":", color="black", label="every film")
        axes.axhline(0, color=_GREY, linewidth=0.8, label="no film")
        highest = max(prevalence, 0.01)  # that of a system that errs nowhere
        axes.set(xlim=(0, 0.5), ylim=(-0.25 * highest, 1.1 * highest))
        axes.set(xlabel="Threshold of the probability", ylabel="Net benefit a film")
        axes.legend(loc="lower left", fontsize=8)
        return figure

    return _svg(draw, "net_benefit")


def _square(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x, ylabel=y, aspect="equal")
    return figure, axes


def _draw_curves(
    axes: Axes,
    curves: Mapping[str, Curve | None],
    points: Mapping[str, Mapping[str, tuple[float, float]]],
    label: Callable[[str], str],
    step: Literal["pre", "post"] | None = None,
    without: str = "no curve: all films are of one class",
) -> None:
    steps = f"steps-{step}" if step else "default"
    for (system, curve), (colour, line, marker) in zip(curves.items(), _STYLES, strict=False):
        if curve is None:
            continue
        axes.fill_between(curve.grid, curve.low, curve.high, step=step, color=colour, alpha=0.15, linewidth=0)
        for edge in (curve.low, curve.high):
            axes.plot(curve.grid, edge, line, drawstyle=steps, color=colour, linewidth=0.4)
        axes.plot(
            curve.x,
            curve.y,
            line,
            drawstyle=steps,
            color=colour,
            linewidth=1.5,
            label=f"{system}  {label(system)}",
        )
        for decision, face in (("stage_1", "white"), ("two_stage", colour)):
            if decision not in points[system]:
                continue
            x, y = points[system][decision]
            name = {"stage_1": "stage 1 alone", "two_stage": "two-stage decision"}[decision]
            axes.plot(
                x, y, marker, label=f"{system}  {name}", zorder=3,
                markerfacecolor=face, markeredgecolor=colour, markersize=6, linestyle="",
            )  # fmt: skip
    if not any(curves.values()):
        _empty(axes, without)
        axes.plot([], [], label="no curve", linestyle="")


def calibration_plot(
    tenths: Mapping[str, Sequence[Tenth]],
    smooth: Mapping[str, Curve | None],
    systems: Mapping[str, Cases],
    told: Told,
) -> bytes:
    """Observed share of positives against predicted probability, and how the probabilities are spread.

    Args:
        tenths: Tenths of the films by system, as `curves.calibration` gives them.
        smooth: Curve by system, as `calibration_curve.smooth_calibration` gives it; None: there is none.
        systems: Results by system; positives are by mask.
        told: Calibration slope and intercept as text, by system.
    """

    def draw() -> Figure:
        figure = Figure(figsize=(3.9 * len(tenths), 5.2), layout="constrained")
        grid = figure.subplots(2, len(tenths), sharex=True, sharey="row", squeeze=False, height_ratios=(3, 1))
        for (system, groups), upper, lower, style in zip(tenths.items(), *grid, _STYLES, strict=False):
            colour, line, marker = style
            upper.set_title(system, loc="left", fontweight="bold")
            upper.plot([0, 1], [0, 1], color="0.8", linewidth=0.8, zorder=0)
            x, y = [g.predicted for g in groups], np.array([g.observed for g in groups])
            # rounding may put a limit of exactly 0 or 1 on the other side of the share
            error = np.maximum([y - [g.low for g in groups], [g.high for g in groups] - y], 0)
            upper.errorbar(x, y, error, fmt=marker, color=colour, markersize=4, linewidth=1, capsize=2)
            upper.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
            curve, positive = smooth[system], systems[system].has_mask
            if curve is not None:
                upper.fill_between(curve.grid, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
                upper.plot(curve.x, curve.y, line, color=colour, linewidth=1.5)
            lines = [
                f"n {len(positive)}, {positive.sum()} positive",
                *(["no smooth curve: too few films, or separated"] if curve is None else []),
            ]
            lines += [
                f"{name} {text}"
                for name, metric in (("slope", "calibration_slope"), ("intercept", "calibration_intercept"))
                if (text := told(system, metric))
            ]
            upper.text(0.02, 0.98, "\n".join(lines), va="top", fontsize=8, transform=upper.transAxes)
            _draw_spread(lower, systems[system], colour)
        grid[0, 0].set_ylabel("Observed share of positives")
        grid[1, 0].set_ylabel("Films")
        for axis in grid[1]:
            axis.set_xlabel("Predicted probability")
        return figure

    return _svg(draw, "calibration")


def _draw_spread(axes: Axes, cases: Cases, colour: str) -> None:
    bins = np.linspace(0, 1, 21).tolist()
    axes.hist(
        cases.probability[cases.has_mask],
        bins,
        color=colour,
        alpha=0.6,
        histtype="stepfilled",
        label="positive",
    )
    axes.hist(cases.probability[~cases.has_mask], bins, color="black", histtype="step", label="negative")
    axes.set_yscale("symlog", linthresh=1)  # a logarithm has no place for bins without a film
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.legend(loc="upper center", fontsize=7)


def folds_plot(
    folds: Mapping[str, Sequence[float] | None], ensembles: Mapping[str, tuple[float, float, float] | None]
) -> bytes:
    """AUROC of each fold's network alone, and of the system with its interval.

    Args:
        folds: AUROC of fold 0, 1 ... by system; None where it is not known or not defined.
        ensembles: AUROC and the ends of its interval by system (NaN: no interval); None where not defined.
    """

    def draw() -> Figure:
        figure = Figure(figsize=(6.4, 1.1 + 0.75 * len(folds)), layout="constrained")
        axes = figure.subplots()
        names = list(folds)
        for row, (colour, _, marker) in zip(range(len(names)), _STYLES, strict=False):
            single, whole = folds[names[row]], ensembles[names[row]]
            if single is not None:
                axes.plot(
                    single, np.full(len(single), row - 0.15), marker, label="one fold",
                    markerfacecolor="white", markeredgecolor=colour, linestyle="",
                )  # fmt: skip
            if whole is not None:
                value, low, high = whole
                axes.plot([low, high], [row + 0.15] * 2, color=colour, linewidth=1.5)
                axes.plot(value, row + 0.15, marker, color=colour, label="the system")
            if single is None and whole is None:
                axes.text(0.5, row, "not defined: all films are of one class", color=_GREY, ha="center")
        axes.set(yticks=range(len(names)), yticklabels=names, xlabel="AUROC")
        axes.set_ylim(len(names) - 0.5, -0.5)  # downwards: the first system on top
        handles, labels = axes.get_legend_handles_labels()
        if handles:
            axes.legend(handles[:2], labels[:2], loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize=8)
        return figure

    return _svg(draw, "folds")


def froc_plot(curves: Mapping[str, Curve | None], told: Told) -> bytes:
    """Lesions found against false outlines a film, with pointwise bands.

    Args:
        curves: Curve by system, as `curves.froc` gives it; None where no curve can be drawn.
        told: Estimate and interval of `lesions_found` as text, by system.
    """

    def draw() -> Figure:
        figure = Figure(figsize=(4.6, 4.6), layout="constrained")
        axes = figure.subplots()
        axes.set(ylim=(-0.02, 1.02), xlabel="False outlines a film", ylabel="Lesions found")
        ends = {s: {} if c is None else {"two_stage": (c.x[-1], c.y[-1])} for s, c in curves.items()}
        without = "no curve: nothing is outlined"
        _draw_curves(axes, curves, ends, lambda s: f"found {told(s, 'lesions_found')}", "post", without)
        axes.set_xlim(left=0)
        axes.legend(loc="lower right", fontsize=8)
        return figure

    return _svg(draw, "froc")


# --- segmentation ----------------------------------------------------------------------------------


def dice_by_size_plot(systems: Mapping[str, Cases], means: Mapping[str, Mapping[str, float]]) -> bytes:
    """Dice of the stage-2 map against lesion size, a point a film with a mask, and the mean of each size.

    Args:
        systems: Results by system.
        means: Mean Dice by system and stratum (`small`, `medium`, `large`); absent where not defined.
    """

    def draw() -> Figure:
        figure, panels = _panels(list(systems), 3.6)
        for axes, (system, cases), style in zip(panels, systems.items(), _STYLES, strict=False):
            _draw_dice(axes, cases, means.get(system, {}), style[0])
        panels[0].set_ylabel("Dice, segmentation")
        return figure

    return _svg(draw, "dice_by_size")


def _draw_dice(axes: Axes, cases: Cases, means: Mapping[str, float], colour: str) -> None:
    axes.set(ylim=(-0.03, 1.03), xlabel="Lesion area, % of the film")
    masked = cases.has_mask
    if not masked.any():
        return _empty(axes, "no film has a mask")
    size, overlap = 100 * cases.mask_area_fraction, cases.dice_segmentation
    called, missed = masked & cases.two_stage, masked & ~cases.two_stage
    axes.plot(
        size[called], overlap[called], "o", color=colour, alpha=0.55, markersize=4, markeredgewidth=0,
        label=f"called positive (n={called.sum()})",
    )  # fmt: skip
    axes.plot(
        size[missed], overlap[missed], "x", color="black", markersize=5, label=f"missed (n={missed.sum()})"
    )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter("")
    edges = [size[masked].min() * 0.9, *(100 * edge for edge in SIZE_EDGES), size[masked].max() * 1.1]
    for edge in edges[1:3]:
        axes.axvline(edge, color="0.8", linewidth=0.8, zorder=0)
    for stratum, left, right in zip(STRATA[1:], edges, edges[1:], strict=False):
        if stratum in means and left < right:
            axes.plot([left, right], [means[stratum]] * 2, color="black", linewidth=1.2)
            middle = np.sqrt(left * right)  # of a logarithmic axis
            box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
            axes.text(
                middle, means[stratum] + 0.03, f"{means[stratum]:.2f}", ha="center", fontsize=8, bbox=box
            )
    axes.legend(loc="lower right", fontsize=8)
    return None


def area_agreement_plot(systems: Mapping[str, Cases]) -> bytes:
    """Agreement of the shown with the true area over films with a mask.

    Bland & Altman, Lancet 1986;i:307-310. The shown area of a film that is called negative is 0. The lines
    are the mean difference and 1.96 standard deviations about it, as `metrics.agreement` has them.
    """

    def draw() -> Figure:
        figure, panels = _panels(list(systems), 3.6)
        for axes, cases, style in zip(panels, systems.values(), _STYLES, strict=False):
            _draw_agreement(axes, cases, style[0])
        panels[0].set_ylabel("Shown minus true area, % of the film")
        return figure

    return _svg(draw, "area_agreement")


def _draw_agreement(axes: Axes, cases: Cases, colour: str) -> None:
    axes.set_xlabel("Mean of shown and true area, % of the film")
    shown = 100 * np.where(cases.two_stage, cases.area_fraction, 0.0)
    films = cases.has_mask & np.isfinite(shown)
    if films.sum() < 2:
        return _empty(axes, "fewer than two films with a mask and a known area")
    true = 100 * cases.mask_area_fraction[films]
    difference, middle = shown[films] - true, (shown[films] + true) / 2
    missed = ~cases.two_stage[films]
    axes.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    axes.plot(
        middle[~missed], difference[~missed], "o", color=colour, alpha=0.55, markersize=4, markeredgewidth=0,
        label="called positive",
    )  # fmt: skip
    axes.plot(middle[missed], difference[missed], "x", color="black", markersize=5, label="missed (shown: 0)")
    total, n, squares = map(np.array, (difference.sum(), len(difference), (difference**2).sum()))
    lines = agreement(total, n, squares, films_a_patient(cases.patient[films]))
    right = axes.get_yaxis_transform()
    for value, line in zip(map(float, lines.values()), ("-", "--", "--"), strict=True):
        axes.axhline(value, color="black", linewidth=0.9, linestyle=line)
        axes.text(
            1, value, f"{value:+.2f}".replace("-", "−"), ha="right", va="bottom", fontsize=8, transform=right
        )
    axes.legend(loc="lower left", fontsize=8)
    return None
