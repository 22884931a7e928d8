"""Stored values -> 8-bit grey levels: every step of the grey scale, checked by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_film import RAMP, SHOWN, by_its_values, lookup_table, smooth, write_film
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from common.films import grey_scale
from common.films.decode import read_film
from common.films.fault import FilmFault
from common.films.plausible import implausible


def test_min_max_without_a_window(tmp_path: Path) -> None:
    film = read_film(write_film(tmp_path / "a.dcm")).pixels
    assert film.dtype == np.uint8
    assert (film == np.rint(RAMP / 4080 * 255)).all()


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    plain = read_film(write_film(tmp_path / "a.dcm")).pixels
    inverted = read_film(write_film(tmp_path / "b.dcm", PhotometricInterpretation="MONOCHROME1")).pixels
    assert (inverted == 255 - plain).all()


def test_rescale_comes_before_the_window(tmp_path: Path) -> None:
    path = write_film(
        tmp_path / "a.dcm", RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=1000.5, WindowWidth=2001
    )
    values = RAMP.astype(float) * 2 - 1000
    expected = np.rint(np.clip((values - 1000) / 2000 + 0.5, 0, 1) * 255)  # PS3.3 C.11.2.1.2.1
    assert (read_film(path).pixels == expected).all()


def test_saturated_pixels_take_the_median_on_request(tmp_path: Path) -> None:
    pixels = RAMP.copy()
    pixels[0, :3] = 4095
    path = write_film(tmp_path / "a.dcm", pixels)
    replaced = pixels.copy()
    replaced[0, :3] = np.median(pixels)
    expected = read_film(write_film(tmp_path / "b.dcm", replaced)).pixels
    assert (read_film(path, replace_saturated=True).pixels == expected).all()
    assert (read_film(path).pixels != expected).any()
    inverted = write_film(tmp_path / "c.dcm", 4095 - pixels, PhotometricInterpretation="MONOCHROME1")
    found = read_film(inverted, replace_saturated=True).pixels.astype(int)
    assert np.abs(found - expected).max() <= 1


def test_first_of_several_windows(tmp_path: Path) -> None:
    one = write_film(tmp_path / "a.dcm", WindowCenter=1000, WindowWidth=500)
    two = write_film(tmp_path / "b.dcm", WindowCenter=[1000, 3000], WindowWidth=[500, 100])
    assert (read_film(one).pixels == read_film(two).pixels).all()


def test_narrowest_window_has_two_values() -> None:
    shown = grey_scale._window(RAMP.astype(float), 2000, 1, "LINEAR")
    assert (shown == (RAMP > 1999.5)).all()


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize(
    "window",
    [(127, 255), (100_000, 50), (2000, 1), (3000, 65535), (32768, 65536), (8192, 16384), (-5000, 9000)],
)
def test_a_window_off_the_values_gives_way_to_their_range(
    tmp_path: Path, window: tuple[int, int], inverted: bool
) -> None:
    pixels = smooth(12) // 2 + 1500
    header = {"PhotometricInterpretation": f"MONOCHROME{1 if inverted else 2}"}
    expected = read_film(write_film(tmp_path / "a.dcm", pixels, **header))
    header |= {"WindowCenter": window[0], "WindowWidth": window[1]}
    film = read_film(write_film(tmp_path / "b.dcm", pixels, **header))
    assert (film.pixels == expected.pixels).all()
    assert film.notes == (grey_scale.GIVES_WAY,)
    assert expected.notes == ()


@pytest.mark.parametrize(("bits", "entries"), [(16, 4095), (16, 16383), (12, 1023), (12, 65520), (10, 4095)])
def test_a_lookup_table_is_shown_by_the_range_of_its_entries(tmp_path: Path, bits: int, entries: int) -> None:
    pixels = smooth(12)
    table = lookup_table(0, bits, np.linspace(0, entries, 4096).astype(np.uint16))
    film = read_film(write_film(tmp_path / "a.dcm", pixels, VOILUTSequence=table))
    assert np.abs(film.pixels - pixels / 4095 * 255).max() <= 1
    assert film.notes == (f"its lookup table says {bits} bits, its entries have {entries.bit_length()}",)


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize(("share", "is_dim"), [(0.3, True), (0.48, True), (0.52, False), (1, False)])
def test_a_window_or_table_that_fills_less_than_half_is_told(
    tmp_path: Path, share: float, is_dim: bool, inverted: bool
) -> None:
    """The film is shown as the header says, as viewers do."""
    pixels = smooth(12)
    header = {"PhotometricInterpretation": f"MONOCHROME{1 if inverted else 2}"}
    entries = np.rint(np.linspace(0, 4095 * share, 4096)).astype(np.uint16)
    for name, voi in {
        "window": {"WindowCenter": 2048 / share, "WindowWidth": 4096 / share},
        "table": {"VOILUTSequence": lookup_table(0, 12, entries)},
    }.items():
        film = read_film(write_film(tmp_path / name, pixels, **header, **voi))
        expected = pixels / 4095 * share * 255
        assert np.abs(film.pixels - (255 - expected if inverted else expected)).max() <= 1.1
        assert film.notes == ((grey_scale.IS_DIM,) if is_dim else ())


def test_a_dim_window_is_told_whatever_lies_outside_of_it(tmp_path: Path) -> None:
    """Neither padding nor the values below the window make it less dim."""
    padded = smooth(12) // 2 + 2048
    padded[:, :40] = 0
    films = {
        "padding": (padded, {"PixelPaddingValue": 0, "WindowCenter": 1024, "WindowWidth": 6144}),
        "values below": (smooth(12), {"WindowCenter": 4500, "WindowWidth": 5000}),
    }
    for name, (pixels, header) in films.items():
        assert read_film(write_film(tmp_path / name, pixels, **header)).notes == (grey_scale.IS_DIM,), name


def test_a_dull_window_stays_where_the_range_shows_less(tmp_path: Path) -> None:
    """A dead pixel far below all others: by smallest to largest value the film would be of one grey."""
    pixels = (smooth(12) // 41).astype(np.int16)  # 0 to 99
    pixels[0, 0] = -30000
    film = read_film(
        write_film(tmp_path / "a.dcm", pixels, BitsStored=16, HighBit=15, WindowCenter=300, WindowWidth=667)
    )
    assert film.notes == (grey_scale.IS_DIM,)
    assert not implausible(film.pixels)


def test_a_lookup_table_off_the_values_gives_way_to_their_range(tmp_path: Path) -> None:
    pixels = smooth(12)
    table = lookup_table(60000, 12, np.arange(4096, dtype=np.uint16))
    film = read_film(write_film(tmp_path / "a.dcm", pixels, VOILUTSequence=table))
    assert np.abs(film.pixels - by_its_values(pixels)).max() <= 0.51
    assert film.notes == (grey_scale.GIVES_WAY,)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("LINEAR_EXACT", lambda x: (x - 2000) / 1000 + 0.5),
        ("SIGMOID", lambda x: 1 / (1 + np.exp(-4 * (x - 2000) / 1000))),
    ],
)
def test_other_window_functions(tmp_path: Path, function: str, expected: object) -> None:
    path = write_film(tmp_path / "a.dcm", WindowCenter=2000, WindowWidth=1000, VOILUTFunction=function)
    wanted = np.clip(expected(RAMP.astype(float)), 0, 1) * 255
    assert np.abs(read_film(path).pixels - wanted).max() <= 0.51


def test_lookup_table(tmp_path: Path) -> None:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [4096, 0, 16])
    item.add_new("LUTData", "US", (np.arange(4096) ** 2 // 256).tolist())
    path = write_film(tmp_path / "a.dcm", VOILUTSequence=Sequence([item]))
    expected = np.rint(RAMP.astype(np.int64) ** 2 // 256 / 65535 * 255)
    assert np.abs(read_film(path).pixels - expected).max() <= 1


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
    """Values of 16 bits, but no more than 255."""
    values = np.arange(256, dtype=np.uint16).reshape(16, 16)
    film = read_film(write_film(tmp_path / "a.dcm", values)).pixels
    assert film.dtype == np.uint8
    assert (film == values).all()


def test_unused_bits_are_dropped(tmp_path: Path) -> None:
    overlay = np.where(np.eye(16, dtype=bool), 0xF000, 0).astype(np.uint16)
    assert (read_film(write_film(tmp_path / "a.dcm", RAMP | overlay)).pixels == SHOWN).all()
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    expected = read_film(write_film(tmp_path / "b.dcm", **window)).pixels
    found = read_film(write_film(tmp_path / "c.dcm", RAMP << 4 | 9, HighBit=15, **window)).pixels
    assert (found == expected).all()


@pytest.mark.parametrize("above", [0, 0x5000, 0xF000])
def test_unused_bits_of_signed_values_are_dropped(tmp_path: Path, above: int) -> None:
    of_12_bits = (RAMP.astype(np.int16) - 2048).astype(np.uint16) & 0xFFF | above
    film = read_film(write_film(tmp_path / "a.dcm", of_12_bits, PixelRepresentation=1))
    assert (film.pixels == SHOWN).all()


def test_unused_bits_of_colours_are_dropped(tmp_path: Path) -> None:
    header = {"PhotometricInterpretation": "RGB", "PlanarConfiguration": 0, "SamplesPerPixel": 3}
    colours = np.stack([RAMP] * 3, axis=-1)
    expected = read_film(write_film(tmp_path / "a.dcm", colours, **header)).pixels
    overlay = np.where(np.eye(16, dtype=bool), 0xF000, 0).astype(np.uint16)[..., None]
    assert (read_film(write_film(tmp_path / "b.dcm", colours | overlay, **header)).pixels == expected).all()


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
    assert (read_film(write_film(tmp_path / "a.dcm", pixels, **header)).pixels == expected).all()
    header |= {"WindowCenter": 500, "WindowWidth": 200}
    assert (read_film(write_film(tmp_path / "b.dcm", pixels, **header)).pixels[0, : len(stored)] == 0).all()


@pytest.mark.parametrize(("vr", "value"), [("SS", -2000), ("US", 65536 - 2000)])
def test_signed_padding(tmp_path: Path, vr: str, value: int) -> None:
    pixels = SHOWN.astype(np.int16)
    pixels[0, 0] = -2000
    path = write_film(tmp_path / "a.dcm", pixels, BitsStored=16, HighBit=15)
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
    film = read_film(write_film(tmp_path / "a.dcm", pixels, **header), replace_saturated=True).pixels
    assert film[0].tolist() == [128, 0, 255, 128]  # 4095 -> 50, the median of what is not padding
    assert (film[1:3] == 0).all()


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
    path = write_film(
        tmp_path / "a.dcm", VOILUTSequence=lookup_table(first, bits, entries, vr), WindowWidth=1
    )
    values = np.clip(RAMP, first, first + len(entries) - 1) / (16 if bits == 8 else 1)
    values = values // 1 * (16 if bits == 16 else 1)
    assert np.abs(read_film(path).pixels - values / (2**bits - 1) * 255).max() <= 0.51


def test_lookup_table_of_negative_values(tmp_path: Path) -> None:
    entries = np.arange(4096, dtype=np.uint16)
    pixels = RAMP.astype(np.int16) - 2048
    expected = RAMP / 4095 * 255
    for name, table in {
        "signed": lookup_table(-2048, 12, entries, signed=True),
        "read as unsigned": lookup_table(65536 - 2048, 12, entries),
    }.items():
        path = write_film(tmp_path / name, pixels, VOILUTSequence=table)
        assert np.abs(read_film(path).pixels - expected).max() <= 0.51


def test_modality_table_comes_before_the_window(tmp_path: Path) -> None:
    table = lookup_table(0, 16, (np.arange(4096) ** 2 // 256).astype(np.uint16))
    path = write_film(tmp_path / "a.dcm", ModalityLUTSequence=table, WindowCenter=32768, WindowWidth=65536)
    values = RAMP.astype(np.int64) ** 2 // 256
    expected = np.clip((values - 32767.5) / 65535 + 0.5, 0, 1) * 255
    assert np.abs(read_film(path).pixels - expected).max() <= 0.51


def test_first_of_several_lookup_tables(tmp_path: Path) -> None:
    one = lookup_table(0, 12, np.arange(4096, dtype=np.uint16))
    two = lookup_table(0, 12, np.zeros(4096, np.uint16))
    path = write_film(tmp_path / "a.dcm", VOILUTSequence=Sequence([*one, *two]))
    assert np.abs(read_film(path).pixels - RAMP / 4095 * 255).max() <= 0.51


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_film_of_one_value_is_black(tmp_path: Path, photometric: str) -> None:
    path = write_film(tmp_path / "a.dcm", RAMP * 0 + 7, PhotometricInterpretation=photometric)
    assert (read_film(path).pixels == 0).all()


def test_signed_pixels(tmp_path: Path) -> None:
    signed = RAMP.astype(np.int16) - 2048
    plain = read_film(write_film(tmp_path / "a.dcm")).pixels
    assert (read_film(write_film(tmp_path / "b.dcm", signed)).pixels == plain).all()


def test_nothing_but_padding(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.dcm", PixelPaddingValue=0, PixelPaddingRangeLimit=4095)
    with pytest.raises(FilmFault, match="holds nothing but padding"):
        read_film(path)
