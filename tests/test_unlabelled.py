"""Films without labels: listed with or without a table, prepared as others, and strangers to all others."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pydicom
import pytest
from conftest import SECRETS, made_once

from common.command_line import PrepareOptions, Rules
from common.films.decode import read_film
from common.paths import leaks_file, prepared_folder
from common.preparation import leaks
from common.preparation.film_store import PreparedSet
from common.preparation.run import open_prepared, prepare_sources
from common.pseudonyms import pseudonym
from common.refusal import Refusal

NAME = "unlabelled"


@pytest.fixture(scope="module")
def prepared_others(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the prepared films of SIIM-ACR and the hospital. Do not change it: copy it."""

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PTX_WORKSPACE", str(folder))
            prepare_sources(PrepareOptions(siim=str(sources / "siim"), ntuh=str(sources / "ntuh")))

    return made_once(tmp_path_factory, "prepared_others", make)


@pytest.fixture
def workspace(prepared_others: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(prepared_others, tmp_path / "workspace")
    monkeypatch.setenv("PTX_WORKSPACE", str(tmp_path / "workspace"))
    return tmp_path / "workspace"


@pytest.fixture
def folder(strangers: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(strangers, tmp_path / "unlabelled"))


def _open(folder: Path) -> PreparedSet:
    return open_prepared(NAME, str(folder), "test")


def _left_out() -> list[dict[str, str]]:
    with open(prepared_folder(NAME) / "rejected.csv", newline="") as file:
        return list(csv.DictReader(file))


def _film(sources: Path, name: str) -> pydicom.Dataset:
    """The first film of a set of the hospital, as it is in the export."""
    exams = sorted((sources / "ntuh" / "images").glob("*.dcm"))
    cases = set(PreparedSet(prepared_folder(name)).cases["case"])
    return pydicom.dcmread(next(path for path in exams if pseudonym("case", path.stem) in cases))


def _give_patient(path: Path, patient: str, study: str = "") -> None:
    film = pydicom.dcmread(path)
    film.PatientID = patient
    if study:
        film.StudyInstanceUID = study
    film.save_as(path)


def _copy_as_picture(film: pydicom.Dataset, path: Path, tmp_path: Path) -> None:
    """The same picture, smaller and as JPEG, with no identifier at all."""
    film.save_as(tmp_path / "one.dcm")
    pixels = read_film(tmp_path / "one.dcm").pixels
    cv2.imwrite(str(path), cv2.resize(pixels, (700, 700), interpolation=cv2.INTER_AREA))


# --- strangers -------------------------------------------------------------------------------------


def test_strangers_are_prepared_without_labels(workspace: Path, folder: Path, sources: Path) -> None:
    prepared = _open(folder)
    assert len(prepared.cases) == 10
    assert not prepared.has_mask.any()
    assert prepared.cases["report"].isna().all()
    assert prepared.cases["patient"].nunique() == 5
    assert (prepared.film(0) == _prepared_alone(folder)).all()
    others = ("siim", "ntuh_train", "ntuh_test")
    assert prepared.manifest["compared_with"] == {
        name: PreparedSet(prepared_folder(name)).content for name in others
    }
    assert json.loads((prepared.folder / "flow.json").read_text())["unlabelled"] == 10
    assert _open(folder).content == prepared.content  # nothing is done a second time
    written = "".join(path.read_text(errors="ignore") for path in prepared.folder.iterdir())
    assert not [value for value in (*SECRETS.values(), "STRANGER", "00.dcm") if value in written]


def _prepared_alone(folder: Path) -> np.ndarray:
    from common.films.resample import resample

    return resample(read_film(min(folder.glob("*.dcm"))).pixels, 1024)


def test_bad_film_costs_nothing_else(
    workspace: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = _open(folder)
    content, cases = whole.content, set(whole.cases["case"])
    (folder / "notes.txt").write_text("not a film")  # the last of 11, by path
    with pytest.raises(Refusal, match=r"1 new \(file 11, by path\)"):
        _open(folder)
    capsys.readouterr()
    prepare_sources(PrepareOptions(unlabelled=str(folder), fresh=True))
    (row,) = _left_out()
    assert (row["origin"], row["kind"]) == ("file 11, by path", "rejected")
    assert "no DICOM, PNG, JPEG or TIFF" in row["reason"]
    assert "1 rejected: " in capsys.readouterr().out
    assert _open(folder).content == content
    assert set(_open(folder).cases["case"]) == cases


def test_table_tells_patients_and_its_labels_are_not_read(workspace: Path, folder: Path) -> None:
    for path in folder.glob("*.dcm"):
        cv2.imwrite(str(path.with_suffix(".png")), read_film(path).pixels)
        path.unlink()
    files = sorted(path.name for path in folder.iterdir())
    table = pd.DataFrame({"image": files, "patient": [f"P{i // 5}" for i in range(10)]})
    table.to_csv(folder / "cases.csv", index=False)
    bare = _open(folder)
    assert bare.cases["patient"].nunique() == 2
    assert bare.cases["patient_known"].all()
    labelled = table.assign(pneumothorax=1, mask=files[::-1], set="train")
    labelled.to_csv(folder / "cases.csv", index=False)
    assert _open(folder).content == bare.content
    assert not _open(folder).has_mask.any()
    table.drop(columns="image").to_csv(folder / "cases.csv", index=False)
    with pytest.raises(Refusal, match=r"(?s)lacks a column.*missing: image\n"):
        _open(folder)


# --- films of others -------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", ["SYN{:08}", "syn {}"])
def test_test_patient_is_refused_however_spelt(
    workspace: Path, folder: Path, sources: Path, spelling: str
) -> None:
    patient = str(_film(sources, "ntuh_test").PatientID)
    _give_patient(folder / "03.dcm", spelling.format(int(patient.removeprefix("SYN"))))
    with pytest.raises(Refusal, match="1 of the unlabelled films are of the test set's") as refused:
        _open(folder)
    assert "a test film has the same patient (file 4, by path)" in str(refused.value)
    assert patient.casefold() not in str(refused.value).casefold()
    assert "same patient" in leaks_file().read_text()
    assert [row["origin"] for row in _left_out()] == ["file 4, by path"]
    (folder / "03.dcm").unlink()
    assert len(_open(folder).cases) == 9


def test_copy_of_a_test_film_names_its_relatives(
    workspace: Path, folder: Path, sources: Path, tmp_path: Path
) -> None:
    """A picture without identifiers; the table says whose it is, and so whose the others are."""
    _copy_as_picture(_film(sources, "ntuh_test"), folder / "10.jpg", tmp_path)
    files = sorted(path.name for path in folder.iterdir())
    patients = ["A", "B", *"CDEFGHI", "A", "A"]
    pd.DataFrame({"image": files, "patient": patients}).to_csv(folder / "cases.csv", index=False)
    with pytest.raises(Refusal, match="3 of the unlabelled films"):
        _open(folder)
    found = {row["origin"]: row["reason"] for row in _left_out()}
    assert found["cases.csv, row 12"] == "a test film has the same picture"
    assert set(found) == {"cases.csv, row 2", "cases.csv, row 11", "cases.csv, row 12"}
    assert "unlabelled copy of a test film" in found["cases.csv, row 2"]


def test_films_that_teachers_know_are_left_out_and_counted(
    workspace: Path, folder: Path, sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = [_open(folder).cases["case"][place] for place in (4, 5, 6, 7, 8, 9)]
    training = _film(sources, "ntuh_train")
    _copy_as_picture(training, folder / "00.dcm.png", tmp_path)
    _give_patient(folder / "02.dcm", str(training.PatientID), study="1.2.3")
    _give_patient(folder / "03.dcm", "NOBODY-ELSE", study="1.2.3")  # the study of the film before
    siim = min((sources / "siim").rglob("*.dcm"))
    shutil.copyfile(siim, folder / "11.dcm")
    for name in ("00.dcm", "01.dcm"):
        (folder / name).unlink()
    capsys.readouterr()
    prepare_sources(PrepareOptions(unlabelled=str(folder), fresh=True))
    reasons = Counter(row["reason"] for row in _left_out())
    assert reasons == {
        "a training film has the same picture": 1,
        "a training film has the same patient": 1,
        "it is of the same patient or study as an unlabelled copy of a film that teachers know": 1,
        "a SIIM-ACR film has the same patient, same study, same picture": 1,
    }
    assert {row["kind"] for row in _left_out()} == {"excluded"}
    assert "1 excluded: a training film has the same picture" in capsys.readouterr().out
    assert sorted(_open(folder).cases["case"]) == sorted(kept)
    others = {name: PreparedSet(prepared_folder(name)) for name in ("ntuh_train", "ntuh_test", "siim")}
    own = set(_open(folder).cases["patient"])
    assert not any(own & set(each.cases["patient"]) for each in others.values())


def test_all_are_found_where_a_search_does_not_list_them_all(
    workspace: Path, folder: Path, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaks, "MOST_PAIRS", 1)
    for number in range(4):
        _give_patient(folder / f"{number:02}.dcm", str(_film(sources, "ntuh_train").PatientID))
    prepared = _open(folder)
    assert len(prepared.cases) == 6
    assert len(_left_out()) == 4


def test_nothing_is_left(workspace: Path, folder: Path, sources: Path) -> None:
    for path in folder.iterdir():
        _give_patient(path, str(_film(sources, "ntuh_train").PatientID))
    with pytest.raises(Refusal, match=r"(?s)no film of unlabelled.*10 excluded: a training film"):
        _open(folder)


# --- beside other films ----------------------------------------------------------------------------


def test_hospital_films_come_first_and_say_by_which_rules(
    tmp_path: Path, folder: Path, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTX_WORKSPACE", str(tmp_path / "new"))
    with pytest.raises(Refusal, match=r"(?s)needs the prepared NTUH films.*prepare\.sh --ntuh PATH"):
        _open(folder)
    rules = Rules(replace_saturated=True, minimum_age=30)
    prepare_sources(PrepareOptions(ntuh=str(sources / "ntuh"), rules=rules))
    assert Rules(**_open(folder).manifest["rules"] | {"views": ()}) == rules
    prepare_sources(PrepareOptions(unlabelled=str(folder), rules=rules))  # the same, said again
    with pytest.raises(Refusal, match=r"(?s)ntuh_train was prepared by other rules.*minimum_age was 30"):
        prepare_sources(PrepareOptions(unlabelled=str(folder), rules=replace(rules, minimum_age=40)))


def test_other_test_films_ask_for_another_comparison(
    workspace: Path, folder: Path, sources: Path, tmp_path: Path
) -> None:
    before = _open(folder).content
    export = Path(shutil.copytree(sources / "ntuh", tmp_path / "export"))
    shutil.copyfile(folder / "06.dcm", tmp_path / "film.dcm")
    _give_patient(tmp_path / "film.dcm", "STRANGER-4")  # now a test patient, who has two unlabelled films
    target = next(export.glob(f"images/{_exam_of(_film(sources, 'ntuh_test'), export)}.dcm"))
    shutil.copyfile(tmp_path / "film.dcm", target)
    (export / "labels").joinpath(target.stem, "label.json").unlink(missing_ok=True)
    rules = Rules(max_fault_share=0.9)
    prepare_sources(
        PrepareOptions(ntuh=str(export), rules=rules, fresh=True)
    )  # unlabelled films hinder nobody
    for attempt in (lambda: _open(folder), lambda: prepare_sources(PrepareOptions(unlabelled=str(folder)))):
        with pytest.raises(Refusal, match="compared with other films of the hospital"):
            attempt()
    with pytest.raises(Refusal, match="4 of the unlabelled films are of the test set's"):
        prepare_sources(PrepareOptions(unlabelled=str(folder), fresh=True))
    assert before


def _exam_of(film: pydicom.Dataset, export: Path) -> str:
    uid = film.SOPInstanceUID
    images = (export / "images").glob("*.dcm")
    return next(p.stem for p in images if pydicom.dcmread(p, stop_before_pixels=True).SOPInstanceUID == uid)
