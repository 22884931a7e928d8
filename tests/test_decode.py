"""One file -> an 8-bit film: every step of the grey scale, checked by hand."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian, RLELossless, generate_uid

from common.films import grey_scale
from common.films.decode import read_film
from common.films.fault import FilmFault

RAMP = np.arange(0, 4096, 16, dtype=np.uint16).reshape(16, 16)  # 12 bit, 0 to 4080


def _write(
    path: Path, pixels: np.ndarray = RAMP, syntax: UID = ExplicitVRLittleEndian, **attributes: object
) -> Path:
    """A film of 12 bits in 16 unless the attributes say otherwise; an attribute of None is left out."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["t"])
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = int(pixels.dtype == np.int16)
    dataset.PixelData = pixels.tobytes()
    for name, value in attributes.items():
        setattr(dataset, name, value)
        if value is None:
            delattr(dataset, name)
    dataset["PixelData"].VR = "OB" if syntax.is_encapsulated else "OW"
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


def test_narrowest_window_has_two_values(tmp_path: Path) -> None:
    film = read_film(_write(tmp_path / "a.dcm", WindowCenter=2000, WindowWidth=1)).pixels
    assert (film == (RAMP > 1999.5) * 255).all()


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


# --- every way to store a film ---------------------------------------------------------------------

SHOWN = np.arange(256, dtype=np.uint8).reshape(16, 16)  # what every film below must look like
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


@pytest.mark.parametrize("saturated", [False, True])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_a_line_shows_what_the_table_shows(
    monkeypatch: pytest.MonkeyPatch, bits: int, photometric: str, saturated: bool
) -> None:
    """The quick way through OpenCV is taken for most windows, and then to the same film."""
    ways, noted = [], []
    by_line = grey_scale._by_line

    def counted(*arguments: np.ndarray) -> np.ndarray | None:
        ways.append(by_line(*arguments))
        return ways[-1]

    rng = np.random.default_rng(bits)
    kind = np.uint8 if bits == 8 else np.uint16
    for _ in range(60):
        low, high = (0, 2**bits - 1) if saturated else np.sort(rng.integers(2 ** (bits - 1), size=2))
        high += 0 if saturated else 64  # so many values are worth a line
        stored = rng.integers(low, high + 1, (41, 47)).astype(kind)
        stored[0, :2] = low, high
        film = Dataset()
        film.PixelRepresentation, film.BitsStored, film.BitsAllocated = 0, bits, stored.itemsize * 8
        film.RescaleSlope, film.RescaleIntercept = int(rng.choice([-1, 1])), int(rng.integers(-1024, 1024))
        if rng.random() < 0.7:
            center = film.RescaleSlope * int(rng.integers(low, high + 1)) + film.RescaleIntercept
            film.WindowCenter, film.WindowWidth = center, int(rng.uniform(0.5, 2) * (high - low))
        if rng.random() < 0.2:
            film.PixelPaddingValue = int(rng.integers(2**bits))
        monkeypatch.setattr(grey_scale, "_by_line", lambda *_: None)
        expected = grey_scale.grey_to_8_bit(
            film, stored, photometric == "MONOCHROME1", saturated, noted.append
        )
        monkeypatch.setattr(grey_scale, "_by_line", counted)
        found = grey_scale.grey_to_8_bit(film, stored, photometric == "MONOCHROME1", saturated, noted.append)
        assert found.dtype == expected.dtype == np.uint8
        assert (found == expected).all()
    assert saturated or sum(way is not None for way in ways) > len(ways) / 2


def test_values_that_are_grey_levels_already(tmp_path: Path) -> None:
    """Of 16 bits, but no more than 255."""
    values = np.arange(256, dtype=np.uint16).reshape(16, 16)
    film = read_film(_write(tmp_path / "a.dcm", values)).pixels
    assert film.dtype == np.uint8
    assert (film == values).all()


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
    film = read_film(_write(tmp_path / "a.dcm", pixels, getattr(uid, syntax), **header)).pixels
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
    assert (read_film(_write(tmp_path / "a.dcm", pixels, syntax, **header)).pixels == SHOWN).all()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_rle(tmp_path: Path, bits: int, signed: bool) -> None:
    pixels, header = _ramp(bits, signed)
    dataset = pydicom.dcmread(_write(tmp_path / "a.dcm", pixels, **header))
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
    found = read_film(_write(tmp_path / "a.dcm", pixels, syntax, **header)).pixels
    assert np.abs(found - expected).max() <= 3


@pytest.mark.parametrize("depth", [8, 16])
def test_colour_is_shown_by_its_luminance(tmp_path: Path, depth: int) -> None:
    _, header = _ramp(depth, False)
    header |= {"PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    pixels = COLOUR.astype(f"u{depth // 8}") * (1 if depth == 8 else 200)
    grey = COLOUR @ [0.299, 0.587, 0.114]
    expected = grey if depth == 8 else (grey - grey.min()) / np.ptp(grey) * 255
    film = read_film(_write(tmp_path / "a.dcm", pixels, **header)).pixels
    assert np.abs(film - expected).max() <= 1


@pytest.mark.parametrize("bits", [8, 16])
def test_palette(tmp_path: Path, bits: int) -> None:
    _, header = _ramp(8, False)
    entries = np.arange(256, dtype=f"<u{bits // 8}")[::-1] * (1 if bits == 8 else 257)
    for name in ("Red", "Green", "Blue"):
        header[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        header[f"{name}PaletteColorLookupTableData"] = entries.tobytes()
    header["PhotometricInterpretation"] = "PALETTE COLOR"
    assert (read_film(_write(tmp_path / "a.dcm", SHOWN, **header)).pixels == 255 - SHOWN).all()


def test_unused_bits_are_dropped(tmp_path: Path) -> None:
    overlay = np.where(np.eye(16, dtype=bool), 0xF000, 0).astype(np.uint16)
    assert (read_film(_write(tmp_path / "a.dcm", RAMP | overlay)).pixels == SHOWN).all()
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    expected = read_film(_write(tmp_path / "b.dcm", **window)).pixels
    found = read_film(_write(tmp_path / "c.dcm", RAMP << 4 | 9, HighBit=15, **window)).pixels
    assert (found == expected).all()


@pytest.mark.parametrize("above", [0, 0x5000, 0xF000])
def test_unused_bits_of_signed_values_are_dropped(tmp_path: Path, above: int) -> None:
    of_12_bits = (RAMP.astype(np.int16) - 2048).astype(np.uint16) & 0xFFF | above
    film = read_film(_write(tmp_path / "a.dcm", of_12_bits, PixelRepresentation=1))
    assert (film.pixels == SHOWN).all()


def test_unused_bits_of_colours_are_dropped(tmp_path: Path) -> None:
    header = {"PhotometricInterpretation": "RGB", "PlanarConfiguration": 0, "SamplesPerPixel": 3}
    colours = np.stack([RAMP] * 3, axis=-1)
    expected = read_film(_write(tmp_path / "a.dcm", colours, **header)).pixels
    overlay = np.where(np.eye(16, dtype=bool), 0xF000, 0).astype(np.uint16)[..., None]
    assert (read_film(_write(tmp_path / "b.dcm", colours | overlay, **header)).pixels == expected).all()


def test_without_preamble_suffix_or_transfer_syntax(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.dcm")
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
    path = _write(tmp_path / "a.tif")
    path.write_bytes(b"II*\0" + path.read_bytes()[4:])
    assert (read_film(path).pixels == SHOWN).all()


# --- streams and headers that disagree -------------------------------------------------------------


def _smooth(bits: int, signed: bool = False) -> np.ndarray:
    """Shapes and a little noise over the whole range, (256, 224) int16 or uint16."""
    draw = np.random.default_rng(0)
    film = cv2.resize(draw.normal(0, 1, (5, 4)), (224, 256), interpolation=cv2.INTER_CUBIC)
    film = (film - film.min()) / np.ptp(film) + draw.normal(0, 0.002, film.shape)
    film = np.rint((film - film.min()) / np.ptp(film) * (2**bits - 1)) - signed * 2 ** (bits - 1)
    return film.astype(np.int16 if signed else np.uint16)


def _by_its_values(pixels: np.ndarray) -> np.ndarray:
    return (pixels - float(pixels.min())) / np.ptp(pixels.astype(float)) * 255


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
    pixels = _smooth(bits, signed)
    film = read_film(_write(tmp_path / "a.dcm", pixels, **header))
    assert np.abs(film.pixels - _by_its_values(pixels)).max() <= 0.51
    assert len(film.notes) == (note is not None)
    assert (note or "") in "".join(film.notes)


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
    pixels = _smooth(bits)
    header = {"BitsAllocated": allocated[0], "BitsStored": allocated[1], "HighBit": allocated[1] - 1}
    header["PixelData"] = encapsulate(
        [_encode(codec, pixels.astype(np.uint8) if bits == 8 else pixels, bits)]
    )
    film = read_film(_write(tmp_path / "a.dcm", pixels, syntax, **header))
    assert np.abs(film.pixels - _by_its_values(pixels)).max() <= 0.51


@pytest.mark.parametrize("claimed", [0, 1])
@pytest.mark.parametrize("signed", [False, True])
def test_a_jpeg_2000_stream_knows_its_sign(tmp_path: Path, signed: bool, claimed: int) -> None:
    pixels = _smooth(12, signed)
    header = {"PixelRepresentation": claimed, "PixelData": encapsulate([_encode("jpeg2k", pixels, 12)])}
    film = read_film(_write(tmp_path / "a.dcm", pixels, uid.JPEG2000Lossless, **header))
    assert np.abs(film.pixels - _by_its_values(pixels)).max() <= 0.51


def test_values_of_more_bits_that_are_torn_either_way_are_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 65536, (64, 56)).astype(np.uint16)
    with pytest.raises(FilmFault, match="holds values of more than the 10 bits that its header says"):
        read_film(_write(tmp_path / "a.dcm", noise, BitsStored=10))


@pytest.mark.parametrize("windowed", [False, True])
@pytest.mark.parametrize("inverted", [False, True])
def test_what_overshoots_is_clipped_and_not_wrapped(tmp_path: Path, inverted: bool, windowed: bool) -> None:
    """As lossy compression does at the edge of a saturated marker: 4098 in a film of 12 bits."""
    pixels = _smooth(12) // 2
    pixels[5:12, 5:40], pixels[6:9, 8:30] = 4095, 4098
    header = {"PhotometricInterpretation": f"MONOCHROME{1 if inverted else 2}"}
    header |= {"WindowCenter": 2048, "WindowWidth": 4096} if windowed else {}
    clipped = np.minimum(pixels, 4095)
    expected = read_film(_write(tmp_path / "a.dcm", clipped, **header))
    film = read_film(_write(tmp_path / "b.dcm", pixels, **header))
    assert (film.pixels == expected.pixels).all()
    assert film.notes == ("values beyond its 12 bits were clipped",)
    assert expected.notes == ()


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("allocated", [8, 16])
def test_jpeg_of_12_bits(
    tmp_path: Path, bits: int, allocated: int, capfd: pytest.CaptureFixture[str]
) -> None:
    codecs = pytest.importorskip("imagecodecs")
    frame = codecs.jpeg8_encode(_smooth(12), level=95, bitspersample=12)
    header = {
        "PixelData": encapsulate([frame]),
        "BitsAllocated": allocated,
        "BitsStored": min(bits, allocated),
    }
    film = read_film(_write(tmp_path / "a.dcm", _smooth(12), uid.JPEGExtended12Bit, **header))
    assert np.abs(film.pixels - _by_its_values(codecs.jpeg8_decode(frame))).max() <= 0.51
    header["PixelData"] = encapsulate([frame[:-60]])
    with pytest.raises(FilmFault, match="cannot be decoded"):
        read_film(_write(tmp_path / "b.dcm", _smooth(12), uid.JPEGExtended12Bit, **header))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("colour", [False, True])
def test_a_stream_of_other_samples_is_refused(tmp_path: Path, colour: bool) -> None:
    frame = cv2.imencode(".jpg", COLOUR if colour else SHOWN, JPEG_BEST)[1].tobytes()
    header = _ramp(8, False)[1] | {"PixelData": encapsulate([frame])}
    if not colour:
        header |= {"PhotometricInterpretation": "RGB", "PlanarConfiguration": 0, "SamplesPerPixel": 3}
    with pytest.raises(FilmFault, match=r"claims \d samples per pixel, but its JPEG Baseline .* holds \d"):
        read_film(_write(tmp_path / "a.dcm", SHOWN, uid.JPEGBaseline8Bit, **header))


def test_jpeg_of_8_bits_in_a_header_of_12(tmp_path: Path) -> None:
    header = {"PixelData": encapsulate([cv2.imencode(".jpg", SHOWN, JPEG_BEST)[1].tobytes()])}
    film = read_film(_write(tmp_path / "a.dcm", SHOWN, uid.JPEGBaseline8Bit, **header))
    assert np.abs(film.pixels.astype(int) - SHOWN).max() <= 3


def test_one_frame_of_an_enhanced_object(tmp_path: Path) -> None:
    window, measures, frame = Dataset(), Dataset(), Dataset()
    window.WindowCenter, window.WindowWidth = 1000, 500
    measures.PixelSpacing = [20, 30]  # of a film of 16 x 16 pixels
    frame.FrameVOILUTSequence, frame.PixelMeasuresSequence = Sequence([window]), Sequence([measures])
    groups = {"NumberOfFrames": 1, "PerFrameFunctionalGroupsSequence": Sequence([frame])}
    film = read_film(_write(tmp_path / "a.dcm", **groups))
    plain = read_film(_write(tmp_path / "b.dcm", WindowCenter=1000, WindowWidth=500))
    assert (film.pixels == plain.pixels).all()
    assert film.spacing == (20, 30)


# --- padding and lookup tables ---------------------------------------------------------------------


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize(
    ("first", "limit", "stored"),
    [(4000, None, [4000]), (4000, 4095, [4000, 4050, 4095]), (4095, 4000, [4000, 4050, 4095])],
)
def test_padding_is_black_and_counts_for_nothing(
    tmp_path: Path, inverted: bool, first: int, limit: int | None, stored: list[int]
) -> None:
    pixels = SHOWN.astype(np.uint16) * 4
    pixels[0, : len(stored)] = stored
    header = {"PixelPaddingValue": first, "PhotometricInterpretation": f"MONOCHROME{1 if inverted else 2}"}
    if limit is not None:
        header["PixelPaddingRangeLimit"] = limit
    low = len(stored)  # the smallest value that is left
    expected = np.rint((SHOWN - float(low)) / (255 - low) * 255)
    expected = 255 - expected if inverted else expected
    expected[0, : len(stored)] = 0
    assert (read_film(_write(tmp_path / "a.dcm", pixels, **header)).pixels == expected).all()
    header |= {"WindowCenter": 500, "WindowWidth": 200}
    assert (read_film(_write(tmp_path / "b.dcm", pixels, **header)).pixels[0, : len(stored)] == 0).all()


@pytest.mark.parametrize(("vr", "value"), [("SS", -2000), ("US", 65536 - 2000)])
def test_signed_padding(tmp_path: Path, vr: str, value: int) -> None:
    pixels = SHOWN.astype(np.int16)
    pixels[0, 0] = -2000
    path = _write(tmp_path / "a.dcm", pixels, BitsStored=16, HighBit=15)
    dataset = pydicom.dcmread(path)
    dataset.add_new("PixelPaddingValue", vr, value)
    dataset.save_as(path)
    expected = np.rint((SHOWN - 1.0) / 254 * 255)
    expected[0, 0] = 0
    assert (read_film(path).pixels == expected).all()


def test_saturation_does_not_count_padding(tmp_path: Path) -> None:
    pixels = np.full((4, 4), 50, np.uint16)
    pixels[0] = [4095, 10, 90, 50]
    pixels[1:3] = 4000
    header = {"PixelPaddingValue": 4000}
    film = read_film(_write(tmp_path / "a.dcm", pixels, **header), replace_saturated=True).pixels
    assert film[0].tolist() == [128, 0, 255, 128]  # 4095 -> 50, the median of what is not padding
    assert (film[1:3] == 0).all()


def _table(first: int, bits: int, entries: np.ndarray, vr: str = "US", signed: bool = False) -> Sequence:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if signed else "US", [len(entries), first, bits])
    item.add_new("LUTData", vr, entries.tolist() if vr == "US" else entries.tobytes())
    return Sequence([item])


@pytest.mark.parametrize(
    ("first", "bits", "entries", "vr"),
    [
        (0, 12, np.arange(4096, dtype=np.uint16), "US"),
        (0, 12, np.arange(4096, dtype="<u2"), "OW"),
        (0, 16, np.arange(4096, dtype=np.uint16) * 16, "US"),
        (0, 8, (np.arange(4096) // 16).astype("<u2"), "OW"),
        (0, 8, (np.arange(4096) // 16).astype(np.uint8), "OW"),  # two entries a word
        (16, 12, np.arange(16, 4080, dtype=np.uint16), "US"),  # values outside take the nearest entry
    ],
)
def test_lookup_tables(tmp_path: Path, first: int, bits: int, entries: np.ndarray, vr: str) -> None:
    path = _write(tmp_path / "a.dcm", VOILUTSequence=_table(first, bits, entries, vr), WindowWidth=1)
    values = np.clip(RAMP, first, first + len(entries) - 1) / (16 if bits == 8 else 1)
    values = values // 1 * (16 if bits == 16 else 1)
    assert np.abs(read_film(path).pixels - values / (2**bits - 1) * 255).max() <= 0.51


def test_lookup_table_of_negative_values(tmp_path: Path) -> None:
    entries = np.arange(4096, dtype=np.uint16)
    pixels = RAMP.astype(np.int16) - 2048
    expected = RAMP / 4095 * 255
    for name, table in {
        "signed": _table(-2048, 12, entries, signed=True),
        "read as unsigned": _table(65536 - 2048, 12, entries),
    }.items():
        path = _write(tmp_path / name, pixels, VOILUTSequence=table)
        assert np.abs(read_film(path).pixels - expected).max() <= 0.51


def test_modality_table_comes_before_the_window(tmp_path: Path) -> None:
    table = _table(0, 16, (np.arange(4096) ** 2 // 256).astype(np.uint16))
    path = _write(tmp_path / "a.dcm", ModalityLUTSequence=table, WindowCenter=32768, WindowWidth=65536)
    values = RAMP.astype(np.int64) ** 2 // 256
    expected = np.clip((values - 32767.5) / 65535 + 0.5, 0, 1) * 255
    assert np.abs(read_film(path).pixels - expected).max() <= 0.51


def test_first_of_several_lookup_tables(tmp_path: Path) -> None:
    one = _table(0, 12, np.arange(4096, dtype=np.uint16))
    two = _table(0, 12, np.zeros(4096, np.uint16))
    path = _write(tmp_path / "a.dcm", VOILUTSequence=Sequence([*one, *two]))
    assert np.abs(read_film(path).pixels - RAMP / 4095 * 255).max() <= 0.51


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_film_of_one_value_is_black(tmp_path: Path, photometric: str) -> None:
    path = _write(tmp_path / "a.dcm", RAMP * 0 + 7, PhotometricInterpretation=photometric)
    assert (read_film(path).pixels == 0).all()


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
    [
        ("045Y", 45), ("45", 45), ("006M", 0.5), ("073D", 0.2), ("000D", 0), ("", None), ("old", None),
        ("130Y", 130), ("131Y", None), ("413Y", None), ("999Y", None), ("999M", 83.25),
    ],
)  # fmt: skip
def test_age(tmp_path: Path, age: str, expected: float | None) -> None:
    with pydicom.config.disable_value_validation():
        film = read_film(_write(tmp_path / "a.dcm", PatientAge=age))
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
        assert read_film(_write(tmp_path / "a.dcm", **header)).age == expected


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
    film = read_film(_write(tmp_path / "a.dcm", **header))
    assert (film.pixels == (255 - SHOWN if photometric == "MONOCHROME1" else SHOWN)).all()
    assert [f"{photometric} with a PresentationLUTShape of {shape}" in note for note in film.notes] == [
        True
    ] * noted


@pytest.mark.parametrize(
    "missing", ["NumberOfFrames", "SamplesPerPixel", "PixelRepresentation", "PlanarConfiguration"]
)
@pytest.mark.parametrize("colour", [False, True])
def test_gaps_are_filled_as_other_readers_do(tmp_path: Path, missing: str, colour: bool) -> None:
    header = {"PhotometricInterpretation": "RGB", "PlanarConfiguration": 0} if colour else {}
    pixels = np.stack([RAMP] * 3, axis=-1) if colour else RAMP
    path = _write(tmp_path / "a.dcm", pixels, NumberOfFrames=0, **header)
    dataset = pydicom.dcmread(path)
    if missing in dataset:
        del dataset[missing]
    dataset.save_as(path)
    assert (read_film(path).pixels == SHOWN).all()


def test_facts(tmp_path: Path) -> None:
    path = _write(
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
        found = read_film(_write(tmp_path / "a.dcm", **header)).spacing
    assert found == (expected if expected is None else pytest.approx(expected))


def test_an_impossible_spacing_is_noted(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.dcm", PixelSpacing=[1, 2], ImagerPixelSpacing=[20, 20])
    film = read_film(path)
    assert film.spacing == (20, 20)
    assert film.notes == ("an impossible PixelSpacing (a film of 3.2 x 1.6 cm), which is not used",)


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
        film = read_film(_write(tmp_path / "a.dcm", **header))
    assert {name: getattr(film, name) for name in expected} == expected


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
            {"VOILUTSequence": _table(0, 40, np.arange(9, dtype=np.uint16))},
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
        path = _write(tmp_path / "SECRET.dcm", PatientName="SECRET")
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
    path = _write(tmp_path / "a.dcm", pixels, **header)
    dataset = pydicom.dcmread(path)
    codecs = {uid.JPEGLosslessSV1: "ljpeg", uid.JPEGLSLossless: "jpegls", uid.JPEG2000Lossless: "jpeg2k"}
    if syntax in codecs:
        header["PixelData"] = encapsulate([_encode(codecs[syntax], pixels, 12)])
        _write(path, pixels, syntax, **header)
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
    content = _write(tmp_path / "a.dcm").read_bytes()
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
    path = _write(tmp_path / "a.dcm", WindowCenter=7, WindowWidth=2001, PixelSpacing=[0.123, 0.123])
    content = path.read_bytes()
    path.write_bytes(content.replace(b"0.123", b"0.1x3"))
    assert read_film(path).spacing is None
    path.write_bytes(content.replace(b"2001", b"20x1"))
    with pytest.raises(FilmFault, match="impossible window width"):
        read_film(path)


def test_a_compressed_film_without_transfer_syntax(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.dcm", SHOWN, uid.JPEGBaseline8Bit, PixelData=encapsulate([JPEG]))
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


def test_nothing_but_padding(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.dcm", PixelPaddingValue=0, PixelPaddingRangeLimit=4095)
    with pytest.raises(FilmFault, match="holds nothing but padding"):
        read_film(path)


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
            read_film(_write(tmp_path / "a.dcm", pixels, uid.JPEGLosslessSV1, **header))
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
