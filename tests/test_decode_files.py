"""Every DICOM file that others test with: what becomes of it, against a second decoder where it is a film."""

from __future__ import annotations

import warnings
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.encaps import generate_frames
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut

from common.films.decode import read_film
from common.films.fault import FilmFault
from common.films.grey_scale import GIVES_WAY

FILM = "film"
NO_PICTURE = "holds no picture"
NO_FILE_OF_OURS = "is no DICOM, PNG, JPEG or TIFF file"
TWO_FRAMES = "holds 2 frames, not one film"
TEN_FRAMES = "holds 10 frames, not one film"
WIDE = "holds pixels of 32 bits, not 8 or 16"

# File, or pattern of files alike -> a film, or the reason that it is none.
BUNDLED = {
    "693_J2KI.dcm": FILM,
    "CT_small.dcm": FILM,
    "ExplVR_BigEnd.dcm": FILM,
    "ExplVR_BigEndNoMeta.dcm": NO_PICTURE,
    "ExplVR_LitEndNoMeta.dcm": NO_PICTURE,
    "GDCMJ2K_TextGBR.dcm": FILM,
    "J2K_pixelrep_mismatch.dcm": FILM,
    "JPEG-lossy.dcm": FILM,
    "JPEG2000-embedded-sequence-delimiter.dcm": "claims 256 x 1024 pixels, but holds 3722445056 x 1024",
    "JPEG2000.dcm": FILM,
    "JPEGLSNearLossless_08.dcm": FILM,
    "JPEGLSNearLossless_16.dcm": FILM,
    "JPGExtended.dcm": FILM,
    "MR_small.dcm": FILM,
    "MR_small_RLE.dcm": FILM,
    "MR_small_bigendian.dcm": FILM,
    "MR_small_expb.dcm": FILM,
    "MR_small_implicit.dcm": FILM,
    "MR_small_jp2klossless.dcm": FILM,
    "MR_small_jpeg_ls_lossless.dcm": FILM,
    "MR_small_padded.dcm": FILM,
    "MR_truncated.dcm": "is cut short",
    "README.txt": NO_FILE_OF_OURS,
    "SC_jpeg_no_color_transform.dcm": FILM,
    "SC_jpeg_no_color_transform_2.dcm": FILM,
    "SC_rgb_dcmtk_+eb+cr.dcm": FILM,
    "SC_rgb_dcmtk_+eb+cy+n1.dcm": FILM,
    "SC_rgb_dcmtk_+eb+cy+n2.dcm": FILM,
    "SC_rgb_dcmtk_+eb+cy+np.dcm": FILM,
    "SC_rgb_dcmtk_+eb+cy+s2.dcm": FILM,
    "SC_rgb_dcmtk_+eb+cy+s4.dcm": FILM,
    "SC_rgb_gdcm_KY.dcm": FILM,
    "SC_rgb_jls_lossy_line.dcm": FILM,
    "SC_rgb_jls_lossy_sample.dcm": FILM,
    "SC_rgb_jpeg.dcm": FILM,
    "SC_rgb_jpeg_app14_dcmd.dcm": FILM,
    "SC_rgb_jpeg_dcmd.dcm": FILM,
    "SC_rgb_jpeg_dcmtk.dcm": FILM,
    "SC_rgb_jpeg_gdcm.dcm": FILM,
    "SC_rgb_jpeg_lossy_gdcm.dcm": FILM,
    "SC_rgb_rle.dcm": FILM,
    "SC_rgb_rle_16bit.dcm": FILM,
    "SC_rgb_rle_16bit_2frame.dcm": TWO_FRAMES,
    "SC_rgb_rle_2frame.dcm": TWO_FRAMES,
    "SC_rgb_rle_32bit.dcm": WIDE,
    "SC_rgb_rle_32bit_2frame.dcm": TWO_FRAMES,
    "SC_rgb_small_odd.dcm": FILM,
    "SC_rgb_small_odd_big_endian.dcm": FILM,
    "SC_rgb_small_odd_jpeg.dcm": FILM,
    "SC_ybr_full_422_uncompressed.dcm": FILM,
    "UN_sequence.dcm": NO_PICTURE,
    "badVR.dcm": "has an impossible NumberOfFrames",
    "crayons.icc": NO_FILE_OF_OURS,
    "dicomdirtests/77654033/*/*": FILM,
    "dicomdirtests/98892001/*/*": FILM,
    "dicomdirtests/98892003/*/*": FILM,
    "dicomdirtests/DICOMDIR": NO_PICTURE,
    "dicomdirtests/DICOMDIR-bigEnd": NO_PICTURE,
    "dicomdirtests/DICOMDIR-empty.dcm": NO_PICTURE,
    "dicomdirtests/DICOMDIR-implicit": NO_PICTURE,
    "dicomdirtests/DICOMDIR-nooffset": NO_PICTURE,
    "dicomdirtests/DICOMDIR-nopatient": NO_PICTURE,
    "dicomdirtests/DICOMDIR-reordered": NO_PICTURE,
    "dicomdirtests/README.txt": NO_FILE_OF_OURS,
    "dicomdirtests/TINY_ALPHA/DICOMDIR": NO_PICTURE,
    "dicomdirtests/TINY_ALPHA/PT000000/ST000000/SE000000/IM*": NO_PICTURE,
    "dicomdirtests/TINY_ALPHA/README": NO_FILE_OF_OURS,
    "empty_charset_LEI.dcm": NO_PICTURE,
    "examples_jpeg2k.dcm": FILM,
    "examples_overlay.dcm": FILM,
    "examples_palette.dcm": FILM,
    "examples_rgb_color.dcm": FILM,
    "examples_ybr_color.dcm": "holds 30 frames, not one film",
    "image_dfl.dcm": FILM,
    "liver_1frame.dcm": "is a Segmentation, no film",
    "liver_expb_1frame.dcm": "is a Segmentation, no film",
    "meta_missing_tsyntax.dcm": "has no Rows",
    "nested_priv_SQ.dcm": "has no Rows",
    "no_meta.dcm": NO_FILE_OF_OURS,
    "no_meta_group_length.dcm": NO_PICTURE,
    "priv_SQ.dcm": NO_PICTURE,
    "reportsi.dcm": NO_PICTURE,
    "reportsi_with_empty_number_tags.dcm": NO_PICTURE,
    "rtdose.dcm": "holds 15 frames, not one film",
    "rtdose_1frame.dcm": WIDE,
    "rtdose_expb.dcm": "holds 15 frames, not one film",
    "rtdose_expb_1frame.dcm": WIDE,
    "rtdose_rle.dcm": "holds 15 frames, not one film",
    "rtdose_rle_1frame.dcm": WIDE,
    "rtplan.dcm": NO_PICTURE,
    "rtplan.dump": NO_FILE_OF_OURS,
    "rtplan_truncated.dcm": NO_PICTURE,
    "rtstruct.dcm": NO_PICTURE,
    "rtstruct.dump": NO_FILE_OF_OURS,
    "test-SR.dcm": NO_PICTURE,
    "test1.json": NO_FILE_OF_OURS,
    "test_PN.json": NO_FILE_OF_OURS,
    "waveform_ecg.dcm": NO_PICTURE,
    "zipMR.gz": NO_FILE_OF_OURS,
}
PYDICOM_DATA = {
    "693_J2KR.dcm": FILM,
    "693_UNCI.dcm": FILM,
    "693_UNCR.dcm": FILM,
    "JPEG-LL.dcm": FILM,
    "JPEG2000_UNC.dcm": FILM,
    "JPGLosslessP14SV1_1s_1f_8b.dcm": FILM,
    "MR-SIEMENS-DICOM-WithOverlays.dcm": FILM,
    "MR2_J2KI.dcm": FILM,
    "MR2_J2KR.dcm": FILM,
    "MR2_UNCI.dcm": FILM,
    "MR2_UNCR.dcm": FILM,
    "OBXXXX1A.dcm": FILM,
    "OBXXXX1A_2frame.dcm": TWO_FRAMES,
    "OBXXXX1A_expb.dcm": FILM,
    "OBXXXX1A_expb_2frame.dcm": TWO_FRAMES,
    "OBXXXX1A_rle.dcm": FILM,
    "OBXXXX1A_rle_2frame.dcm": TWO_FRAMES,
    "OT-PAL-8-face.dcm": FILM,
    "RG1_J2KI.dcm": FILM,
    "RG1_J2KR.dcm": FILM,
    "RG1_UNCI.dcm": FILM,
    "RG1_UNCR.dcm": FILM,
    "RG3_J2KI.dcm": FILM,
    "RG3_J2KR.dcm": FILM,
    "RG3_UNCI.dcm": FILM,
    "RG3_UNCR.dcm": FILM,
    "SC_rgb.dcm": FILM,
    "SC_rgb_16bit.dcm": FILM,
    "SC_rgb_16bit_2frame.dcm": TWO_FRAMES,
    "SC_rgb_2frame.dcm": TWO_FRAMES,
    "SC_rgb_32bit.dcm": WIDE,
    "SC_rgb_32bit_2frame.dcm": TWO_FRAMES,
    "SC_rgb_dcmtk_ebcr_dcmd.dcm": FILM,
    "SC_rgb_dcmtk_ebcyn1_dcmd.dcm": FILM,
    "SC_rgb_dcmtk_ebcyn2_dcmd.dcm": FILM,
    "SC_rgb_dcmtk_ebcynp_dcmd.dcm": FILM,
    "SC_rgb_dcmtk_ebcys2_dcmd.dcm": FILM,
    "SC_rgb_dcmtk_ebcys4_dcmd.dcm": FILM,
    "SC_rgb_expb.dcm": FILM,
    "SC_rgb_expb_16bit.dcm": FILM,
    "SC_rgb_expb_16bit_2frame.dcm": TWO_FRAMES,
    "SC_rgb_expb_2frame.dcm": TWO_FRAMES,
    "SC_rgb_expb_32bit.dcm": WIDE,
    "SC_rgb_expb_32bit_2frame.dcm": TWO_FRAMES,
    "SC_rgb_gdcm2k_uncompressed.dcm": FILM,
    "SC_ybr_full_uncompressed.dcm": FILM,
    "US1_J2KI.dcm": FILM,
    "US1_J2KR.dcm": FILM,
    "US1_UNCI.dcm": FILM,
    "US1_UNCR.dcm": FILM,
    "bad_sequence.dcm": FILM,
    "color-pl.dcm": FILM,
    "color-px.dcm": FILM,
    "color3d_jpeg_baseline.dcm": "holds 120 frames, not one film",
    "eCT_Supplemental.dcm": TWO_FRAMES,
    "emri_small.dcm": TEN_FRAMES,
    "emri_small_RLE.dcm": TEN_FRAMES,
    "emri_small_big_endian.dcm": TEN_FRAMES,
    "emri_small_jpeg_2k_lossless.dcm": TEN_FRAMES,
    "emri_small_jpeg_2k_lossless_too_short.dcm": "is cut short",
    "emri_small_jpeg_ls_lossless.dcm": TEN_FRAMES,
    "explicit_VR-UN.dcm": FILM,
    "gdcm-US-ALOKA-16.dcm": FILM,
    "gdcm-US-ALOKA-16_big.dcm": FILM,
    "liver.dcm": "is a Segmentation, no film",
    "liver_expb.dcm": "is a Segmentation, no film",
    "mlut_18.dcm": FILM,
    "vlut_04.dcm": FILM,
}
RADIOGRAPHS = {
    "RG1_J2KI.dcm": FILM,
    "RG1_JLSN.dcm": FILM,
    "RG2_J2KI.dcm": FILM,
    "RG2_J2KR.dcm": FILM,
    "RG2_JLSL.dcm": FILM,
    "RG2_JLSN.dcm": FILM,
    "RG2_JPLL.dcm": FILM,
    "RG2_JPLY.dcm": FILM,
    "RG2_RLE.dcm": FILM,
    "RG2_UNC.dcm": FILM,
    "RG3_J2KI.dcm": FILM,
    "RG3_J2KR.dcm": FILM,
    "RG3_JLSL.dcm": FILM,
    "RG3_JLSN.dcm": FILM,
    "RG3_JPLL.dcm": FILM,
    "RG3_JPLY.dcm": FILM,
    "RG3_RLE.dcm": FILM,
    "RG3_UNC.dcm": FILM,
}


def _bundled() -> Path:
    return Path(pydicom.__file__).parent / "data" / "test_files"


def _pydicom_data() -> Path:
    return Path(pytest.importorskip("data_store").__file__).parent / "data"


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> Path:
    """The folder that a table is about; skips, visibly, where it is not here."""
    if request.param == "radiographs":
        return request.getfixturevalue("real") / "dicom"
    return _bundled() if request.param == "bundled" else _pydicom_data()


TABLES = {"bundled": BUNDLED, "pydicom-data": PYDICOM_DATA, "radiographs": RADIOGRAPHS}
ROWS = [
    pytest.param(
        source,
        pattern,
        expected,
        id=f"{source}/{pattern}",
        marks=[pytest.mark.real] * (source == "radiographs"),
    )
    for source, table in TABLES.items()
    for pattern, expected in table.items()
]


def _names(folder: Path) -> list[str]:
    paths = (path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc"))
    return sorted(path.relative_to(folder).as_posix() for path in paths)


@pytest.mark.parametrize("folder", TABLES, indirect=True)
def test_the_table_is_complete(folder: Path, request: pytest.FixtureRequest) -> None:
    table = TABLES[request.node.callspec.params["folder"]]
    assert [name for name in _names(folder) if not any(fnmatchcase(name, row) for row in table)] == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the reference; there are none of ours
@pytest.mark.parametrize(("folder", "pattern", "expected"), ROWS, indirect=["folder"])
def test_file(folder: Path, pattern: str, expected: str, capfd: pytest.CaptureFixture[str]) -> None:
    paths = [folder / name for name in _names(folder) if fnmatchcase(name, pattern)]
    assert paths, "the file is gone"
    for path in paths:
        assert _outcome(path) == expected
        if expected == FILM:
            film = read_film(path)
            found, wanted = film.pixels, _reference(path, windowed=GIVES_WAY not in film.notes)
            assert (found.dtype, found.shape) == (np.uint8, wanted.shape)
            assert np.abs(found - wanted).max() <= 1
    assert capfd.readouterr() == ("", "")  # not even by a decoder in C


def _outcome(path: Path) -> str:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            read_film(path)
            outcome = FILM
        except FilmFault as fault:
            outcome = str(fault)
    assert told == []
    return outcome


# --- the second way: imagecodecs instead of pydicom's plug-ins, whole films instead of a table ---------


def _reference(path: Path, windowed: bool) -> np.ndarray:
    """A film as float64, 0 to 255."""
    dataset = pydicom.dcmread(path, force=True)
    if not windowed:
        for name in ("WindowCenter", "WindowWidth", "VOILUTSequence"):
            dataset.pop(name, None)
    pixels = _stored(dataset)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)
    if pixels.ndim == 3:
        grey = pixels.astype(np.float64) @ [0.299, 0.587, 0.114]
        return grey if pixels.dtype == np.uint8 else (grey - grey.min()) / np.ptp(grey) * 255
    return _grey(dataset, pixels)


def _grey(dataset: pydicom.Dataset, stored: np.ndarray) -> np.ndarray:
    padding = np.zeros(stored.shape, dtype=bool)
    if "PixelPaddingValue" in dataset:
        padding = stored == dataset.PixelPaddingValue
    values = apply_modality_lut(stored, dataset)
    if "VOILUTSequence" in dataset:
        shown = apply_voi_lut(values, dataset) / (2.0 ** dataset.VOILUTSequence[0].LUTDescriptor[2] - 1)
    elif "WindowWidth" in dataset:
        center, width = (np.ravel(dataset[name].value)[0] for name in ("WindowCenter", "WindowWidth"))
        shown = np.clip((values - (float(center) - 0.5)) / (float(width) - 1) + 0.5, 0, 1)
    else:
        kept = values[~padding]
        shown = (values.astype(np.float64) - kept.min()) / (float(kept.max()) - float(kept.min()) or 1.0)
    film = np.clip(shown, 0, 1) * 255
    film = 255 - film if dataset.PhotometricInterpretation == "MONOCHROME1" else film
    film[padding] = 0
    return film


def _stored(dataset: pydicom.Dataset) -> np.ndarray:
    """Stored values, or RGB."""
    syntax = dataset.file_meta.get("TransferSyntaxUID", uid.ExplicitVRLittleEndian)
    shape = (dataset.Rows, dataset.Columns, dataset.SamplesPerPixel)
    if syntax.is_compressed and syntax != uid.DeflatedExplicitVRLittleEndian:
        pixels = _decompress(dataset, syntax, next(generate_frames(dataset.PixelData, number_of_frames=1)))
    else:
        pixels = _uncompressed(dataset, big_endian=syntax == uid.ExplicitVRBigEndian)
    pixels = pixels.reshape(shape).squeeze()
    if syntax == uid.JPEGExtended12Bit:  # it overshoots
        return np.minimum(pixels, pixels.dtype.type(2**dataset.BitsStored - 1))
    if dataset.PixelRepresentation == 1:  # sign-extend
        pixels = pixels.astype(np.int32) & (2**dataset.BitsStored - 1)
        return np.where(pixels >= 2 ** (dataset.BitsStored - 1), pixels - 2**dataset.BitsStored, pixels)
    return pixels & pixels.dtype.type(2**dataset.BitsStored - 1)


def _uncompressed(dataset: pydicom.Dataset, big_endian: bool) -> np.ndarray:
    data = dataset.PixelData
    if big_endian and dataset.BitsAllocated == 8 and dataset["PixelData"].VR == "OW":
        data = np.frombuffer(data, ">u2").astype("<u2").tobytes()
    kind = np.dtype("u1" if dataset.BitsAllocated == 8 else ">u2" if big_endian else "<u2")
    rows, columns, samples = dataset.Rows, dataset.Columns, dataset.SamplesPerPixel
    photometric = dataset.PhotometricInterpretation
    if photometric == "YBR_FULL_422":
        pairs = np.frombuffer(data, kind)[: rows * columns * 2].reshape(-1, 4)
        first, second = pairs[:, [0, 2, 3]], pairs[:, [1, 2, 3]]
        pixels = np.stack([first, second], axis=1).reshape(rows, columns, 3)
    elif samples == 3 and dataset.PlanarConfiguration == 1:
        pixels = np.moveaxis(np.frombuffer(data, kind)[: rows * columns * 3].reshape(3, rows, columns), 0, -1)
    else:
        pixels = np.frombuffer(data, kind)[: rows * columns * samples].reshape(rows, columns, samples)
    pixels = pixels.astype(pixels.dtype.newbyteorder("="))
    return _rgb(pixels) if photometric.startswith("YBR_FULL") else pixels


def _rgb(pixels: np.ndarray) -> np.ndarray:
    """PS3.3 C.7.6.3.1.2."""
    luminance, blue, red = (pixels[..., i].astype(np.float64) - (0, 128, 128)[i] for i in range(3))
    planes = luminance + 1.402 * red, luminance - 0.344136 * blue - 0.714136 * red, luminance + 1.772 * blue
    return np.rint(np.clip(np.stack(planes, axis=-1), 0, 255)).astype(np.uint8)


def _decompress(dataset: pydicom.Dataset, syntax: uid.UID, frame: bytes) -> np.ndarray:
    codecs = pytest.importorskip("imagecodecs")
    if syntax in (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit):
        coded = dataset.PhotometricInterpretation == "RGB" and b"\xff\xee\x00\x0eAdobe" not in frame
        return codecs.jpeg8_decode(frame, **({"colorspace": "RGB", "outcolorspace": "RGB"} if coded else {}))
    if syntax in (uid.JPEGLossless, uid.JPEGLosslessSV1):
        return codecs.jpegsof3_decode(frame)
    if syntax in uid.JPEGLSTransferSyntaxes:
        return codecs.jpegls_decode(frame)
    if syntax in (uid.JPEG2000, uid.JPEG2000Lossless):
        return codecs.jpeg2k_decode(frame)
    kind = np.dtype("<u2" if dataset.BitsAllocated == 16 else "u1")
    pixels = np.frombuffer(codecs.dicomrle_decode(frame, kind), kind)
    return np.moveaxis(pixels.reshape(dataset.SamplesPerPixel, dataset.Rows, dataset.Columns), 0, -1)
