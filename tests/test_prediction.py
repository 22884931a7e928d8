"""New films, as predict.sh takes them: the same answers as in testing, and nothing lost."""

from __future__ import annotations

import csv
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest

from common.films.decode import Film, read_film
from common.films.fault import FilmFault
from common.films.own_outputs import RESEARCH_ONLY
from common.inference.two_stage_rule import NEGATIVE_AREA, NEGATIVE_PROBABILITY, POSITIVE, OperatingPoint
from common.paths import result_folder
from common.prediction.finding import NO_ANSWER, find, on_film
from common.prediction.new_films import FilmReader, NewFilm
from common.prediction.overlay import overlay
from common.prediction.predictor import FilmPredictor
from common.prediction.suitability import Concern
from common.preparation.film_store import SIDE
from common.pseudonyms import pseudonym
from common.refusal import Refusal
from tests.conftest import PREDICTION, SECRET_FOLDER, SECRETS, Scripts

POINT = OperatingPoint(cls_threshold=0.5, seg_threshold=20, image_size=64)
SERIOUS = Concern("far from the training films", serious=True)


def _rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# --- one finding -----------------------------------------------------------------------------------


def _map(pixels: int) -> np.ndarray:
    """A map of 64 x 64 with so many pixels over one half, in the left upper part."""
    found = np.full(64 * 64, 0.2, dtype=np.float32)
    found[[64 * (i // 8) + i % 8 for i in range(pixels)]] = 0.9
    return found.reshape(64, 64)


def _film(height: int = 96, width: int = 64, **facts: object) -> Film:
    return Film(np.zeros((height, width), dtype=np.uint8), **facts)


def test_positive_film_has_area_side_and_outline() -> None:
    finding = find(_film(spacing=(2.0, 1.0)), [0.6, 0.7, 0.8, 0.9, 1.0], _map(32), POINT, [])
    assert (finding.decision, finding.rule, finding.segmented_pixels) == ("positive", POSITIVE, 32)
    assert finding.probability == pytest.approx(0.8)
    assert finding.spread == pytest.approx(0.4)
    assert finding.area_fraction == 32 / 4096
    # a film of 192 x 64 mm
    assert finding.area_cm2 == pytest.approx(32 / 4096 * 19.2 * 6.4)
    assert finding.side == "right"  # the image's left is the patient's right
    assert not finding.borderline
    assert finding.outline.shape == (96, 64)
    assert finding.outline[:6, :8].mean() > 0.8
    assert not finding.outline[12:, :].any()
    assert not finding.outline[:, 12:].any()


@pytest.mark.parametrize(
    ("probability", "found", "rule"),
    [(0.4, None, NEGATIVE_PROBABILITY), (0.6, _map(19), NEGATIVE_AREA)],
)
def test_negative_film_shows_nothing(probability: float, found: np.ndarray | None, rule: str) -> None:
    finding = find(_film(), [probability] * 5, found, POINT, [])
    assert (finding.decision, finding.rule) == ("negative", rule)
    assert not finding.outline.any()
    assert (finding.area_fraction, finding.area_cm2, finding.side) == (None, None, "")


def test_serious_concern_takes_the_answer_away_but_not_the_numbers() -> None:
    finding = find(_film(), [0.9] * 5, _map(32), POINT, [SERIOUS])
    assert (finding.decision, finding.rule, finding.segmented_pixels) == (NO_ANSWER, POSITIVE, 32)
    assert not finding.outline.any()
    assert finding.columns()["warnings"] == SERIOUS.text
    noted = find(_film(), [0.9] * 5, _map(32), POINT, [replace(SERIOUS, serious=False)])
    assert noted.decision == "positive"


def test_threshold_of_the_map_decides_area_outline_and_borderline() -> None:
    point = replace(POINT, map_threshold=0.125)
    found = np.where(_map(32) > 0.5, 0.13, 0.1).astype(np.float32)
    finding = find(_film(), [0.9] * 5, found, point, [])
    assert (finding.rule, finding.segmented_pixels, finding.borderline) == (POSITIVE, 32, False)
    assert finding.outline[:6, :8].mean() > 0.8
    assert find(_film(), [0.9] * 5, found, POINT, []).rule == NEGATIVE_AREA
    assert find(_film(), [0.9] * 5, np.where(_map(20) > 0.5, 0.12505, 0.1), point, []).borderline


@pytest.mark.parametrize(
    ("folds", "found", "borderline"),
    [
        ([0.50009] * 5, _map(64), True),
        ([0.49991] * 5, None, True),
        ([0.5002] * 5, _map(64), False),
        ([0.4998] * 5, None, False),
        ([0.9] * 5, np.where(_map(20) > 0.5, 0.50005, 0.2), True),  # 20 pixels, a hair over one half
        ([0.9] * 5, np.where(_map(20) > 0.5, 0.49995, 0.2), True),
        ([0.9] * 5, np.where(_map(20) > 0.5, 0.5002, 0.2), False),
        ([0.9] * 5, np.where(_map(19) > 0.5, 0.50005, 0.2), False),
    ],
)
def test_film_that_rounding_could_turn_is_borderline(
    folds: list[float], found: np.ndarray | None, borderline: bool
) -> None:
    assert find(_film(), folds, found, POINT, []).borderline is borderline


def test_outline_comes_back_onto_the_film_it_was_stretched_from() -> None:
    truth = np.zeros((300, 200), dtype=np.float32)
    truth[60:150, 120:180] = 1
    square = cv2.resize(truth, (64, 64), interpolation=cv2.INTER_AREA)
    back = on_film(square, 300, 200, 0.5)
    assert (back & (truth > 0)).sum() * 2 / (back.sum() + truth.sum()) > 0.95


def test_overlay_keeps_the_film_clear_of_text_and_names_what_it_is() -> None:
    film = np.random.default_rng(0).integers(0, 100, (300, 200), dtype=np.uint8)
    positive = find(Film(film), [0.9] * 5, _map(400), POINT, [])
    picture = overlay(film, positive, "eff 0123456789ab")
    assert picture.shape[1] == round(200 * SIDE / 300)
    shown = picture[:SIDE]
    coloured = np.ptp(shown.astype(int), axis=2) > 60
    assert coloured.any()
    rows, columns = np.nonzero(coloured)  # of the outline only: it lies where the map is
    assert rows.max() < SIDE * 0.9
    assert columns.max() < shown.shape[1] * 0.3
    negative = overlay(film, find(Film(film), [0.1] * 5, None, POINT, []), "eff 0123456789ab")
    assert not (np.ptp(negative[:SIDE].astype(int), axis=2) > 0).any()
    refused = overlay(film, find(Film(film), [0.9] * 5, _map(400), POINT, [SERIOUS]), "eff 0123456789ab")
    assert not (np.ptp(refused[:SIDE].astype(int), axis=2) > 0).any()
    assert len(refused) > len(negative)  # the warning has a line of its own


# --- the listener ----------------------------------------------------------------------------------


def test_our_own_picture_sent_back_is_not_a_film(
    chain: Scripts, predicted: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTX_WORKSPACE", str(chain.workspace))
    predictor = FilmPredictor.open("eff")
    own = next((predicted[0] / "dicom").glob("*_overlay.dcm"))
    with pytest.raises(FilmFault, match="this project made"):
        predictor.process(own, tmp_path)


def test_listener_gets_the_objects_of_a_film(
    chain: Scripts, new_films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTX_WORKSPACE", str(chain.workspace))
    predictor = FilmPredictor.open("eff")
    arrived = tmp_path / "000000001_c0123.dcm"
    shutil.copyfile(sorted(new_films.glob("P*.dcm"))[0], arrived)
    objects = predictor.process(arrived, tmp_path)
    finding = json.loads((tmp_path / "findings" / "c0123.json").read_text())["finding"]
    kinds = ["segmentation", "overlay"] + ["outline"] * (finding["decision"] == POSITIVE)
    assert [path.name for path in objects] == [f"c0123_{kind}.dcm" for kind in kinds]
    first = [path.read_bytes() for path in objects]
    assert [path.read_bytes() for path in predictor.process(arrived, tmp_path)] == first  # the same objects


def test_reader_survives_films_that_cannot_be_read(tmp_path: Path, sources: Path) -> None:
    good = next((sources / "ntuh" / "images").glob("*.dcm"))
    bad = tmp_path / "bad.dcm"
    bad.write_bytes(b"\0" * 128 + b"DICM" + b"\1" * 50)
    reader = FilmReader()
    try:
        assert reader.read(good).square.shape == (SIDE, SIDE)
        with pytest.raises(FilmFault, match=r"damaged|cut short|no picture"):
            reader.read(bad)
        assert (reader.read(good).film.pixels == read_film(good).pixels).all()
    finally:
        reader.close()


# --- as a user runs it -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def predicted(chain: Scripts, new_films: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    output = tmp_path_factory.mktemp("predicted") / "out"
    done = chain.run(
        PREDICTION, "bash", "predict.sh", str(new_films), str(output), "cpu", "--keep-identifiers", expect=3
    )
    return output, done.stdout + done.stderr


def test_prediction_equals_inference_on_the_same_films(
    chain: Scripts, predicted: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTX_WORKSPACE", str(chain.workspace))
    tested = {row["case"]: row for row in _rows(result_folder("eff") / "cases.csv")}
    found = {Path(row["file"]).stem: row for row in _rows(predicted[0] / "findings.csv")}
    compared = 0
    for exam, row in found.items():
        same = tested.get(pseudonym("case", exam))
        if same is None:
            continue
        compared += 1
        for fold in range(5):
            assert float(row[f"fold_{fold}"]) == pytest.approx(float(same[f"fold_{fold}"]), abs=1e-6)
        assert row["rule"] == same["rule"]
        declined = any(reason in row["warnings"] for reason in ("unlike the training films", "seems "))
        assert same["no_answer"] == str(int(declined))
        if same["stage_1"] == "1":
            assert abs(int(row["segmented_pixels"]) - int(same["area_pixels"])) <= 1
        if row["area_cm2"]:
            assert float(row["area_cm2"]) == pytest.approx(float(same["area_cm2"]), rel=0.01)
    assert compared == len(tested)


def test_what_cannot_be_read_is_listed(predicted: tuple[Path, str]) -> None:
    output, printed = predicted
    unread = {row["file"]: row["reason"] for row in _rows(output / "unread.csv")}
    assert set(unread) == {"cut.dcm", "notes.txt"}
    assert "no DICOM, PNG, JPEG or TIFF" in unread["notes.txt"]
    assert "2 not read" in printed
    assert all(reason in printed for reason in unread.values())


def test_every_film_has_its_files_and_every_output_says_what_it_is_for(predicted: tuple[Path, str]) -> None:
    output, printed = predicted
    assert RESEARCH_ONLY in printed
    for row in _rows(output / "findings.csv"):
        assert row["note"] == RESEARCH_ONLY
        content = json.loads((output / "findings" / f"{row['case']}.json").read_text())
        assert content["note"] == RESEARCH_ONLY
        assert content["finding"]["probability"] == float(row["probability"])
        assert content["made_by"]["system"] == "eff"
        assert len(content["made_by"]["weights"]["ntuh_classification"]) == 5
        dicom = row["file"].endswith(".dcm")
        kinds = {"overlay"} | ({"capture"} if dicom else set())
        if dicom and row["decision"] != NO_ANSWER:
            kinds |= {"segmentation"} | ({"presentation"} if row["decision"] == POSITIVE else set())
        assert set(content["files"]) == kinds
        assert all((output / name).is_file() for name in content["files"].values())
        for kind in kinds - {"overlay"}:
            written = pydicom.dcmread(output / content["files"][kind])
            assert "research use only" in str(written).lower()
    assert all(row["note"] == RESEARCH_ONLY for row in _rows(output / "unread.csv"))


def test_picture_of_a_film_gets_the_answer_of_the_film(predicted: tuple[Path, str]) -> None:
    rows = _rows(predicted[0] / "findings.csv")
    picture = next(row for row in rows if row["file"] == "as_picture.png")
    twins = [row for row in rows if abs(float(row["probability"]) - float(picture["probability"])) < 1e-6]
    assert len(twins) == 2  # the film and its picture
    assert twins[0]["rule"] == twins[1]["rule"]


def test_python_call_gives_the_same(
    chain: Scripts, predicted: tuple[Path, str], new_films: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTX_WORKSPACE", str(chain.workspace))
    predictor = FilmPredictor.open("eff")
    found = {row["file"]: row for row in _rows(predicted[0] / "findings.csv")}
    name = next(name for name in found if name.endswith(".dcm"))
    for film in (new_films / name, str(new_films / name), read_film(new_films / name).pixels):
        finding = predictor.predict(film)
        assert finding.probability == pytest.approx(float(found[name]["probability"]), abs=1e-6)
        assert finding.rule == found[name]["rule"]
    for wrong in (np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.float32), np.zeros((0, 8), np.uint8)):
        with pytest.raises(ValueError, match="uint8"):
            predictor.predict(wrong)
    with pytest.raises(FilmFault):
        predictor.predict(new_films / "notes.txt")


def test_negative_films_cost_stage_1_only(
    chain: Scripts, new_films: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTX_WORKSPACE", str(chain.workspace))
    predictor = FilmPredictor.open("eff")
    never = replace(predictor.deployed.point, cls_threshold=1.0)
    monkeypatch.setattr(predictor, "deployed", replace(predictor.deployed, point=never))
    some = [NewFilm.of(read_film(path)) for path in sorted(new_films.glob("*.dcm"))[:2]]
    assert [finding.rule for finding in predictor.findings(some)] == [NEGATIVE_PROBABILITY] * 2
    assert "_segmenters" not in vars(predictor)


def test_nothing_of_the_patient_is_written_outside_the_archive_objects(
    chain: Scripts, new_films: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    done = chain.run(PREDICTION, "bash", "predict.sh", str(new_films), str(output), "cpu", expect=3)
    written = [path for path in output.rglob("*") if path.is_file() and path.suffix != ".dcm"]
    printed = (done.stdout + done.stderr).replace(str(new_films), "").encode()
    names = [path.relative_to(output).as_posix().encode() for path in output.rglob("*")]
    secrets = [
        *SECRETS.values(),
        SECRET_FOLDER,
        *(path.stem for path in new_films.glob("*.dcm") if path.stem != "cut"),
    ]
    for content in [printed, *names, *(path.read_bytes() for path in written)]:
        for secret in secrets:
            assert secret.encode() not in content
    assert all(row["file"] == "" for row in _rows(output / "findings.csv"))


def test_interrupted_run_goes_on_and_other_films_or_systems_are_refused(
    predict: Callable[..., int],
    new_films: Path,
    predicted: tuple[Path, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "out"
    shutil.copytree(predicted[0], output)
    rows = _rows(output / "findings.csv")
    before = {path.name: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    stamps = {path: path.stat().st_mtime_ns for path in (output / "findings").iterdir()}
    lost, changed = rows[0]["case"], rows[2]["case"]
    (output / "findings" / f"{lost}.json").unlink()
    (output / "overlays" / f"{changed}.png").unlink()
    time.sleep(0.01)
    assert predict(new_films, output, "--keep-identifiers") == 3
    assert {path.name: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before
    again = {path for path, stamp in stamps.items() if path.stat().st_mtime_ns != stamp}
    assert {path.stem for path in again} == {lost, changed}
    with pytest.raises(Refusal, match="made otherwise") as other:
        predict(new_films, output, "--system", "vit")
    assert "--fresh" in str(other.value)
    one = next(iter(new_films.glob("*.dcm")))
    with pytest.raises(Refusal, match="not in the input"):
        predict(one, output)
    assert predict(one, output, "--fresh") == 0
    assert len(list((output / "findings").iterdir())) == 1


def test_film_that_changed_is_predicted_again(
    predict: Callable[..., int], new_films: Path, tmp_path: Path
) -> None:
    source, output = tmp_path / "film.dcm", tmp_path / "out"
    first, second = sorted(new_films.glob("P*.dcm"))[:2]
    found = []
    for film in (first, second):
        shutil.copyfile(film, source)
        assert predict(source, output) == 0
        found.append(_rows(output / "findings.csv")[0])
    assert found[0]["case"] == found[1]["case"]
    assert found[0]["probability"] != found[1]["probability"]


def test_film_with_text_burned_in_has_its_picture_in_the_archive_only(
    predict: Callable[..., int], new_films: Path, tmp_path: Path
) -> None:
    source, output = tmp_path / "film.dcm", tmp_path / "out"
    film = pydicom.dcmread(sorted(new_films.glob("*.dcm"))[0])
    for burned_in, pictures in (("NO", 1), ("YES", 0)):
        film.BurnedInAnnotation = burned_in
        film.save_as(source)
        assert predict(source, output) == 0
        assert len(list((output / "overlays").iterdir())) == pictures
        assert len(list((output / "dicom").glob("*_overlay.dcm"))) == 1
    assert "burned" in _rows(output / "findings.csv")[0]["warnings"]


def test_nothing_to_do_is_refused(predict: Callable[..., int], new_films: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with pytest.raises(Refusal, match="neither a file nor a folder"):
        predict(tmp_path / "no", output)
    with pytest.raises(Refusal, match="none of the films can be read"):
        predict(new_films / "notes.txt", output)
    with pytest.raises(Refusal, match="in each other's folder"):
        predict(new_films, new_films / "out")
    with pytest.raises(Refusal, match="needs the NTUH") as missing:
        predict(new_films, output, workspace=tmp_path / "empty")
    assert "made by" in str(missing.value)
