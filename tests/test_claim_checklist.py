"""The checklist of the page: the items of CLAIM 2024, each answer at its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from page_study import made_up_cases, write_study

from common.report.claim_checklist import Item, Known, checklist


@pytest.fixture
def items(workspace: Path) -> dict[int, Item]:
    known = Known(
        results=write_study(made_up_cases(), "eff", "vit"),
        flow={"excluded": {"age under 20": 3}, "rejected": {}, "unlabelled": 2},
        estimates={"eff": "AUROC 0.9"},
        metrics=["AUROC", "Sensitivity"],
        groups=["small", "sex F"],
        statistics="Patients are resampled.",
        out_of_fold={"eff": "probability 0.5"},
        training_films=True,
        planned=["Plan of 2026-11-01: 100 patients."],
    )
    return {item.number: item for item in checklist(known)}


def test_there_are_44_items_in_the_sections_of_2024(items: dict[int, Item]) -> None:
    assert list(items) == list(range(1, 45))
    sections = {item.section: number for number, item in reversed(items.items())}  # where each begins
    assert sections == {
        "Title": 1, "Abstract": 2, "Introduction": 3, "Study design": 5, "Data": 7, "Reference standard": 14,
        "Partitions": 19, "Testing data": 21, "Model": 22, "Training": 25, "Evaluation": 28,
        "Results, data": 35, "Results, model": 37, "Discussion": 40, "Other": 42,
    }  # fmt: skip


def test_the_terms_are_those_of_2024(items: dict[int, Item]) -> None:
    asked = " ".join(f"{item.section} {item.asked}" for item in items.values()).lower()
    assert not any(term in asked for term in ("ground truth", "gold standard", "validation"))
    assert items[32].asked.startswith("Internal testing")
    assert items[33].asked.startswith("External testing")


@pytest.mark.parametrize(
    ("number", "asked", "known"),
    [
        (8, "included and excluded", "age under 20: 3"),
        (11, "identities", "pseudonyms"),
        (12, "missing", "label (in no metric): 2"),
        (13, "acquired", "Table 1"),
        (14, "obtained", "annotated lesion (primary; 16 films)"),
        (19, "training, tuning and testing", "5 folds"),
        (20, "disjoint", "By patient"),
        (21, "sample size", "16 films positive by mask, 24 negative. Plan of 2026-11-01: 100 patients."),
        (27, "combined", "folds"),
        (28, "Measures of performance", "AUROC, Sensitivity."),
        (29, "uncertainty", "Patients are resampled."),
        (30, "Robustness", "small < 0.032"),
        (32, "Internal", "On 40 films"),
        (35, "included and excluded", "Flow of films"),
        (36, "Demographic", "training and test films, each patient counted once"),
        (37, "all partitions", "eff: AUROC 0.9"),
        (38, "precision", "95% confidence interval"),
        (39, "wrongly", "missed"),
        (41, "practice", "Research use only"),
    ],
)
def test_each_answer_stands_at_its_item(items: dict[int, Item], number: int, asked: str, known: str) -> None:
    assert asked in items[number].asked
    assert known in items[number].known


def test_what_nobody_but_the_authors_knows_is_left_to_them(items: dict[int, Item]) -> None:
    left = {number for number, item in items.items() if item.authors == "all" and not item.known}
    assert left == {1, 2, 3, 4, 6, 15, 16, 17, 18, 33, 34, 40, 42, 43, 44}
    assert all(item.known or item.authors for item in items.values())
