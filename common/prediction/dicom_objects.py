"""What goes back to the archive of a film: a Segmentation, a Secondary Capture, and a presentation state.

All belong to the patient and the study of the film, so they carry its identity; nothing else that the
project writes does. The same film and the same system give the same UIDs and the same bytes, so an object
that is sent again is the same object to the archive. So nothing in them tells when they were made: date and
time of their content are the film's own.
"""

from __future__ import annotations

import copy
import math
import re
import uuid
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np
import pydicom
from highdicom import AlgorithmIdentificationSequence, PresentationLUTTransformation, SOPClass
from highdicom.pr import (
    AnnotationUnitsValues,
    GraphicAnnotation,
    GraphicLayer,
    GraphicObject,
    GraphicTypeValues,
    GrayscaleSoftcopyPresentationState,
    TextObject,
)
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.sr.codedict import codes
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from pydicom.valuerep import VR, DSfloat

from common.files import digest
from common.films.header import stated_spacings
from common.films.own_outputs import MANUFACTURER, RESEARCH_ONLY

_NAMESPACE = uuid.UUID("5b0f6f0e-4c1c-5d0a-8a55-2d6a3c1f9e77")  # any will do, but always this one
_SERIES_NUMBERS = {"segmentation": 9101, "capture": 9102, "presentation": 9103}  # beyond those of a device
_NO_DATE = "19000101"
_TIME = re.compile(r"([01][0-9]|2[0-3])([0-5][0-9]([0-5][0-9](\.[0-9]{1,6})?)?)?")
_REFERRED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_UNWANTED = (  # of what highdicom writes: the time of day, its own version, a position in space
    "InstanceCreationDate",
    "InstanceCreationTime",
    "ContributingEquipmentSequence",
)
_GREY = (  # from stored values to what is shown (PS3.3 C.11.1 and C.11.2)
    "ModalityLUTSequence",
    "RescaleIntercept",
    "RescaleSlope",
    "RescaleType",
    "VOILUTSequence",
    "WindowCenter",
    "WindowWidth",
    "WindowCenterWidthExplanation",
    "VOILUTFunction",
)
_DIRECTIONS = {  # of PatientOrientation, in the patient's axes (PS3.3 C.7.6.2.1.1)
    "L": (1.0, 0.0, 0.0),
    "R": (-1.0, 0.0, 0.0),
    "P": (0.0, 1.0, 0.0),
    "A": (0.0, -1.0, 0.0),
    "H": (0.0, 0.0, 1.0),
    "F": (0.0, 0.0, -1.0),
}
_AS_HUNG = ["L", "F"]  # the patient's left on the picture's right
_NOMINAL = 1.0  # mm; a projection has no thickness, but PS3.3 C.7.6.16.2.1 wants one
_MOST_POINTS = 4000  # of a line: 64 KB is the most that its numbers may take (PS3.5 7.1.2)
_LONGEST = 10240  # characters; no text of these modules may be longer (PS3.5 6.2: LT)

# PS3.3 C.7.1.1 Patient, C.7.1.3 and C.7.2.3 Clinical Trial, C.7.2.1 General Study and C.7.2.2 Patient Study;
# of C.12.1 SOP Common what says how to read them
_REQUIRED = (  # type 2: highdicom writes them in any case, if need be without a value
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
_OPTIONAL = (
    "SpecificCharacterSet",
    "TimezoneOffsetFromUTC",
    "ReferencedPatientSequence",
    "IssuerOfPatientID",
    "TypeOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "SourcePatientGroupIdentificationSequence",
    "GroupOfPatientsIdentificationSequence",
    "PatientBirthTime",
    "PatientBirthDateInAlternativeCalendar",
    "PatientDeathDateInAlternativeCalendar",
    "PatientAlternativeCalendar",
    "QualityControlSubject",
    "StrainDescription",
    "StrainNomenclature",
    "StrainStockSequence",
    "StrainAdditionalInformation",
    "StrainCodeSequence",
    "GeneticModificationsSequence",
    "OtherPatientIDs",
    "OtherPatientNames",
    "OtherPatientIDsSequence",
    "ReferencedPatientPhotoSequence",
    "EthnicGroup",
    "EthnicGroupCodeSequence",
    "PatientSpeciesDescription",
    "PatientSpeciesCodeSequence",
    "PatientBreedDescription",
    "PatientBreedCodeSequence",
    "BreedRegistrationSequence",
    "ResponsiblePerson",
    "ResponsiblePersonRole",
    "ResponsibleOrganization",
    "PatientComments",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName",
    "IssuerOfClinicalTrialProtocolID",
    "OtherClinicalTrialProtocolIDsSequence",
    "ClinicalTrialSiteID",
    "ClinicalTrialSiteName",
    "IssuerOfClinicalTrialSiteID",
    "ClinicalTrialSubjectID",
    "IssuerOfClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID",
    "IssuerOfClinicalTrialSubjectReadingID",
    "ClinicalTrialProtocolEthicsCommitteeName",
    "ClinicalTrialProtocolEthicsCommitteeApprovalNumber",
    "ClinicalTrialTimePointID",
    "ClinicalTrialTimePointDescription",
    "LongitudinalTemporalOffsetFromEvent",
    "LongitudinalTemporalEventType",
    "ClinicalTrialTimePointTypeCodeSequence",
    "IssuerOfClinicalTrialTimePointID",
    "ConsentForClinicalTrialUseSequence",
    "IssuerOfAccessionNumberSequence",
    "ReferringPhysicianIdentificationSequence",
    "ConsultingPhysicianName",
    "ConsultingPhysicianIdentificationSequence",
    "StudyDescription",
    "ProcedureCodeSequence",
    "PhysiciansOfRecord",
    "PhysiciansOfRecordIdentificationSequence",
    "NameOfPhysiciansReadingStudy",
    "PhysiciansReadingStudyIdentificationSequence",
    "ReferencedStudySequence",
    "RequestingService",
    "RequestingServiceCodeSequence",
    "ReasonForPerformedProcedureCodeSequence",
    "AdmittingDiagnosesDescription",
    "AdmittingDiagnosesCodeSequence",
    "PatientAge",
    "PatientSize",
    "PatientSizeCodeSequence",
    "PatientBodyMassIndex",
    "MeasuredAPDimension",
    "MeasuredLateralDimension",
    "PatientWeight",
    "MedicalAlerts",
    "Allergies",
    "Occupation",
    "SmokingStatus",
    "AdditionalPatientHistory",
    "PregnancyStatus",
    "LastMenstrualDate",
    "PatientSexNeutered",
    "ReasonForVisit",
    "ReasonForVisitCodeSequence",
    "AdmissionID",
    "IssuerOfAdmissionIDSequence",
    "ServiceEpisodeID",
    "ServiceEpisodeDescription",
    "IssuerOfServiceEpisodeIDSequence",
    "PatientState",
)


Spacing: TypeAlias = "tuple[float, float] | None"


class ObjectFault(Exception):
    """No DICOM object can be made of a film. The message holds no text of its header."""


@dataclass(frozen=True)
class Maker:
    """What found the pneumothorax.

    Attributes:
        system: `eff` or `vit`.
        identity: SHA-256 (hex) of its weights and thresholds. Another identity gives other objects.
        film: What tells the film from another one of the same SOP Instance UID; empty where there is none.
    """

    system: str
    identity: str
    film: str = ""

    @property
    def name(self) -> str:
        """As people tell it from others."""
        return f"{self.system} {self.identity[:12]}"


def derived_uid(*parts: str) -> str:
    """The UID that follows from the parts: a UUID (RFC 9562, version 5) under `2.25.` (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, digest(*parts)).int}"


def _derived_uid(kind: str, source: Dataset, maker: Maker) -> str:
    """The UID of something that a system made of a film."""
    return derived_uid(kind, _text(source, "SOPInstanceUID"), maker.identity, *filter(None, [maker.film]))


_IMPLEMENTATION = UID(derived_uid("implementation class"))


def cannot_refer(source: Dataset) -> str | None:
    """Why no object can refer to a film; None when one can. It quotes nothing of the header.

    Args:
        source: Header of the film, with or without its pixels.
    """
    with _hushed():
        for keyword in _REFERRED:
            value = _text(source, keyword)
            if not value:
                return f"its header has no {keyword}"
            if not UID(value).is_valid:
                return f"its header has an impossible {keyword}"
        if "Image Storage" not in UID(_text(source, "SOPClassUID")).name:
            return "its header names no SOP class of an image"
        if _text(source, "NumberOfFrames") not in ("", "1"):
            return "it holds several frames"
        if not (_whole(source, "Rows") and _whole(source, "Columns")):
            return "its header does not say how large it is"
        return None


def segmentation(
    source: Dataset, outline: np.ndarray, maker: Maker, spacing: Spacing | Literal["stated"] = "stated"
) -> Dataset:
    """A DICOM Segmentation (PS3.3 A.51, BINARY, one segment, one frame) on the film's own pixels.

    Date and time of the content are the film's own, else those of its series or study, else 1900-01-01: the
    standard wants them. It refers to the film and says that pixel lies on pixel. Many programs open it only
    if it has a plane in space; where the film's spacing is known it gets one, in a frame of reference of its
    own. Without a spacing it has none, since any would claim millimetres that nobody knows.

    Args:
        source: Header of the film, with or without its pixels.
        outline: (rows, columns) bool, true in the pneumothorax; all false for a film without one.
        maker: System that found it.
        spacing: (row, column) spacing of the film in mm; None where it is unknown; `stated`: what the header
            states, however large or small that makes the film.

    Returns:
        As it would be read from its file.

    Raises:
        ObjectFault: The header is not enough for it; the message says why.
    """
    with _object_faults():
        _refuse(cannot_refer(source))
        if outline.shape != (_whole(source, "Rows"), _whole(source, "Columns")):
            _refuse("its header gives another size than its picture has")
        made = Segmentation(
            source_images=[_bare(source)],
            pixel_array=outline.astype(np.uint8)[np.newaxis],
            segmentation_type="BINARY",
            segment_descriptions=[_segment(source, maker)],
            omit_empty_frames=False,  # an empty one says: looked at, nothing found
            content_label="PNEUMOTHORAX",
            content_description=f"Outlined by {maker.system}; {RESEARCH_ONLY}",
            content_creator_name="",  # type 2
            series_description=f"Pneumothorax {maker.system}, {RESEARCH_ONLY}",
            **_identification(source, maker, "segmentation"),
        )
        _put_in_space(made, source, maker, _known(source, spacing))
        organization = derived_uid("dimensions", made.SOPInstanceUID)  # highdicom's is random
        for item in (*made.DimensionOrganizationSequence, *made.DimensionIndexSequence):
            item.DimensionOrganizationUID = organization
        return _finished(made, source)


def capture(source: Dataset, picture: np.ndarray, maker: Maker) -> Dataset:
    """A DICOM Secondary Capture (PS3.3 A.8.1) of the picture of a finding.

    BurnedInAnnotation asks whether the picture itself names the patient. The words that the project draws
    never do, so it is what the film's header says of the film, and absent where that says nothing. Dates as
    in `segmentation`.

    Args:
        source: Header of the film, with or without its pixels.
        picture: (h, w, 3) uint8 RGB: the film in its own orientation, with words on it.
        maker: System that found it.

    Returns:
        As it would be read from its file.

    Raises:
        ObjectFault: The header is not enough for it; the message says why.
    """
    with _object_faults():
        _refuse(cannot_refer(source))
        made = SOPClass(  # highdicom's SCImage would insist on the patient's orientation
            sop_class_uid=SecondaryCaptureImageStorage,
            study_instance_uid=_text(source, "StudyInstanceUID"),
            modality="OT",
            transfer_syntax_uid=ExplicitVRLittleEndian,
            series_description=f"Overlay {maker.system}, {RESEARCH_ONLY}",
            **_identification(source, maker, "capture"),
        )
        made.ConversionType = "WSD"
        made.ImageType = ["DERIVED", "SECONDARY"]
        made.Laterality = _laterality(source)
        if _text(source, "BurnedInAnnotation") in ("YES", "NO"):
            made.BurnedInAnnotation = _text(source, "BurnedInAnnotation")
        made.update(_compression(source))
        made.DerivationDescription = f"Film with the outline of what was found, and words; {RESEARCH_ONLY}"
        made.ImageComments = RESEARCH_ONLY
        made.SourceImageSequence = [_reference(source)]
        made.Rows, made.Columns, made.SamplesPerPixel = picture.shape
        made.PhotometricInterpretation, made.PlanarConfiguration = "RGB", 0
        made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 8, 8, 7, 0
        made.PixelData = picture.tobytes()
        return _finished(made, source)


def presentation(
    source: Dataset, outline: np.ndarray, maker: Maker, spacing: Spacing | Literal["stated"] = "stated"
) -> Dataset:
    """A Grayscale Softcopy Presentation State (PS3.3 A.33.1): the film as it is, with the outline on it.

    Args:
        source: Header of a film of grey levels, with or without its pixels.
        outline: (rows, columns) bool, true in the pneumothorax, at least at one pixel.
        maker: System that found it.
        spacing: (row, column) spacing of the film in mm; None where it is unknown; `stated`: what the header
            states, however large or small that makes the film.

    Returns:
        As it would be read from its file.

    Raises:
        ObjectFault: The header is not enough for it, or the film is in colour; the message says why.
    """
    with _object_faults():
        _refuse(cannot_refer(source))
        photometric = _text(source, "PhotometricInterpretation")
        if photometric not in ("MONOCHROME1", "MONOCHROME2"):
            _refuse("it is no film of grey levels")
        if re.search("Enhanced|Multi-frame", UID(_text(source, "SOPClassUID")).name):
            _refuse("its grey levels may be described frame by frame")
        film = _bare(source)
        film.SamplesPerPixel = 1
        for element in (copy.deepcopy(source[keyword]) for keyword in _GREY if keyword in source):
            film.add(element)
        words = TextObject(
            f"Pneumothorax {maker.system}, {RESEARCH_ONLY}",
            AnnotationUnitsValues.PIXEL,
            anchor_point=_topmost(outline),
        )
        layer = GraphicLayer("PNEUMOTHORAX", 1, f"Outline, {RESEARCH_ONLY}")
        lines = [
            GraphicObject(GraphicTypeValues.POLYLINE, line, AnnotationUnitsValues.PIXEL)
            for line in outline_lines(outline)
        ]
        made = GrayscaleSoftcopyPresentationState(
            referenced_images=[film],
            content_label="PNEUMOTHORAX",
            content_description=f"Outlined by {maker.system}; {RESEARCH_ONLY}",
            content_creator_name="",  # type 2
            graphic_annotations=[
                GraphicAnnotation([film], layer, graphic_objects=lines, text_objects=[words])
            ],
            graphic_layers=[layer],
            presentation_lut_transformation=PresentationLUTTransformation(
                "INVERSE" if photometric == "MONOCHROME1" else "IDENTITY"  # as the film is (PS3.3 C.8.11.3)
            ),
            series_description=f"Outline {maker.system}, {RESEARCH_ONLY}",
            **_identification(source, maker, "presentation"),
        )
        if (known := _known(source, spacing)) is not None:
            (area,) = made.DisplayedAreaSelectionSequence
            area.pop("PresentationPixelAspectRatio", None)
            area.PresentationPixelSpacing = list(map(_decimal, known))
        made.Laterality = _laterality(source)
        made.PresentationCreationDate, made.PresentationCreationTime = _moment(source)
        return _finished(made, source, image=False)


def outline_lines(outline: np.ndarray) -> list[np.ndarray]:
    """The edges of an outline: closed lines, (n, 2) float32, column and row, 0.5 in the first pixel's middle.

    Args:
        outline: (rows, columns) bool.
    """
    lines = []
    for edge in cv2.findContours(outline.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)[0]:
        tolerance = 0.5  # pixels
        while len(edge) > _MOST_POINTS:
            edge, tolerance = cv2.approxPolyDP(edge, tolerance, closed=True), 2 * tolerance
        points = edge[:, 0].astype(np.float32) + 0.5
        lines.append(np.concatenate([points, points[:1]]))
    return lines


def file_bytes(dataset: Dataset) -> bytes:
    """An object as the content of a DICOM file (PS3.10)."""
    file = BytesIO()
    with _hushed():
        dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


# --- parts of an object ------------------------------------------------------------------------------


def _identification(source: Dataset, maker: Maker, kind: str) -> dict[str, Any]:
    """Arguments of highdicom that say which object it is, and what made it."""
    return {
        "sop_instance_uid": _derived_uid(kind, source, maker),
        "instance_number": _whole(source, "InstanceNumber") or 1,
        # objects of one series of films are one series, too; those of another system are another
        "series_instance_uid": derived_uid(
            kind, "series", _text(source, "SeriesInstanceUID"), maker.identity
        ),
        "series_number": _SERIES_NUMBERS[kind],
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": f"Pneumothorax {maker.system}",
        "software_versions": maker.name,
        "device_serial_number": maker.identity,
    }


def _bare(source: Dataset) -> Dataset:
    """What its Segmentation needs of a film, so that nothing else of its header can disturb highdicom."""
    bare = Dataset()
    for keyword in _REFERRED:
        setattr(bare, keyword, _text(source, keyword))
    bare.Rows, bare.Columns, bare.NumberOfFrames = _whole(source, "Rows"), _whole(source, "Columns"), 1
    for keyword in _REQUIRED:
        setattr(bare, keyword, "")
    # Taken out again, but asked for where the class is that of a CT, or may hold several frames
    bare.FrameOfReferenceUID = derived_uid("no position")
    groups = Dataset()
    groups.PixelMeasuresSequence = [Dataset()]
    bare.SharedFunctionalGroupsSequence = [groups]
    bare.update(_compression(source))
    return bare


def _known(source: Dataset, spacing: Spacing | Literal["stated"]) -> Spacing:
    """The spacing of the film in mm; of what a header states, the first that is above 0."""
    if spacing != "stated":
        return spacing
    stated = (each for _, each in stated_spacings(source))
    return next((each for each in stated if all(math.isfinite(side) and side > 0 for side in each)), None)


def _put_in_space(made: Dataset, source: Dataset, maker: Maker, spacing: Spacing) -> None:
    """Give a Segmentation the plane in which the film lies, or none."""
    shared = made.SharedFunctionalGroupsSequence[0]
    for dataset, keyword in (
        (shared, "PixelMeasuresSequence"),
        (made, "FrameOfReferenceUID"),
        (made, "PositionReferenceIndicator"),
    ):
        dataset.pop(keyword, None)
    if spacing is None:
        return
    measures, direction, position = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = list(map(_decimal, spacing)), _NOMINAL
    direction.ImageOrientationPatient = _plane(source)
    position.ImagePositionPatient = [0.0, 0.0, 0.0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [direction]
    made.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence = [position]
    instance = _text(source, "SOPInstanceUID")
    made.FrameOfReferenceUID = derived_uid("frame of reference", instance, *filter(None, [maker.film]))
    made.PositionReferenceIndicator = ""


def _plane(source: Dataset) -> list[float]:
    """Directions of rows and columns in the patient; as films are usually hung where they are not known."""
    row, column = list(_orientation(source)) or _AS_HUNG
    first, second = _DIRECTIONS[row[0]], _DIRECTIONS[column[0]]
    if np.dot(first, second) != 0:  # along one axis: an orientation that cannot be
        first, second = (_DIRECTIONS[letter] for letter in _AS_HUNG)
    return [*first, *second]


def _decimal(value: float) -> DSfloat:
    """A number in the 16 characters that DICOM has for it."""
    return DSfloat(value, auto_format=True)


def _topmost(outline: np.ndarray) -> tuple[float, float]:
    """Column and row of the first pixel of an outline."""
    row, column = np.argwhere(outline)[0].tolist()
    return column + 0.5, row + 0.5


def _segment(source: Dataset, maker: Maker) -> SegmentDescription:
    instance = _text(source, "SOPInstanceUID")
    return SegmentDescription(
        segment_number=1,
        segment_label="Pneumothorax",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Pneumothorax,
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=f"Pneumothorax {maker.system}",
            family=codes.cid7162.ArtificialIntelligence,
            version=maker.identity,
        ),
        tracking_uid=_derived_uid("tracking", source, maker),
        tracking_id=f"Pneumothorax by {maker.name} on {instance}",
    )


def _reference(source: Dataset) -> Dataset:
    """Item of a Source Image Sequence (PS3.3 C.7.6.1.1.4)."""
    purpose, code = Dataset(), codes.DCM.SourceImageForImageProcessingOperation
    purpose.CodeValue, purpose.CodingSchemeDesignator = code.value, code.scheme_designator
    purpose.CodeMeaning = code.meaning
    item = Dataset()
    item.ReferencedSOPClassUID = _text(source, "SOPClassUID")
    item.ReferencedSOPInstanceUID = _text(source, "SOPInstanceUID")
    item.PurposeOfReferenceCodeSequence = [purpose]
    return item


def _compression(source: Dataset) -> Dataset:
    """What a film lost by compression, what is made of it lost, too (PS3.3 C.7.6.1.1.5)."""
    names = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
    lossy = Dataset()
    if _text(source, names[0]) == "01":
        lossy.update({element.tag: element for element in _copies(source, names)})
    return lossy


def _laterality(source: Dataset) -> str:
    value = _text(source, "Laterality")
    return value if value in ("R", "L") else ""


def _orientation(source: Dataset) -> list[str] | str:
    """PatientOrientation of a film where it is one (PS3.3 C.7.6.1.1.1), else empty."""
    value = _text(source, "PatientOrientation", between="/")
    return value.split("/") if re.fullmatch(r"[APRLHF]{1,3}/[APRLHF]{1,3}", value) else ""


def _finished(made: Dataset, source: Dataset, image: bool = True) -> Dataset:
    """An object with the patient, the study and the dates of its film, as it would be read from its file."""
    for keyword in _UNWANTED:
        made.pop(keyword, None)
    for element in _copies(source, (*_REQUIRED, *_OPTIONAL)):
        made.add(element)
    if image:
        made.ContentDate, made.ContentTime = _moment(source)
        made.PatientOrientation = _orientation(source)
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.ImplementationClassUID = _IMPLEMENTATION
    made.file_meta.ImplementationVersionName = "PNEUMOTHORAX_1"
    file = BytesIO()
    made.save_as(file, enforce_file_format=True)
    file.seek(0)
    return pydicom.dcmread(file)


def _moment(source: Dataset) -> tuple[str, str]:
    """Date and time of what a film shows."""
    for of in ("Content", "Acquisition", "Series", "Study"):
        date, time = _text(source, f"{of}Date"), _text(source, f"{of}Time")
        if _is_date(date):
            return date, time if _TIME.fullmatch(time) else "000000"
    return _NO_DATE, "000000"


def _is_date(text: str) -> bool:
    try:
        return bool(re.fullmatch(r"[0-9]{8}", text) and datetime.strptime(text, "%Y%m%d"))
    except ValueError:
        return False


# --- values of a header, which may hold anything -----------------------------------------------------


@contextmanager
def _hushed() -> Iterator[None]:
    """Without the warnings of pydicom and highdicom, which quote the header."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _object_faults() -> Iterator[None]:
    """Turn whatever a header makes pydicom or highdicom raise into an `ObjectFault`, without its words."""
    try:
        with _hushed():
            yield
    except ObjectFault:
        raise
    except Exception as error:
        raise ObjectFault(f"its header cannot be taken over ({type(error).__name__})") from None


def _refuse(reason: str | None) -> None:
    if reason is not None:
        raise ObjectFault(reason)


def _text(source: Dataset, keyword: str, between: str = "\\") -> str:
    """A value as text; empty where it is missing or not readable."""
    try:
        value = source.get(keyword)
    except Exception:  # pydicom converts values when they are asked for
        return ""
    values = value if isinstance(value, MultiValue) else [value]
    return between.join("" if each is None else str(each).strip() for each in values)


def _whole(source: Dataset, keyword: str) -> int | None:
    """A whole number above 0, else None."""
    text = _text(source, keyword)
    return int(text) or None if re.fullmatch(r"[0-9]{1,9}", text) else None


def _copies(source: Dataset, keywords: Iterable[str]) -> Iterator[DataElement]:
    """The elements of a header that have one of these keywords and can be taken over.

    Raises:
        ObjectFault: One that identifies the patient or the study cannot.
    """
    for keyword in keywords:
        if keyword in source:
            element = _copy(source, Tag(keyword))
            if element is not None:
                yield element
            elif keyword in _REQUIRED:
                raise ObjectFault(f"its header has an unreadable {keyword}")


def _copy(source: Dataset, tag: int) -> DataElement | None:
    """An element as the standard has it; None where it is private, binary, too long or not readable.

    Text that is not in the header's character set is not readable.
    """
    try:
        vr, value = dictionary_VR(tag), source[tag].value
        if vr == VR.SQ:
            return DataElement(tag, vr, [_copy_all(item) for item in value])
        if len(vr) > 2 or isinstance(value, bytes | pydicom.Sequence):
            return None
        if len(str(value)) > _LONGEST or "\ufffd" in str(value):
            return None
        return DataElement(tag, vr, copy.copy(value))
    except Exception:  # pydicom converts values when they are asked for
        return None


def _copy_all(item: Dataset) -> Dataset:
    """An item of a sequence, without what `_copy` leaves out."""
    made = Dataset()
    for tag in item.keys():  # noqa: SIM118 - iterating over the item itself gives elements
        element = _copy(item, tag)
        if element is not None:
            made.add(element)
    return made
