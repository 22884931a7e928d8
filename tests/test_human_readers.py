"""Human readers' calls: the file, its faults by row, and the scores beside the systems'."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, roc_auc_score

from common.refusal import Refusal
from common.statistics.bootstrap import bootstrap, metric_rows
from common.statistics.compare_systems import delong, holm, mcnemar
from common.statistics.human_readers import read_both_ways, read_readers, reader_rows
from common.statistics.tested_films import Cases

SECRET = "Wang-A123456789"


def simulated(seed: int, n: int = 80, patients: int | None = None) -> Cases:
    """Films of one system; the truth depends on n alone."""
    truth, rng = np.random.default_rng(0), np.random.default_rng(seed)
    has_mask = truth.random(n) < 0.4
    probability = np.clip(rng.normal(0.35 + 0.25 * has_mask, 0.2), 0, 1)
    return Cases(
        case=np.array([f"c{i}" for i in range(n)]),
        patient=np.array([f"p{i % (patients or n)}" for i in range(n)]),
        has_mask=has_mask,
        report=has_mask ^ (truth.random(n) < 0.1),
        mask_area_fraction=np.where(has_mask, truth.uniform(0.001, 0.12, n), np.nan),
        probability=probability,
        stage_1=probability >= 0.5,
        two_stage=probability >= 0.55,
        dice_segmentation=np.where(has_mask, rng.random(n), np.nan),
        sex=np.where(truth.random(n) < 0.5, "M", "F"),
    )


def table(folder: Path, text: str | bytes) -> Path:
    path = folder / "readers.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def calls(cases: Cases, reader: str, rows: np.ndarray, confidence: bool = True) -> str:
    """Lines of a reader who is often right; the confidence does not always agree with the call."""
    rng = np.random.default_rng(7)
    lines = []
    for i in rows:
        call = bool(cases.has_mask[i]) ^ (rng.random() < 0.15)
        sure = round(min(max(rng.normal(30 + 40 * call, 15), 0), 100)) if confidence else ""
        lines.append(f"c{i},{reader},{call:d},{sure}\n")
    return "".join(lines)


# --- the file --------------------------------------------------------------------------------------


def test_calls_are_read_whatever_wrote_them(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        b"\xef\xbb\xbfreader, confidence,call,case\r\nA,100,1,c3\r\n\r\nB,,0,c1\r\n"
        b" A ,0,0, c0 \r\nA,2.5,1,c9\r\n",
    )
    readers = read_readers(path, simulated(1))
    assert list(readers) == ["reader A", "reader B"]
    a, b = readers.values()
    assert a.rows.tolist() == [0, 3, 9]  # in the order of the systems' films
    assert a.cases.case.tolist() == ["c0", "c3", "c9"]
    assert a.cases.two_stage.tolist() == a.cases.stage_1.tolist() == [False, True, True]
    assert a.cases.probability.tolist() == [0, 1, 0.025]
    assert (a.unread, a.has_confidence) == (77, True)
    assert (b.rows.tolist(), b.unread, b.has_confidence) == ([1], 79, False)


def test_calls_with_aid_are_a_reading_of_their_own(tmp_path: Path) -> None:
    text = "case,reader,call,aid\nc3,A,1,0\nc3,A,0,1\nc1,A,1,1\nc1,B,1,1\n"
    readers = read_readers(table(tmp_path, text), simulated(1))
    assert list(readers) == ["reader A", "reader A aided", "reader B aided"]
    assert readers["reader A aided"].cases.two_stage.tolist() == [True, False]
    ((aided, unaided),) = read_both_ways(readers)  # reader B read nothing without
    assert (aided.rows.tolist(), unaided.rows.tolist()) == ([3], [3])
    assert (aided.cases.two_stage.tolist(), unaided.cases.two_stage.tolist()) == ([False], [True])
    assert aided.unread == unaided.unread == 79
    with pytest.raises(Refusal, match="row 3: aid is neither 0 nor 1"):
        read_readers(table(tmp_path, "case,reader,call,aid\nc3,A,1,0\nc1,A,1,\n"), simulated(1))


def test_the_confidence_may_be_left_out(tmp_path: Path) -> None:
    (reading,) = read_readers(table(tmp_path, "case,reader,call\nc3,A,1"), simulated(1)).values()
    assert not reading.has_confidence


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (f"{SECRET},A,1,", "its case is none of the labelled test films"),
        (",A,1,", "its case is none of the labelled test films"),
        ("c2,A,yes,", "call is neither 0 nor 1"),
        ("c2,A,,", "call is neither 0 nor 1"),
        ("c2,A,2,", "call is neither 0 nor 1"),
        ("c1,A,1,", "its reader has called this case before"),
        ("c2,,1,", "reader is empty"),
        (f"c2,{SECRET * 3},1,", "longer than 40 characters"),
        ("c2,A,1,101", "confidence is no number from 0 to 100"),
        ("c2,A,1,-1", "confidence is no number from 0 to 100"),
        ("c2,A,1,nan", "confidence is no number from 0 to 100"),
        (f"c2,A,1,{SECRET}", "confidence is no number from 0 to 100"),
        ("c2,A,1,50", "confidence is given for some films of this reader only"),
        ("c2,A,1", "more or fewer cells"),
        ("c2,A aided,1,", "kept for calls with aid"),
    ],
)
def test_a_bad_row_is_refused_with_its_number(tmp_path: Path, row: str, said: str) -> None:
    path = table(tmp_path, f"case,reader,call,confidence\nc1,A,1,\n\nc1,B,0,\n{row}\n")
    with pytest.raises(Refusal, match=f"row 5: .*{said}") as refusal:
        read_readers(path, simulated(1))
    assert SECRET not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "missing: +case, reader, call"),
        ("case,reader\nc1,A\n", "missing: +call"),
        ("case\treader\tcall\nc1\tA\t1\n", "separated by commas or semicolons"),
        ("case,reader,call,confidense\nc1,A,1,3\n", "first row must name"),
        ("case,reader,call,call\nc1,A,1,1\n", "first row must name"),
        ("case,reader,call\n", "holds no call"),
        ("case,reader,call\nc1,é,1\n".encode("latin-1"), "not UTF-8"),
        ('case,reader,call\n"c1,A,1\n', "not closed"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(Refusal, match=said):
        read_readers(table(tmp_path, text), simulated(1))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="cannot be read"):
        read_readers(tmp_path / "readers.csv", simulated(1))


def test_names_cannot_command_a_terminal(tmp_path: Path) -> None:
    path = table(tmp_path, 'case,reader,call\nc1,"\x1b[2J\u202e王\nB",1\n')
    assert list(read_readers(path, simulated(1))) == ["reader \\x1b[2J\\u202e王\\nB"]


# --- scores ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", ["mask", "report"])
def test_a_reader_is_scored_on_what_was_read(tmp_path: Path, reference: str) -> None:
    eff = simulated(1)
    read = np.random.default_rng(1).permutation(80)[:60]
    path = table(tmp_path, "case,reader,call,confidence\n" + calls(eff, "A", read))
    readers = read_readers(path, eff)
    found = {
        (row["stratum"], row["metric"]): row
        for row in reader_rows({"eff": eff}, readers, 100, 0)
        if row["system"] == "reader A" and row["reference"] == reference
    }
    reading = readers["reader A"].cases
    truth, call = eff.positive(reference)[np.sort(read)], reading.two_stage
    tn, fp, fn, tp = confusion_matrix(truth, call).ravel()
    for metric, n, value in (
        ("auroc", 60, roc_auc_score(truth, reading.probability)),
        ("sensitivity", tp + fn, tp / (tp + fn)),
        ("specificity", tn + fp, tn / (tn + fp)),
        ("ppv", tp + fp, tp / (tp + fp)),
        ("npv", tn + fn, tn / (tn + fn)),
        ("accuracy", 60, accuracy_score(truth, call)),
    ):
        row = found["all", metric]
        assert (row["n"], row["decision"]) == (n, "call")
        assert row["note"].startswith("read 60 of 80 films")
        assert row["estimate"] == pytest.approx(value, abs=1e-12)
        assert row["ci_low"] < row["estimate"] < row["ci_high"]
    small = truth & (reading.mask_area_fraction < 0.032)
    assert found["small", "sensitivity"]["n"] == small.sum()
    assert found["small", "sensitivity"]["estimate"] == pytest.approx(call[small].mean())


def test_a_reader_has_the_intervals_of_a_system_with_the_same_calls(tmp_path: Path) -> None:
    """Several films a patient: the patients are drawn as for the systems."""
    eff = simulated(1, patients=50)
    lines = "".join(f"c{i},A,{eff.two_stage[i]:d}\n" for i in range(80))
    rows = reader_rows({"eff": eff}, read_readers(table(tmp_path, f"case,reader,call\n{lines}"), eff), 200, 4)
    expected = {
        (row["reference"], row["decision"], row["stratum"], row["metric"]): row
        for row in metric_rows({r: bootstrap({"eff": eff}, r, 200, 4) for r in ("mask", "report")})
    }
    for row in rows:
        if row["system"] == "reader A":
            same = expected[row["reference"], "two_stage", row["stratum"], row["metric"]]
            for column in ("n", "estimate", "ci_low", "ci_high", "interval"):
                assert row[column] == same[column]
        elif row["decision"] == "two_stage":
            assert row["estimate"] == 0
            assert row["interval"] == "none" or row["ci_low"] == pytest.approx(-row["ci_high"])
    kinds = {"wilson, effective n", "tango, effective n", "newcombe, effective n", "none"}
    assert kinds == {row["interval"] for row in rows}


def test_each_system_against_each_reader_on_the_same_films(tmp_path: Path) -> None:
    systems = {"eff": simulated(1), "vit": simulated(2)}
    text = calls(systems["eff"], "A", np.arange(70)) + calls(systems["eff"], "B", np.arange(20, 80), False)
    readers = read_readers(table(tmp_path, f"case,reader,call,confidence\n{text}"), systems["eff"])
    rows = reader_rows(systems, readers, 100, 0)
    keys = [(r["system"], r["reference"], r["decision"], r["stratum"], r["metric"]) for r in rows]
    assert len(set(keys)) == len(keys)
    assert {key[3] for key in keys} == {"all", "small", "medium", "large"}
    assert {key[0] for key in keys} == {
        *readers,
        *(f"{system}-{reader}" for system in systems for reader in readers),
    }
    found = dict(zip(keys, rows, strict=True))
    for system, cases in systems.items():
        for reader, reading in readers.items():
            for decision in ("two_stage", "stage_1"):
                truth, call = cases.has_mask[reading.rows], cases.called(decision)[reading.rows]
                said = reading.cases.two_stage
                row = found[f"{system}-{reader}", "mask", decision, "all", "sensitivity"]
                assert row["estimate"] == pytest.approx(call[truth].mean() - said[truth].mean())
                better, worse = (call & ~said & truth).sum(), (said & ~call & truth).sum()
                assert row["p_value"] == pytest.approx(mcnemar(better, worse))
                assert row["note"].startswith(f"read {len(reading.rows)} of 80 films; right in {system} only")
                assert (row["p_holm"] is None) == (decision == "stage_1")
    family = [row for row in rows if row["p_holm"] is not None]
    # Two systems, reader A with an AUROC and reader B without: five metrics a system.
    assert {(row["reference"], row["decision"], row["stratum"]) for row in family} == {
        ("mask", "two_stage", "all")
    }
    assert len(family) == 10
    assert [row["p_holm"] for row in family] == holm([row["p_value"] for row in family])
    row = found["vit-reader A", "mask", "two_stage", "all", "auroc"]
    vit, reading = systems["vit"], readers["reader A"]
    expected = delong(vit.probability[:70], reading.cases.probability, vit.has_mask[:70])
    assert (row["estimate"], row["p_value"]) == pytest.approx((expected.difference, expected.p))
    assert not any(key[4] == "auroc" and "reader B" in key[0] for key in keys)


def test_a_reader_with_aid_is_compared_with_the_same_reader_without(tmp_path: Path) -> None:
    """Reader A read 60 films with aid, 70 without, 50 both ways; no system is compared with the aided."""
    eff = simulated(1)
    said = {aid: eff.has_mask ^ (np.random.default_rng(aid).random(80) < 0.3 - 0.2 * aid) for aid in (0, 1)}
    lines = [f"c{i},A,{said[0][i]:d},0" for i in range(70)]
    lines += [f"c{i},A,{said[1][i]:d},1" for i in range(20, 80)]
    path = table(tmp_path, "\n".join(["case,reader,call,aid", *lines]))
    rows = reader_rows({"eff": eff}, read_readers(path, eff), 100, 0)
    found = {(r["system"], r["reference"], r["decision"], r["stratum"], r["metric"]): r for r in rows}
    assert len(found) == len(rows)
    assert {key[:3:2] for key in found} == {
        ("reader A", "call"), ("reader A aided", "call"), ("eff-reader A", "two_stage"),
        ("eff-reader A", "stage_1"), ("reader A aided-reader A", "aid"),
    }  # fmt: skip
    row = found["reader A aided-reader A", "mask", "aid", "all", "sensitivity"]
    positive = np.array([i for i in range(20, 70) if eff.has_mask[i]])
    with_aid, without = said[1][positive], said[0][positive]
    assert row["n"] == len(positive)
    assert row["estimate"] == pytest.approx(with_aid.mean() - without.mean())
    assert row["p_value"] == pytest.approx(mcnemar((with_aid & ~without).sum(), (~with_aid & without).sum()))
    assert row["note"].startswith("read 50 of 80 films")
    other = found["reader A aided-reader A", "mask", "aid", "all", "specificity"]
    assert [row["p_holm"], other["p_holm"]] == holm([row["p_value"], other["p_value"]])


def test_the_same_calls_in_another_order_give_the_same_rows(tmp_path: Path) -> None:
    eff = simulated(1)
    lines = calls(eff, "A", np.arange(80)).splitlines(keepends=True)
    first, second = (
        reader_rows(
            {"eff": eff}, read_readers(table(tmp_path, "case,reader,call,confidence\n" + text), eff), 60, 0
        )
        for text in ("".join(lines), "".join(lines[::-1]))
    )
    assert first == second


def test_a_reader_of_one_film(tmp_path: Path) -> None:
    eff = simulated(1)
    rows = reader_rows({"eff": eff}, read_readers(table(tmp_path, "case,reader,call\nc0,A,1\n"), eff), 50, 0)
    assert all("read 1 of 80 films" in row["note"] for row in rows)
    assert {row["n"] for row in rows} == {0, 1}
    assert all("not estimable" in row["note"] for row in rows if row["n"] == 0)
