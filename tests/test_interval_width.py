"""No interval without width, whatever the systems and the readers find: nobody errs, all do, none differs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.statistics.bootstrap import bootstrap, metric_rows
from common.statistics.compare_systems import comparison_rows, correlation
from common.statistics.group_differences import group_difference_rows
from common.statistics.human_readers import read_readers, reader_rows
from common.statistics.intervals import joined_interval, wilson_interval
from common.statistics.metric_catalogue import METRICS
from common.statistics.reader_means import mean_rows
from common.statistics.tested_films import Cases

FILMS = 120
FINDS = ("all", "nothing", "everything", "all but one", "most")
PAIRS = (
    *((finds, finds) for finds in FINDS if finds != "all but one"),
    ("all", "all but one"),
    ("all", "most"),
    ("all", "nothing"),
    ("nothing", "everything"),
)


def films(finds: str, patients: int = FILMS) -> Cases:
    """A system's results: whom it calls, and as good an outline, a side and a hit as the call is."""
    rng = np.random.default_rng(FINDS.index(finds))
    truth = np.random.default_rng(9)
    has_mask = np.arange(FILMS) % 3 == 0
    called = {
        "all": has_mask,
        "nothing": np.zeros(FILMS, bool),
        "everything": np.ones(FILMS, bool),
        "all but one": has_mask & (np.arange(FILMS) > 0),
        "most": has_mask ^ (rng.random(FILMS) < 0.15),
    }[finds]
    right = (called == has_mask).astype(float)
    of_masks = np.where(has_mask, right, np.nan)
    unknown = np.full(FILMS, np.nan)
    return Cases(
        case=np.array([f"c{i}" for i in range(FILMS)]),
        patient=np.array([f"p{i % patients}" for i in range(FILMS)]),
        has_mask=has_mask,
        report=has_mask,
        mask_area_fraction=np.where(has_mask, truth.uniform(0.001, 0.12, FILMS), np.nan),
        probability=np.where(called, 0.9, 0.1),
        stage_1=called,
        two_stage=called,
        dice_segmentation=of_masks,
        area_fraction=np.where(called, 0.05, 0.0),
        iou=of_masks,
        hd95=1 - of_masks,
        nsd=of_masks,
        in_mm=truth.random(FILMS) < 0.5,
        sex=truth.choice(["F", "M"], FILMS),
        chest_tube=np.zeros(FILMS),
        further={
            "dice_full_size": of_masks,
            "dice_annotators": of_masks,
            "dice_second": of_masks,
            "laterality": of_masks,
            "hit": of_masks,
            "outline_laterality": np.where(called, of_masks, np.nan),
            "lesions": np.where(has_mask, 1.0, np.nan),
            "lesions_found": of_masks,
            "false_outlines": np.where(called, 1.0 - right, unknown),
            "fold_votes": called.astype(float),
            "no_answer": np.zeros(FILMS),
            "thumbnail_probability": np.where(has_mask, 0.8, 0.2),
            "header_probability": np.full(FILMS, 0.3),
        },
    )


def all_rows(systems: dict[str, Cases], folder: Path, interval: str) -> list[dict[str, Any]]:
    """Every row that metrics.csv can have."""
    found = {
        reference: bootstrap(systems, reference, 100, 1, interval, prevalence=0.1)
        for reference in ("mask", "report", "mask_or_clear")
    }
    rows = metric_rows(found, interval, 0.1)
    for reference, of_reference in found.items():
        rows += comparison_rows(systems, of_reference, reference)
        rows += group_difference_rows(of_reference, reference)
    first = next(iter(systems.values()))
    calls = "".join(
        f"c{i},{who},{cases.two_stage[i]:d},{aid}\n"
        for who, cases in zip("AB", systems.values(), strict=True)
        for aid in (0, 1)
        for i in range(FILMS)
    )
    (folder / "calls.csv").write_text(f"case,reader,call,aid\n{calls}")
    readers = read_readers(folder / "calls.csv", first)
    return rows + reader_rows(systems, readers, 60, 1) + mean_rows(systems, readers)


@pytest.mark.parametrize("patients", [FILMS, 50])
@pytest.mark.parametrize("pair", PAIRS)
def test_every_interval_has_a_width(pair: tuple[str, str], patients: int, tmp_path: Path) -> None:
    systems = {name: films(finds, patients) for name, finds in zip(("eff", "vit"), pair, strict=True)}
    for interval in ("percentile", "bca"):
        rows = all_rows(systems, tmp_path, interval)
        for row in rows:
            ends = row["ci_low"], row["ci_high"]
            told = row["system"], row["reference"], row["decision"], row["stratum"], row["metric"], row
            assert None in ends or ends[0] < ends[1], told
            assert (row["interval"] == "none") == (ends == (None, None)), told
            assert None in ends or row["estimate"] is None or ends[0] <= row["estimate"] <= ends[1], told
            if row["interval"] == "none" and row["stratum"] == "all" and "-" not in row["system"]:
                metric = METRICS[row["metric"]]
                silent = metric.descriptive or metric.kind == "count"
                assert silent or row["note"], told


def test_a_metric_at_the_end_of_its_range_has_the_interval_of_a_proportion_without_error() -> None:
    """40 positives of 40 patients, or of 20 with two films each."""
    for patients, n in ((FILMS, 40), (60, 20)):
        found = bootstrap({"eff": films("all", patients)}, "mask", 200, 1)
        rows = {
            row["metric"]: row
            for row in metric_rows({"mask": found})
            if (row["decision"], row["stratum"]) == ("two_stage", "all")
        }
        names = [
            "sensitivity",
            "f1",
            "auprc",
            "sensitivity_at_specificity_90",
            "dice_positives",
            "lesions_found",
        ]
        for name in names:
            ends = rows[name]["estimate"], rows[name]["ci_low"], rows[name]["ci_high"]
            assert ends == (1, pytest.approx(wilson_interval(n, n)[0]), 1), name
            assert rows[name]["interval"] == ("wilson" if patients == FILMS else "wilson, effective n")
        assert rows["brier"]["interval"] == "none"  # 0.01 in every film
        assert rows["false_positive_area"]["interval"] == "none"  # no end above: an outline has any size


def test_a_difference_of_proportions_of_other_films_is_joined_with_their_correlation() -> None:
    """A PPV is over the films that a system calls; the expectation is written out."""
    systems = {"eff": films("most"), "vit": films("all but one")}
    found = bootstrap(systems, "mask", 200, 1)
    one, other = (found[name, "two_stage", "all", "ppv"] for name in systems)
    row = next(
        row
        for row in comparison_rows(systems, found, "mask")
        if (row["decision"], row["stratum"], row["metric"]) == ("two_stage", "all", "ppv")
    )
    assert other.estimate == 1
    assert one.estimate < 1
    (low, high), (other_low, _) = (wilson_interval(each.estimate * each.n, each.n) for each in (one, other))
    expected = (
        one.estimate - 1 - (one.estimate - low),  # the second cannot be higher than 1
        one.estimate - 1 + np.hypot(high - one.estimate, 1 - other_low),
    )
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(expected)
    assert row["interval"] == "newcombe"


def test_the_correlation_of_two_proportions_is_that_of_their_films_where_these_are_the_same() -> None:
    systems = {"eff": films("most"), "vit": replace(films("most"), two_stage=films("all but one").two_stage)}
    found = bootstrap(systems, "mask", 200, 1)
    one, other = (found[name, "two_stage", "all", "sensitivity"] for name in systems)
    patient, positive = films("most").patient, films("most").has_mask
    expected = np.corrcoef(*(cases.two_stage[positive] for cases in systems.values()))[0, 1]
    assert correlation(one, other, patient) == pytest.approx(expected)
    assert correlation(one, one, patient) == pytest.approx(1)
    nobody = bootstrap({"eff": films("all")}, "mask", 200, 1)["eff", "two_stage", "all", "sensitivity"]
    assert correlation(one, nobody, patient) == 0


def test_joined_intervals_by_the_published_example() -> None:
    """Newcombe, Stat Med 1998;17:873-890, table II, method 10: 56/70 less 48/80."""
    ends = joined_interval(56 / 70, wilson_interval(56, 70), 48 / 80, wilson_interval(48, 80))
    assert ends == pytest.approx((0.0524, 0.3339), abs=1e-4)
    # Of estimates that are wholly alike, what is left is the difference of how far the ends lie.
    assert joined_interval(0.5, (0.3, 0.7), 0.5, (0.4, 0.6), 1.0) == pytest.approx((-0.1, 0.1))
