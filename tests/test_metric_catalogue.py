"""One entry of the catalogue is a metric: it appears in every table, and is treated as it is declared."""

import csv

import pytest

from common import start
from common.statistics.metric_catalogue import METRICS, FromCounts, Mean, Metric
from tests.test_bootstrap_script import case_rows, write_result

FILMS = [
    (f"c{i}", f"p{i}", int(i < 15), int(i < 15), 0.05 if i < 15 else "", 0.1 + 0.01 * i if i % 4 else 0.9,
     40 + i if i < 15 or not i % 4 else "", 0.03 * i if i < 15 else "")
    for i in range(40)
]  # fmt: skip


@pytest.fixture
def declared(monkeypatch, tmp_path, capsys):
    """Run bootstrap.py with further metrics.

    Returns: their rows of metrics.csv by system and metric (all films, primary), the terminal, the page.
    """

    def run(**metrics: Metric) -> tuple[dict[tuple[str, str], dict], str, str]:
        monkeypatch.setenv("PTX_WORKSPACE", str(tmp_path))
        for name, metric in metrics.items():
            monkeypatch.setitem(METRICS, name, metric)
        better = [(*film[:7], film[7] if film[7] == "" else film[7] / 2 + 0.4) for film in FILMS]
        for system, films in (("eff", better), ("vit", FILMS)):
            write_result(tmp_path, system, case_rows(films))
        start.bootstrap("", ["--replicates", "100", "--all"])
        folder = tmp_path / "step3_testing" / "testing"
        with open(folder / "metrics.csv", newline="", encoding="utf-8") as file:
            rows = {
                (row["system"], row["metric"]): row
                for row in csv.DictReader(file)
                if row["metric"] in metrics
                and (row["reference"], row["decision"], row["stratum"]) == ("mask", "two_stage", "all")
            }
        return rows, capsys.readouterr().out, (folder / "report.html").read_text(encoding="utf-8")

    return run


def test_a_mean_over_films_appears_everywhere_by_one_entry(declared):
    formula = Mean(lambda f: f.masked, lambda f: f.cases.iou)
    rows, printed, page = declared(toy=Metric("Toy of the page", formula, ("map",), short="Toy here"))
    dice = {"eff": [0.015 * i + 0.4 for i in range(15)], "vit": [0.03 * i for i in range(15)]}
    mean = {system: sum(d / (2 - d) for d in values) / 15 for system, values in dice.items()}
    for system in ("eff", "vit"):
        row = rows[system, "toy"]
        low, high = float(row["ci_low"]), float(row["ci_high"])
        assert float(row["estimate"]) == pytest.approx(mean[system])
        assert low < mean[system] < high
        assert (row["n"], row["interval"], row["note"]) == ("15", "percentile", "")
        assert f"{mean[system]:.3f} ({low:.3f}-{high:.3f}) n=15" in printed
        line = page.split("Toy of the page", 1)[1].split("</tr>")[0]
        assert f"{mean[system]:.3f} ({low:.3f} to {high:.3f})" in line
    difference = rows["eff-vit", "toy"]
    assert float(difference["estimate"]) == pytest.approx(mean["eff"] - mean["vit"])
    assert difference["ci_low"] != ""
    assert sum(line.startswith("Toy here ") for line in printed.splitlines()) == 4  # systems x references
    checklist = page.split("Measures of performance", 1)[1].split("</tr>")[0]
    assert "Toy of the page" in checklist


def test_a_metric_is_treated_as_declared(declared):
    formula = Mean(lambda f: f.all, lambda f: f.called)
    at_prevalence = FromCounts(lambda c: c.tp * c.prevalence)
    rows, printed, page = declared(
        share=Metric("Toy share", formula, ("decision",), kind="proportion"),
        mix=Metric("Toy mix", formula, ("decision",), case_mix=True),
        facts=Metric("Toy facts", formula, ("decision",), descriptive=True),
        ratio=Metric("Toy ratio", formula, ("decision",), comparable=False),
        stated=Metric("Toy stated", at_prevalence, ("decision",), at_prevalence=True),
    )
    treated = {metric: (row["interval"], row["note"]) for (who, metric), row in rows.items() if who == "eff"}
    assert treated == {
        "share": ("wilson", ""),
        "mix": ("percentile", "conditional on the case mix"),
        "facts": ("none", "describes the films"),
        "ratio": ("percentile", ""),
    }
    assert {metric for system, metric in rows if system == "eff-vit"} == {"share", "mix"}
    sentence = " ".join(printed.split()).split(" have Wilson's interval", 1)[0].rsplit("Sensitivity, ", 1)[1]
    assert "Accuracy" in sentence
    assert [f"Toy {name}" in sentence for name in ("share", "mix")] == [True, False]
    assert [f"\nToy {name} * " in printed for name in ("share", "mix")] == [False, True]
    assert "Toy stated" not in printed + page  # no prevalence is stated


def test_a_metric_that_says_it_needs_no_decision_cannot_use_one(declared):
    """Else it would be computed for one decision and shown for both."""
    with pytest.raises(AttributeError, match="called"):
        declared(toy=Metric("Toy", Mean(lambda f: f.all, lambda f: f.called), ("probability",)))
