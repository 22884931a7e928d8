"""A DICOM Segmentation (PS3.3 A.51) of a film -> a mask, whoever made it: BINARY, FRACTIONAL or LABELMAP.

Films have no place in space, so pixel must lie on pixel: the Segmentation has the film's rows and columns.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels import pixel_array

from common.films.decode import PLUGINS
from common.films.fault import FilmFault, Note
from common.films.header import get_items, get_number, get_numbers, get_text, get_value, get_whole_number
from common.films.lesion_names import are_lesions

_STORAGE = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # the latter for label maps
_BITS = {"BINARY": (1, 8), "FRACTIONAL": (1, 8), "LABELMAP": (8, 16)}  # of a pixel
MOST_FRAMES = 10_000
SOFT = "its Segmentation is fractional, and was cut at half of its range"
ANOTHER = "its Segmentation refers to another SOPInstanceUID than the film's, but has its size"


@dataclass(frozen=True)
class _Frame:
    """A frame: its place in the pixels, its segment, and the SOPInstanceUIDs of the films it was drawn on."""

    index: int
    segment: int
    films: frozenset[str]


def read_segmentation(content: bytes, width: int, height: int, instance: str, note: Note) -> np.ndarray:
    """The lesion that a Segmentation marks on a film.

    Args:
        content: Content of the file.
        width: Width of the film in pixels.
        height: Height of the film in pixels.
        instance: SOPInstanceUID of the film, `""` where unknown.
        note: Hears what of it was not plain.

    Returns:
        Mask, (height, width) bool.

    Raises:
        FilmFault: No Segmentation of this film, or it does not tell what is lesion.
    """
    with warnings.catch_warnings():  # pydicom warns of every oddity of a header that it can live with
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(BytesIO(content))
        kind = _check(dataset, width, height)
        frames = _of_film(dataset, list(_frames(dataset)), instance, note)
        lesion = _segments(dataset, note)
        marked = [frame for frame in frames if kind == "LABELMAP" or lesion.get(frame.segment)]
        # Which of them is meant cannot be told, and their union need not be any of them.
        if len({frame.segment for frame in marked}) < len(marked):
            raise FilmFault("its Segmentation holds several frames of one segment, not one of the film")
        mask = np.zeros((height, width), dtype=bool)
        for frame in marked:
            values = _pixels(dataset, frame.index)
            mask |= (
                _in_label_map(values, lesion) if kind == "LABELMAP" else _marked(dataset, values, kind, note)
            )
        return mask


def _check(dataset: Dataset, width: int, height: int) -> str:
    """Refuse by the header, before decoding. Returns BINARY, FRACTIONAL or LABELMAP."""
    kind = get_text(dataset, "SegmentationType")
    if get_text(dataset, "SOPClassUID") not in _STORAGE:
        raise FilmFault("its mask is a DICOM object, but no Segmentation")
    if kind not in _BITS:
        raise FilmFault("its Segmentation is neither BINARY nor FRACTIONAL nor LABELMAP")
    size = get_whole_number(dataset, "Columns"), get_whole_number(dataset, "Rows")
    if size != (width, height):
        raise FilmFault(f"its Segmentation has {size[0]} x {size[1]} pixels, the film {width} x {height}")
    if (bits := get_whole_number(dataset, "BitsAllocated")) not in _BITS[kind]:
        raise FilmFault(f"its Segmentation is {kind}, and holds pixels of {bits} bits")
    if get_whole_number(dataset, "NumberOfFrames", 1) > MOST_FRAMES:
        raise FilmFault(f"its Segmentation holds more than {MOST_FRAMES:,} frames")
    shared = get_items(dataset, "SharedFunctionalGroupsSequence")
    for groups in (*shared, *get_items(dataset, "PerFrameFunctionalGroupsSequence")):
        for item in get_items(groups, "PlaneOrientationSequence"):
            _refuse_turned(get_numbers(item, "ImageOrientationPatient"))
    return kind


def _refuse_turned(directions: list[float]) -> None:
    """Refuse pixels turned by tools that take films for axial slices: 1, 0, 0, 0, 1, 0 is not turned."""
    axial = len(directions) == 6 and np.allclose([directions[2], directions[5]], 0, atol=1e-3)
    if axial and not np.allclose(directions, [1, 0, 0, 0, 1, 0], atol=1e-3):
        raise FilmFault("its Segmentation is turned or mirrored against the film")


def _frames(dataset: Dataset) -> Iterator[_Frame]:
    """The frames, each by its own functional groups, else by those that all share (PS3.3 C.7.6.16)."""
    count = get_whole_number(dataset, "NumberOfFrames", 1)
    shared = (get_items(dataset, "SharedFunctionalGroupsSequence") or [Dataset()])[0]
    own = get_items(dataset, "PerFrameFunctionalGroupsSequence")
    if len(own) not in (0, count):
        raise FilmFault("its Segmentation describes more or fewer frames than it holds")
    for index in range(count):
        groups = own[index] if own else Dataset()
        segment = _segment(groups) or _segment(shared) or 1
        yield _Frame(index, segment, frozenset(_films(groups) or _films(shared)))


def _segment(groups: Dataset) -> int:
    for item in get_items(groups, "SegmentIdentificationSequence")[:1]:
        return get_whole_number(item, "ReferencedSegmentNumber")
    return 0


def _films(groups: Dataset) -> set[str]:
    return {
        get_text(source, "ReferencedSOPInstanceUID")
        for item in get_items(groups, "DerivationImageSequence")
        for source in get_items(item, "SourceImageSequence")
    } - {""}


def _of_film(dataset: Dataset, frames: list[_Frame], instance: str, note: Note) -> list[_Frame]:
    """The frames that were drawn on the film: by its SOPInstanceUID, else all where there is but one film."""
    films = {film for frame in frames for film in frame.films}
    if not films:
        films = {
            get_text(item, "ReferencedSOPInstanceUID")
            for series in get_items(dataset, "ReferencedSeriesSequence")
            for item in get_items(series, "ReferencedInstanceSequence")
        } - {""}
    if instance in films:
        return [frame for frame in frames if instance in frame.films or not frame.films]
    if len(films) > 1:
        raise FilmFault("its Segmentation refers to several films, none of which is this one")
    if films and instance:
        note(ANOTHER)
    return frames


def _segments(dataset: Dataset, note: Note) -> dict[int, bool]:
    """Number of each segment -> whether it is the lesion, by its label and type."""
    background = get_number(dataset, "PixelPaddingValue") or 0  # of a label map, which may describe it
    items = get_items(dataset, "SegmentSequence")
    items = [item for item in items if get_number(item, "SegmentNumber") != background]
    if not items:
        raise FilmFault("its Segmentation describes no segment")
    numbers = [get_whole_number(item, "SegmentNumber") for item in items]
    return dict(zip(numbers, are_lesions([_name(item) for item in items], note), strict=True))


def _name(segment: Dataset) -> str:
    types = [
        get_text(item, "CodeMeaning") for item in get_items(segment, "SegmentedPropertyTypeCodeSequence")
    ]
    return " ".join([get_text(segment, "SegmentLabel"), *types])


def _pixels(dataset: Dataset, index: int) -> np.ndarray:
    """The values of a frame, (rows, columns)."""
    if not get_value(dataset, "PixelData"):
        raise FilmFault("its Segmentation holds no pixels")
    syntax = dataset.file_meta.TransferSyntaxUID
    return pixel_array(dataset, index=index, raw=True, decoding_plugin=PLUGINS.get(syntax, ""))


def _in_label_map(values: np.ndarray, lesion: dict[int, bool]) -> np.ndarray:
    """Where a frame names a segment that is the lesion, (rows, columns) bool."""
    return np.isin(values, [number for number, is_lesion in lesion.items() if is_lesion])


def _marked(dataset: Dataset, values: np.ndarray, kind: str, note: Note) -> np.ndarray:
    """Where a frame of one segment marks it, (rows, columns) bool."""
    if kind == "BINARY":
        return values != 0
    largest = get_whole_number(dataset, "MaximumFractionalValue", 255)
    if ((values != 0) & (values != largest)).any():
        note(SOFT)
    return values >= largest / 2
