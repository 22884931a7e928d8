"""What a DICOM header says of a film. Its values may hold anything, a name too."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any

import pydicom
from pydicom.datadict import keyword_dict
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from common.films.fault import FilmFault, Note

_FUNCTIONAL_GROUPS = ("FrameVOILUTSequence", "PixelValueTransformationSequence", "PixelMeasuresSequence")
_POSTURES = {  # PS3.16 CID 19 and 20, in SNOMED CT and in the SNOMED RT codes of older devices
    "10904000": "ERECT",
    "C86043": "ERECT",
    "F-10440": "ERECT",
    "102538003": "RECUMBENT",
    "F-10450": "RECUMBENT",
    "102539006": "SEMIERECT",
    "F-10460": "SEMIERECT",
    "40199007": "SUPINE",
    "F-10340": "SUPINE",
    "1240000": "PRONE",
    "F-10310": "PRONE",
}
_VIEWS = {  # PS3.16 CID 4010, likewise, and the words of technicians
    "399348003": "AP",
    "R-10206": "AP",
    "272479007": "PA",
    "R-10214": "PA",
    "R-40888": "PA",
    "399173006": "LL",
    "R-10236": "LL",
    "399198007": "RL",
    "R-10232": "RL",
    "399067008": "LAT",
    "R-102CD": "LAT",
    "399182000": "OBL",
    "R-102C1": "OBL",
    "399356000": "RAO",
    "R-10218": "RAO",
    "R-40985": "RAO",
    "399135007": "LAO",
    "R-10220": "LAO",
    "399038007": "RPO",
    "R-10210": "RPO",
    "399006002": "LPO",
    "R-10212": "LPO",
}
# The words of technicians, in capitals; what an earlier line takes is nothing to a later one
_LEFT, _RIGHT = r"\b(?:LEFT|LT|L)[- ]+", r"\b(?:RIGHT|RT|R)[- ]+"
_VIEW_WORDS = {
    _LEFT + r"(?:LAT(?:ERAL)?[- ]+)?DECUB(?:ITUS)?\b": "LLD",
    _RIGHT + r"(?:LAT(?:ERAL)?[- ]+)?DECUB(?:ITUS)?\b": "RLD",
    _LEFT + r"ANTERIOR[- ]+OBLIQUE\b": "LAO",
    _LEFT + r"POSTERIOR[- ]+OBLIQUE\b": "LPO",
    _RIGHT + r"ANTERIOR[- ]+OBLIQUE\b": "RAO",
    _RIGHT + r"POSTERIOR[- ]+OBLIQUE\b": "RPO",
    _LEFT + r"LAT(?:ERAL)?\b": "LL",
    _RIGHT + r"LAT(?:ERAL)?\b": "RL",
    r"\bANTERO?(?:IOR)?[- ]*(?:TO[- ]+)?POSTERIOR\b|\bA[./-]?P\b": "AP",
    r"\bPOSTERO?(?:IOR)?[- ]*(?:TO[- ]+)?ANTERIOR\b|\bP[./-]?A\b": "PA",
    r"\bLAT(?:ERAL)?\b": "LAT",
    r"\bOBL(?:IQUE)?\b": "OBL",
    **{rf"\b{code}\b": code for code in ("LL", "RL", "LLD", "RLD", "LAO", "LPO", "LLO", "RAO", "RPO", "RLO")},
}
_DESCRIPTIONS = (  # of the film, then of the study, which may name the views of other films
    ("ProtocolName", "SeriesDescription", "AcquisitionDeviceProcessingDescription"),
    ("PerformedProcedureStepDescription", "StudyDescription"),
)
OLDEST = 130  # years
SMALLEST, LARGEST, NARROWEST = 14, 60, 5  # cm, of a film: its longer side, and its shorter one
_NO_BIRTH_DATE = "19000101"  # a placeholder
_MODALITIES = (  # PS3.3 C.7.3.1.1.1, those of pictures; OT (other) says nothing
    "BI|BMD|CFM|CR|CT|DG|DX|ES|GM|HC|IO|IVOCT|IVUS|KER|LEN|LS|MG|MR|NM|OAM|OCT|OP|OPM|OPT|OPV|PT|PX|RF|RG|"
    "RTIMAGE|SM|TG|US|XA|XC"
)
CHEST, OTHER = "CHEST", "OTHER"
_SNOMED = ("SCT", "SRT", "SNM3", "99SDM")  # coding schemes
_CHEST_CODES = ("816094009", "51185008", "T-D3000", "39607008", "T-28000")  # chest, thorax, lung
_CHEST_WORDS = ("CHEST", "CXR", "LUNG", "LUNGS", "THORAX")
_OTHER_WORDS = (  # of BodyPartExamined (PS3.16 Annex L) and of descriptions
    "ABDOMEN|ABDOMENPELVIS|ANKLE|ARM|BREAST|CALCANEUS|CHESTABDOMEN|CHESTABDPELVIS|CLAVICLE|COCCYX|CSPINE|"
    "ELBOW|EXTREMITY|FEMUR|FINGER|FOOT|FOREARM|HAND|HEAD|HEADNECK|HIP|HUMERUS|JAW|KNEE|LEG|LOWERLEG|LOWERLIMB|"
    "LSPINE|MANDIBLE|NECK|NECKCHEST|PATELLA|PELVIS|PHANTOM|RIB|RIBS|SACRUM|SCAPULA|SHOULDER|SKULL|SPINE|SSPINE|"
    "STERNUM|THIGH|THUMB|TIBIA|TOE|TSPINE|UPPERARM|UPPERLIMB|WHOLEBODY|WRIST"
)


def facts(dataset: Dataset, note: Note) -> dict[str, Any]:
    """What a header says of its film: all that a `decode.Film` holds besides the pixels and the notes.

    Args:
        dataset: The header.
        note: Hears what is odd about it.
    """
    age, spacing = _age(dataset, note), _spacing(dataset, note)
    _polarity(dataset, note)
    return {
        "patient_id": get_text(dataset, "PatientID"),
        "age": age,
        "sex": get_text(dataset, "PatientSex") if get_text(dataset, "PatientSex") in ("M", "F") else None,
        "view": _view(dataset),
        "spacing": spacing,
        "study": get_text(dataset, "StudyInstanceUID"),
        "instance": get_text(dataset, "SOPInstanceUID"),
        "position": _position(dataset),
        "manufacturer": _manufacturer(dataset),
        "date": _date(dataset),
        "burned_in": get_text(dataset, "BurnedInAnnotation").upper() == "YES",
        "modality": _modality_of(dataset),
        "body_part": _body_part(dataset),
        "orientation": _orientation(dataset),
        "for_processing": get_text(dataset, "PresentationIntentType").upper() == "FOR PROCESSING",
    }


# --- values, which may hold anything ----------------------------------------------------------------


def get_value(dataset: Dataset, keyword: str) -> Any:
    """A value; None where it is missing, empty or not readable."""
    try:
        value = _stored(dataset, keyword)
    except Exception:  # pydicom converts values when they are asked for
        return None
    return None if value is None or value == "" else value


def _stored(dataset: Dataset, keyword: str) -> Any:
    """A value as pydicom converts it, by its tag: in a third of the time that it takes by name."""
    element = dataset.get(keyword_dict[keyword])
    return None if element is None else element.value


def get_text(dataset: Dataset, keyword: str) -> str:
    """A value as text without blanks at its ends; `""` where it is missing."""
    return str(get_value(dataset, keyword) or "").strip()


def get_items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; none where it is missing."""
    value = get_value(dataset, keyword)
    return list(value) if isinstance(value, pydicom.Sequence) else []


def get_number(dataset: Dataset, keyword: str) -> float | None:
    """The first of the values; None where there is none, NaN where it is no number."""
    values = get_numbers(dataset, keyword)
    return values[0] if values else None


def get_numbers(dataset: Dataset, keyword: str) -> list[float]:
    """The values; one NaN where they are no numbers."""
    try:
        value = _stored(dataset, keyword)
        values = list(value) if isinstance(value, MultiValue | list) else [value]
        return [float(value) for value in values if value is not None and value != ""]
    except Exception:  # of pydicom's conversion as well
        return [math.nan]


def get_whole_number(dataset: Dataset, keyword: str, default: int | None = None) -> int:
    """A whole number above 0.

    Raises:
        FilmFault: It is not one, or missing without a default.
    """
    value = get_number(dataset, keyword)
    if value is None and default is not None:
        return default
    if value is None or not value >= 1 or value != int(value):
        raise FilmFault(f"has no {keyword}" if value is None else f"has an impossible {keyword}")
    return int(value)


def flatten(dataset: Dataset) -> None:
    """Lift windows, rescaling and spacing of an enhanced object of one frame to where others have them."""
    for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        for group in get_items(dataset, groups)[:1]:
            for name in _FUNCTIONAL_GROUPS:
                for element in (element for item in get_items(group, name)[:1] for element in item):
                    if element.tag not in dataset:
                        dataset.add(element)


# --- facts ------------------------------------------------------------------------------------------


def _code(text: str) -> str | None:
    """A short code such as AP. Anything else may be free text, so it is dropped."""
    return text.upper() if re.fullmatch(r"[A-Za-z]{1,4}", text) else None


def _age(dataset: Dataset, note: Note) -> float | None:
    """PatientAge (`045Y`, SIIM's `45`, months, weeks, days), else birth to study date; in years.

    No age at all is a placeholder where the birth date says otherwise.
    """
    by_dates = _age_by_dates(dataset)
    age = age_in_years(get_text(dataset, "PatientAge"))
    if age is None:
        return by_dates
    if age <= OLDEST and (age > 0 or not by_dates):
        return age
    decides = "unknown" if by_dates is None else "by the birth date"
    note(f"an impossible PatientAge: its age is {decides}, found {age:g} years")
    return by_dates


def age_in_years(text: str) -> float | None:
    """`045Y`, SIIM's `45`, months (`010M`), weeks or days in years; None where it is something else."""
    match = re.fullmatch(r"([0-9]{1,3})([DWMY]?)", text.upper())
    if not match:
        return None
    return round(int(match[1]) / {"D": 365.25, "W": 52.18, "M": 12, "Y": 1, "": 1}[match[2]], 2)


def _age_by_dates(dataset: Dataset) -> float | None:
    birth, film = get_text(dataset, "PatientBirthDate").replace(".", ""), _date(dataset)
    if film is None or birth == _NO_BIRTH_DATE or not _day(birth):
        return None
    film = film.replace("-", "")
    age = int(film[:4]) - int(birth[:4]) - (film[4:] < birth[4:])  # less a year before the birthday
    return float(age) if 0 <= age <= OLDEST else None


def stated_spacings(dataset: Dataset) -> Iterator[tuple[str, tuple[float, float]]]:
    """What a header states of the spacing in the patient's plane (PS3.3 10.7.1.3), the better element first.

    Yields:
        Name of the element; (row, column) in mm, which may be 0 or impossible.
    """
    magnification = get_number(dataset, "EstimatedRadiographicMagnificationFactor")
    if magnification is None or not 1 <= magnification <= 3:  # unknown, or not plausible
        magnification = 1.0
    for name, divisor in (("PixelSpacing", 1.0), ("ImagerPixelSpacing", magnification)):
        values = get_numbers(dataset, name)
        if len(values) == 2:
            yield name, (values[0] / divisor, values[1] / divisor)


def _spacing(dataset: Dataset, note: Note) -> tuple[float, float] | None:
    """Spacing in the patient's plane as far as known, (row, column) in mm.

    A film larger or smaller than any detector has another spacing than its header says.
    """
    for name, spacing in stated_spacings(dataset):
        sides = [
            get_whole_number(dataset, count) * number / 10
            for count, number in zip(("Rows", "Columns"), spacing, strict=True)
        ]
        if min(sides) >= NARROWEST and SMALLEST <= max(sides) <= LARGEST:
            return spacing
        if all(math.isfinite(side) and side for side in sides):  # 0 is how some write that it is unknown
            note(f"an impossible {name} is not used, found a film of {sides[1]:.3g} x {sides[0]:.3g} cm")
    return None


def _polarity(dataset: Dataset, note: Note) -> None:
    """PS3.3 C.8.11.3 pairs MONOCHROME1 with INVERSE, MONOCHROME2 with IDENTITY; viewers differ otherwise."""
    photometric, shape = (
        get_text(dataset, "PhotometricInterpretation"),
        get_text(dataset, "PresentationLUTShape"),
    )
    if (photometric, shape) in (("MONOCHROME2", "INVERSE"), ("MONOCHROME1", "IDENTITY")):
        note(
            f"{photometric} with a PresentationLUTShape of {shape}: one of them is wrong, the first is obeyed"
        )


def _position(dataset: Dataset) -> str | None:
    """How the patient lay or stood: coded (PS3.3 C.8.11.5), a word, else PatientPosition."""
    for item in get_items(dataset, "PatientOrientationCodeSequence")[:1]:
        for code in (*get_items(item, "PatientOrientationModifierCodeSequence"), item):
            if get_text(code, "CodeValue") in _POSTURES:
                return _POSTURES[get_text(code, "CodeValue")]
    for name in ("PatientOrientation", "PatientPosition"):
        word = get_text(dataset, name).upper().replace("-", "")
        if word in _POSTURES.values():
            return word
    position = get_text(dataset, "PatientPosition")
    return position if re.fullmatch(r"(HF|FF|LF|RF|AF|PF)(S|P|DR|DL|I|)", position) else None


def _view(dataset: Dataset) -> str | None:
    """ViewPosition, else coded (PS3.3 C.8.11.5), else the only one that descriptions name."""
    position = get_text(dataset, "ViewPosition")
    if view := view_in_words(position):
        return view
    for item in get_items(dataset, "ViewCodeSequence")[:1]:
        if view := _VIEWS.get(get_text(item, "CodeValue")) or view_in_words(get_text(item, "CodeMeaning")):
            return view
    for keywords in _DESCRIPTIONS:
        if view := view_in_words("; ".join(get_text(dataset, keyword) for keyword in keywords)):
            return view
    return _code(position)


def view_in_words(text: str) -> str | None:
    """The only view that a text names, such as `AP` of `AP portable`; None without or with several."""
    text, named = text.upper().replace("_", " "), set()
    for pattern, view in _VIEW_WORDS.items():
        text, count = re.subn(pattern, ";", text)
        named |= {view} if count else set()
    if named & {"LL", "RL"}:  # they are lateral views, whose side is known
        named.discard("LAT")
    if named & {"LLD", "RLD"}:  # a posture, in which the film is AP or PA as well
        named &= {"LLD", "RLD"}
    return named.pop() if len(named) == 1 else None


def _modality_of(dataset: Dataset) -> str | None:
    code = get_text(dataset, "Modality").upper()
    return code if re.fullmatch(_MODALITIES, code) else None


def _body_part(dataset: Dataset) -> str | None:
    """Among several that BodyPartExamined names, the chest comes last; in free text, it comes first."""
    parts = _parts(dataset, "BodyPartExamined")
    if parts:
        return min(parts, key=CHEST.__eq__)  # False is less than True: any other part first
    for item in get_items(dataset, "AnatomicRegionSequence")[:1]:
        if get_text(item, "CodeValue") and get_text(item, "CodingSchemeDesignator") in _SNOMED:
            return CHEST if get_text(item, "CodeValue") in _CHEST_CODES else OTHER
    parts = _parts(dataset, "ProtocolName", "SeriesDescription", "StudyDescription")
    return max(parts, key=CHEST.__eq__, default=None)  # True is the largest: the chest first


def _parts(dataset: Dataset, *keywords: str) -> list[str]:
    """The body parts that descriptions name."""
    words = [CHEST if word in _CHEST_WORDS else word for word in _words(dataset, *keywords)]
    return [word for word in words if word == CHEST or re.fullmatch(_OTHER_WORDS, word)]


def _words(dataset: Dataset, *keywords: str) -> list[str]:
    """The words of descriptions, in capitals. They may be names: only what a table makes of them is kept."""
    return re.findall(r"[A-Z]+", " ".join(get_text(dataset, keyword) for keyword in keywords).upper())


def _orientation(dataset: Dataset) -> tuple[str, str] | None:
    value = get_value(dataset, "PatientOrientation")
    directions = [str(each).strip().upper() for each in value] if isinstance(value, MultiValue) else []
    if len(directions) != 2 or not all(re.fullmatch(r"[LRAPHF]{1,3}", each) for each in directions):
        return None
    across, down = directions
    one_axis = any(across[0] in axis and down[0] in axis for axis in ("LR", "AP", "HF"))
    return None if one_axis else (across, down)


def _manufacturer(dataset: Dataset) -> str | None:
    text = " ".join(get_text(dataset, "Manufacturer").split())
    return text if re.fullmatch(r"[A-Za-z0-9 .,&()-]{1,32}", text) else None


def _date(dataset: Dataset) -> str | None:
    for name in ("StudyDate", "AcquisitionDate", "ContentDate"):
        if day := _day(get_text(dataset, name).replace(".", "")):  # ACR-NEMA: 2004.08.26
            return day
    return None


def _day(digits: str) -> str | None:
    """`YYYY-MM-DD` of `YYYYMMDD`; None where there is no such day."""
    if re.fullmatch(r"(19|20)\d{6}", digits):
        with suppress(ValueError):
            return datetime(int(digits[:4]), int(digits[4:6]), int(digits[6:])).date().isoformat()
    return None
