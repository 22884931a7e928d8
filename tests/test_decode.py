"""One file -> an 8-bit film: every way to store one, and what is refused as a fault."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from dicom_film import RAMP, SHOWN, by_its_values, lookup_table, smooth, write_film
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian, RLELossless

from common.films.decode import read_film
from common.films.fault import FilmFault

JPEG_BEST = [cv2.IMWRITE_JPEG_QUALITY, 100, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]
LITTLE = ("ImplicitVRLittleEndian", "ExplicitVRLittleEndian", "DeflatedExplicitVRLittleEndian")
COLOUR = np.stack([SHOWN, SHOWN[::-1], SHOWN.T], axis=-1)
LUMINANCE = np.rint(COLOUR @ [0.299, 0.587, 0.114])


def _ramp(bits: int, signed: bool) -> tuple[np.ndarray, dict[str, object]]:
    """256 equal steps, which are 0 to 255 by min-max whatever the bits; and what a header says of them."""
    pixels = SHOWN.astype(np.int32) * 2 ** (bits - 8) - signed * 2 ** (bits - 1)
    kind = f"{'int' if signed else 'uint'}{8 if bits == 8 else 16}"
    pixels = pixels.astype(kind)
    header = {"BitsAllocated": pixels.itemsize * 8, "BitsStored": bits, "HighBit": bits - 1}
    return pixels, {**header, "PixelRepresentation": int(signed)}


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 12, 15, 16])
@pytest.mark.parametrize("syntax", [*LITTLE, "ExplicitVRBigEndian"])
def test_uncompressed(tmp_path: Path, syntax: str, bits: int, signed: bool, inverted: bool) -> None:
    pixels, header = _ramp(bits, signed)
    order = ">" if syntax == "ExplicitVRBigEndian" else "<"
    if bits == 8 and order == ">":  # bytes in big-endian words
        header["PixelData"] = pixels.view("<u2").astype(">u2").tobytes()
    else:
        header["PixelData"] = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    header["PhotometricInterpretation"] = f"MONOCHROME{1 if inverted else 2}"
    film = read_film(write_film(tmp_path / "a.dcm", pixels, getattr(uid, syntax), **header)).pixels
    assert (film == (255 - SHOWN if inverted else SHOWN)).all()


def _encode(codec: str, pixels: np.ndarray, bits: int) -> bytes:
    """One compressed frame. Signed values as the bits they are, but in JPEG 2000, which knows signs."""
    codecs = pytest.importorskip("imagecodecs")
    if codec == "jpeg2k":
        return codecs.jpeg2k_encode(pixels, codecformat="j2k", reversible=True, bitspersample=bits, level=0)
    raw = pixels.view(f"u{pixels.itemsize}") & (2**bits - 1)
    if codec == "ljpeg":
        return codecs.ljpeg_encode(raw, bitspersample=bits)
    return codecs.jpegls_encode(raw)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize(
    ("syntax", "codec"),
    [
        (uid.JPEGLossless, "ljpeg"),
        (uid.JPEGLosslessSV1, "ljpeg"),
        (uid.JPEGLSLossless, "jpegls"),
        (uid.JPEGLSNearLossless, "jpegls"),
        (uid.JPEG2000Lossless, "jpeg2k"),
        (uid.JPEG2000, "jpeg2k"),
    ],
)
def test_compressed(
    tmp_path: Path, syntax: UID, codec: str, bits: int, signed: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    pixels, header = _ramp(bits, signed)
    header["PixelData"] = encapsulate([_encode(codec, pixels, bits)])
    assert (read_film(write_film(tmp_path / "a.dcm", pixels, syntax, **header)).pixels == SHOWN).all()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_rle(tmp_path: Path, bits: int, signed: bool) -> None:
    pixels, header = _ramp(bits, signed)
    dataset = pydicom.dcmread(write_film(tmp_path / "a.dcm", pixels, **header))
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.save_as(tmp_path / "b.dcm")
    assert (read_film(tmp_path / "b.dcm").pixels == SHOWN).all()


@pytest.mark.parametrize("syntax", [uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit])
@pytest.mark.parametrize("colour", [False, True])
def test_jpeg_of_8_bits(tmp_path: Path, syntax: UID, colour: bool) -> None:
    _, header = _ramp(8, False)
    pixels, expected = (COLOUR, LUMINANCE) if colour else (SHOWN, SHOWN.astype(float))
    frame = cv2.imencode(".jpg", pixels[..., ::-1] if colour else pixels, JPEG_BEST)[1].tobytes()
    header["PixelData"] = encapsulate([frame])
    if colour:
        header |= {"PhotometricInterpretation": "YBR_FULL", "PlanarConfiguration": 0}
    found = read_film(write_film(tmp_path / "a.dcm", pixels, syntax, **header)).pixels
    assert np.abs(found - expected).max() <= 3


@pytest.mark.parametrize("depth", [8, 16])
def test_colour_is_shown_by_its_luminance(tmp_path: Path, depth: int) -> None:
    _, header = _ramp(depth, False)
    header |= {"PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    pixels = COLOUR.astype(f"u{depth // 8}") * (1 if depth == 8 else 200)
    grey = COLOUR @ [0.299, 0.587, 0.114]
    expected = grey if depth == 8 else (grey - grey.min()) / np.ptp(grey) * 255
    film = read_film(write_film(tmp_path / "a.dcm", pixels, **header)).pixels
    assert np.abs(film - expected).max() <= 1


@pytest.mark.parametrize("bits", [8, 16])
def test_palette(tmp_path: Path, bits: int) -> None:
    _, header = _ramp(8, False)
    entries = np.arange(256, dtype=f"<u{bits // 8}")[::-1] * (1 if bits == 8 else 257)
    for name in ("Red", "Green", "Blue"):
        header[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        header[f"{name}PaletteColorLookupTableData"] = entries.tobytes()
    header["PhotometricInterpretation"] = "PALETTE COLOR"
    assert (read_film(write_film(tmp_path / "a.dcm", SHOWN, **header)).pixels == 255 - SHOWN).all()


def test_without_preamble_suffix_or_transfer_syntax(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.dcm")
    bare = tmp_path / "film"
    bare.write_bytes(path.read_bytes()[132:])
    assert (read_film(bare).pixels == SHOWN).all()
    dataset = pydicom.dcmread(path)
    for implicit, little in ((True, True), (False, True), (False, False)):
        dataset.PixelData = RAMP.astype("<u2" if little else ">u2").tobytes()
        dataset["PixelData"].VR = "OW"
        dataset.file_meta = FileMetaDataset()
        pydicom.dcmwrite(bare, Dataset(dataset), implicit_vr=implicit, little_endian=little)
        assert bare.read_bytes()[128:132] != b"DICM"
        assert (read_film(bare).pixels == SHOWN).all()


def test_a_tiff_header_in_the_preamble_does_not_matter(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.tif")
    path.write_bytes(b"II*\0" + path.read_bytes()[4:])
    assert (read_film(path).pixels == SHOWN).all()


# --- streams and headers that disagree -------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "signed", "header", "note"),
    [
        (14, False, {}, "its header says 12 bits, its values have 14"),
        (16, False, {}, "its header says 12 bits, its values have 16"),
        (12, False, {"BitsStored": 10, "HighBit": 9}, "its header says 10 bits, its values have 12"),
        (12, False, {"PixelRepresentation": 1}, "its header says that values are signed, which they are not"),
        (
            16,
            False,
            {"PixelRepresentation": 1, "BitsStored": 16},
            "says that values are signed, which they are",
        ),
        (12, True, {"PixelRepresentation": 0}, "says that values are unsigned, which they are not"),
        (12, True, {"PixelRepresentation": 0, "BitsStored": 16}, "says that values are unsigned, which they"),
        (12, False, {"BitsStored": 16}, None),
        (12, True, {}, None),
    ],
)
def test_bits_and_sign_are_those_of_the_values(
    tmp_path: Path, bits: int, signed: bool, header: dict[str, int], note: str | None
) -> None:
    pixels = smooth(bits, signed)
    film = read_film(write_film(tmp_path / "a.dcm", pixels, **header))
    assert np.abs(film.pixels - by_its_values(pixels)).max() <= 0.51
    assert len(film.notes) == (note is not None)
    assert (note or "") in "".join(film.notes)


@pytest.mark.parametrize("ground", [0, 1])
def test_marks_and_borders_are_no_wrong_sign(tmp_path: Path, ground: int) -> None:
    """Saturated letters on a black border are as far apart as values that wrap around."""
    pixels = smooth(12) // 3  # below the middle of the range, so that only the mark is above it
    pixels[8:40, 4:40] = 0
    pixels[8:40, 6:38:4] = 4095
    if ground:  # the same film with a noisy border
        pixels[8:40, 5:38:4] = np.arange(9) * 2
    film = read_film(write_film(tmp_path / "a.dcm", pixels))
    assert film.notes == ()
    assert (film.pixels[8:40, 6:38:4] == 255).all()


@pytest.mark.parametrize(
    ("syntax", "codec"),
    [
        (uid.JPEGLosslessSV1, "ljpeg"),
        (uid.JPEGLSLossless, "jpegls"),
        (uid.JPEG2000Lossless, "jpeg2k"),
    ],
)
@pytest.mark.parametrize("allocated", [(8, 8), (16, 10), (16, 12), (16, 14), (16, 16)])
@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_a_stream_knows_its_bits(
    tmp_path: Path, syntax: UID, codec: str, bits: int, allocated: tuple[int, int]
) -> None:
    pixels = smooth(bits)
    header = {"BitsAllocated": allocated[0], "BitsStored": allocated[1], "HighBit": allocated[1] - 1}
    header["PixelData"] = encapsulate(
        [_encode(codec, pixels.astype(np.uint8) if bits == 8 else pixels, bits)]
    )
    film = read_film(write_film(tmp_path / "a.dcm", pixels, syntax, **header))
    assert np.abs(film.pixels - by_its_values(pixels)).max() <= 0.51


@pytest.mark.parametrize("claimed", [0, 1])
@pytest.mark.parametrize("signed", [False, True])
def test_a_jpeg_2000_stream_knows_its_sign(tmp_path: Path, signed: bool, claimed: int) -> None:
    pixels = smooth(12, signed)
    header = {"PixelRepresentation": claimed, "PixelData": encapsulate([_encode("jpeg2k", pixels, 12)])}
    film = read_film(write_film(tmp_path / "a.dcm", pixels, uid.JPEG2000Lossless, **header))
    assert np.abs(film.pixels - by_its_values(pixels)).max() <= 0.51


def test_values_of_more_bits_that_are_torn_either_way_are_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 65536, (64, 56)).astype(np.uint16)
    with pytest.raises(FilmFault, match="holds values of more than the 10 bits that its header says"):
        read_film(write_film(tmp_path / "a.dcm", noise, BitsStored=10))


@pytest.mark.parametrize("windowed", [False, True])
@pytest.mark.parametrize("inverted", [False, True])
def test_what_overshoots_is_clipped_and_not_wrapped(tmp_path: Path, inverted: bool, windowed: bool) -> None:
    """As lossy compression does at the edge of a saturated marker: 4098 in a film of 12 bits."""
    pixels = smooth(12) // 2
    pixels[5:12, 5:40], pixels[6:9, 8:30] = 4095, 4098
    header = {"PhotometricInterpretation": f"MONOCHROME{1 if inverted else 2}"}
    header |= {"WindowCenter": 2048, "WindowWidth": 4096} if windowed else {}
    clipped = np.minimum(pixels, 4095)
    expected = read_film(write_film(tmp_path / "a.dcm", clipped, **header))
    film = read_film(write_film(tmp_path / "b.dcm", pixels, **header))
    assert (film.pixels == expected.pixels).all()
    assert film.notes == ("values beyond its 12 bits were clipped",)
    assert expected.notes == ()


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("allocated", [8, 16])
def test_jpeg_of_12_bits(
    tmp_path: Path, bits: int, allocated: int, capfd: pytest.CaptureFixture[str]
) -> None:
    codecs = pytest.importorskip("imagecodecs")
    frame = codecs.jpeg8_encode(smooth(12), level=95, bitspersample=12)
    header = {
        "PixelData": encapsulate([frame]),
        "BitsAllocated": allocated,
        "BitsStored": min(bits, allocated),
    }
    film = read_film(write_film(tmp_path / "a.dcm", smooth(12), uid.JPEGExtended12Bit, **header))
    assert np.abs(film.pixels - by_its_values(codecs.jpeg8_decode(frame))).max() <= 0.51
    header["PixelData"] = encapsulate([frame[:-60]])
    with pytest.raises(FilmFault, match="cannot be decoded"):
        read_film(write_film(tmp_path / "b.dcm", smooth(12), uid.JPEGExtended12Bit, **header))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("colour", [False, True])
def test_a_stream_of_other_samples_is_refused(tmp_path: Path, colour: bool) -> None:
    frame = cv2.imencode(".jpg", COLOUR if colour else SHOWN, JPEG_BEST)[1].tobytes()
    header = _ramp(8, False)[1] | {"PixelData": encapsulate([frame])}
    if not colour:
        header |= {"PhotometricInterpretation": "RGB", "PlanarConfiguration": 0, "SamplesPerPixel": 3}
    with pytest.raises(FilmFault, match=r"claims \d samples per pixel, but its JPEG Baseline .* holds \d"):
        read_film(write_film(tmp_path / "a.dcm", SHOWN, uid.JPEGBaseline8Bit, **header))


def test_jpeg_of_8_bits_in_a_header_of_12(tmp_path: Path) -> None:
    header = {"PixelData": encapsulate([cv2.imencode(".jpg", SHOWN, JPEG_BEST)[1].tobytes()])}
    film = read_film(write_film(tmp_path / "a.dcm", SHOWN, uid.JPEGBaseline8Bit, **header))
    assert np.abs(film.pixels.astype(int) - SHOWN).max() <= 3


def test_one_frame_of_an_enhanced_object(tmp_path: Path) -> None:
    window, measures, frame = Dataset(), Dataset(), Dataset()
    window.WindowCenter, window.WindowWidth = 1000, 500
    measures.PixelSpacing = [20, 30]  # of a film of 16 x 16 pixels
    frame.FrameVOILUTSequence, frame.PixelMeasuresSequence = Sequence([window]), Sequence([measures])
    groups = {"NumberOfFrames": 1, "PerFrameFunctionalGroupsSequence": Sequence([frame])}
    film = read_film(write_film(tmp_path / "a.dcm", **groups))
    plain = read_film(write_film(tmp_path / "b.dcm", WindowCenter=1000, WindowWidth=500))
    assert (film.pixels == plain.pixels).all()
    assert film.spacing == (20, 30)


def test_compressed_equals_uncompressed(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.dcm")
    dataset = pydicom.dcmread(path)
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.save_as(tmp_path / "b.dcm")
    assert (read_film(path).pixels == read_film(tmp_path / "b.dcm").pixels).all()


@pytest.mark.parametrize(
    "missing", ["NumberOfFrames", "SamplesPerPixel", "PixelRepresentation", "PlanarConfiguration"]
)
@pytest.mark.parametrize("colour", [False, True])
def test_gaps_are_filled_as_other_readers_do(tmp_path: Path, missing: str, colour: bool) -> None:
    header = {"PhotometricInterpretation": "RGB", "PlanarConfiguration": 0} if colour else {}
    pixels = np.stack([RAMP] * 3, axis=-1) if colour else RAMP
    path = write_film(tmp_path / "a.dcm", pixels, NumberOfFrames=0, **header)
    dataset = pydicom.dcmread(path)
    if missing in dataset:
        del dataset[missing]
    dataset.save_as(path)
    assert (read_film(path).pixels == SHOWN).all()


def test_png(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), RAMP)
    cv2.imwrite(str(tmp_path / "b.png"), (RAMP // 16).astype(np.uint8))
    assert (read_film(tmp_path / "a.png").pixels == np.rint(RAMP / 4080 * 255)).all()
    assert (read_film(tmp_path / "b.png").pixels == RAMP // 16).all()


def test_faults_are_named_without_the_path(tmp_path: Path) -> None:
    whole = write_film(tmp_path / "whole.dcm").read_bytes()
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
            read_film(write_film(tmp_path / "c.dcm", **attribute))


JPEG = cv2.imencode(".jpg", SHOWN)[1].tobytes()
NO_DECODER = "no decoder"
PRIVATE = UID("1.2.3.4.SECRET", validation_mode=pydicom.config.IGNORE)


def _sof(bits: int, height: int, width: int) -> bytes:
    """A JPEG that is nothing but its header."""
    return b"\xff\xd8\xff\xc1\0\x0b" + struct.pack(">B2H", bits, height, width) + b"\1\1\x11\0\xff\xd9"


def _siz(height: int, width: int) -> bytes:
    """A JPEG 2000 codestream that is nothing but its header."""
    return b"\xff\x4f\xff\x51" + struct.pack(
        ">2H8IH3B", 41, 0, width, height, *[0, 0, width, height, 0, 0], 1, 7, 1, 1
    )


@pytest.mark.parametrize(
    ("syntax", "header", "reason"),
    [
        (ExplicitVRLittleEndian, {"PixelData": None}, "holds no picture"),
        (ExplicitVRLittleEndian, {"PixelData": b""}, "holds no picture"),
        (ExplicitVRLittleEndian, {"PixelData": bytes(510)}, "is cut short"),
        (ExplicitVRLittleEndian, {"Rows": 0}, "has an impossible Rows"),
        (ExplicitVRLittleEndian, {"Columns": None}, "has no Columns"),
        (ExplicitVRLittleEndian, {"Rows": 65535, "Columns": 65535}, "claims 65535 x 65535 pixels"),
        (ExplicitVRLittleEndian, {"NumberOfFrames": -1}, "has an impossible NumberOfFrames"),
        (ExplicitVRLittleEndian, {"NumberOfFrames": 3}, "holds 3 frames, not one film"),
        (ExplicitVRLittleEndian, {"BitsAllocated": 32}, "holds pixels of 32 bits, not 8 or 16"),
        (ExplicitVRLittleEndian, {"BitsStored": 17}, "has an impossible BitsStored"),
        (ExplicitVRLittleEndian, {"SamplesPerPixel": 2}, "has 2 samples per pixel, which is not MONOCHROME2"),
        (
            ExplicitVRLittleEndian,
            {"PhotometricInterpretation": "SECRET"},
            "unknown photometric interpretation",
        ),
        (ExplicitVRLittleEndian, {"PhotometricInterpretation": None}, "has no photometric interpretation"),
        (ExplicitVRLittleEndian, {"RescaleSlope": "nan", "RescaleIntercept": 0}, "impossible rescale slope"),
        (ExplicitVRLittleEndian, {"RescaleSlope": 0, "RescaleIntercept": 0}, "impossible rescale slope"),
        (ExplicitVRLittleEndian, {"RescaleIntercept": "inf"}, "impossible rescale slope or intercept"),
        (ExplicitVRLittleEndian, {"WindowCenter": 1, "WindowWidth": 0}, "impossible window width (0)"),
        (ExplicitVRLittleEndian, {"WindowCenter": 1, "WindowWidth": -5}, "impossible window width (-5)"),
        (ExplicitVRLittleEndian, {"WindowCenter": 1, "WindowWidth": "nan"}, "impossible window width (nan)"),
        (ExplicitVRLittleEndian, {"WindowCenter": "nan", "WindowWidth": 9}, "impossible window center (nan)"),
        (
            ExplicitVRLittleEndian,
            {"WindowCenter": 1, "WindowWidth": 9, "VOILUTFunction": "SECRET"},
            "has an unknown VOI LUT function",
        ),
        (
            ExplicitVRLittleEndian,
            {"WindowCenter": 1, "WindowWidth": 0, "VOILUTFunction": "SIGMOID"},
            "impossible window width (0)",
        ),
        (ExplicitVRLittleEndian, {"VOILUTSequence": Sequence([Dataset()])}, "has a damaged lookup table"),
        (
            ExplicitVRLittleEndian,
            {"VOILUTSequence": lookup_table(0, 40, np.arange(9, dtype=np.uint16))},
            "has a damaged lookup table",
        ),
        (
            uid.JPEGExtended12Bit,
            {"PixelData": encapsulate([_sof(12, 16, 16)])},
            "JPEG Extended (Process 2 and 4): cannot be decoded (ValueError)",
        ),
        (
            uid.JPEGExtended12Bit,
            {"PixelData": encapsulate([_sof(11, 16, 16)])},
            "JPEG Extended (Process 2 and 4), 11 bits: no decoder",
        ),
        (
            uid.JPEGBaseline8Bit,
            {"PixelData": encapsulate([_sof(8, 65000, 65000)])},
            "claims 16 x 16 pixels, but holds 65000 x 65000",
        ),
        (
            uid.JPEG2000,
            {"PixelData": encapsulate([_siz(65000, 65000)])},
            "claims 16 x 16 pixels, but holds 65000 x 65000",
        ),
        (uid.JPEG2000, {"PixelData": encapsulate([_siz(16, 16)])}, "JPEG 2000 Image Compression: cannot be"),
        (
            uid.JPEGBaseline8Bit,
            {"PixelData": encapsulate([JPEG[:-100]]), **_ramp(8, False)[1]},
            "JPEG Baseline (Process 1): is cut short",
        ),
        (
            uid.JPEGLSLossless,
            {"PixelData": encapsulate([b"junk"])},
            "JPEG-LS Lossless Image Compression: is cut",
        ),
        (uid.JPEGLosslessSV1, {"PixelData": encapsulate([JPEG[:30]])}, "is cut short or damaged"),
        (uid.RLELossless, {"PixelData": encapsulate([bytes(64)])}, "RLE Lossless: cannot be decoded"),
        (uid.MPEG2MPML, {"PixelData": encapsulate([JPEG])}, "MPEG2 Main Profile / Main Level: no decoder"),
        (
            uid.HTJ2K,
            {"PixelData": encapsulate([JPEG])},
            "High-Throughput JPEG 2000 Image Compression: no decoder",
        ),
        (PRIVATE, {"PixelData": encapsulate([JPEG])}, "unknown transfer syntax: no decoder"),
    ],
)
def test_faults(
    tmp_path: Path, syntax: UID, header: dict[str, object], reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pydicom.config.disable_value_validation():
        path = write_film(tmp_path / "SECRET.dcm", PatientName="SECRET")
        dataset = pydicom.dcmread(path)
        for name, value in header.items():
            setattr(dataset, name, value)
            if value is None:
                delattr(dataset, name)
        dataset.file_meta.TransferSyntaxUID = syntax
        pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=True, enforce_file_format=True)
        with pytest.raises(FilmFault) as fault:
            read_film(path)
    assert reason in str(fault.value)
    assert "SECRET" not in str(fault.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "syntax", [uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless, RLELossless]
)
def test_a_file_cut_short_anywhere_is_a_fault(
    tmp_path: Path, syntax: UID, capfd: pytest.CaptureFixture[str]
) -> None:
    pixels, header = _ramp(12, False)
    pixels = np.random.default_rng(0).permutation(pixels.ravel()).reshape(16, 16)
    path = write_film(tmp_path / "a.dcm", pixels, **header)
    dataset = pydicom.dcmread(path)
    codecs = {uid.JPEGLosslessSV1: "ljpeg", uid.JPEGLSLossless: "jpegls", uid.JPEG2000Lossless: "jpeg2k"}
    if syntax in codecs:
        header["PixelData"] = encapsulate([_encode(codecs[syntax], pixels, 12)])
        write_film(path, pixels, syntax, **header)
    else:
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(path)
    content = path.read_bytes()
    assert (read_film(path).pixels == pixels // 16).all()
    for end in range(0, len(content) - 8, 5):
        path.write_bytes(content[:end])
        with pytest.raises(FilmFault):
            read_film(path)
    assert capfd.readouterr() == ("", "")


def test_header_and_picture_that_do_not_belong_together(tmp_path: Path) -> None:
    """What no library writes: an unknown transfer syntax, and a compressed one of uncompressed pixels."""
    content = write_film(tmp_path / "a.dcm").read_bytes()
    plain = b"1.2.840.10008.1.2.1\0"
    for other, reason in {
        b"1.2.840.10008.9.9.99": "unknown transfer syntax: no decoder",
        b"1.2.840.10008.1.2.5\0": "RLE Lossless: cannot be decoded",
        b"SECRET of the patien": "unknown transfer syntax: no decoder",
    }.items():
        (tmp_path / "b.dcm").write_bytes(content.replace(plain, other, 1))
        with pytest.raises(FilmFault) as fault:
            read_film(tmp_path / "b.dcm")
        assert reason in str(fault.value)


def test_numbers_that_are_none(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.dcm", WindowCenter=7, WindowWidth=2001, PixelSpacing=[0.123, 0.123])
    content = path.read_bytes()
    path.write_bytes(content.replace(b"0.123", b"0.1x3"))
    assert read_film(path).spacing is None
    path.write_bytes(content.replace(b"2001", b"20x1"))
    with pytest.raises(FilmFault, match="impossible window width"):
        read_film(path)


def test_a_compressed_film_without_transfer_syntax(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.dcm", SHOWN, uid.JPEGBaseline8Bit, PixelData=encapsulate([JPEG]))
    content = path.read_bytes()
    element = b"\x02\0\x10\0UI\x16\0" + uid.JPEGBaseline8Bit.encode()
    assert element in content
    path.write_bytes(content.replace(element, element.replace(b"\x10", b"\x11", 1)))
    with pytest.raises(FilmFault, match="does not name its transfer syntax"):
        read_film(path)


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"")
    with pytest.raises(FilmFault, match="is empty"):
        read_film(tmp_path / "a.dcm")


def test_damaged_jpeg_lossless_is_a_fault_and_not_a_wrong_film(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """GDCM decodes it to something, and only prints that it is corrupt."""
    pixels, header = _ramp(12, False)
    pixels = np.random.default_rng(0).permutation(pixels.ravel()).reshape(16, 16)
    frame = _encode("ljpeg", pixels, 12)
    for end in (60, 80):
        damaged = frame[: len(frame) - end] + frame[-2:]
        header["PixelData"] = encapsulate([damaged])
        with pytest.raises(FilmFault, match=r"JPEG Lossless.*: cannot be decoded \(ValueError\)"):
            read_film(write_film(tmp_path / "a.dcm", pixels, uid.JPEGLosslessSV1, **header))
    assert capfd.readouterr() == ("", "")


def test_a_folder_and_a_missing_file_are_faults(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "SECRET"):
        with pytest.raises(FilmFault, match=r"^cannot be read \((IsADirectory|FileNotFound)Error\)$"):
            read_film(path)


def test_real_film_with_only_its_tag_changed(real: Path) -> None:
    one, other = sorted((real / "siim").glob("*.dcm"))
    a, b = read_film(one).pixels.astype(int), read_film(other).pixels.astype(int)
    assert a.shape == (1024, 1024)
    assert (a + b == 255).all()


@pytest.mark.slow
def test_real_films_decode(real: Path) -> None:
    paths = sorted((real / "semisynthetic" / "hospital" / "images").glob("*.dcm"))[::10]
    paths += sorted((real / "dicom").glob("*.dcm"))
    syntaxes = set()
    for path in paths:
        film = read_film(path)
        syntaxes.add(pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID)
        assert film.pixels.ndim == 2
        assert film.pixels.std() > 5
    assert len(syntaxes) >= 8
