"""The DICOM objects of a finding: right by dciodvfy, on the very pixels, of the same patient."""

from __future__ import annotations

import shutil
import subprocess
import traceback
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from conftest import installed_program
from PIL import Image, ImageDraw
from pydicom.data import get_testdata_file
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
)

from common.demo.phantom_sets import write_ntuh, write_siim
from common.films.decode import read_film
from common.films.own_outputs import RESEARCH_ONLY
from common.prediction import dicom_objects
from common.prediction.dicom_objects import (
    Maker,
    ObjectFault,
    cannot_refer,
    capture,
    derived_uid,
    file_bytes,
    outline_lines,
    presentation,
    segmentation,
)

MAKER = Maker("eff", "0123456789abcdef" * 4)
SPACING = 0.2, 0.25
KINDS = ("seg", "sc", "seg_in_space", "pr")
ROWS, COLUMNS = 61, 85  # 5185 pixels: no multiple of 8, which the bits of a Segmentation are packed in


def film(**changes: object) -> Dataset:
    """A CR film of 16 bits, MONOCHROME1, wider than high; None removes an attribute."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = ComputedRadiographyImageStorage, "1.2.3.4.5"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3.1", "1.2.3.2"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Doe^Jane", "ID 17", "19700102", "F"
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20200304", "050607", "S8", "A9"
    ds.ContentDate, ds.ContentTime = "20200305", "101112.5"
    ds.ReferringPhysicianName, ds.StudyDescription = "Roe^Richard", "CHEST PORTABLE"
    ds.Modality, ds.SeriesNumber, ds.InstanceNumber, ds.Manufacturer = "CR", 3, 4, "SYNTHETIC"
    ds.BodyPartExamined, ds.ViewPosition, ds.PatientOrientation = "CHEST", "AP", ["L", "F"]
    ds.PixelSpacing = ["0.20", "0.25"]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME1"
    ds.Rows, ds.Columns = ROWS, COLUMNS
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    ds.PixelData = (np.arange(ROWS * COLUMNS, dtype="<u2") * 11).tobytes()
    ds["PixelData"].VR = "OW"
    with warnings.catch_warnings():  # of pydicom, where a value is to be wrong
        warnings.simplefilter("ignore")
        for keyword, value in changes.items():
            if value is None:
                del ds[keyword]
            else:
                setattr(ds, keyword, value)
    return ds


def written(ds: Dataset, path: Path, syntax: str = ExplicitVRLittleEndian) -> Path:
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.save_as(path, enforce_file_format=True)
    return path


def header(path: Path) -> Dataset:
    return pydicom.dcmread(path, stop_before_pixels=True)


def an_outline(rows: int = ROWS, columns: int = COLUMNS) -> np.ndarray:
    """Two parts; no turn, mirroring or transposition of it is itself."""
    outline = np.zeros((rows, columns), dtype=bool)
    outline[3:9, 2:30] = True
    outline[20 : rows - 2, columns - 7 : columns] = True
    outline[5, 3] = False
    return outline


def a_picture() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (33, 47, 3), dtype=np.uint8)


def both(source: Dataset) -> list[Dataset]:
    return [
        segmentation(source, an_outline(source.Rows, source.Columns), MAKER),
        capture(source, a_picture(), MAKER),
    ]


def every(source: Dataset) -> list[Dataset]:
    """All objects of a film, the Segmentation without and with a place in space."""
    shape = source.Rows, source.Columns
    made = [*both(source), segmentation(source, an_outline(*shape), MAKER, SPACING)]
    single = "Multi-frame" not in pydicom.uid.UID(source.SOPClassUID).name
    if single and source.get("PhotometricInterpretation") in ("MONOCHROME1", "MONOCHROME2"):
        made.append(presentation(source, an_outline(*shape), MAKER, SPACING))
    return made


# --- UIDs --------------------------------------------------------------------------------------------


def test_a_uid_follows_from_its_parts() -> None:
    uid = derived_uid("segmentation", "1.2.3")
    assert uid == derived_uid("segmentation", "1.2.3") == "2.25.244919978811222225133833068106226985401"
    assert len({uid, derived_uid("segmentation1", ".2.3"), derived_uid("1.2.3", "segmentation")}) == 3
    assert pydicom.uid.UID(uid).is_valid
    assert uuid.UUID(int=int(uid.removeprefix("2.25."))).version == 5


def uids(ds: Dataset) -> set[str]:
    """All UIDs that were made for an object."""
    return {str(e.value) for e in ds.iterall() if e.VR == "UI" and str(e.value).startswith("2.25.")}


def test_the_same_film_and_system_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        for kind, ds in zip(KINDS, every(film()), strict=True):
            (tmp_path / f"{name}_{kind}.dcm").write_bytes(file_bytes(ds))
    for kind in KINDS:
        first, second = (tmp_path / f"{name}_{kind}.dcm" for name in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()
        assert first.read_bytes()[128:132] == b"DICM"


def test_another_identity_gives_another_object_in_another_series() -> None:
    other = Maker("eff", "f" * 64)
    source = film(PixelSpacing=None)  # the frame of reference is the film's, whoever outlines it
    for mine, theirs in zip(
        both(source),
        [segmentation(source, an_outline(), other), capture(source, a_picture(), other)],
        strict=True,
    ):
        assert len(uids(mine)) >= 2
        assert not uids(mine) & uids(theirs)


def test_films_of_a_series_give_objects_of_a_series() -> None:
    first, second = both(film()), both(film(SOPInstanceUID="1.2.3.4.6", InstanceNumber=5))
    for one, other in zip(first, second, strict=True):
        assert one.SeriesInstanceUID == other.SeriesInstanceUID
        assert one.SOPInstanceUID != other.SOPInstanceUID
        assert (one.InstanceNumber, other.InstanceNumber) == (4, 5)
    assert first[0].SeriesInstanceUID != first[1].SeriesInstanceUID
    assert both(film(SeriesInstanceUID="1.2.3.9"))[0].SeriesInstanceUID != first[0].SeriesInstanceUID


# --- the Segmentation lies on the film's pixels ------------------------------------------------------


def test_it_reads_back_onto_the_very_pixels(tmp_path: Path) -> None:
    outline = an_outline()
    stored = np.where(outline, 60_000, 500).astype("<u2")  # MONOCHROME1: the outlined part is dark
    path = written(film(PixelData=stored.tobytes()), tmp_path / "film.dcm")
    assert ((read_film(path).pixels < 128) == outline).all()  # what the networks see
    (tmp_path / "seg.dcm").write_bytes(file_bytes(segmentation(header(path), outline, MAKER)))

    seg = highdicom.seg.segread(tmp_path / "seg.dcm")
    frames = seg.get_pixels_by_source_instance([header(path).SOPInstanceUID])
    assert frames.shape == (1, ROWS, COLUMNS, 1)
    assert (frames[0, :, :, 0] == (pydicom.dcmread(path).pixel_array == 60_000)).all()
    assert (seg.Rows, seg.Columns) == (ROWS, COLUMNS)
    bits = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little")[: ROWS * COLUMNS]
    assert (bits.reshape(ROWS, COLUMNS) == outline).all()


@pytest.mark.parametrize(
    "sop_class", [ComputedRadiographyImageStorage, MultiFrameGrayscaleWordSecondaryCaptureImageStorage]
)
def test_highdicom_reads_it_whether_or_not_the_film_has_a_spacing(sop_class: str, tmp_path: Path) -> None:
    for source in (film(SOPClassUID=sop_class), film(SOPClassUID=sop_class, PixelSpacing=None)):
        (tmp_path / "seg.dcm").write_bytes(file_bytes(segmentation(source, an_outline(), MAKER)))
        seg = highdicom.seg.segread(tmp_path / "seg.dcm")
        in_space = "PixelMeasuresSequence" in seg.SharedFunctionalGroupsSequence[0]
        assert in_space == ("PixelSpacing" in source)
        assert (seg.get_pixels_by_source_instance(["1.2.3.4.5"])[0, :, :, 0] == an_outline()).all()


# --- in space, for the programs that want it -----------------------------------------------------------


def test_spacing_that_is_unknown_is_not_invented() -> None:
    ds = segmentation(film(PixelSpacing=None), an_outline(), MAKER)
    assert "FrameOfReferenceUID" not in ds
    for group in (ds.SharedFunctionalGroupsSequence[0], ds.PerFrameFunctionalGroupsSequence[0]):
        for name in ("PixelMeasuresSequence", "PlaneOrientationSequence", "PlanePositionSequence"):
            assert name not in group


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, SPACING),
        ({"PixelSpacing": None, "ImagerPixelSpacing": [0.2, 0.25]}, (0.2, 0.25)),
        ({"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.2, 0.2]}, (0.2, 0.2)),
        (
            {"PixelSpacing": None, "ImagerPixelSpacing": [0.3, 0.3],
             "EstimatedRadiographicMagnificationFactor": 1.5},
            (0.2, 0.2),
        ),
    ],
)  # fmt: skip
def test_without_a_spacing_of_ours_it_has_the_headers(changes: dict, expected: tuple[float, float]) -> None:
    ds = segmentation(film(**changes), an_outline(), MAKER)
    measures = ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert list(map(float, measures.PixelSpacing)) == pytest.approx(list(expected))


def test_frame_of_reference_is_of_the_film_and_not_of_the_system() -> None:
    def frame(maker: Maker = MAKER, **changes: object) -> str:
        return segmentation(film(**changes), an_outline(), maker, SPACING).FrameOfReferenceUID

    assert frame() == frame(Maker("vit", "f" * 64)) == frame(FrameOfReferenceUID="1.2.3.7")
    assert len({frame(), frame(SOPInstanceUID="1.2.3.9"), frame(Maker("eff", MAKER.identity, "f1"))}) == 3


@pytest.mark.parametrize(
    ("orientation", "plane"),
    [
        (["L", "F"], [1, 0, 0, 0, 0, -1]),
        (["R", "F"], [-1, 0, 0, 0, 0, -1]),
        (["PL", "FL"], [0, 1, 0, 0, 0, -1]),
        (None, [1, 0, 0, 0, 0, -1]),
        (["L", "R"], [1, 0, 0, 0, 0, -1]),  # cannot be
    ],
)
def test_plane_follows_the_orientation(orientation: list[str] | None, plane: list[float]) -> None:
    ds = segmentation(film(PatientOrientation=orientation), an_outline(), MAKER, SPACING)
    assert ds.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient == plane


def _by_highdicom(path: Path) -> tuple[np.ndarray, list[float]]:
    volume = highdicom.seg.segread(path).get_volume()
    return volume.array.squeeze(), list(volume.spacing[1:])


def _by_simpleitk(path: Path) -> tuple[np.ndarray, list[float]]:
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.ReadImage(path)
    pixels = sitk.GetArrayFromImage(image)[0]
    pixels.ravel()[-(pixels.size % 8) :] = 0  # GDCM leaves them undefined: they fill no whole byte
    return pixels, list(reversed(image.GetSpacing()[:2]))


def _by_dcmqi(path: Path) -> tuple[np.ndarray, list[float]]:
    sitk = pytest.importorskip("SimpleITK")
    program = installed_program("segimage2itkimage") or pytest.skip("dcmqi is not installed")
    flags = ["--inputDICOM", path, "--outputDirectory", path.parent, "--prefix", "out"]
    subprocess.run([program, *flags], check=True, capture_output=True)
    image = sitk.ReadImage(path.with_name("out-1.nrrd"))
    return sitk.GetArrayFromImage(image).squeeze(), list(reversed(image.GetSpacing()[:2]))


def _by_pydicom_seg(path: Path) -> tuple[np.ndarray, list[float]]:
    reader = pytest.importorskip("pydicom_seg", exc_type=ImportError)  # its last release wants pydicom 2
    found = reader.SegmentReader().read(pydicom.dcmread(path))
    return found.segment_data(1)[0], list(reversed(found.spacing[:2]))


@pytest.mark.parametrize("reader", [_by_highdicom, _by_simpleitk, _by_dcmqi, _by_pydicom_seg])
@pytest.mark.parametrize("orientation", [["L", "F"], ["R", "F"]])
def test_other_programs_read_outline_and_spacing(
    reader: Callable[[Path], tuple[np.ndarray, list[float]]], orientation: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "seg.dcm"
    source = film(PatientOrientation=orientation)
    path.write_bytes(file_bytes(segmentation(source, an_outline(), MAKER, SPACING)))
    pixels, spacing = reader(path)
    assert spacing == pytest.approx(SPACING)
    assert ((pixels != 0) == an_outline()).all()


# --- the presentation state ----------------------------------------------------------------------------


def test_lines_go_around_the_outline() -> None:
    """Filled by another library, they give the very pixels, holes as well."""
    outline = an_outline()
    picture = Image.new("L", (COLUMNS, ROWS))
    draw = ImageDraw.Draw(picture)
    for line in outline_lines(outline):
        assert (line[0] == line[-1]).all()
        draw.line([tuple(point) for point in line - 0.5], fill=1)
    edge = np.array(picture) > 0
    inner = outline.copy()
    inner[1:-1, 1:-1] &= outline[:-2, 1:-1] & outline[2:, 1:-1] & outline[1:-1, :-2] & outline[1:-1, 2:]
    expected = outline & ~inner
    assert (edge[expected]).all()


def test_line_of_too_many_points_is_made_coarser() -> None:
    comb = np.zeros((3000, 3001), dtype=bool)
    comb[0] = comb[:, ::2] = True
    (line, *_) = outline_lines(comb)
    assert 3 < len(line) <= 4001


def test_the_state_shows_the_film_as_it_is() -> None:
    ds = presentation(film(WindowCenter=[100, 200], WindowWidth=[50, 60]), an_outline(), MAKER, SPACING)
    assert ds.PresentationLUTShape == "INVERSE"
    voi = ds.SoftcopyVOILUTSequence[0]
    assert (voi.WindowCenter, voi.WindowWidth) == ([100, 200], [50, 60])
    (area,) = ds.DisplayedAreaSelectionSequence
    assert area.PresentationPixelSpacing == list(SPACING)
    assert area.DisplayedAreaBottomRightHandCorner == [COLUMNS, ROWS]
    (reference,) = ds.ReferencedSeriesSequence[0].ReferencedImageSequence
    assert reference.ReferencedSOPInstanceUID == "1.2.3.4.5"
    (annotation,) = ds.GraphicAnnotationSequence
    assert RESEARCH_ONLY in annotation.TextObjectSequence[0].UnformattedTextValue
    assert len(annotation.GraphicObjectSequence) == 3  # two parts, one with a hole
    assert (ds.PresentationCreationDate, ds.PresentationCreationTime) == ("20200305", "101112.5")
    other = presentation(film(PhotometricInterpretation="MONOCHROME2"), an_outline(), MAKER, None)
    assert other.PresentationLUTShape == "IDENTITY"
    assert "PresentationPixelSpacing" not in other.DisplayedAreaSelectionSequence[0]
    with pytest.raises(ObjectFault, match="no film of grey levels"):
        presentation(film(PhotometricInterpretation="RGB"), an_outline(), MAKER)
    with pytest.raises(ObjectFault, match="frame by frame"):
        presentation(
            film(SOPClassUID=MultiFrameGrayscaleWordSecondaryCaptureImageStorage), an_outline(), MAKER
        )


def test_it_refers_to_its_film() -> None:
    ds = segmentation(film(PixelSpacing=None), an_outline(), MAKER)
    derivation = ds.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0]
    assert derivation.SourceImageSequence[0].SpatialLocationsPreserved == "YES"
    series = ds.ReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == "1.2.3.2"
    for item in (
        derivation.SourceImageSequence[0],
        series.ReferencedInstanceSequence[0],
        ds.SourceImageSequence[0],
        capture(film(), a_picture(), MAKER).SourceImageSequence[0],
    ):
        assert item.ReferencedSOPInstanceUID == "1.2.3.4.5"
        assert item.ReferencedSOPClassUID == ComputedRadiographyImageStorage


def test_a_negative_film_has_one_empty_frame() -> None:
    ds = segmentation(film(), np.zeros((ROWS, COLUMNS), dtype=bool), MAKER)
    assert ds.NumberOfFrames == 1
    assert ds.pixel_array.shape == (ROWS, COLUMNS)
    assert not ds.pixel_array.any()


def test_it_says_what_it_outlines_and_who_did() -> None:
    ds = segmentation(film(PixelSpacing=None), an_outline(), MAKER)
    assert ds.ContentCreatorName == ""
    segment = ds.SegmentSequence[0]
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "36118008"
    assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
    assert segment.SegmentAlgorithmType == "AUTOMATIC"
    assert segment.SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion == MAKER.identity
    assert segment.TrackingUID.startswith("2.25.")


# --- the Secondary Capture ---------------------------------------------------------------------------


def test_the_capture_shows_the_picture() -> None:
    ds = capture(film(), a_picture(), MAKER)
    assert (ds.pixel_array == a_picture()).all()
    assert len(ds.PixelData) == 33 * 47 * 3 + 1  # padded to an even length
    assert ds.PhotometricInterpretation == "RGB"
    assert ds.PatientOrientation == ["L", "F"]
    assert ds.ImageComments == RESEARCH_ONLY


@pytest.mark.parametrize(("said", "expected"), [("YES", "YES"), ("NO", "NO"), (None, None), ("maybe", None)])
def test_the_capture_names_the_patient_where_the_film_does(said: str | None, expected: str | None) -> None:
    source = film() if said is None else film(BurnedInAnnotation=said)
    assert capture(source, a_picture(), MAKER).get("BurnedInAnnotation") == expected


def test_both_are_for_research_and_as_old_as_the_film() -> None:
    for ds in both(film()):
        assert RESEARCH_ONLY in ds.SeriesDescription
        assert len(ds.SeriesDescription) <= 64
        assert (ds.ContentDate, ds.ContentTime) == ("20200305", "101112.5")
        assert "InstanceCreationDate" not in ds
        assert ds.DeviceSerialNumber == MAKER.identity
    bad_date = film(ContentDate="20209999")
    assert both(bad_date)[0].ContentDate == "20200304"  # the study's
    undated = film(ContentDate="2020.03.05", StudyDate="")
    assert [(ds.ContentDate, ds.ContentTime) for ds in both(undated)] == [("19000101", "000000")] * 2


def test_what_a_film_lost_by_compression_stays_known() -> None:
    lossy = film(LossyImageCompression="01", LossyImageCompressionRatio="20")
    for ds in both(lossy):
        assert (ds.LossyImageCompression, ds.LossyImageCompressionRatio) == ("01", 20)


# --- patient and study -------------------------------------------------------------------------------

MODULES = {
    "PatientName": "Doe^Jane",
    "PatientID": "ID 17",
    "PatientBirthDate": "19700102",
    "PatientSex": "F",
    "PatientAge": "050Y",
    "PatientWeight": "61.5",
    "PregnancyStatus": 1,
    "OtherPatientIDs": ["X1", "X2"],
    "PatientComments": "two\r\nlines",
    "StudyInstanceUID": "1.2.3.1",
    "StudyDate": "20200304",
    "StudyTime": "050607",
    "StudyID": "S8",
    "AccessionNumber": "A9",
    "ReferringPhysicianName": "Roe^Richard",
    "StudyDescription": "CHEST PORTABLE",
    "ClinicalTrialSponsorName": "Sponsor",
    "ClinicalTrialProtocolID": "Trial",
    "TimezoneOffsetFromUTC": "+0800",
}


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_both_carry_patient_and_study(tmp_path: Path, syntax: str) -> None:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "399208008", "SCT", "Chest film"
    study = Dataset()
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.1", "1.2.9"
    source = film(**MODULES, ProcedureCodeSequence=[code], ReferencedStudySequence=[study])
    read = header(written(source, tmp_path / "film.dcm", syntax))
    for ds in every(read):
        for keyword, value in MODULES.items():
            assert ds[keyword].value == value, keyword
        assert ds.ProcedureCodeSequence[0] == code
        assert ds.ReferencedStudySequence[0] == study


@pytest.mark.parametrize(
    ("character_set", "name", "description"),
    [
        ("ISO_IR 192", "Wang^XiaoDong=王^小东", "胸部 X 光"),
        ("GB18030", "Wang^XiaoDong=王^小东", "胸部 X 光"),
        ("ISO_IR 100", "Müller^Jörg", "Röntgen"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동", "CHEST"),
        (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう", "CHEST"),
    ],
)
def test_both_keep_the_character_set(
    tmp_path: Path, character_set: object, name: str, description: str
) -> None:
    source = film(SpecificCharacterSet=character_set, PatientName=name, StudyDescription=description)
    path = written(source, tmp_path / "film.dcm")
    for ds in every(header(path)):
        assert ds.SpecificCharacterSet == character_set
        assert str(ds.PatientName) == name
        assert ds.StudyDescription == description
        (tmp_path / "object.dcm").write_bytes(file_bytes(ds))
        assert raw(tmp_path / "object.dcm", "PatientName") == raw(path, "PatientName")


def raw(path: Path, keyword: str) -> bytes:
    return header(path).get_item(keyword).value


@pytest.mark.parametrize("character_set", [None, "ISO_IR 100"])
def test_undeclared_text_keeps_its_bytes(tmp_path: Path, character_set: str | None) -> None:
    """Big5, which DICOM has no name for, is in use all the same."""
    big5 = "王明".encode("big5")
    path = misdeclared(
        tmp_path / "film.dcm", big5, character_set, PatientName="ABCD", StudyDescription="ABCD"
    )
    for ds in both(header(path)):
        (tmp_path / "object.dcm").write_bytes(file_bytes(ds))
        assert raw(tmp_path / "object.dcm", "PatientName") == big5
        assert raw(tmp_path / "object.dcm", "StudyDescription") == big5


def misdeclared(path: Path, value: bytes, character_set: str | None, **changes: str) -> Path:
    """A film with these bytes in the place of ABCD."""
    source = film(**changes)
    if character_set:
        source.SpecificCharacterSet = character_set
    written(source, path).write_bytes(path.read_bytes().replace(b"ABCD", value))
    return path


@pytest.mark.parametrize("keyword", ["PatientName", "PatientID"])
def test_what_identifies_must_be_readable(tmp_path: Path, keyword: str) -> None:
    """Text that is no UTF-8 would come out as another."""
    path = misdeclared(tmp_path / "film.dcm", b"\xa4\xfd\xa9\xfa", "ISO_IR 192", **{keyword: "ABCD"})
    with pytest.raises(ObjectFault, match=f"an unreadable {keyword}"):
        capture(header(path), a_picture(), MAKER)


def test_what_does_not_identify_need_not_be_readable(tmp_path: Path) -> None:
    path = misdeclared(tmp_path / "film.dcm", b"\xa4\xfd\xa9\xfa", "ISO_IR 192", StudyDescription="ABCD")
    for ds in both(header(path)):
        assert "StudyDescription" not in ds


def test_nothing_private_or_large_is_taken_over(tmp_path: Path) -> None:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1", "99X", "a code"
    code.private_block(0x0009, "MAKER", create=True).add_new(1, "LO", "PRIVATE TEXT")
    code.EncapsulatedDocument = b"LARGE" * 10
    source = film(ProcedureCodeSequence=[code], PatientComments="LARGE" * 10_000)
    source.private_block(0x0011, "MAKER", create=True).add_new(1, "LO", "PRIVATE TEXT")
    source.IconImageSequence = [film()]
    for ds in both(header(written(source, tmp_path / "film.dcm"))):
        (tmp_path / "object.dcm").write_bytes(file_bytes(ds))
        content = (tmp_path / "object.dcm").read_bytes()
        assert b"PRIVATE TEXT" not in content
        assert b"LARGE" not in content
        assert ds.ProcedureCodeSequence[0].CodeMeaning == "a code"
        assert len(content) - len(ds.PixelData) < 4000


# --- strange headers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"StudyInstanceUID": None}, "its header has no StudyInstanceUID"),
        ({"SeriesInstanceUID": ""}, "its header has no SeriesInstanceUID"),
        ({"SOPInstanceUID": None}, "its header has no SOPInstanceUID"),
        ({"SOPClassUID": None}, "its header has no SOPClassUID"),
        ({"SOPInstanceUID": "1.2.SECRET"}, "its header has an impossible SOPInstanceUID"),
        ({"SOPClassUID": "1.2.3.4"}, "its header names no SOP class of an image"),
        ({"NumberOfFrames": 2}, "it holds several frames"),
        ({"Rows": None}, "its header does not say how large it is"),
    ],
)
def test_some_films_cannot_be_referred_to(changes: dict, reason: str) -> None:
    source = film(**changes)
    assert cannot_refer(source) == reason
    with pytest.raises(ObjectFault, match=reason):
        segmentation(source, an_outline(), MAKER)
    with pytest.raises(ObjectFault, match=reason):
        capture(source, a_picture(), MAKER)


def test_an_outline_of_another_size_is_refused() -> None:
    assert cannot_refer(film()) is None
    with pytest.raises(ObjectFault, match="another size"):
        segmentation(film(), an_outline().T, MAKER)


NONSENSE = b"SECRET\\\xff\xfe\x1b$B^=^=^=^=^SECRET, longer than the sixty-four characters of a text"


@pytest.mark.slow
@pytest.mark.parametrize("keyword", [e.keyword for e in film(**MODULES) if e.keyword != "PixelData"])
def test_any_header_gives_an_object_or_one_fault(
    keyword: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """With nonsense in one attribute: an object that is whole, or a fault without a word of it."""
    source = film(**MODULES)
    source[keyword] = RawDataElement(
        source[keyword].tag, source[keyword].VR, len(NONSENSE), NONSENSE, 0, False, True
    )
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for make, what in (
            (segmentation, an_outline()),
            (capture, a_picture()),
            (presentation, an_outline()),
        ):
            path = tmp_path / f"{make.__name__}.dcm"
            try:
                path.write_bytes(file_bytes(make(source, what, MAKER)))
            except ObjectFault as error:
                assert "SECRET" not in "".join(traceback.format_exception(error))  # noqa: PT017
    assert not warned
    assert capfd.readouterr() == ("", "")
    assert not [r for r in caplog.records if r.name != "pydicom"]  # its logger is silent unless asked
    for path in tmp_path.iterdir():
        assert pydicom.dcmread(path).SeriesInstanceUID.startswith("2.25.")


def test_whatever_a_library_raises_is_one_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(**_: object) -> None:
        raise ValueError("SECRET")

    monkeypatch.setattr(dicom_objects, "Segmentation", raising)
    with pytest.raises(ObjectFault, match=r"its header cannot be taken over \(ValueError\)") as caught:
        segmentation(film(), an_outline(), MAKER)
    assert "SECRET" not in "".join(traceback.format_exception(caught.value))


# --- judged by dciodvfy ------------------------------------------------------------------------------


@pytest.fixture
def errors_of() -> Callable[[Path], set[str]]:
    """The lines of errors that dciodvfy has for a file."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (Debian: dicom3tools) is not installed")

    def errors(path: Path) -> set[str]:
        done = subprocess.run(
            ["dciodvfy", path], capture_output=True, text=True, errors="replace", check=False
        )
        lines = (done.stdout + done.stderr).splitlines()
        assert lines, "dciodvfy said nothing"
        return {line for line in lines if line.startswith("Error")}

    return errors


def assert_no_new_errors(path: Path, folder: Path, errors_of: Callable[[Path], set[str]]) -> None:
    of_film = errors_of(path)
    for ds in every(header(path)):
        (folder / "object.dcm").write_bytes(file_bytes(ds))
        assert errors_of(folder / "object.dcm") <= of_film, ds.Modality


EMPTY = (  # the attributes that may lack a value
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "SeriesNumber",
    "InstanceNumber",
)


def test_dciodvfy_would_find_an_error(tmp_path: Path, errors_of: Callable[[Path], set[str]]) -> None:
    ds = segmentation(film(PixelSpacing=None), an_outline(), MAKER)
    del ds.SegmentSequence[0].SegmentLabel
    (tmp_path / "object.dcm").write_bytes(file_bytes(ds))
    assert any("SegmentLabel" in line for line in errors_of(tmp_path / "object.dcm"))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"PhotometricInterpretation": "MONOCHROME2"},
        {"SOPClassUID": DigitalXRayImageStorageForPresentation, "Modality": "DX"},
        {"PixelSpacing": None},
        {"PixelSpacing": ["0.000", "0.000"]},
        {"PatientOrientation": ["R", "F"]},
        {"PatientOrientation": ["L", "R"]},
        {"WindowCenter": [100, 200], "WindowWidth": [50, 60], "WindowCenterWidthExplanation": ["A", "B"]},
        {"RescaleSlope": "2", "RescaleIntercept": "-5", "RescaleType": "US", "VOILUTFunction": "SIGMOID"},
        {"FrameOfReferenceUID": "1.2.3.7"},
        {"PatientOrientation": None},
        {"PatientOrientation": ""},
        {"Laterality": "R", "BodyPartExamined": "HAND"},
        {"LossyImageCompression": "01", "LossyImageCompressionRatio": "9", "PatientAge": "050Y"},
        {"SOPClassUID": MultiFrameGrayscaleWordSecondaryCaptureImageStorage, "NumberOfFrames": 1},
        dict.fromkeys(EMPTY, ""),
        dict.fromkeys(("PatientName", "PatientID", "StudyDate", "ContentDate", "ContentTime", "StudyID")),
    ],
)
def test_dciodvfy_finds_no_error(
    changes: dict, tmp_path: Path, errors_of: Callable[[Path], set[str]]
) -> None:
    source = film(**changes)
    assert_no_new_errors(written(source, tmp_path / "film.dcm"), tmp_path, errors_of)
    for ds in every(source):
        (tmp_path / "object.dcm").write_bytes(file_bytes(ds))
        assert not errors_of(tmp_path / "object.dcm")


def test_attributes_that_must_be_there_are() -> None:
    for ds in both(film(**dict.fromkeys(EMPTY))):
        assert {keyword for keyword in EMPTY if keyword in ds} == set(EMPTY)


def test_dciodvfy_finds_no_error_on_an_empty_outline(
    tmp_path: Path, errors_of: Callable[[Path], set[str]]
) -> None:
    (tmp_path / "object.dcm").write_bytes(
        file_bytes(segmentation(film(), np.zeros((ROWS, COLUMNS), dtype=bool), MAKER))
    )
    assert not errors_of(tmp_path / "object.dcm")


def test_dciodvfy_finds_no_error_on_synthetic_films(
    tmp_path: Path, errors_of: Callable[[Path], set[str]]
) -> None:
    write_siim(tmp_path / "siim", positives=1, negatives=0, seed=3, workers=1)
    write_ntuh(tmp_path / "ntuh", 1, 1, 1, 0, seed=3, workers=1)
    films = sorted(tmp_path.rglob("*.dcm"))
    assert len(films) > 4
    for path in films:
        assert_no_new_errors(path, tmp_path, errors_of)


@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm",
        "MR_small_bigendian.dcm",
        "examples_overlay.dcm",
        "examples_palette.dcm",
        "image_dfl.dcm",
        "ExplVR_BigEnd.dcm",
        "693_J2KI.dcm",
        "JPGExtended.dcm",
    ],
)
def test_dciodvfy_finds_no_new_error_on_other_images(
    name: str, tmp_path: Path, errors_of: Callable[[Path], set[str]]
) -> None:
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"pydicom came without {name}")
    assert_no_new_errors(Path(path), tmp_path, errors_of)


def test_dciodvfy_finds_no_new_error_on_real_films(
    real: Path, tmp_path: Path, errors_of: Callable[[Path], set[str]]
) -> None:
    films = sorted((real / "dicom").glob("*.dcm"))
    assert films
    for path in films:
        assert_no_new_errors(path, tmp_path, errors_of)
