"""What is read from a DICOM header, and what is not believed."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
from dicom_film import SHOWN, write_film
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from common.films.decode import read_film


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        ("045Y", 45), ("45", 45), ("006M", 0.5), ("073D", 0.2), ("000D", 0), ("", None), ("old", None),
        ("130Y", 130), ("131Y", None), ("413Y", None), ("999Y", None), ("999M", 83.25),
    ],
)  # fmt: skip
def test_age(tmp_path: Path, age: str, expected: float | None) -> None:
    with pydicom.config.disable_value_validation():
        film = read_film(write_film(tmp_path / "a.dcm", PatientAge=age))
    assert film.age == (expected if expected is None else pytest.approx(expected, abs=0.01))
    assert len(film.notes) == (age in ("131Y", "413Y", "999Y"))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"PatientAge": "413Y"}, 55),
        ({"PatientAge": "000Y"}, 55),
        ({"PatientAge": "054Y"}, 54),
        ({"PatientAge": "000Y", "PatientBirthDate": "20180102"}, 0),
        ({"PatientAge": "999Y", "PatientBirthDate": "18000101"}, None),
        ({"PatientBirthDate": "19000101"}, None),  # a placeholder
        ({"PatientBirthDate": "1962.06.01", "StudyDate": "", "ContentDate": "20180601"}, 56),
        ({"PatientBirthDate": "20190101"}, None),
        ({"PatientBirthDate": "19621301"}, None),  # no such day
    ],
)
def test_the_birth_date_decides_where_the_age_is_impossible(
    tmp_path: Path, header: dict[str, object], expected: float | None
) -> None:
    header = {"PatientBirthDate": "19620601", "StudyDate": "20180102"} | header
    with pydicom.config.disable_value_validation():
        assert read_film(write_film(tmp_path / "a.dcm", **header)).age == expected


@pytest.mark.parametrize(
    ("photometric", "shape", "noted"),
    [
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME1", "IDENTITY", True),
        ("MONOCHROME1", "INVERSE", False),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME2", None, False),
    ],
)
def test_contradicting_words_on_polarity_are_noted(
    tmp_path: Path, photometric: str, shape: str | None, noted: bool
) -> None:
    header = {"PhotometricInterpretation": photometric} | ({"PresentationLUTShape": shape} if shape else {})
    film = read_film(write_film(tmp_path / "a.dcm", **header))
    assert (film.pixels == (255 - SHOWN if photometric == "MONOCHROME1" else SHOWN)).all()
    assert [f"{photometric} with a PresentationLUTShape of {shape}" in note for note in film.notes] == [
        True
    ] * noted


def test_facts(tmp_path: Path) -> None:
    path = write_film(
        tmp_path / "a.dcm",
        PatientID=" P1 ",
        PatientSex="F",
        ViewPosition="AP",
        PixelSpacing=[20, 30],
        PatientBirthDate="19600630",
        StudyDate="20200629",
    )
    film = read_film(path)
    assert (film.patient_id, film.sex, film.view, film.spacing, film.age) == ("P1", "F", "AP", (20, 30), 59)
    assert film.notes == ()


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"PixelSpacing": [20, 30], "ImagerPixelSpacing": [25, 25]}, (20, 30)),
        ({"ImagerPixelSpacing": [20, 30]}, (20, 30)),
        ({"ImagerPixelSpacing": [20, 30], "EstimatedRadiographicMagnificationFactor": 2}, (10, 15)),
        ({"ImagerPixelSpacing": [20, 30], "EstimatedRadiographicMagnificationFactor": 0}, (20, 30)),
        ({"PixelSpacing": [20, 30], "EstimatedRadiographicMagnificationFactor": 2}, (20, 30)),
        ({"PixelSpacing": [0, 0], "ImagerPixelSpacing": [10, 10]}, (10, 10)),
        ({"PixelSpacing": [37.5, 3.2]}, (37.5, 3.2)),  # 60 x 5.1 cm
        ({"PixelSpacing": [38, 20]}, None),  # a film of 61 cm
        ({"PixelSpacing": [8.6, 8.6]}, None),  # of 13.8 cm
        ({"PixelSpacing": [20, 3]}, None),  # 4.8 cm wide
        ({"PixelSpacing": ["nan", "nan"]}, None),
        ({"PixelSpacing": [1e9, 1e9]}, None),
        ({"PixelSpacing": [-1, 1]}, None),
        ({"PixelSpacing": 20}, None),
    ],
)
def test_spacing(tmp_path: Path, header: dict[str, object], expected: tuple[float, float] | None) -> None:
    """Films of 16 x 16 pixels: a spacing of 20 mm is a film of 32 cm."""
    with pydicom.config.disable_value_validation():
        found = read_film(write_film(tmp_path / "a.dcm", **header)).spacing
    assert found == (expected if expected is None else pytest.approx(expected))


def test_an_impossible_spacing_is_noted(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.dcm", PixelSpacing=[1, 2], ImagerPixelSpacing=[20, 20])
    film = read_film(path)
    assert film.spacing == (20, 20)
    assert film.notes == ("an impossible PixelSpacing is not used, found a film of 3.2 x 1.6 cm",)


def _code(value: str, scheme: str = "SCT", meaning: str = "SECRET") -> Sequence:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return Sequence([item])


def _posture(code: str, modifier: str = "") -> Sequence:
    posture = _code(code)
    if modifier:
        posture[0].PatientOrientationModifierCodeSequence = _code(modifier)
    return posture


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({}, {"study": "", "position": None, "manufacturer": None, "date": None, "burned_in": False}),
        ({"StudyInstanceUID": "1.2.3"}, {"study": "1.2.3"}),
        ({"PatientPosition": "HFS"}, {"position": "HFS"}),
        ({"PatientPosition": "SUPINE"}, {"position": "SUPINE"}),
        ({"PatientPosition": "SECRET"}, {"position": None}),
        ({"PatientOrientation": "erect"}, {"position": "ERECT"}),
        ({"PatientOrientation": ["L", "F"]}, {"position": None}),
        ({"PatientOrientationCodeSequence": _posture("102538003", "40199007")}, {"position": "SUPINE"}),
        ({"PatientOrientationCodeSequence": _posture("F-10440")}, {"position": "ERECT"}),
        ({"PatientOrientationCodeSequence": _posture("SECRET")}, {"position": None}),
        ({"Manufacturer": " Fuji  Photo Film Co.,Ltd. "}, {"manufacturer": "Fuji Photo Film Co.,Ltd."}),
        ({"Manufacturer": "A" * 33}, {"manufacturer": None}),
        ({"Manufacturer": "SECRET^NAME"}, {"manufacturer": None}),
        ({"StudyDate": "20200229", "ContentDate": "20210101"}, {"date": "2020-02-29"}),
        ({"StudyDate": "20200230", "AcquisitionDate": "20210101"}, {"date": "2021-01-01"}),
        ({"ContentDate": "2004.08.26"}, {"date": "2004-08-26"}),
        ({"StudyDate": "SECRET"}, {"date": None}),
        ({"BurnedInAnnotation": "YES"}, {"burned_in": True}),
        ({"BurnedInAnnotation": "NO"}, {"burned_in": False}),
        ({"ViewPosition": "secret name"}, {"view": None}),
        ({"PatientSex": "O"}, {"sex": None}),
        ({"ViewPosition": "LATERAL"}, {"view": "LAT"}),
        ({"ViewPosition": "LL", "ViewCodeSequence": _code("399348003")}, {"view": "LL"}),
        ({"ViewPosition": "", "ViewCodeSequence": _code("399348003")}, {"view": "AP"}),
        ({"ViewCodeSequence": _code("R-10236")}, {"view": "LL"}),
        ({"ViewCodeSequence": _code("SECRET"), "SeriesDescription": "view: PA"}, {"view": "PA"}),
        ({"ProtocolName": "CHEST LATERAL", "SeriesDescription": "Quincy"}, {"view": "LAT"}),
        ({"ProtocolName": "Chest PA/LAT"}, {"view": None}),
        ({"ProtocolName": "APPLE PAUL"}, {"view": None}),
        ({"ViewPosition": "AP portable"}, {"view": "AP"}),
        ({"ViewPosition": "A-P"}, {"view": "AP"}),
        ({"SeriesDescription": "chest P-A"}, {"view": "PA"}),
        ({"ViewPosition": "PORT", "SeriesDescription": "Thorax a.p."}, {"view": "AP"}),
        ({"ViewPosition": "XYZ"}, {"view": "XYZ"}),
        ({"ViewPosition": "Left lateral"}, {"view": "LL"}),
        ({"ViewCodeSequence": _code("X1", meaning="antero-posterior")}, {"view": "AP"}),
        ({"ViewCodeSequence": _code("X1", meaning="Postero-anterior")}, {"view": "PA"}),
        ({"SeriesDescription": "CHEST_AP_PORTABLE"}, {"view": "AP"}),
        ({"SeriesDescription": "AP left lateral decubitus"}, {"view": "LLD"}),
        ({"SeriesDescription": "Right anterior oblique"}, {"view": "RAO"}),
        ({"StudyDescription": "XR chest anteroposterior"}, {"view": "AP"}),
        ({"SeriesDescription": "LAT", "StudyDescription": "Chest PA"}, {"view": "LAT"}),
        ({"StudyDescription": "Chest PA and lateral"}, {"view": None}),
        ({"SeriesDescription": "chest portable"}, {"view": None}),
        ({}, {"modality": None, "body_part": None, "orientation": None, "for_processing": False}),
        ({"Modality": "DX"}, {"modality": "DX"}),
        ({"Modality": "OT"}, {"modality": None}),
        ({"Modality": "LI"}, {"modality": None}),
        ({"BodyPartExamined": "CHEST"}, {"body_part": "CHEST"}),
        ({"BodyPartExamined": "PORT_CHEST AP"}, {"body_part": "CHEST"}),
        ({"BodyPartExamined": "Thorax"}, {"body_part": "CHEST"}),
        ({"BodyPartExamined": "LEFT HAND"}, {"body_part": "HAND"}),
        ({"BodyPartExamined": "CHEST/ABDOMEN"}, {"body_part": "ABDOMEN"}),
        ({"BodyPartExamined": "CHESTABDOMEN"}, {"body_part": "CHESTABDOMEN"}),
        ({"BodyPartExamined": "QUINCY"}, {"body_part": None}),
        ({"BodyPartExamined": "HANDEL"}, {"body_part": None}),
        ({"BodyPartExamined": "HIP", "AnatomicRegionSequence": _code("816094009")}, {"body_part": "HIP"}),
        ({"AnatomicRegionSequence": _code("816094009"), "StudyDescription": "HAND"}, {"body_part": "CHEST"}),
        ({"AnatomicRegionSequence": _code("T-D3000", "SRT")}, {"body_part": "CHEST"}),
        ({"AnatomicRegionSequence": _code("85562004")}, {"body_part": "OTHER"}),
        ({"AnatomicRegionSequence": _code("X1", "99SECRET")}, {"body_part": None}),
        ({"StudyDescription": "HIP JOINT"}, {"body_part": "HIP"}),
        ({"StudyDescription": "arm pain; chest x-ray"}, {"body_part": "CHEST"}),
        ({"SeriesDescription": "ADELHEID QUINCY"}, {"body_part": None}),
        ({"PatientOrientation": ["L", "F"]}, {"orientation": ("L", "F")}),
        ({"PatientOrientation": ["r", "FA"]}, {"orientation": ("R", "FA")}),
        ({"PatientOrientation": ["L", "R"]}, {"orientation": None}),
        ({"PatientOrientation": ["L"]}, {"orientation": None}),
        ({"PatientOrientation": ["QUINCY", "F"]}, {"orientation": None}),
        ({"PatientOrientation": "SUPINE"}, {"orientation": None, "position": "SUPINE"}),
        ({"PresentationIntentType": "FOR PROCESSING"}, {"for_processing": True}),
        ({"PresentationIntentType": "FOR PRESENTATION"}, {"for_processing": False}),
    ],
)
def test_further_facts(tmp_path: Path, header: dict[str, object], expected: dict[str, object]) -> None:
    with pydicom.config.disable_value_validation():
        film = read_film(write_film(tmp_path / "a.dcm", **header))
    assert {name: getattr(film, name) for name in expected} == expected
