"""One file -> an 8-bit film: every step of the grey scale, checked by hand."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, generate_uid

from common.data.dicom import read_film
from common.data.faults import FilmFault

RAMP = np.arange(0, 4096, 16, dtype=np.uint16).reshape(16, 16)  # 12 bit, 0 to 4080


def _write(path: Path, pixels: np.ndarray = RAMP, **attributes: object) -> Path:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["t"])
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = int(pixels.dtype == np.int16)
    dataset.PixelData = pixels.tobytes()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_min_max_without_a_window(tmp_path: Path) -> None:
    film = read_film(_write(tmp_path / "a.dcm")).pixels
    assert film.dtype == np.uint8
    assert (film == np.rint(RAMP / 4080 * 255)).all()


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    plain = read_film(_write(tmp_path / "a.dcm")).pixels
    inverted = read_film(_write(tmp_path / "b.dcm", PhotometricInterpretation="MONOCHROME1")).pixels
    assert (inverted == 255 - plain).all()


def test_rescale_comes_before_the_window(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "a.dcm", RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=1000.5, WindowWidth=2001
    )
    values = RAMP.astype(float) * 2 - 1000
    expected = np.rint(np.clip((values - 1000) / 2000 + 0.5, 0, 1) * 255)  # PS3.3 C.11.2.1.2.1
    assert (read_film(path).pixels == expected).all()


def test_saturated_pixels_take_the_median_on_request(tmp_path: Path) -> None:
    pixels = RAMP.copy()
    pixels[0, :3] = 4095
    path = _write(tmp_path / "a.dcm", pixels)
    replaced = pixels.copy()
    replaced[0, :3] = np.median(pixels)
    expected = read_film(_write(tmp_path / "b.dcm", replaced)).pixels
    assert (read_film(path, replace_saturated=True).pixels == expected).all()
    assert (read_film(path).pixels != expected).any()
    inverted = _write(tmp_path / "c.dcm", 4095 - pixels, PhotometricInterpretation="MONOCHROME1")
    found = read_film(inverted, replace_saturated=True).pixels.astype(int)
    assert np.abs(found - expected).max() <= 1


def test_first_of_several_windows(tmp_path: Path) -> None:
    one = _write(tmp_path / "a.dcm", WindowCenter=1000, WindowWidth=500)
    two = _write(tmp_path / "b.dcm", WindowCenter=[1000, 3000], WindowWidth=[500, 100])
    assert (read_film(one).pixels == read_film(two).pixels).all()


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("LINEAR_EXACT", lambda x: (x - 2000) / 1000 + 0.5),
        ("SIGMOID", lambda x: 1 / (1 + np.exp(-4 * (x - 2000) / 1000))),
    ],
)
def test_other_window_functions(tmp_path: Path, function: str, expected: object) -> None:
    path = _write(tmp_path / "a.dcm", WindowCenter=2000, WindowWidth=1000, VOILUTFunction=function)
    wanted = np.clip(expected(RAMP.astype(float)), 0, 1) * 255
    assert np.abs(read_film(path).pixels - wanted).max() <= 0.51


def test_lookup_table(tmp_path: Path) -> None:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [4096, 0, 16])
    item.add_new("LUTData", "US", (np.arange(4096) ** 2 // 256).tolist())
    path = _write(tmp_path / "a.dcm", VOILUTSequence=Sequence([item]))
    expected = np.rint(RAMP.astype(np.int64) ** 2 // 256 / 65535 * 255)
    assert np.abs(read_film(path).pixels - expected).max() <= 1


def test_signed_pixels(tmp_path: Path) -> None:
    signed = RAMP.astype(np.int16) - 2048
    plain = read_film(_write(tmp_path / "a.dcm")).pixels
    assert (read_film(_write(tmp_path / "b.dcm", signed)).pixels == plain).all()


def test_compressed_equals_uncompressed(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.dcm")
    dataset = pydicom.dcmread(path)
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.save_as(tmp_path / "b.dcm")
    assert (read_film(path).pixels == read_film(tmp_path / "b.dcm").pixels).all()


@pytest.mark.parametrize(
    ("age", "expected"),
    [("045Y", 45), ("45", 45), ("006M", 0.5), ("073D", 0.2), ("", None), ("old", None)],
)
def test_age(tmp_path: Path, age: str, expected: float | None) -> None:
    with pydicom.config.disable_value_validation():
        path = _write(tmp_path / "a.dcm", PatientAge=age)
    assert read_film(path).age == (expected if expected is None else pytest.approx(expected, abs=0.01))


def test_facts(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "a.dcm",
        PatientID=" P1 ",
        PatientSex="F",
        ViewPosition="AP",
        PixelSpacing=[0.2, 0.3],
        PatientBirthDate="19600630",
        StudyDate="20200629",
    )
    film = read_film(path)
    assert (film.patient_id, film.sex, film.view, film.spacing, film.age) == ("P1", "F", "AP", (0.2, 0.3), 59)


def test_png(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), RAMP)
    cv2.imwrite(str(tmp_path / "b.png"), (RAMP // 16).astype(np.uint8))
    assert (read_film(tmp_path / "a.png").pixels == np.rint(RAMP / 4080 * 255)).all()
    assert (read_film(tmp_path / "b.png").pixels == RAMP // 16).all()


def test_faults_are_named_without_the_path(tmp_path: Path) -> None:
    whole = _write(tmp_path / "whole.dcm").read_bytes()
    broken = {
        "SECRET1.dcm": b"no dicom",
        "SECRET2.dcm": whole[:-100],
        "SECRET3.png": b"no png",
        "SECRET4.dcm": b"",
    }
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FilmFault) as fault:
            read_film(tmp_path / name)
        assert "SECRET" not in str(fault.value)
    for attribute in ({"PhotometricInterpretation": "RGB"}, {"WindowCenter": 1, "WindowWidth": 0}):
        with pytest.raises(FilmFault):
            read_film(_write(tmp_path / "c.dcm", **attribute))


def test_real_film_with_only_its_tag_changed(real: Path) -> None:
    one, other = sorted((real / "siim").glob("*.dcm"))
    a, b = read_film(one).pixels.astype(int), read_film(other).pixels.astype(int)
    assert a.shape == (1024, 1024)
    assert (a + b == 255).all()


def test_real_films_decode(real: Path) -> None:
    paths = sorted((real / "semisynthetic" / "hospital" / "images").glob("*.dcm"))[::10]
    paths += sorted((real / "dicom").glob("*.dcm"))
    syntaxes, refused = set(), []
    for path in paths:
        try:
            film = read_film(path)
        except FilmFault:
            refused.append(path.name)
            continue
        syntaxes.add(pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID)
        assert film.pixels.ndim == 2
        assert film.pixels.std() > 5
    assert len(syntaxes) >= 7
    assert all("JPLY" in name for name in refused), refused  # 12-bit JPEG Extended: no decoder here
