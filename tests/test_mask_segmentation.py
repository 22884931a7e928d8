"""DICOM Segmentations as masks: ours, highdicom's and dcmqi's, of one segment or several."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from conftest import installed_program
from dicom_film import smooth, write_film
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from common.command_line import Rules
from common.films.fault import FilmFault
from common.films.lesion_names import PICKED
from common.films.mask_files import MaskFile
from common.films.mask_segmentation import ANOTHER, SOFT
from common.prediction.dicom_objects import Maker, file_bytes, segmentation
from common.preparation.film_store import GrowingArrays
from common.preparation.film_task import PREPARED, REJECTED, Task, prepare_film
from common.sources.source_film import SourceFilm

ROWS, COLUMNS = 37, 29  # no whole bytes a frame or a row
DRAW = np.random.default_rng(0)
LESION = DRAW.random((ROWS, COLUMNS)) < 0.3
OTHER = DRAW.random((ROWS, COLUMNS)) < 0.3


def _header(instance: str | None = None) -> Dataset:
    """Header of a film of (ROWS, COLUMNS), as a device writes it."""
    film = Dataset()
    film.file_meta = pydicom.dataset.FileMetaDataset()
    film.SOPClassUID, film.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", instance or generate_uid()
    film.StudyInstanceUID, film.SeriesInstanceUID = generate_uid(), generate_uid()
    film.Rows, film.Columns, film.Modality = ROWS, COLUMNS, "DX"
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber"):
        setattr(film, keyword, "")
    for keyword in ("StudyDate", "StudyTime", "StudyID", "ReferringPhysicianName"):
        setattr(film, keyword, "")
    film.ImageOrientationPatient, film.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 0]
    film.PixelSpacing, film.SliceThickness, film.FrameOfReferenceUID = [0.2, 0.2], 1, generate_uid()
    return film


def _by_highdicom(
    pixels: np.ndarray,
    labels: tuple[str, ...] = ("Pneumothorax",),
    kind: str = "BINARY",
    films: list[Dataset] | None = None,
    types: tuple[object, ...] = (),
) -> Dataset:
    """A Segmentation of (frames, rows, columns) or (frames, rows, columns, segments)."""
    descriptions = [
        SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=types[number - 1] if types else codes.SCT.Mass,
            algorithm_type="MANUAL",
        )
        for number, label in enumerate(labels, start=1)
    ]
    return Segmentation(
        source_images=films or [_header()],
        pixel_array=pixels,
        segmentation_type=kind,
        segment_descriptions=descriptions,
        series_instance_uid=generate_uid(),
        series_number=1,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="m",
        manufacturer_model_name="m",
        software_versions="1",
        device_serial_number="1",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        omit_empty_frames=False,
        max_fractional_value=200,
    )


def _read(folder: Path, dataset: Dataset, instance: str = "") -> tuple[np.ndarray, list[str]]:
    """The mask of a Segmentation, and the notes."""
    dataset.save_as(folder / "mask.dcm", enforce_file_format=True)
    notes: list[str] = []
    mask = MaskFile(folder / "mask.dcm").mask(COLUMNS, ROWS, notes.append, instance)
    return mask, notes


@pytest.mark.parametrize("own", [False, True])
def test_our_own(tmp_path: Path, own: bool) -> None:
    film = _header()
    made = segmentation(film, LESION, Maker("eff", "0" * 64))
    (tmp_path / "mask.dcm").write_bytes(file_bytes(made))
    notes: list[str] = []
    instance = film.SOPInstanceUID if own else ""
    assert (MaskFile(tmp_path / "mask.dcm").mask(COLUMNS, ROWS, notes.append, instance) == LESION).all()
    assert notes == []
    assert not MaskFile(tmp_path / "mask.dcm").has_boxes()


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_one_binary_segment(tmp_path: Path, syntax: str) -> None:
    made = _by_highdicom(LESION[np.newaxis].astype(np.uint8), ("anything",))
    made.file_meta.TransferSyntaxUID = syntax
    mask, notes = _read(tmp_path, made)
    assert (mask == LESION).all()
    assert notes == []
    assert not _read(tmp_path, _by_highdicom(np.zeros((1, ROWS, COLUMNS), np.uint8)))[0].any()


@pytest.mark.parametrize(
    ("syntax", "encoder"), [(None, ""), (RLELossless, "pydicom"), (JPEGLSLossless, "pyjpegls")]
)
def test_a_fractional_segment_is_cut_at_half(tmp_path: Path, syntax: UID | None, encoder: str) -> None:
    share = DRAW.random((1, ROWS, COLUMNS)).astype(np.float32)
    for values, expected, noted in (
        (share, np.rint(share[0] * 200) >= 100, [SOFT]),
        (LESION[None], LESION, []),
    ):
        made = _by_highdicom(values.astype(np.float32), kind="FRACTIONAL")
        if syntax:
            made.compress(syntax, encoding_plugin=encoder)
        mask, notes = _read(tmp_path, made)
        assert (mask == expected).all()
        assert notes == noted


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL"])
@pytest.mark.parametrize(
    ("labels", "types", "expected"),
    [
        (("Chest tube", "Pneumothorax"), (), OTHER),
        (("PTX_left", "PTX_right"), (), LESION | OTHER),
        (("Segment 1", "Segment 2"), (), LESION | OTHER),
        (("a", "b"), (codes.SCT.Lung, codes.SCT.Pneumothorax), OTHER),
        (("lesion", "left lung"), (), LESION),
    ],
)
def test_of_several_segments_the_pneumothorax_counts(
    tmp_path: Path, labels: tuple[str, ...], types: tuple[object, ...], expected: np.ndarray, kind: str
) -> None:
    pixels = np.stack([LESION, OTHER], axis=-1)[np.newaxis]
    pixels = pixels.astype(np.uint8 if kind == "BINARY" else np.float32)
    mask, notes = _read(tmp_path, _by_highdicom(pixels, labels, kind, types=types))
    assert (mask == expected).all()
    assert bool(notes) == (not (expected == LESION | OTHER).all())


@pytest.mark.parametrize("syntax", [None, RLELossless])
def test_a_label_map(tmp_path: Path, syntax: UID | None) -> None:
    """Its pixels are numbers of segments; highdicom describes the background as segment 0."""
    labels = np.where(OTHER, 2, LESION).astype(np.uint8)[np.newaxis]
    for names, expected, noted in (
        (("Chest tube", "Pneumothorax"), OTHER, [PICKED]),
        (("Segment 1", "Segment 2"), LESION | OTHER, []),
        (("lesion", "lung"), LESION & ~OTHER, [PICKED]),
    ):
        made = _by_highdicom(labels, names, "LABELMAP")
        if syntax:
            made.compress(syntax, encoding_plugin="pydicom")
        mask, notes = _read(tmp_path, made)
        assert (mask == expected).all()
        assert notes == noted


def test_a_label_map_of_several_films(tmp_path: Path) -> None:
    made = _by_highdicom(LESION[np.newaxis].astype(np.uint8), ("ptx",), "LABELMAP")
    made.NumberOfFrames, made.PixelData = 2, made.PixelData[: ROWS * COLUMNS] * 2
    made.PerFrameFunctionalGroupsSequence.append(made.PerFrameFunctionalGroupsSequence[0])
    with pytest.raises(FilmFault, match="several frames"):
        _read(tmp_path, made)


def test_several_segments_that_might_all_be_it(tmp_path: Path) -> None:
    pixels = np.stack([LESION, OTHER], axis=-1)[np.newaxis].astype(np.uint8)
    with pytest.raises(FilmFault, match="several kinds of things; call the lesion pneumothorax"):
        _read(tmp_path, _by_highdicom(pixels, ("red", "green")))


def test_a_film_among_several_is_found_by_its_instance(tmp_path: Path) -> None:
    films = [_header(), _header()]
    for film in films[1:]:
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
            setattr(film, keyword, getattr(films[0], keyword))
        film.ImagePositionPatient = [0, 0, 5]
    made = _by_highdicom(np.stack([LESION, OTHER]).astype(np.uint8), films=films)
    for film, expected in zip(films, (LESION, OTHER), strict=True):
        mask, notes = _read(tmp_path, made, film.SOPInstanceUID)
        assert (mask == expected).all()
        assert notes == []
    for instance in ("1.2.3", ""):
        with pytest.raises(FilmFault, match="refers to several films"):
            _read(tmp_path, made, instance)


def test_another_instance_of_the_same_size_is_noted(tmp_path: Path) -> None:
    """Films that were made anonymous have other UIDs."""
    made = _by_highdicom(LESION[np.newaxis].astype(np.uint8))
    mask, notes = _read(tmp_path, made, "1.2.3")
    assert (mask == LESION).all()
    assert notes == [ANOTHER]
    for groups in made.PerFrameFunctionalGroupsSequence:
        del groups.DerivationImageSequence
    assert _read(tmp_path, made, "1.2.3")[1] == [ANOTHER]  # by the instances that the whole refers to
    del made.ReferencedSeriesSequence
    assert _read(tmp_path, made, "1.2.3")[1] == []


FAULTS = {
    "another grid": (
        {"Rows": COLUMNS, "Columns": ROWS},
        f"has {ROWS} x {COLUMNS} pixels, the film {COLUMNS}",
    ),
    "no Segmentation": ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.3"}, "but no Segmentation"),
    "of another type": ({"SegmentationType": "SURFACE"}, "neither BINARY nor FRACTIONAL nor LABELMAP"),
    "no segment": ({"SegmentSequence": None}, "describes no segment"),
    "no pixels": ({"PixelData": None}, "holds no pixels"),
    "cut short": ({"PixelData": b"\0\0"}, "cannot be decoded"),
    "more frames than are described": ({"NumberOfFrames": 3}, "more or fewer frames"),
    "too many frames": ({"NumberOfFrames": 2_000_000_000}, "more than 10,000 frames"),
    "wide pixels": ({"BitsAllocated": 16}, "is BINARY, and holds pixels of 16 bits"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_faults(tmp_path: Path, kind: str) -> None:
    made = _by_highdicom(LESION[np.newaxis].astype(np.uint8))
    attributes, said = FAULTS[kind]
    for name, value in attributes.items():
        if value is None:
            delattr(made, name)
        else:
            setattr(made, name, value)
    with pytest.raises(FilmFault, match=said):
        _read(tmp_path, made)


@pytest.mark.parametrize(
    ("directions", "is_turned"),
    [([-1, 0, 0, 0, -1, 0], True), ([1, 0, 0, 0, -1, 0], True), ([1, 0, 0, 0, 0, -1], False)],
)
def test_pixels_that_are_turned_against_the_film(
    tmp_path: Path, directions: list[int], is_turned: bool
) -> None:
    """Tools that take a film for an axial slice turn it; a frontal film's own directions are no turn."""
    made = _by_highdicom(LESION[np.newaxis].astype(np.uint8))
    item = made.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    item.ImageOrientationPatient = directions
    if is_turned:
        with pytest.raises(FilmFault, match="turned or mirrored"):
            _read(tmp_path, made)
    else:
        assert (_read(tmp_path, made)[0] == LESION).all()


def test_several_frames_of_one_segment_are_no_film(tmp_path: Path) -> None:
    made = _by_highdicom(np.stack([LESION, OTHER], axis=-1)[np.newaxis].astype(np.uint8), ("ptx", "ptx"))
    for groups in made.PerFrameFunctionalGroupsSequence:
        groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber = 1
    with pytest.raises(FilmFault, match="several frames of one segment"):
        _read(tmp_path, made)


def test_dcmqis(tmp_path: Path) -> None:
    """What `itkimage2segimage` makes of a film and a mask in NRRD (`pip install dcmqi`)."""
    program = installed_program("itkimage2segimage")
    if program is None:
        pytest.skip("dcmqi is not installed")
    film = write_film(tmp_path / "film.dcm", smooth(12), **_dcmqi_needs())
    lesion = np.zeros((256, 224), bool)
    lesion[20:90, 30:75] = True
    header = "NRRD0004\ntype: uchar\ndimension: 3\nspace: left-posterior-superior\nsizes: 224 256 1\n"
    header += "space directions: (0.2,0,0) (0,0.2,0) (0,0,1)\nkinds: domain domain domain\n"
    header += "encoding: raw\nspace origin: (0,0,0)\n\n"
    (tmp_path / "mask.nrrd").write_bytes(header.encode() + lesion.astype(np.uint8).tobytes())
    code = {"CodeValue": "36118008", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Pneumothorax"}
    category = {"CodeValue": "49755003", "CodingSchemeDesignator": "SCT"}
    segment = {
        "labelID": 1,
        "SegmentDescription": "Pneumothorax",
        "SegmentLabel": "Pneumothorax",
        "SegmentAlgorithmType": "MANUAL",
        "SegmentedPropertyCategoryCodeSequence": category
        | {"CodeMeaning": "Morphologically Altered Structure"},
        "SegmentedPropertyTypeCodeSequence": code,
        "recommendedDisplayRGBValue": [255, 0, 0],
    }
    meta = {"ContentCreatorName": "x", "SeriesDescription": "x", "SeriesNumber": "1", "InstanceNumber": "1"}
    meta |= {"ContentLabel": "X", "ContentDescription": "x", "segmentAttributes": [[segment]]}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    arguments = ["--inputDICOMList", film, "--inputImageList", tmp_path / "mask.nrrd"]
    arguments += [
        "--inputMetadata",
        tmp_path / "meta.json",
        "--outputDICOM",
        tmp_path / "seg.dcm",
        "--skip",
        "0",
    ]
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    notes: list[str] = []
    instance = pydicom.dcmread(film).SOPInstanceUID
    mask = MaskFile(tmp_path / "seg.dcm").mask(224, 256, notes.append, instance)
    assert (mask == lesion).all()
    assert notes == []


def _dcmqi_needs() -> dict[str, object]:
    return {
        "PatientID": "x",
        "PatientName": "x",
        "StudyInstanceUID": generate_uid(),
        "SeriesInstanceUID": generate_uid(),
        "FrameOfReferenceUID": generate_uid(),
        "ImagePositionPatient": [0, 0, 0],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.2, 0.2],
    }


@pytest.mark.parametrize("own", [True, False])
def test_a_film_is_prepared_with_its_segmentation(tmp_path: Path, own: bool) -> None:
    """The film's SOPInstanceUID picks its frame."""
    path = write_film(tmp_path / "film.dcm", smooth(12)[: ROWS * 6, : COLUMNS * 6])
    height, width = ROWS * 6, COLUMNS * 6
    films = [_header(pydicom.dcmread(path).SOPInstanceUID if own else None), _header()]
    for film in films:
        film.Rows, film.Columns = height, width
        film.StudyInstanceUID = film.SeriesInstanceUID = film.FrameOfReferenceUID = "1.2.3"
    films[1].ImagePositionPatient = [0, 0, 5]
    marked = np.zeros((2, height, width), np.uint8)
    marked[0, 40:90, 50:80], marked[1, 120:160, 90:120] = 1, 1
    _by_highdicom(marked, films=films).save_as(tmp_path / "mask.dcm")
    (tmp_path / "arrays").mkdir()
    GrowingArrays(tmp_path / "arrays").begin()
    film = SourceFilm("a", path, "row 2", MaskFile(tmp_path / "mask.dcm"), 1)
    outcome = prepare_film(Task(0, film, tmp_path / "arrays", Rules()), lambda: None)
    assert outcome.kind == (PREPARED if own else REJECTED), outcome.reason
    assert outcome.area == pytest.approx(marked[0].mean() if own else 0, rel=0.01)
