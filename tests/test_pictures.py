"""PNG, JPEG and TIFF files -> an 8-bit film, and what is refused."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from common.films.decode import read_film
from common.films.fault import FilmFault
from common.films.mask_files import MaskFile
from common.films.pictures import decode_picture

GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)
DEEP = GREY.astype(np.uint16) * 200 + 1000  # min-max: GREY again
COLOUR = np.stack([GREY, GREY[::-1], GREY.T], axis=-1)  # RGB
LUMINANCE = COLOUR @ [0.299, 0.587, 0.114]
DEEP_COLOUR = COLOUR.astype(np.uint16) * 200 + 1000
DEEP_LUMINANCE = (LUMINANCE - LUMINANCE.min()) / np.ptp(LUMINANCE) * 255


def _encoded(suffix: str, pixels: np.ndarray) -> bytes:
    """By OpenCV, of RGB(A) or grey pixels."""
    if pixels.ndim == 3:
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    quality = [cv2.IMWRITE_JPEG_QUALITY, 100] if suffix == ".jpg" else []
    return cv2.imencode(suffix, pixels, quality)[1].tobytes()


def _pillow(image: Image.Image, name: str, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, name, **options)
    return content.getvalue()


def _tiff(pixels: np.ndarray, photometric: int) -> bytes:
    """An uncompressed little-endian grey TIFF, byte by byte."""
    height, width = pixels.shape
    tags = [(256, width), (257, height), (258, pixels.itemsize * 8), (259, 1), (262, photometric)]
    tags += [(273, 8), (277, 1), (278, height), (279, pixels.nbytes)]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", t, 4, 1, v) for t, v in tags)
    return b"II*\0" + struct.pack("<I", 8 + pixels.nbytes) + pixels.tobytes() + directory + bytes(4)


def _with_alpha(pixels: np.ndarray) -> np.ndarray:
    return np.dstack([pixels, pixels[..., :1] // 2 + 7])


PALETTE = Image.fromarray(GREY).convert("RGB").quantize(256)
EXIF = Image.Exif()
EXIF[0x0112] = 6  # turned by 90 degrees


def _with_exif(png: bytes) -> bytes:
    part = b"eXIf" + EXIF.tobytes().removeprefix(b"Exif\0\0")
    return png[:33] + struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) + png[33:]


READ = {
    "png 8 bit": (_encoded(".png", GREY), GREY),
    "png 16 bit": (_encoded(".png", DEEP), GREY),
    "png colour": (_encoded(".png", COLOUR), LUMINANCE),
    "png colour and alpha": (_encoded(".png", _with_alpha(COLOUR)), LUMINANCE),
    "png grey and alpha": (_pillow(Image.fromarray(_with_alpha(GREY[..., None])), "PNG"), GREY),
    "png colour 16 bit": (_encoded(".png", DEEP_COLOUR), DEEP_LUMINANCE),
    "png colour and alpha 16 bit": (_encoded(".png", _with_alpha(DEEP_COLOUR)), DEEP_LUMINANCE),
    "png palette": (_pillow(PALETTE, "PNG"), GREY),
    "png 1 bit": (_pillow(Image.fromarray(GREY > 99), "PNG"), (GREY > 99) * 255),
    "png turned by EXIF": (_pillow(Image.fromarray(GREY), "PNG", exif=EXIF), np.rot90(GREY, -1)),
    "png colour 16 bit turned by EXIF": (
        _with_exif(_encoded(".png", np.dstack([DEEP] * 3))),
        np.rot90(GREY, -1),
    ),
    "jpeg": (_encoded(".jpg", GREY), GREY),
    "jpeg colour": (_pillow(Image.fromarray(COLOUR), "JPEG", quality=100, subsampling=0), LUMINANCE),
    "jpeg turned by EXIF": (
        _pillow(Image.fromarray(GREY), "JPEG", quality=100, exif=EXIF),
        np.rot90(GREY, -1),
    ),
    "tiff 8 bit": (_tiff(GREY, 1), GREY),
    "tiff 8 bit, white is zero": (_tiff(GREY, 0), 255 - GREY),
    "tiff 16 bit": (_tiff(DEEP, 1), GREY),
    "tiff 16 bit, white is zero": (_tiff(DEEP, 0), 255 - GREY),
    "tiff 16 bit, big-endian": (_pillow(Image.fromarray(DEEP.astype(">u2")), "TIFF"), GREY),
    "tiff packed": (_pillow(Image.fromarray(GREY), "TIFF", compression="tiff_lzw"), GREY),
    "tiff colour": (_encoded(".tif", COLOUR), LUMINANCE),
    "tiff colour 16 bit": (_encoded(".tif", DEEP_COLOUR), DEEP_LUMINANCE),
}


def _png_header(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    empty = b"IDAT" + zlib.compress(b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part))
        for part in (chunk, empty)
    )


def _of_size(jpeg: bytes, width: int, height: int) -> bytes:
    at = jpeg.index(b"\xff\xc0")
    return jpeg[: at + 5] + struct.pack(">2H", height, width) + jpeg[at + 9 :]


NOISE = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
PAGES = {"save_all": True, "append_images": [Image.fromarray(GREY)] * 2}
REFUSED = {
    "png bomb": (_png_header(65535, 65535), "claims 65535 x 65535 pixels"),
    "jpeg bomb": (_of_size(_encoded(".jpg", GREY), 65500, 65500), "claims 65500 x 65500 pixels"),
    "tiff bomb": (
        _tiff(GREY, 1).replace(struct.pack("<HHII", 256, 4, 1, 16), struct.pack("<HHII", 256, 4, 1, 10**8)),
        "claims 100000000 x 16 pixels",
    ),
    "tiff pages": (_pillow(Image.fromarray(GREY), "TIFF", **PAGES), "holds 3 pages, not one film"),
    "png animation": (_pillow(Image.fromarray(NOISE[:16, :16]), "PNG", **PAGES), "holds 3 pages"),
    "tiff 32 bit": (_tiff(GREY.astype(np.uint32), 1), "holds 32-bit pixels, neither 8 nor 16"),
    "png cut short": (_encoded(".png", NOISE)[:-2000], "is cut short (PNG)"),
    "jpeg cut short": (_encoded(".jpg", NOISE)[:-2000], "is cut short (JPEG)"),
    "tiff cut short": (_pillow(Image.fromarray(NOISE), "TIFF")[:-2000], "is cut short (TIFF)"),
    "png of no size": (_png_header(0, 7), "PNG"),
    "only a signature": (b"\xff\xd8\xff", "cannot be decoded (JPEG)"),
}


@pytest.mark.parametrize("name", READ)
def test_read(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    content, expected = READ[name]
    (tmp_path / "film.dcm").write_bytes(content)  # by its content, not its suffix
    film = read_film(tmp_path / "film.dcm").pixels
    assert (film.dtype, film.shape) == (np.uint8, expected.shape)
    assert np.abs(film - expected.astype(float)).max() <= (3 if name.startswith("jpeg") else 1)
    assert (decode_picture(content) == film).all()
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", REFUSED)
def test_refused(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    content, reason = REFUSED[name]
    (tmp_path / "SECRET.png").write_bytes(content)
    with pytest.raises(FilmFault) as fault:
        read_film(tmp_path / "SECRET.png")
    assert reason in str(fault.value)
    assert "SECRET" not in str(fault.value)
    assert capfd.readouterr() == ("", "")


def _as_shown(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """By Pillow: the tag and what it does to 8-bit grey."""
    tagged = Image.fromarray(pixels)
    tagged.getexif()[274] = orientation
    return np.asarray(ImageOps.exif_transpose(tagged))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("kind", ["raw", "tiff_lzw", "PNG"])
def test_films_and_masks_lie_as_viewers_show_them(
    tmp_path: Path, orientation: int, colours: int, kind: str
) -> None:
    """By the same rule, so that a mask that was drawn on what is shown fits."""
    pixels = np.dstack([GREY[:5]] * colours).squeeze()
    tag = Image.Exif()
    tag[274] = orientation
    options = {"exif": tag} if kind == "PNG" else {"tiffinfo": {274: orientation}, "compression": kind}
    name = "PNG" if kind == "PNG" else "TIFF"
    notes: list[str] = []
    film = decode_picture(_pillow(Image.fromarray(pixels), name, **options), notes.append)
    shown = _as_shown(GREY[:5], orientation)
    assert film.shape == shown.shape
    assert (film == shown).all()
    assert len(notes) == (orientation != 1)
    marked = (pixels > 70).astype(np.uint8) * 255
    (tmp_path / "mask").write_bytes(_pillow(Image.fromarray(marked), name, **options))
    height, width = shown.shape
    notes = []
    assert (MaskFile(tmp_path / "mask").mask(width, height, notes.append) == (shown > 70)).all()
    assert len(notes) == (orientation != 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_colour_lies_as_viewers_show_it(orientation: int, capfd: pytest.CaptureFixture[str]) -> None:
    """The tag, and one of a vendor, are put into a directory behind the file that OpenCV writes."""
    content = _encoded(".tif", np.dstack([DEEP[:5]] * 3))
    start = struct.unpack_from("<I", content, 4)[0]
    entries = [content[at : at + 12] for at in range(start + 2, start + 2 + 12 * content[start], 12)]
    kept = [entry for entry in entries if entry[:2] != struct.pack("<H", 274)]
    kept += [struct.pack("<HHIHH", 274, 3, 1, orientation, 0), struct.pack("<HHIHH", 65000, 3, 1, 1, 0)]
    kept.sort(key=lambda entry: struct.unpack("<H", entry[:2]))
    directory = struct.pack("<H", len(kept)) + b"".join(kept) + bytes(4)
    content = content[:4] + struct.pack("<I", len(content)) + content[8:] + directory
    shown = _as_shown(np.rint(GREY[:5] / 79 * 255).astype(np.uint8), orientation)
    assert (decode_picture(content) == shown).all()
    assert capfd.readouterr() == ("", "")


def test_other_files_are_no_picture() -> None:
    with pytest.raises(FilmFault, match="is no PNG, JPEG or TIFF file"):
        decode_picture(b"GIF89a")
