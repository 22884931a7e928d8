"""The reading room's server: what it answers, what it keeps, and what nobody gets from it."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import Scripts
from page_study import HOSTILE
from starlette.testclient import TestClient

from benchmarks.reading_room import LESION, SIZES, write_workspace
from common import start
from common.films.own_outputs import RESEARCH_ONLY
from common.journal import Journal
from common.reading.grid import Grid
from common.reading.out_of_fold import OutOfFoldRoom
from common.reading.pages import rooms_pages
from common.reading.pictures import COLOURS, outline_path
from common.reading.predicted import PredictedRoom
from common.reading.server import application, rooms_of_results
from common.reading.study import Study
from common.reading.study_pages import StudyPages
from common.reading.tested import TestedRoom
from common.refusal import Refusal
from common.report.estimates import estimate_text
from common.stages import STUDENTS, SYSTEMS
from common.statistics.strata import STRATA, lesion_sizes

TOKEN = "token-of-the-test"
OUTCOMES = {"tp": "true positive", "fn": "false negative", "fp": "false positive", "tn": "true negative"}


def client(routes) -> TestClient:
    return TestClient(application(routes, TOKEN), base_url="http://127.0.0.1")


def lines_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("room")
    write_workspace(folder, 12, 12, HOSTILE)
    return folder


@pytest.fixture
def room(made_up: Path, monkeypatch: pytest.MonkeyPatch) -> TestedRoom:
    monkeypatch.setenv("PTX_WORKSPACE", str(made_up))
    return TestedRoom()


@pytest.fixture
def rooms(room: TestedRoom) -> TestClient:
    return client(rooms_pages([room]))


# --- safe ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address", ["/", "/tested/", "/other/tested/", "/tested/film/0.png", f"/{TOKEN}x/tested/"]
)
def test_nothing_is_answered_without_the_token(rooms: TestClient, address: str) -> None:
    answer = rooms.get(address)
    assert answer.status_code == 404
    assert answer.text == "Not Found"


@pytest.mark.parametrize(
    "address",
    ["static/../pages.py", "static/%2e%2e/pages.py", "static//etc/passwd",
     "tested/figure/..%2f..%2fcases.svg",
     "tested/map/0/..%2feff.png", "tested/film/12.png", "tested/film/-1.png", "tested/thumbnail/99.jpg"],
)  # fmt: skip
def test_no_file_of_the_disk_is_reached(rooms: TestClient, address: str) -> None:
    assert rooms.get(f"/{TOKEN}/{address}").status_code in (400, 404)


@pytest.mark.parametrize("name", ["../meta", "a/b", "/etc/hosts", "x\0y"])
def test_a_case_that_is_a_path_reaches_no_other_folder(room: TestedRoom, name: str) -> None:
    room.case = np.array([name, *room.case[1:].tolist()])
    with pytest.raises(Refusal, match="outside its folder"):
        room.map(0, "eff")


def test_another_host_is_refused(rooms: TestClient) -> None:
    assert rooms.get(f"/{TOKEN}/tested/", headers={"Host": "evil.example"}).status_code == 400


def test_every_answer_forbids_the_outside_and_caches(rooms: TestClient) -> None:
    for address in ("/", f"/{TOKEN}/tested/", f"/{TOKEN}/static/room.js", f"/{TOKEN}/tested/film/0.png"):
        headers = rooms.get(address).headers
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"


def test_hostile_text_is_escaped_and_the_page_says_what_it_is_for(room: TestedRoom) -> None:
    room.notes = [HOSTILE]
    room.title = HOSTILE
    room.grid({}).facets[HOSTILE] = room.cases.sex
    page = client(rooms_pages([room])).get(f"/{TOKEN}/tested/").text
    assert page.count("&lt;script&gt;window.hacked") == 5  # note, title, link, name of a choice, twice
    assert "<script>window" not in page
    assert "<img src=x" not in page
    assert RESEARCH_ONLY in page
    # What is not in the page is put into it as text by the script: `test_reading_browser.py` looks at it.
    answer = client(rooms_pages([room])).get(f"/{TOKEN}/tested/films")
    assert answer.headers["Content-Type"] == "application/json"


def test_no_page_names_a_host_outside() -> None:
    folder = Path(start.__file__).parent / "reading"
    for path in [
        *folder.glob("*.j2"),
        *(p for p in folder.glob("static/*") if "openseadragon" not in p.name),
    ]:
        found = set(re.findall(r"https?://[^\"'\s]+", path.read_text())) - {"http://www.w3.org/2000/svg"}
        assert found == set(), path.name


# --- the grid --------------------------------------------------------------------------------------


def grid() -> Grid:
    kind = np.array(["a", "b", "a", "b"])
    size = np.array([2.0, np.nan, 1.0, 3.0])
    return Grid(np.array(list("wxyz")), {"kind": kind}, {"size": size}, ["", "", "", ""])


def test_films_are_chosen_and_sorted_and_the_unknown_comes_last() -> None:
    assert grid().chosen({}).tolist() == [0, 1, 2, 3]
    assert grid().chosen({"kind": "a"}).tolist() == [0, 2]
    assert grid().chosen({"sort": "size"}).tolist() == [2, 0, 3, 1]
    assert grid().chosen({"sort": "-size"}).tolist() == [3, 0, 2, 1]
    assert grid().chosen({"marked": "3,0", "sort": "nothing"}).tolist() == [0, 3]
    assert grid().counts({"kind": "a"}) == {"kind": {"a": 2, "b": 2}}
    assert grid().counts({"marked": "0,1,2"}) == {"kind": {"a": 2, "b": 1}}


def test_a_selection_is_exported_as_csv_and_pictures(rooms: TestClient) -> None:
    query = f"{TOKEN}/tested/%s?lesion=large&marked=0,3,4"
    rows = list(csv.DictReader(io.StringIO(rooms.get(query % "films.csv").text)))
    assert [row["case"] for row in rows] == [f"c{i:016x}" for i in (0, 3)]
    assert {row["lesion"] for row in rows} == {"large"}
    archive = zipfile.ZipFile(io.BytesIO(rooms.get(query % "pictures.zip").content))
    pictures = [name for name in archive.namelist() if name.endswith(".png")]
    assert pictures == [f"{i:05}_c{i:016x}.png" for i in (0, 3)]
    assert RESEARCH_ONLY in archive.read("README.txt").decode()
    picture = cv2.imdecode(np.frombuffer(archive.read(pictures[0]), np.uint8), cv2.IMREAD_COLOR)
    assert (picture.max(axis=2) != picture.min(axis=2)).any()  # the outlines have colours


# --- the film --------------------------------------------------------------------------------------


def corners(path: str) -> list[float]:
    """Left, top, right, bottom of an SVG path."""
    points = np.array([pair.split() for pair in re.findall(r"[\d.]+ [\d.]+", path)], dtype=float)
    return [*points.min(axis=0), *points.max(axis=0)]


def test_outlines_lie_on_the_film_in_its_own_proportions(rooms: TestClient) -> None:
    film = rooms.get(f"/{TOKEN}/tested/film/0").json()
    width, height = film["size"]
    assert width / height == pytest.approx(SIZES[0][0] / SIZES[0][1], rel=1e-3)
    assert film["mm"] == pytest.approx([0.3 * side for side in SIZES[0]])
    pixels = cv2.imdecode(np.frombuffer(rooms.get(f"/{TOKEN}/tested/film/0.png").content, np.uint8), 0)
    assert pixels.shape == (height, width)
    bright = np.argwhere(pixels > 170)
    seen = [*bright.min(axis=0)[::-1], *(bright.max(axis=0)[::-1] + 1)]
    known = [share * side for share, side in zip(LESION, (width, height) * 2, strict=True)]
    assert seen == pytest.approx(known, abs=1.5)  # no film is mirrored
    assert corners(film["outlines"]["truth"]) == pytest.approx(known, abs=1.5)
    coarse = max(width, height) / 64  # a pixel of the map
    assert corners(film["outlines"]["eff"]) == pytest.approx(known, abs=coarse)


def test_an_outline_goes_around_pixels() -> None:
    area = np.zeros((6, 8), dtype=bool)
    assert outline_path(area) == ""
    area[1:4, 2:7] = True
    assert corners(outline_path(area)) == [2.5, 1.5, 6.5, 3.5]


def test_the_rules_are_told_step_by_step(room: TestedRoom) -> None:
    for row in range(len(room.cases)):
        for system, result in room.results.items():
            told = dict(room.film(row).parts[system])
            assert f"{result.cases.probability[row]:.6f}" in told["stage 1"]
            assert ("does not reach" in told["stage 1"]) == (not result.cases.stage_1[row])
            assert (told["decision"] == "positive") == result.cases.two_stage[row]
            ran = np.isfinite(result.cases.column("area_pixels")[row])
            assert ("not run" in told["stage 2"]) == (not ran)
            assert (room.film(row).outlines[system] == "") == (not ran)
            assert (room.map(row, system) is None) == (not ran)


def test_results_of_other_films_are_refused(made_up: Path, tmp_path: Path, monkeypatch) -> None:
    shutil.copytree(made_up, tmp_path / "copy")
    monkeypatch.setenv("PTX_WORKSPACE", str(tmp_path / "copy"))
    manifest = tmp_path / "copy/data/prepared/ntuh_test/manifest.json"
    manifest.write_text(json.dumps({"content": "other"}))
    with pytest.raises(Refusal, match="holds other films"):
        TestedRoom()
    manifest.unlink()
    with pytest.raises(Refusal, match="shows the prepared films"):
        TestedRoom()


# --- numbers ---------------------------------------------------------------------------------------


@pytest.fixture
def tested(chain: Scripts, monkeypatch: pytest.MonkeyPatch) -> TestedRoom:
    """The room of the chain, which has metrics and out-of-fold films."""
    monkeypatch.setenv("PTX_WORKSPACE", str(chain.workspace))
    return TestedRoom()


def metric(workspace: Path, *key: str) -> dict[str, str]:
    names = ("system", "reference", "decision", "stratum", "metric")
    rows = lines_of(workspace / "step3_testing/testing/metrics.csv")
    return next(row for row in rows if tuple(row[name] for name in names) == key)


def test_counts_are_those_of_the_metrics(tested: TestedRoom, chain: Scripts) -> None:
    counts = tested.grid({}).counts({})
    for system in tested.results:
        for name, words in OUTCOMES.items():
            row = metric(chain.workspace, system, "mask", "two_stage", "all", name)
            assert counts[f"{system} outcome"].get(words, 0) == float(row["estimate"])
    sizes = lesion_sizes(tested.cases.has_mask, tested.cases.mask_area_fraction)
    for size in STRATA[1:]:
        for system, result in tested.results.items():
            row = metric(chain.workspace, system, "mask", "two_stage", size, "tp")
            assert ((sizes == size) & result.cases.two_stage).sum() == float(row["estimate"])


def test_every_number_beside_the_grid_is_the_one_of_the_metrics(tested: TestedRoom, chain: Scripts) -> None:
    for query, stratum in (({}, "all"), ({"sex": "F"}, "sex F"), ({"lesion": "small"}, "small")):
        summary = tested.summary(query, tested.grid(query).chosen(query))
        assert ("all test films" in summary.caption) == (stratum == "all")
        for title, name in (("AUROC", "auroc"), ("Sensitivity", "sensitivity"), ("True negatives", "tn")):
            line = next(line for line in summary.lines if line[0] == title)
            for system, words in zip(summary.lines[0][1:], line[1:], strict=True):
                row = metric(chain.workspace, system, "mask", "two_stage", stratum, name)
                numbers = {
                    key: float(row[key]) if row[key] else None for key in ("estimate", "ci_low", "ci_high")
                }
                if name == "tn":
                    numbers["estimate"] = int(row["estimate"])
                assert words.startswith(f"{estimate_text({'metric': name, **numbers})}, n ")
    summary = tested.summary({"sex": "F", "report": "positive"}, np.arange(1))
    assert "no stratum" in summary.caption


def test_metrics_of_other_results_are_not_shown(chain: Scripts, tmp_path: Path, monkeypatch) -> None:
    for folder in ("step3_testing/testing", "data/prepared/ntuh_test"):
        shutil.copytree(chain.workspace / folder, tmp_path / folder)
    monkeypatch.setenv("PTX_WORKSPACE", str(tmp_path))
    path = tmp_path / "step3_testing/testing/metrics.json"
    path.write_text(path.read_text().replace('"cases_sha256": "', '"cases_sha256": "0'))
    room = TestedRoom()
    assert room.summary({}, np.arange(3)).lines == []
    assert room.figures == []
    assert any("other results" in note for note in room.notes)


def test_a_moved_threshold_shows_which_films_change_sides_and_writes_nothing(
    chain: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTX_WORKSPACE", str(chain.workspace))
    folder = chain.workspace / "step2_ntuh_training/get_thres/cls_eff_5fold_result"
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    room = OutOfFoldRoom()
    content = json.loads((folder / "5cv_avg.json").read_text())
    summary = room.summary({}, np.arange(3))
    assert summary.lines[2][1].split()[0] == summary.lines[2][2].split()[0] == f"{content['tpr']:.3f}"
    assert summary.lines[3][1].split()[0] == f"{1 - content['fpr']:.3f}"
    probability = room.tables["eff"]["probability"].to_numpy()
    moved = float(np.sort(probability)[-2])
    query = {"eff": str(moved)}
    change = room.grid(query).facets["eff change"]
    falls = (probability >= content["cls_threshold"]) & (probability < moved)
    assert ((change == "becomes negative") == falls).all()
    assert falls.any()
    found = room.summary(query, np.arange(3)).lines
    positive = room.positive
    assert found[2][2].split()[0] == f"{(positive & (probability >= moved)).sum() / positive.sum():.3f}"
    assert room.figure("ROC", query) != room.figure("ROC", {})
    pages = client(rooms_pages([room]))
    assert pages.get(f"/{TOKEN}/out_of_fold/", params=query).status_code == 200
    assert pages.get(f"/{TOKEN}/out_of_fold/figure/ROC.svg", params=query).content.startswith(b"<?xml")
    assert pages.get(f"/{TOKEN}/out_of_fold/film/0").json()["maps"] == []
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


# --- students, and films without a label -----------------------------------------------------------

EVERY = ("eff", "vit", "eff_student", "vit_student")


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All four systems on 18 films, the last 6 of which have no label; metrics of two systems."""
    folder = tmp_path_factory.mktemp("every")
    write_workspace(folder, 18, 18, systems=EVERY, unlabelled=6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PTX_WORKSPACE", str(folder))
        start.bootstrap("", ["--replicates", "40", "--system", "eff_student", "eff"])
    return folder


def test_students_stand_beside_the_systems_with_the_counts_of_the_metrics(every: Path, monkeypatch) -> None:
    monkeypatch.setenv("PTX_WORKSPACE", str(every))
    room = TestedRoom()
    assert tuple(room.results) == EVERY
    counts = room.grid({}).counts({})
    for system in ("eff", "eff_student"):
        for name, words in OUTCOMES.items():
            row = metric(every, system, "mask", "two_stage", "all", name)
            assert counts[f"{system} outcome"].get(words, 0) == float(row["estimate"])
    summary = room.summary({}, room.grid({}).chosen({}))
    assert summary.lines[0] == ["", "eff", "eff_student"]
    assert any("not of vit and vit_student: " in note for note in room.notes)
    assert [note for note in room.notes if "--system vit vit_student" in note]
    film = room.film(0)
    assert list(film.outlines) == ["truth", *EVERY]
    assert film.maps == list(EVERY)
    assert "(one network)" in film.parts["vit_student"]["stage 1"]
    assert "folds" in film.parts["vit"]["stage 1"]
    spread = room.grid({}).orders
    assert np.isnan(spread["eff_student spread of folds"]).all()
    assert np.isfinite(spread["eff spread of folds"]).all()
    called = np.array([result.cases.two_stage for result in room.results.values()])
    differ = room.grid({}).facets["systems"] == "differ"
    assert (differ == (called.any(axis=0) & ~called.all(axis=0))).all()


def test_students_can_help_in_a_study_and_have_a_threshold_to_be_moved(
    every: Path, chain: Scripts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTX_WORKSPACE", str(every))
    study = study_of(TestedRoom(), tmp_path / "study", PLAN.replace('"eff"', '"eff_student"'))
    assert study.plan.system == "eff_student"
    study.close()
    thresholds = Path("step2_ntuh_training/get_thres")
    for folder in (thresholds, "data/prepared/ntuh_train"):
        shutil.copytree(chain.workspace / folder, tmp_path / folder)
    for system, student in (("eff", "eff_student"), ("vit", "vit_student")):
        folder = tmp_path / thresholds / f"cls_{student}_5fold_result"
        shutil.copytree(tmp_path / thresholds / f"cls_{system}_5fold_result", folder)
        content = json.loads((folder / "5cv_avg.json").read_text())
        (folder / "5cv_avg.json").write_text(json.dumps(content | {"system": student}))
    monkeypatch.setenv("PTX_WORKSPACE", str(tmp_path))
    room = OutOfFoldRoom()
    assert tuple(room.thresholds) == EVERY
    assert room.summary({}, np.arange(1)).lines[0][-1] == "vit_student, moved"
    assert all(system.encode() in room.figure("ROC", {}) for system in EVERY)


def test_films_without_a_label_have_a_room_without_truth(every: Path, monkeypatch) -> None:
    monkeypatch.setenv("PTX_WORKSPACE", str(every))
    labelled, room = rooms_of_results()
    cases = lines_of(every / "step3_testing/testing/result_eff/cases.csv")
    assert labelled.case.tolist() == [row["case"] for row in cases if row["report"]]
    assert room.case.tolist() == [row["case"] for row in cases if not row["report"]]
    assert len(room.case) == 6
    assert "Nobody has said" in " ".join(room.notes)
    assert {"lesion", "report"}.isdisjoint(room.grid({}).facets)
    assert set(room.grid({}).facets["eff outcome"]) <= {"positive", "negative"}
    assert room.summary({}, np.arange(6)).lines == []
    pages = client(rooms_pages([labelled, room]))
    for row in range(6):
        film = pages.get(f"/{TOKEN}/unlabelled/film/{row}").json()
        assert list(film["outlines"]) == list(EVERY)
        assert film["parts"]["Film"]["truth"].startswith("no label")
        assert film["parts"]["Film"]["report"] == "unknown"
        assert "Dice" not in json.dumps(film["parts"])
    assert pages.get(f"/{TOKEN}/unlabelled/film/6").status_code == 404
    assert "no label · eff" in pages.get(f"/{TOKEN}/unlabelled/films").text


def test_a_test_set_without_any_label_is_shown(tmp_path: Path, monkeypatch) -> None:
    write_workspace(tmp_path, 4, 4, unlabelled=4)
    monkeypatch.setenv("PTX_WORKSPACE", str(tmp_path))
    (room,) = rooms_of_results()
    assert (room.name, len(room.case)) == ("unlabelled", 4)


def test_a_film_that_is_positive_by_report_without_a_mask_says_so(room: TestedRoom) -> None:
    assert room.grid({}).chosen({"report": "positive", "lesion": "none"}).tolist() == [1, 10]
    assert room.film(1).parts["Film"]["truth"] == "no annotated lesion, though the report is positive"
    assert room.film(1).outlines["truth"] == ""
    assert room.film(2).parts["Film"]["truth"] == "no annotated lesion"


def test_films_that_prediction_would_decline_can_be_chosen(room: TestedRoom) -> None:
    chosen = room.grid({}).chosen({"as a new film": "no answer"})
    assert chosen.tolist() == np.flatnonzero(room.cases.column("no_answer") == 1).tolist() == [4, 9]
    assert "a human would read it" in room.film(4).parts["eff"]["new film"]
    assert "new film" not in room.film(0).parts["eff"]


def test_every_system_has_its_colour_and_its_dashes() -> None:
    style = (Path(start.__file__).parent / "reading/static/page.css").read_text()
    found = dict(re.findall(r"^\.(\w+) { color: (#\w+);", style, flags=re.M))
    assert {name: found.get(name) for name in COLOURS} == COLOURS
    assert set(COLOURS) == {"truth", *SYSTEMS, *STUDENTS}
    dashes = re.findall(r"^\.\w+ { color: #\w+; stroke-dasharray: ([\d ]+);", style, flags=re.M)
    assert len(set(dashes)) == 3


# --- new films -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_new_films_are_shown_without_truth(predict, new_films: Path, tmp_path: Path) -> None:
    output = tmp_path / "predicted"
    assert predict(new_films, output) == 3
    room = PredictedRoom(output)
    pages = client(rooms_pages([room]))
    findings = lines_of(output / "findings.csv")
    found = pages.get(f"/{TOKEN}/predicted/films", params={"sort": "-probability"}).json()
    rows = sorted(findings, key=lambda row: -float(row["probability"]))
    assert [name for name, _ in found["tiles"]] == [row["case"] for row in rows]
    for decision, count in found["counts"]["decision"].items():
        assert count == sum(row["decision"] == decision for row in findings)
    film = pages.get(f"/{TOKEN}/predicted/film/0").json()
    assert "truth" not in json.dumps(film)
    assert film["plain"] is False  # the page names no side: the finding does, by the header
    picture = pages.get(f"/{TOKEN}/predicted/film/0.png").content
    drawn = (output / "overlays" / f"{findings[0]['case']}.png").read_bytes()
    shown, kept = (cv2.imdecode(np.frombuffer(each, np.uint8), 1) for each in (picture, drawn))
    assert (shown == kept).all()
    assert any("2 files could not be read" in note for note in room.notes)


def test_a_folder_without_findings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="no table of findings"):
        PredictedRoom(tmp_path)
    (tmp_path / "findings.csv").write_text("case,decision\n../x,positive\n")
    with pytest.raises(Refusal, match="no table of findings"):
        PredictedRoom(tmp_path)


# --- the reader study ------------------------------------------------------------------------------

PLAN = 'system = "eff"\nseed = 3\n[readers]\nA1 = ["without", "with"]\nB2 = ["with"]\n'


def study_of(room: TestedRoom, folder: Path, plan: str = PLAN) -> Study:
    folder.mkdir(exist_ok=True)
    (folder / "plan.toml").write_text(plan)
    films = room.results["eff"].meta["films"]
    return Study(folder, room.cases.case.tolist(), list(room.results), films)


def said(call: int = 1, confidence: int = 80) -> dict[str, object]:
    return {"call": call, "confidence": confidence, "seconds": 2.5, "at": "now"}


def test_orders_differ_by_reader_and_session_and_not_by_who_else_reads(
    room: TestedRoom, tmp_path: Path
) -> None:
    study = study_of(room, tmp_path / "one")
    orders = [study.plan.order(*who) for who in (("A1", 0), ("A1", 1), ("B2", 0))]
    assert len({tuple(order) for order in orders}) == 3
    assert all(sorted(order) == sorted(room.cases.case.tolist()) for order in orders)
    more = study_of(room, tmp_path / "other", PLAN + 'C3 = ["without"]\n')
    assert more.plan.order("A1", 1) == orders[1]


def test_a_kill_loses_no_call_and_a_change_stays_as_history(room: TestedRoom, tmp_path: Path) -> None:
    study = study_of(room, tmp_path)
    for position in range(3):
        study.call("A1", 0, position, said())
    study.call("A1", 0, 1, said(0, 10))
    lines = (tmp_path / "calls.jsonl").read_bytes()  # as a kill leaves it, and a line that it cut short
    study.close()
    (tmp_path / "calls.jsonl").write_bytes(lines + b'{"aid":0,"at":"n')
    study = study_of(room, tmp_path)
    assert study.place("A1").called == 3
    assert study.earlier("A1", 0, 1)["call"] == 0
    entries = [json.loads(line) for line in lines.splitlines()[1:]]
    assert [entry["call"] for entry in entries] == [1, 1, 1, 0]
    assert {entry["seconds"] for entry in entries} == {2.5}
    rows = lines_of(tmp_path / "calls.csv")
    assert [(row["call"], row["confidence"]) for row in rows] == [("1", "80"), ("0", "10"), ("1", "80")]
    study.call("A1", 0, 3, said())
    assert len((tmp_path / "calls.jsonl").read_bytes().splitlines()) == len(lines.splitlines()) + 2


def test_a_call_is_on_the_disk_when_it_is_answered(room: TestedRoom, tmp_path: Path, monkeypatch) -> None:
    study = study_of(room, tmp_path)
    settled, fsync = [], os.fsync

    def watched(file: int) -> None:
        settled.append(Path(os.readlink(f"/proc/self/fd/{file}")).read_bytes())
        fsync(file)

    monkeypatch.setattr(os, "fsync", watched)
    study.call("A1", 0, 0, said())
    assert settled == [(tmp_path / "calls.jsonl").read_bytes()]
    assert b'"confidence":80' in settled[0]


def test_a_call_on_a_full_disk_is_not_kept_and_can_be_said_again(
    room: TestedRoom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of(room, tmp_path)
    pages = client(StudyPages(study, room).routes)
    call = {"session": 0, "position": 0, "call": 1, "confidence": 80, "seconds": 2}

    def full(journal: Journal, *entries: object, settle: bool) -> None:
        with open(tmp_path / "calls.jsonl", "ab") as file:
            file.write(b'{"aid":0,"at":"2026')
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", full)
        answer = pages.post(f"/{TOKEN}/reader/A1/call", json=call)
    assert (answer.status_code, "No space left" in answer.text) == (409, True)
    assert study.place("A1").called == 0
    assert pages.post(f"/{TOKEN}/reader/A1/call", json=call).status_code == 200
    study.close()
    assert study_of(room, tmp_path).place("A1").called == 1


def test_a_second_instance_another_plan_and_a_foreign_file_are_refused(
    room: TestedRoom, tmp_path: Path
) -> None:
    study = study_of(room, tmp_path)
    study.call("A1", 0, 0, said())
    with pytest.raises(Refusal, match="held by another process"):
        study_of(room, tmp_path)
    study.close()
    with pytest.raises(Refusal, match="another plan"):
        study_of(room, tmp_path, PLAN.replace("seed = 3", "seed = 4"))
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "calls.csv").write_text("mine")
    with pytest.raises(Refusal, match="not as this study wrote it"):
        study_of(room, foreign)
    assert (foreign / "calls.csv").read_text() == "mine"


@pytest.mark.parametrize(
    "plan",
    ["", "readers = 3", "[readers]\n", "[readers]\nA = []", '[readers]\nA = ["with", "with"]',
     '[readers]\n"a b" = ["with"]', '[readers]\n"../x" = ["with"]', PLAN.replace("eff", "other"),
     PLAN.replace("seed = 3", 'cases = ["c1"]'), PLAN.replace("seed = 3", "cases = []"),
     PLAN.replace("seed = 3", "sead = 3"), PLAN.replace("seed = 3", "cases = [[1]]"), "= ="],
)  # fmt: skip
def test_a_plan_that_cannot_be_is_refused(room: TestedRoom, tmp_path: Path, plan: str) -> None:
    with pytest.raises(Refusal, match=r"plan\.toml"):
        study_of(room, tmp_path, plan)


@pytest.mark.parametrize(
    "wrong",
    [{"call": 2}, {"call": True}, {"call": "1"}, {"confidence": 101}, {"confidence": -1},
     {"confidence": None}, {"session": 1}, {"session": None}, {"position": 1}, {"position": -1},
     {"position": True}, {"seconds": "x"}],
)  # fmt: skip
def test_a_call_that_cannot_be_is_refused_and_not_kept(room: TestedRoom, tmp_path: Path, wrong) -> None:
    study = study_of(room, tmp_path)
    pages = client(StudyPages(study, room).routes)
    call = {"session": 0, "position": 0, "call": 1, "confidence": 80, "seconds": 2}
    assert pages.post(f"/{TOKEN}/reader/A1/call", json=call | wrong).status_code == 400
    assert pages.post(f"/{TOKEN}/reader/A1/call", content=b"[1").status_code == 400
    assert study.place("A1").called == 0
    assert pages.post(f"/{TOKEN}/reader/A1/call", json=call).status_code == 200
    assert study.place("A1").called == 1


def test_a_reader_gets_neither_truth_nor_others(room: TestedRoom, tmp_path: Path) -> None:
    study = study_of(room, tmp_path)
    pages = client(StudyPages(study, room).routes)
    assert pages.get(f"/{TOKEN}/reader/X9/state").status_code == 404
    for address in (
        "tested/",
        "tested/film/0",
        "reader/A1/film/0/5.png",
        "reader/A1/film/1/0.png",
        "calls.csv",
    ):
        assert pages.get(f"/{TOKEN}/{address}").status_code == 404
    missed = shown = unanswered = 0
    for reader in ("A1", "B2"):
        for position in range(len(room.cases)):
            state = pages.get(f"/{TOKEN}/reader/{reader}/state").json()
            film, text = state["film"], json.dumps(state)
            case = study.plan.order(reader, 0)[position]
            row = room.cases.case.tolist().index(case)
            assert state["position"] == position
            assert case not in text
            assert "truth" not in text
            assert "Dice" not in text
            if reader == "A1":
                assert film["outlines"] == film["parts"] == {}
            else:  # a lesion that the system misses has an outline only for the metrics: it would tell
                cases = room.results["eff"].cases
                declined = cases.column("no_answer")[row] == 1  # then prediction outlines nothing
                called = bool(cases.two_stage[row]) and not declined
                assert bool(film["outlines"]["eff"]) == called
                assert (dict(film["parts"]["eff"])["says"] == "no answer") == declined
                unanswered += declined
                missed += bool(room.cases.has_mask[row]) and not called
                shown += called
            call = {"session": 0, "position": position, "call": 1, "confidence": 80, "seconds": 2}
            pages.post(f"/{TOKEN}/reader/{reader}/call", json=call)
    assert missed
    assert shown
    assert unanswered
    state = pages.get(f"/{TOKEN}/reader/A1/state").json()
    assert (state["session"], state["aid"], state["called"], state["done"]) == (1, True, 0, False)
    assert pages.get(f"/{TOKEN}/reader/B2/state").json()["done"]


# --- the script ------------------------------------------------------------------------------------


def test_packages_that_are_absent_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Refusal, match="packages that the other steps do not") as refusal:
        start.read("", [])
    assert refusal.value.details["do"].endswith("step3_testing/reading/requirements.txt")


def test_a_port_that_is_taken_and_two_rooms_are_refused(room: TestedRoom, tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Refusal, match="cannot be used"):
            start.read("", ["--port", str(taken.getsockname()[1])])
    with pytest.raises(Refusal, match="two rooms"):
        start.read("", ["--study", str(tmp_path), "--predicted", str(tmp_path)])


def test_no_results_are_said_with_the_command_that_makes_them(workspace: Path) -> None:
    with pytest.raises(Refusal, match="inference"):
        start.read("", [])
