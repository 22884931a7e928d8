"""A plan of a test, written before its result is seen: what counts, by which margin, and how sure it can be.

    bootstrap.py --write-plan plan.toml    begins one
    bootstrap.py --plan plan.toml          states it in every output, and gives its verdicts

The plan is known by the hash of its file: whatever is changed in it makes it another plan.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from common.paths import shown
from common.refusal import Refusal
from common.stages import STUDENTS, SYSTEMS
from common.statistics.auroc import newcombe_interval
from common.statistics.intervals import tango_interval, wilson_interval
from common.statistics.metric_catalogue import METRICS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# What may be primary, and which patients its interval is over.
FIGURES = {
    "auroc": "both",
    "sensitivity": "with",
    "specificity": "without",
    "dice_positives": "with",
}
WITH_MARGIN = ("auroc", "sensitivity")
_KEYS = {
    "written": date,
    "margin": float,
    "prevalence": float,
    "patients_with": int,
    "patients_without": int,
    "primary": dict,
}
_BEGUN = """\
# Plan of a test. Fill it in before anybody sees a result on the test films: a later change makes another one.
written = {today}

# The largest loss that would not matter: eff is not inferior to vit, and each system not to a reader, in
# AUROC and sensitivity, where the interval of its difference lies above minus this. 0 to 1.
margin = 0.05

# The share of films with pneumothorax where the system is to be used: for predictive values. 0 to 1.
prevalence = 0.05

# How many patients are expected in the test set, with and without a pneumothorax.
patients_with = 100
patients_without = 900

# The primary figures, each with the value that is expected: remove what is not primary.
[primary]
auroc = 0.95
sensitivity = 0.85
specificity = 0.90
dice_positives = 0.60
"""


@dataclass(frozen=True)
class Plan:
    """A plan.

    Attributes:
        sha256: Hash of its file, as `sha256sum` gives it.
        written: The date that it states.
        margin: Margin of non-inferiority, 0-1.
        prevalence: The stated one, 0-1.
        patients_with: Number of patients expected with a pneumothorax.
        patients_without: The same without.
        primary: Expected value of each primary figure, 0-1, by name in FIGURES.
    """

    sha256: str
    written: date
    margin: float
    prevalence: float
    patients_with: int
    patients_without: int
    primary: Mapping[str, float]

    def prevalence_with(self, stated: float | None) -> float:
        """The plan's, which a prevalence stated elsewhere must equal.

        Raises:
            Refusal: It does not.
        """
        if stated is not None and stated != self.prevalence:
            raise Refusal(
                f"--prevalence {stated:g} is not the plan's, {self.prevalence:g}", do="leave it out"
            )
        return self.prevalence

    @property
    def name(self) -> str:
        """How it is told in every output."""
        return f"plan of {self.written.isoformat()}, SHA-256 {self.sha256[:12]}"


def begin_plan(path: Path) -> None:
    """Write a plan to be filled in, dated today.

    Raises:
        Refusal: The file is there already, or cannot be written.
    """
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(_BEGUN.format(today=date.today().isoformat()))
    except FileExistsError:
        raise Refusal(f"{shown(path)} is there already", do="name another file, or move it away") from None
    except OSError as error:
        raise Refusal(f"{shown(path)} cannot be written", found=error.strerror) from None


def read_plan(path: Path) -> Plan:
    """Read a plan.

    Raises:
        Refusal: The file cannot be read, is no TOML, or holds a key or value that is none of a plan.
    """
    try:
        content = path.read_bytes()
        values = tomllib.loads(content.decode("utf-8"))
    except OSError as error:
        do = "begin one: python bootstrap.py --write-plan FILE"
        raise Refusal(f"{shown(path)} cannot be read", found=error.strerror, do=do) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Refusal(f"{shown(path)} is no TOML", found=str(error)) from None
    for wrong in _wrong(values):
        raise Refusal(f"{shown(path)} is no plan of a test", found=wrong)
    return Plan(sha256=hashlib.sha256(content).hexdigest(), **values)


def _wrong(values: Mapping[str, Any]) -> Iterator[str]:
    """What no plan can hold, one after the other."""
    for key in sorted(values.keys() ^ _KEYS.keys()):
        yield f"{key} is {'missing' if key in _KEYS else 'unknown'}"
    for key, kind in _KEYS.items():
        if type(values[key]) is not kind:
            yield f"{key} is {values[key]!r}"
    for key in sorted(values["primary"].keys() - FIGURES.keys()):
        yield f"[primary] has {key}; it may have {', '.join(FIGURES)}"
    if not values["primary"]:
        yield "[primary] names no figure"
    shares = {key: values[key] for key in ("margin", "prevalence")}
    for key, value in (shares | values["primary"]).items():
        if type(value) is not float or not 0 < value < 1:
            yield f"{key} is {value!r}, not a number between 0 and 1"
    for key in ("patients_with", "patients_without"):
        if values[key] < 2:
            yield f"{key} is {values[key]}, not a number from 2"


# --- how sure it can be ----------------------------------------------------------------------------


def expected_intervals(plan: Plan) -> dict[str, tuple[float, float]]:
    """The interval of each primary figure where it turns out as expected, for the patients expected.

    With one film a patient. Proportions: Wilson's; AUROC: Newcombe's, which needs no scores; the Dice: as a
    proportion, which no mean of values from 0 to 1 exceeds in spread. (The idea is that of Riley et al., Stat
    Med 2021;40:4230-4251: the size of a validation from the width of its intervals.)
    """
    found = {}
    for figure, value in plan.primary.items():
        if FIGURES[figure] == "both":
            found[figure] = newcombe_interval(value, plan.patients_with, plan.patients_without)
        else:
            n = plan.patients_with if FIGURES[figure] == "with" else plan.patients_without
            found[figure] = wilson_interval(value * n, n)
    return found


def expected_differences(plan: Plan) -> dict[str, tuple[float, float]]:
    """The interval of `eff` minus `vit` in AUROC and sensitivity, where both are as expected of one.

    As if the two erred independently; they err on the same films, so that the interval will be shorter.
    AUROC: from the two intervals (Zou & Yue, Stat Med 2013;32:5077-5090); sensitivity: Tango's, with as many
    discordant films on either side as then are to be expected.
    """
    single, found = expected_intervals(plan), {}
    for figure in (name for name in WITH_MARGIN if name in plan.primary):
        value, n = plan.primary[figure], plan.patients_with
        if figure == "auroc":
            low, high = single[figure]
            half = math.hypot(value - low, high - value)
            found[figure] = (-half, half)
        else:
            discordant = n * value * (1 - value)
            found[figure] = tango_interval(discordant, discordant, n)
    return found


def plan_sentences(plan: Plan) -> list[str]:
    """What the plan says, a sentence each."""
    widths = [
        f"{METRICS[figure].short_title} {plan.primary[figure]:.3f} ({low:.3f}-{high:.3f}), "
        f"width {high - low:.3f}"
        for figure, (low, high) in expected_intervals(plan).items()
    ]
    differences = [
        f"{METRICS[figure].short_title} ({low:+.3f} to {high:+.3f}), width {high - low:.3f}, "
        + ("enough" if low > -plan.margin else "too wide")
        + f" for the margin {plan.margin:g}"
        for figure, (low, high) in expected_differences(plan).items()
    ]
    return [
        f"{plan.name[0].upper()}{plan.name[1:]}: primary are {', '.join(plan.primary)}; margin "
        f"{plan.margin:g}; prevalence {plan.prevalence:g}.",
        f"As expected with {plan.patients_with} patients with and {plan.patients_without} without a "
        f"pneumothorax: {'; '.join(widths)}.",
        *(
            [f"Differences of two systems as expected, at most: {'; '.join(differences)}."]
            if differences
            else []
        ),
    ]


# --- the verdict -----------------------------------------------------------------------------------


def verdicts(plan: Plan, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Non-inferiority in AUROC and sensitivity, a sentence a comparison: `eff` with `vit`, both with readers,
    a student with its teachers.

    Under `mask`, by the two-stage decision, over all films: shown where the 95% interval of the difference
    lies above minus the margin, which is a one-sided test at 2.5% (Piaggio et al., JAMA 2012;308:2594-2604).
    """
    return [
        f"{row['system']}, {METRICS[row['metric']].title}: {_verdict(plan.margin, row)}"
        for row in rows
        if row["metric"] in WITH_MARGIN
        and row["metric"] in plan.primary
        and (row["reference"], row["decision"], row["stratum"]) == ("mask", "two_stage", "all")
        and row["system"].startswith(tuple(f"{system}-" for system in (*SYSTEMS, *STUDENTS)))
    ]


def _verdict(margin: float, row: Mapping[str, Any]) -> str:
    low, high = row["ci_low"], row["ci_high"]
    if row["estimate"] is None or low is None or high is None:
        return f"no verdict (n={row['n']}): no interval."
    shown_interval = f"{row['estimate']:+.3f} ({low:+.3f} to {high:+.3f}), n={row['n']}"
    if low > -margin:
        return f"not inferior by the margin {margin:g}: {shown_interval}."
    if high < -margin:
        return f"inferior by more than the margin {margin:g}: {shown_interval}."
    return f"not shown to be not inferior by the margin {margin:g}: {shown_interval}."
