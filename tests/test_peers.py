"""Systems of others beside ours: the same figures for the same predictions, and only what they allow."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import TESTING, Scripts
from test_bootstrap_script import case_rows, enough_films, metrics, write_result

from common import start
from common.command_line import parse_report
from common.inference import peer_files
from common.inference.peer_files import read_peer, write_peer
from common.inference.result_files import Result, read_results
from common.refusal import Refusal
from common.statistics.metric_catalogue import METRICS

REPLICATES = ("--replicates", "100")
Row = dict[str, str]


def said(folder: Path, rows: list[Row]) -> Path:
    """A peer's folder with this table."""
    folder.mkdir(exist_ok=True)
    with open(folder / "cases.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def of_films(change: Mapping[int, Row] | None = None) -> list[Row]:
    """A table of the 60 films of `enough_films`; some rows are replaced, those by nothing are left out."""
    rows = [{"case": f"c{i}", "probability": f"{0.8 if i < 18 or i > 55 else 0.1}"} for i in range(60)]
    return [{**row, **each} for i, row in enumerate(rows) if (each := (change or {}).get(i, row))]


@pytest.fixture
def tested(workspace: Path) -> Path:
    """A workspace with the results of both systems on 60 films, two of them without a label."""
    rows = case_rows(enough_films())
    for row in rows[58:]:
        row["report"] = ""
    for system in ("eff", "vit"):
        write_result(workspace, system, rows)
    return workspace


@pytest.fixture
def result(tested: Path) -> Result:
    return read_results(("eff",))["eff"]


# --- what it gets ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_peer_that_says_what_a_system_says_gets_its_figures(chain: Scripts, tmp_path: Path) -> None:
    """Also its intervals: probabilities, decisions and maps are those of `eff`, so the draws must be, too."""
    copy = chain.copy(tmp_path / "copy")
    own = copy.workspace / TESTING / "result_eff"
    cases = list(csv.DictReader((own / "cases.csv").read_text().splitlines()))
    columns = {"case": "case", "probability": "probability", "two_stage": "decision"}
    peer = said(tmp_path / "peer", [{new: row[old] for old, new in columns.items()} for row in cases[::-1]])
    shutil.copytree(own / "maps", peer / "maps")
    for row in cases:  # stage 2 did not run: whatever is in the map, it is not shown
        if not row["area_pixels"]:
            cv2.imwrite(str(peer / "maps" / f"{row['case']}.png"), np.zeros((30, 20), np.uint8))
    copy.python(TESTING, "bootstrap.py", *REPLICATES, "--peer", f"same={peer}")
    found: dict[str, dict[tuple[str, ...], Row]] = {}
    for row in metrics(copy.workspace):
        key = row["reference"], row["decision"], row["stratum"], row["metric"]
        found.setdefault(row["system"], {})[key] = row
    same = found["same"]
    # The picture of a map is rounded to 8 bits, so what is measured on the enlarged map differs a little.
    rounded = ("dice_full_size", "dice_lesser_half", "laterality", "outline_laterality", "hit")
    compared = [key for key in same if key[3] not in (*rounded, "lesions_found", "false_outlines")]
    assert {"auroc", "brier", "sensitivity", "dice_positives", "hd95_mm", "area_bias"} <= {
        key[3] for key in compared
    }
    for key in compared:
        columns_of = ("n", "positives", "estimate", "ci_low", "ci_high", "interval")
        assert [same[key][c] for c in columns_of] == [found["eff"][key][c] for c in columns_of], key
    for key in set(same) - set(compared):
        assert same[key]["n"] == found["eff"][key]["n"]
    full = ("mask", "two_stage", "all", "dice_full_size")
    assert float(same[full]["estimate"]) == pytest.approx(float(found["eff"][full]["estimate"]), abs=0.02)
    difference = found["eff-same"]["mask", "two_stage", "all", "auroc"]
    assert (difference["estimate"], difference["p_holm"]) == ("0.0", "")
    assert "exploratory" in difference["note"]


def test_without_a_decision_and_maps_there_is_only_what_needs_neither(
    tested: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = said(tested / "peer", of_films())
    start.bootstrap("", list(REPLICATES))
    capsys.readouterr()
    alone = metrics(tested)
    start.bootstrap("", [*REPLICATES, "--peer", f"open={folder}"])
    rows = metrics(tested)
    assert [row for row in rows if "open" not in row["system"]] == alone  # Holm's adjustment, too
    of_peer = [row for row in rows if row["system"] == "open"]
    assert {row["metric"] for row in of_peer} == {
        name for name, each in METRICS.items() if each.needs == ("probability",)
    }
    auroc = next(row for row in of_peer if (row["metric"], row["stratum"]) == ("auroc", "all"))
    assert (auroc["n"], auroc["positives"]) == ("58", "20")
    # 18 of 20 positives and 2 of 38 negatives have the higher of two probabilities
    assert float(auroc["estimate"]) == pytest.approx((18 * 36 + (18 * 2 + 2 * 36) / 2) / (20 * 38))
    assert float(auroc["ci_low"]) < float(auroc["estimate"]) < float(auroc["ci_high"])
    compared = {row["system"] for row in rows} - {row["system"] for row in alone}
    assert compared == {"open", "eff-open", "vit-open"}
    assert {row["p_holm"] for row in rows if "open" in row["system"]} == {""}
    facts = json.loads((tested / TESTING / "metrics.json").read_text())
    assert facts["peers"] == {"open": {"decides": False, "maps": False}}
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if line.startswith("open "))
    assert line.count(" n=") == 2
    assert "Sensitivity" not in printed.split("Peers, reference: mask")[1]
    page = (tested / TESTING / "report.html").read_text(encoding="utf-8")
    assert '<th scope="col">open</th>' in page
    assert "eff − open" in page


def test_decisions_of_its_own_stand_in_the_place_of_a_systems(tested: Path) -> None:
    rows = [{**row, "decision": str(int(i < 15 or i == 30))} for i, row in enumerate(of_films())]
    folder = said(tested / "peer", rows)
    start.bootstrap("", [*REPLICATES, "--system", "eff", "--peer", f"closed={folder}"])
    found = {
        (row["decision"], row["metric"]): row
        for row in metrics(tested)
        if (row["system"], row["reference"], row["stratum"]) == ("closed", "mask", "all")
    }
    sensitivity = found["two_stage", "sensitivity"]
    assert (float(sensitivity["estimate"]), sensitivity["n"]) == (15 / 20, "20")
    assert sensitivity["note"] == "by the peer's own decision"
    assert found["two_stage", "fp"]["estimate"] == "1"
    assert ("stage_1", "sensitivity") not in found
    assert found["stage_1", "auroc"]["estimate"] == found["two_stage", "auroc"]["estimate"]
    assert not {"vetoed", "no_answer", "sensitivity_single_folds", "dice_segmentation"} & {
        metric for _, metric in found
    }


def test_no_plan_and_no_count_of_looks_speaks_of_it(tested: Path) -> None:
    start.bootstrap("", ["--write-plan", str(tested / "plan.toml")])
    folder = said(tested / "peer", of_films())
    arguments = [*REPLICATES, "--plan", str(tested / "plan.toml")]
    start.bootstrap("", arguments)
    before = json.loads((tested / TESTING / "metrics.json").read_text())
    looks = (tested / TESTING / "looks.json").read_text()
    start.bootstrap("", [*arguments, "--peer", f"open={folder}"])
    after = json.loads((tested / TESTING / "metrics.json").read_text())
    assert after["planned"] == before["planned"]
    assert (tested / TESTING / "looks.json").read_text() == looks
    assert not [row for row in after["rows"] if "open" in row["system"] and "primary" in row["note"]]


# --- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({3: {}}, "a row of case c3"),
        ({3: {"case": "c4"}}, "row 6: case c4 was in an earlier row, too"),
        ({3: {"case": "QUINCY^ADELHEID"}}, "row 5: its case is none of the test films"),
        ({3: {"probability": "1.2"}}, "row 5: probability is 1.2, not a number from 0 to 1"),
        ({3: {"probability": "nan"}}, "row 5: probability is nan, not a number from 0 to 1"),
        ({3: {"probability": "high"}}, "row 5: probability is no number"),
        ({i: {"decision": "2" if i == 3 else "1"} for i in range(60)}, "row 5: decision is '2', not 0 or 1"),
        ({i: {"decision": "" if i == 3 else "1"} for i in range(60)}, "row 5: decision is '', not 0 or 1"),
        ({i: {"verdict": "1"} for i in range(60)}, "a first row of 3 cells"),
    ],
)
def test_a_wrong_table(result: Result, tested: Path, change: dict[int, Row], found: str) -> None:
    folder = said(tested / "peer", of_films(change))
    with pytest.raises(Refusal) as refusal:
        read_peer("open", folder, result)
    assert found in str(refusal.value)
    assert "QUINCY" not in str(refusal.value)  # it may be a hospital's own identifier


def test_films_without_a_label_may_be_left_out_or_not(result: Result, tested: Path) -> None:
    assert result.unlabelled == ("c58", "c59")
    without = read_peer("open", said(tested / "peer", of_films()[:58]), result)
    with_them = read_peer("open", said(tested / "peer", of_films()), result)
    assert without.cases.case.tolist() == with_them.cases.case.tolist() == [f"c{i}" for i in range(58)]


def test_no_table(result: Result, tested: Path) -> None:
    with pytest.raises(Refusal, match=r"nowhere/cases\.csv cannot be read"):
        read_peer("open", tested / "nowhere", result)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["open"], "--peer open names no system and its folder"),
        (["=x"], "--peer =x names no system and its folder"),
        (["a-b=x"], "--peer a-b=x names no system and its folder"),
        (["VIT=x"], "--peer VIT=x: another row of the tables has this name"),
        (["eff_student=x"], "another row of the tables has this name"),
        (["readers=x"], "another row of the tables has this name"),
        (["open=x", "Open=y"], "--peer Open=y: another row of the tables has this name"),
    ],
)
def test_a_name_that_cannot_be(words: list[str], message: str) -> None:
    arguments = [each for word in words for each in ("--peer", word)]
    with pytest.raises(Refusal, match=re.escape(message)):
        parse_report("", arguments)


# --- maps ------------------------------------------------------------------------------------------


@pytest.fixture
def mapped(chain: Scripts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Result, Path]:
    """The result of `eff` of the chain, and a peer's folder with an empty map of each film."""
    monkeypatch.setenv("PTX_WORKSPACE", str(chain.workspace))
    found = read_results(("eff",))["eff"]
    cases = dict.fromkeys(found.cases.case.tolist(), 0.5)
    write_peer(tmp_path / "peer", cases, ((case, np.zeros((40, 50), np.float32)) for case in cases))
    return found, tmp_path / "peer"


def _write(pixels: np.ndarray) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "found"),
    [
        (_cut, "is no map"),
        (_write(np.zeros((9, 9, 3), np.uint8)), "pixels of the kind RGB"),
        (_write(np.eye(9, dtype=np.uint8)), "holds labels, not maps"),
        (Path.unlink, "a map of case"),
        (lambda path: shutil.copy(path, path.with_name("QUINCY.png")), "1 of them"),
    ],
)
def test_a_wrong_map(mapped: tuple[Result, Path], change: Callable[[Path], None], found: str) -> None:
    result, folder = mapped
    change(folder / "maps" / f"{result.cases.case[0]}.png")
    with pytest.raises(Refusal) as refusal:
        read_peer("open", folder, result)
    assert found in str(refusal.value)
    assert "QUINCY" not in str(refusal.value)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_map_lies_as_viewers_show_the_film_at_any_size(
    mapped: tuple[Result, Path], dtype: type[np.integer]
) -> None:
    """The masks themselves as maps, of another size than the working size: Dice is near 1; turned, not."""
    result, folder = mapped
    prepared = peer_files.PreparedSet(peer_files.prepared_folder("ntuh_test"))
    largest = np.iinfo(dtype).max
    for turned, at_least, at_most in ((False, 0.9, 1.0), (True, 0.0, 0.3)):
        for row, case in enumerate(prepared.cases["case"]):
            mask = prepared.mask(row, 512).astype(dtype) * largest
            _write(mask[::-1, ::-1] if turned else mask)(folder / "maps" / f"{case}.png")
        peer = read_peer("open", folder, result)
        assert peer.maps
        dice = peer.cases.column("dice_full_size")[result.cases.has_mask]
        assert at_least <= dice.mean() <= at_most
        assert np.isnan(peer.cases.dice_segmentation[~result.cases.has_mask]).all()


@pytest.mark.slow
def test_maps_of_other_films_than_were_tested(mapped: tuple[Result, Path]) -> None:
    result, folder = mapped
    result.meta["films"] = "0" * 64
    with pytest.raises(Refusal, match="these are others than were tested"):
        read_peer("open", folder, result)


def test_what_we_wrote_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    folder, case = tmp_path / "peer", "c0123456789abcdef"
    write_peer(folder, {case: 0.25}, [(case, np.full((4, 4), 0.5, np.float32))])
    (folder / "maps" / "holiday.png").write_bytes(b"theirs")
    write_peer(folder, {}, [])
    assert not (folder / "maps" / f"{case}.png").exists()
    assert (folder / "maps" / "holiday.png").read_bytes() == b"theirs"
    theirs = tmp_path / "other"
    said(theirs, [{"film": "1", "verdict": "2"}])
    with pytest.raises(Refusal, match="did not write"):
        write_peer(theirs, {case: 0.25}, [])
