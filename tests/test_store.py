"""Sources -> prepared sets: labels, rules, faults, splits, leakage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest

from common import artefacts
from common.artefacts import pseudonym
from common.data import ntuh, siim
from common.data.store import open_prepared, resample, resample_mask
from common.refusal import Refusal


@pytest.fixture
def export(sources: Path, tmp_path: Path) -> Path:
    """A copy of the hospital's export that a test may damage."""
    return Path(shutil.copytree(sources / "ntuh", tmp_path / "export"))


def _exams(export: Path, file: str = "NTUH_1519.csv") -> pd.DataFrame:
    return pd.read_csv(export / file, dtype=str, keep_default_na=False, encoding="utf-8-sig")


def _rewrite(export: Path, table: pd.DataFrame, file: str = "NTUH_1519.csv") -> None:
    table.to_csv(export / file, index=False, encoding="utf-8-sig", lineterminator="\r\n")


def test_siim_set(workspace: Path, sources: Path) -> None:
    prepared = open_prepared("siim", str(sources / "siim"), "test")
    listed = {film.identifier: film for film in siim.source_films(sources / "siim")}
    assert len(prepared.cases) == len(listed) == 24
    assert prepared.has_mask.sum() == 12
    by_name = {pseudonym("case", identifier): film for identifier, film in listed.items()}
    for row, case in enumerate(prepared.cases["case"]):
        film = by_name[case]
        pixels = pydicom.dcmread(film.path).pixel_array
        assert (prepared.film(row) == pixels).mean() > 0.99 or np.ptp(pixels) < 255  # min-max may stretch
        mask = film.annotation.mask(1024, 1024) if film.annotation else np.zeros((1024, 1024), bool)
        assert (prepared.mask(row) == mask).all()
        assert prepared.cases["mask_area_fraction"][row] == pytest.approx(mask.mean())
    assert 0 < (prepared.part == 1).sum() < 24


def test_flow_accounts_for_every_film(workspace: Path, sources: Path) -> None:
    open_prepared("ntuh_train", str(sources / "ntuh"), "test")
    for name, file in (("ntuh_train", "NTUH_1519.csv"), ("ntuh_test", "NTUH_20.csv")):
        flow = json.loads((artefacts.prepared_folder(name) / "flow.json").read_text())
        assert flow["found"] == len(_exams(sources / "ntuh", file))
        assert flow["found"] == flow["prepared"] + sum(flow["excluded"].values()) + sum(
            flow["rejected"].values()
        )
        assert {"chest tube", "age under 20"} <= set(flow["excluded"])
    train = json.loads((artefacts.prepared_folder("ntuh_train") / "flow.json").read_text())
    assert train["excluded"]["Training flag is not 1"] >= 1
    assert train["excluded"][ntuh.UNMASKED] >= 1  # left out of training ...
    assert train["report_without_mask"] == 0
    test = json.loads((artefacts.prepared_folder("ntuh_test") / "flow.json").read_text())
    assert test["report_without_mask"] >= 2  # ... and kept, by report, in testing


def test_faults_are_listed_and_the_rest_goes_on(workspace: Path, export: Path) -> None:
    table = _exams(export)
    kept = table[(table["Training"] == "1") & (table["胸管"] == "") & (table["氣胸"] == "0")][
        "PERSONID2"
    ].tolist()
    damaged, missing, twice, mistyped = kept[:4]
    (export / "images" / f"{damaged}.dcm").write_bytes(b"damaged")
    (export / "images" / f"{missing}.dcm").unlink()
    table.loc[table["PERSONID2"] == mistyped, "氣胸"] = "yes"
    outside = table.iloc[[0]].assign(PERSONID2="../../etc/passwd")
    table = pd.concat([table, table[table["PERSONID2"] == twice], outside])
    _rewrite(export, table)
    prepared = open_prepared("ntuh_train", str(export), "test")
    rejected = pd.read_csv(prepared.folder / "rejected.csv")
    assert len(rejected) == 5
    reasons = " | ".join(rejected["reason"])
    for said in (
        "cannot be decoded",
        "no image file",
        "second time",
        "neither 0 nor 1",
        "no plain identifier",
    ):
        assert said in reasons
    assert (rejected["origin"].str.match(r"NTUH_1519\.csv, record \d+$")).all()
    assert not any(exam in (prepared.folder / "rejected.csv").read_text() for exam in kept)


def test_folds_and_order_do_not_depend_on_the_key(
    tmp_path: Path, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for name in ("one", "two"):
        monkeypatch.setenv("PTX_WORKSPACE", str(tmp_path / name))
        prepared = open_prepared("ntuh_train", str(sources / "ntuh"), "test")
        found.append((prepared.content, prepared.split, prepared.part.tolist(), set(prepared.cases["case"])))
    assert found[0][:3] == found[1][:3]
    assert not found[0][3] & found[1][3]


def test_patient_in_training_and_test_is_refused(workspace: Path, export: Path) -> None:
    train, test = _exams(export), _exams(export, "NTUH_20.csv")
    source = train[(train["Training"] == "1") & (train["胸管"] == "") & (train["氣胸"] == "0")][
        "PERSONID2"
    ].iloc[0]
    target = test[(test["胸管"] == "") & (test["氣胸"] == "0")]["PERSONID2"].iloc[0]
    patient = pydicom.dcmread(export / "images" / f"{source}.dcm").PatientID
    film = pydicom.dcmread(export / "images" / f"{target}.dcm")
    film.PatientID, film.PatientAge = patient, "050Y"
    film.save_as(export / "images" / f"{target}.dcm")
    with pytest.raises(Refusal, match="same patient") as refusal:
        open_prepared("ntuh_test", str(export), "test")
    assert patient not in str(refusal.value)
    assert not artefacts.prepared_folder("ntuh_test").exists()


def test_same_picture_in_training_and_test_is_refused(workspace: Path, export: Path) -> None:
    train, test = _exams(export), _exams(export, "NTUH_20.csv")
    source = train[(train["Training"] == "1") & (train["胸管"] == "") & (train["氣胸"] == "0")][
        "PERSONID2"
    ].iloc[0]
    target = test[(test["胸管"] == "") & (test["氣胸"] == "0")]["PERSONID2"].iloc[0]
    film = pydicom.dcmread(export / "images" / f"{source}.dcm")
    film.PatientID, film.PatientAge = "someone else", "050Y"
    film.save_as(export / "images" / f"{target}.dcm")
    with pytest.raises(Refusal, match="same picture"):
        open_prepared("ntuh_test", str(export), "test")


def test_other_source_than_prepared_is_refused(workspace: Path, export: Path) -> None:
    open_prepared("ntuh_train", str(export), "test")
    open_prepared("ntuh_train", str(export), "test")  # the same again is fine
    table = _exams(export)
    _rewrite(export, table.iloc[1:])
    with pytest.raises(Refusal, match="prepared from other films"):
        open_prepared("ntuh_train", str(export), "test")


def test_prepared_set_serves_without_its_source(workspace: Path, sources: Path) -> None:
    open_prepared("siim", str(sources / "siim"), "test")
    assert len(open_prepared("siim", None, "test").cases) == 24
    with pytest.raises(Refusal, match="needs the SIIM-ACR films"):
        open_prepared("siim", str(workspace / "nowhere"), "test")


@pytest.mark.parametrize(("file", "said"), [("NTUH_20.csv", "not laid out"), ("images", "not laid out")])
def test_incomplete_export_is_refused(workspace: Path, export: Path, file: str, said: str) -> None:
    (export / file).rename(export / "elsewhere")
    with pytest.raises(Refusal, match=said):
        open_prepared("ntuh_train", str(export), "test")


def test_other_columns_are_refused(workspace: Path, export: Path) -> None:
    _rewrite(export, _exams(export).rename(columns={"氣胸": "PTX"}))
    with pytest.raises(Refusal, match="other columns"):
        open_prepared("ntuh_train", str(export), "test")


def test_png_films_are_grouped_by_exam(workspace: Path, export: Path) -> None:
    import cv2

    from common.data.dicom import read_film

    for path in sorted((export / "images").glob("*.dcm")):
        cv2.imwrite(str(path.with_suffix(".png")), read_film(path).pixels)
        path.unlink()
    prepared = open_prepared("ntuh_train", str(export), "test")
    assert (prepared.cases["patient_known"] == 0).all()
    assert prepared.cases["patient"].is_unique


def test_resample_by_area() -> None:
    film = np.zeros((8, 4), np.uint8)
    film[:4, :2] = 100
    assert (resample(film, 2) == [[100, 0], [0, 0]]).all()
    mask = np.zeros((4, 4), bool)
    mask[0, :2] = mask[1, 0] = True  # three of four pixels
    mask[2, 2] = mask[3, 3] = True  # half: not more than half
    assert (resample_mask(mask, 2) == [[True, False], [False, False]]).all()


@pytest.mark.parametrize(("name", "folder"), [("siim", "siim"), ("ntuh_test", "hospital")])
def test_prepared_masks_of_real_films_lie_where_the_truth_says(
    real: Path, workspace: Path, name: str, folder: str
) -> None:
    prepared = open_prepared(name, str(real / "semisynthetic" / folder), "test")
    truth = pd.read_csv(real / "semisynthetic" / "truth.csv").set_index("case_id")
    names = {pseudonym("case", identifier): identifier for identifier in truth.index}
    rows = np.flatnonzero(prepared.has_mask)
    assert len(rows) == {"siim": 64, "ntuh_test": 17}[name]
    for row in rows:
        known = truth.loc[names[prepared.cases["case"][row]]]
        # the patient's right is on the picture's left; a transposed mask would be on the wrong side
        centre = np.nonzero(prepared.mask(row))[1].mean() / 1024
        assert (centre < 0.5) == (known["side"] == "right")
        # rectangles cover the lesion, run lengths are it
        assert prepared.cases["mask_area_fraction"][row] >= 0.9 * known["mask_area_frac"]
