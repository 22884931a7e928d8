"""A second annotator's masks, from the case table to the metrics; a bad one costs no film."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import Scripts
from test_masks_and_labels import SIDE, ellipse, hospital, notes, prepare
from test_metrics import FILMS, on_full_sample, table

from common import start
from common.command_line import Rules
from common.files import digest
from common.films.annotations import encode_rle
from common.inference.result_columns import COLUMNS, written_columns
from common.paths import prepared_folder, result_folder
from common.preparation import fingerprints
from common.preparation.film_store import SIDE as PREPARED_SIDE
from common.preparation.film_store import PreparedSet
from common.preparation.second_masks import FILE, masks_digest, write_second_masks
from common.refusal import Refusal
from common.sources.case_table import source_films
from common.sources.table_check import TableCheck
from common.statistics.overlap import dice
from common.statistics.tested_films import Cases

Change = Callable[[int, dict[str, str]], None]


def _marked(folder: Path, number: int, mask: np.ndarray) -> str:
    """A second annotator's mask of a film, as a file; its path in the table."""
    cv2.imwrite(str(folder / f"s{number}.png"), mask)
    return f"s{number}.png"


def _second(folder: Path, cells_of: Callable[[int], str]) -> Change:
    """Adds the column, with what it holds in each row; test films are 14 to 17, positive the even ones."""

    def change(i: int, cells: dict[str, str]) -> None:
        cells["second_mask"] = cells_of(i)

    return change


def _with(folder: Path, cells: dict[int, str | np.ndarray]) -> Path:
    """A hospital's folder whose rows have these second masks: cells, or pictures."""

    def cell(i: int) -> str:
        each = cells.get(i, "")
        return each if isinstance(each, str) else _marked(folder, i, each)

    return hospital(folder, _second(folder, cell))


# --- preparing -------------------------------------------------------------------------------------


def _files(root: Path) -> dict[str, bytes]:
    """Everything prepared, without the times of the films' files."""
    files = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    return {
        name: "".join(line.split(",")[1] for line in text.decode().splitlines()).encode()
        if name.endswith(fingerprints.FILE)
        else text
        for name, text in files.items()
    }


@pytest.mark.slow
def test_masks_reach_the_set_and_change_nothing_else(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Read at the prepared size, of the test films only; an empty one says that nothing was drawn."""
    prepare(hospital(tmp_path / "once"))
    root = workspace / "data" / "prepared"
    before = _files(root)
    assert PreparedSet(prepared_folder("ntuh_test")).second_annotator is None
    moved, black = np.roll(ellipse(14), 8, axis=0), np.zeros((SIDE, SIDE), np.uint8)
    twice = _with(tmp_path / "twice", {0: moved, 14: moved, 15: moved, 16: black})
    with pytest.raises(Refusal, match="3 with another label, annotation or state"):
        prepare(twice)
    capsys.readouterr()
    start.prepare("", ["--ntuh", str(twice), "--fresh"])
    assert "marked by a second annotator, too: 3 films" in capsys.readouterr().out
    after = _files(root)
    different = {name for name in after.keys() | before.keys() if after.get(name) != before.get(name)}
    names = (FILE, "manifest.json", fingerprints.FILE)
    assert different == {f"ntuh_test/{name}" for name in names}
    old, new = (json.loads(files["ntuh_test/manifest.json"]) for files in (before, after))
    assert new.pop("second_masks")
    assert new == old  # weights, thresholds and the count of looks go by its hashes

    films = PreparedSet(prepared_folder("ntuh_test"))
    origin = [film.origin for film in sorted(source_films(twice, "ntuh_test", Rules()), key=_name)]
    by_film = {int(each.split()[-1]) - 2: films.second_mask(row) for row, each in enumerate(origin)}
    expected = cv2.resize(moved, (PREPARED_SIDE, PREPARED_SIDE), interpolation=cv2.INTER_AREA) > 127
    for i in (14, 15):
        assert dice(by_film[i], expected) > 0.99
    assert not by_film[16].any()
    assert by_film[17] is None


def _name(film: object) -> str:
    return film.identifier


@pytest.mark.slow
def test_a_bad_mask_costs_no_film(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another size, no picture, a mask of everything: each is told with its row, and unknown."""
    folder = tmp_path / "films"
    whole, small = np.zeros((SIDE, SIDE), np.uint8), np.zeros((9, 7), np.uint8)
    whole[5:-5, 5:-5] = 255
    _with(folder, {14: small, 15: "s15.png", 16: whole, 17: "none.png"})
    (folder / "s15.png").write_bytes(b"no picture")
    prepare(folder)
    films = PreparedSet(prepared_folder("ntuh_test"))
    assert len(films.cases) == 4
    assert films.second_annotator is None
    assert not (films.folder / FILE).exists()
    found = dict(zip(notes("ntuh_test")["origin"], notes("ntuh_test")["note"], strict=True))
    start_of = "second_mask is unknown"
    assert found == {
        "cases.csv, row 16": f"{start_of}: its mask has 7 x 9 pixels, the film {SIDE} x {SIDE}",
        "cases.csv, row 17": f"{start_of}: its mask cannot be decoded (UnidentifiedImageError)",
        "cases.csv, row 18": f"{start_of}: its mask covers more of the film than a pneumothorax can "
        "(inverted, or of something else)",
        "cases.csv, row 19": f"{start_of}, since it is no file, found second_mask of the form 'aaaa.aaa'",
    }
    assert f"1 film: {start_of}: its mask has 7 x 9" in capsys.readouterr().out


def test_cells_that_cannot_be_used_are_told_by_row(tmp_path: Path) -> None:
    """A film's own mask a second time would be of perfect agreement."""
    cells = {
        14: "m14.png",
        15: "../other.png",
        16: "s16.png",
        17: "./s16.png",
        2: "nothing is read in training",
    }
    folder = _with(tmp_path / "films", cells)
    _marked(folder, 16, ellipse(16))
    films = {film.origin: film for film in source_films(folder, "ntuh_test", Rules())}
    assert [film.fault for film in films.values()] == [None] * 4
    assert [origin for origin, film in films.items() if film.second] == ["cases.csv, row 18"]
    check = TableCheck.of(folder, Rules())
    told = [(problem.row, problem.column, problem.costs_the_film) for problem in check.problems]
    assert told == [(row, "second_mask", False) for row in (16, 17, 19)]
    lines = "\n".join(check.lines())
    assert "row 16: second_mask is unknown, since it is listed as mask, too, found" in lines
    assert "row 17: second_mask is unknown, since it is no path inside the folder, found" in lines
    assert "row 19: second_mask is unknown, since it is listed as second_mask, too, found" in lines
    assert "(2 negative, 2 positive, 2 with a mask, 1 with a second one)" in lines
    assert "3 problems; 0 of 18 films cannot be used" in lines


def test_the_listing_of_a_film_without_a_second_mask_is_what_it_was(tmp_path: Path) -> None:
    """Sets that are prepared must not be called changed."""
    plain, twice = hospital(tmp_path / "once"), _with(tmp_path / "twice", {14: ellipse(15)})
    once, again = (fingerprints.listing(source_films(each, "ntuh_test", Rules())) for each in (plain, twice))
    assert [a == b for a, b in zip(once, again, strict=True)] == [False, True, True, True]
    said = "[0, None, None, None, [('patient_id', 'patient 15')]]"
    assert once[1][1] == digest(said, b"")[:16]
    cv2.imwrite(str(twice / "s14.png"), ellipse(16))
    assert fingerprints.listing(source_films(twice, "ntuh_test", Rules()))[0] != again[0]


def test_changed_masks_are_refused(tmp_path: Path) -> None:
    masks = {0: "5 3", 7: "-1"}
    write_second_masks(tmp_path, masks)
    (tmp_path / "manifest.json").write_text(json.dumps({"second_masks": masks_digest(masks)}))
    films = PreparedSet(tmp_path)
    assert np.flatnonzero(films.second_mask(0)[:, 0]).tolist() == [5, 6, 7]
    assert not films.second_mask(7).any()
    assert films.second_mask(1) is None
    (tmp_path / FILE).write_text((tmp_path / FILE).read_text().replace("5 3", "5 4"))
    with pytest.raises(Refusal, match=r"second_masks.csv is not as it was written"):
        PreparedSet(tmp_path).second_mask(0)
    (tmp_path / FILE).unlink()
    with pytest.raises(Refusal, match=r"second_masks.csv cannot be read"):
        PreparedSet(tmp_path).second_mask(0)


# --- testing ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_dice_of_both_annotators_stands_in_the_result(
    chain: Scripts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = chain.copy(tmp_path / "workspace").workspace
    monkeypatch.setenv("PTX_WORKSPACE", str(root))
    folder = prepared_folder("ntuh_test")
    films = PreparedSet(folder)
    old = (result_folder("eff") / "cases.csv").read_text().splitlines()
    areas = [float(each["area_fraction"] or 0) for each in csv.DictReader(old)]
    assert "dice_annotators" not in old[0]
    clear = np.flatnonzero(~films.has_mask)
    masked = sorted(np.flatnonzero(films.has_mask), key=areas.__getitem__)[-3:]
    square = np.zeros((PREPARED_SIDE, PREPARED_SIDE), bool)
    square[100:200, 100:300] = True
    drawn = {masked[0]: np.roll(films.mask(masked[0]), 5, axis=1), masked[1]: ~square & square}
    drawn |= {clear[0]: square, clear[1]: ~square & square}
    # A mask of the whole film tells how large the map's outline is.
    drawn[masked[2]] = np.ones_like(square)
    second = {int(row): encode_rle(mask) for row, mask in drawn.items()}
    write_second_masks(folder, second)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["second_masks"] = masks_digest(second)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    start.inference("", ["--gpu", "cpu", "--system", "eff"])
    meta = json.loads((result_folder("eff") / "meta.json").read_text())
    assert meta["second_masks"] == masks_digest(second)
    with open(result_folder("eff") / "cases.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    first, moved = films.mask(masked[0]), drawn[masked[0]]
    agreement = 2 * (first & moved).sum() / (first.sum() + moved.sum())
    assert 0 < agreement < 1
    found = {row: each["dice_annotators"] for row, each in enumerate(rows) if each["dice_annotators"]}
    share = films.mask(masked[2]).mean()
    expected = {
        masked[0]: agreement,
        masked[1]: 0,
        clear[0]: 0,
        clear[1]: 1,
        masked[2]: 2 * share / (1 + share),
    }
    assert {row: float(value) for row, value in found.items()} == pytest.approx(expected)
    with_second = [row for row, each in enumerate(rows) if each["dice_second"]]
    assert with_second == sorted(masked)
    shown = float(rows[masked[2]]["area_fraction"])
    assert shown > 0
    assert float(rows[masked[2]]["dice_second"]) == pytest.approx(2 * shown / (1 + shown), abs=0.02)
    # The other columns are what they were.
    left = [
        ",".join(v for k, v in each.items() if k not in ("dice_annotators", "dice_second")) for each in rows
    ]
    assert left == old[1:]

    start.bootstrap("", ["--system", "eff", "--replicates", "40"])
    with open(root / "step3_testing/testing/metrics.csv", newline="") as file:
        metric = {
            row["metric"]: row
            for row in csv.DictReader(file)
            if (row["reference"], row["decision"], row["stratum"]) == ("mask", "two_stage", "all")
        }
    shown = {
        name: metric[name]["n"] for name in ("dice_annotators", "dice_first", "dice_second", "second_only")
    }
    assert shown == {**dict.fromkeys(shown, "3"), "second_only": "2"}
    mean = (agreement + expected[masked[2]]) / 3
    assert float(metric["dice_annotators"]["estimate"]) == pytest.approx(mean)
    assert float(metric["second_only"]["estimate"]) == 0.5
    page = (root / "step3_testing/testing/report.html").read_text()
    assert "Dice, second annotator with the first" in page


# --- the metrics -----------------------------------------------------------------------------------


def _twice(annotators: dict[str, float], second: dict[str, float]) -> Cases:
    """The hand-made table, whose films of these names a second annotator looked at."""
    cases = table()
    columns = {"dice_annotators": annotators, "dice_second": second}
    columns["dice_full_size"] = dict(zip("abcd", (0.9, 0.5, 0.1, 0.3), strict=True))
    further = {
        name: np.array([values.get(case, np.nan) for case in cases.case]) for name, values in columns.items()
    }
    return Cases(**{**vars(cases), "further": {**cases.further, **further}})


def test_metrics_are_of_the_films_that_both_looked_at() -> None:
    """By hand: a film in which the second annotator drew nothing is 0; negatives count by themselves."""
    has_mask = [film[0] for film in FILMS if film[2]]
    clear = [film[0] for film in FILMS if not film[2]]
    one, two, three = has_mask[:3]
    annotators = {one: 0.8, two: 0.0, clear[0]: 0.0, clear[1]: 1.0, clear[2]: 1.0}
    cases = _twice(annotators, {one: 0.7, two: 0.2})
    first = cases.column("dice_full_size")[[list(cases.case).index(name) for name in (one, two)]]
    found = on_full_sample(cases, "mask")
    values = {
        name: found["two_stage", "all", name]
        for name in ("dice_annotators", "dice_first", "dice_second", "second_only")
    }
    assert values == {
        "dice_annotators": (2, pytest.approx(0.4)),
        "dice_first": (2, pytest.approx(first.mean())),
        "dice_second": (2, pytest.approx(0.45)),
        "second_only": (3, pytest.approx(1 / 3)),
    }
    assert three not in annotators


def test_without_a_second_annotator_there_are_no_such_columns_and_metrics() -> None:
    names = {name for _, _, name in on_full_sample(table(), "mask")}
    assert "dice_full_size" in names
    assert not names & {"dice_annotators", "dice_first", "dice_second", "second_only"}
    assert COLUMNS.keys() - written_columns(False) == {"dice_annotators", "dice_second"}
    assert written_columns(True) == COLUMNS
