"""SIIM-ACR's download and the hospital's export -> source films: every row and every file accounted for."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.command_line import Rules
from common.films.annotations import RunLengths
from common.refusal import Refusal
from common.sources import case_table, ntuh, siim
from common.sources.csv_rows import RAGGED
from common.sources.source_film import SourceFilm

# --- the hospital's export -----------------------------------------------------------------------------

_TRAIN = "PERSONID2,ACCESSNO2,氣胸,胸管,Training,EXAM\r\n"
_TEST = "PERSONID2,ACCESSNO2,氣胸,胸管,EXAM\r\n"


def _export(folder: Path, train: str = "", test: str = "", images: str = "", labels: str = "") -> Path:
    """An export with these rows, image files (empty ones) and labels."""
    (folder / "images").mkdir(parents=True)
    (folder / "NTUH_1519.csv").write_bytes(("\ufeff" + _TRAIN + train).encode())
    (folder / "NTUH_20.csv").write_bytes(("\ufeff" + _TEST + test).encode())
    for name in images.split():
        (folder / "images" / name).touch()
    for exam in labels.split():
        (folder / "labels" / exam).mkdir(parents=True)
        (folder / "labels" / exam / "label.json").write_text("{}")
    return folder


def _films(folder: Path, name: str = "ntuh_train", **rules: object) -> list[SourceFilm]:
    return ntuh.source_films(folder, name, Rules(**rules))


def test_cells_of_several_lines_are_one_record(tmp_path: Path) -> None:
    train = (
        'A1,1,1,,1,"Supine:\r\nsmall, ""right"" pneumothorax\r\n\r\nB9,1,1,,1"\r\n'
        "\r\n"
        'A2,2,0, ,1,"\n\n"\r\n'
        "A3,3,0,1, 1 ,\r\n"
        "A4,4,1,,0,\r\n"
        " A5 ,5,1,0,1,"  # no line end at the end of the file
    )
    films = _films(_export(tmp_path, train, "", "A1.dcm A2.dcm A3.dcm A4.dcm A5.dcm", "A1"))
    assert [(f.identifier, f.report, f.chest_tube, f.excluded, f.fault) for f in films] == [
        ("A1", 1, 0, None, None),
        ("A2", 0, 0, None, None),
        ("A3", 0, 1, "chest tube", None),
        ("A4", 1, 0, "Training flag is not 1", None),
        ("A5", 1, 0, ntuh.UNMASKED, None),
    ]
    assert [film.origin for film in films] == [f"NTUH_1519.csv, record {n}" for n in range(1, 6)]
    assert [film.annotation is not None for film in films] == [True, False, False, False, False]


def test_plain_line_ends_and_no_byte_order_mark(tmp_path: Path) -> None:
    folder = _export(tmp_path, "A1,1,0,,1,\nA2,2,1,,1,\n", "T1,1,1,1,\n", "A1.dcm A2.dcm T1.dcm")
    before = [_films(folder, name) for name in ntuh.TABLES]
    for table in ("NTUH_1519.csv", "NTUH_20.csv"):
        text = (folder / table).read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
        (folder / table).write_bytes(text.encode())
    assert [_films(folder, name) for name in ntuh.TABLES] == before
    assert [len(films) for films in before] == [2, 1]


def test_chest_tubes_are_kept_only_where_the_rules_say_so(tmp_path: Path) -> None:
    train, test = "A1,1,1,1,1,\r\nA2,2,0,1,1,\r\nA3,3,1,1,1,\r\n", "T1,1,1,1,\r\nT2,2,0,0,\r\n"
    folder = _export(tmp_path, train, test, "A1.dcm A2.dcm A3.dcm T1.dcm T2.dcm", "A1")
    assert [f.excluded for f in _films(folder)] == ["chest tube"] * 3
    assert [f.excluded for f in _films(folder, "ntuh_test")] == ["chest tube", None]
    allowed = _films(folder, allow_chest_tube=True)
    assert [f.excluded for f in allowed] == [None, None, ntuh.UNMASKED]
    assert [f.chest_tube for f in allowed] == [1, 1, 1]
    allowed = _films(folder, "ntuh_test", allow_chest_tube=True)
    assert [(f.excluded, f.chest_tube) for f in allowed] == [(None, 1), (None, 0)]


def test_positives_without_a_mask_are_kept_in_testing(tmp_path: Path) -> None:
    (film,) = _films(_export(tmp_path, "", "T1,1,1,,\r\n", "T1.dcm"), "ntuh_test")
    assert (film.report, film.annotation, film.excluded, film.fault) == (1, None, None, None)


@pytest.mark.parametrize("end", ["dcm", "png", "jpg", "jpeg", "tif", "tiff", "DCM", "Jpg"])
def test_kinds_of_image_files(tmp_path: Path, end: str) -> None:
    (film,) = _films(_export(tmp_path, "A1,1,0,,1,\r\n", "", f"A1.{end}"))
    assert (film.path, film.fault) == (tmp_path / "images" / f"A1.{end}", None)


def test_the_choice_of_an_image_file_is_never_arbitrary(tmp_path: Path) -> None:
    rows = "".join(f"A{n},{n},0,,1,\r\n" for n in range(1, 5))
    films = _films(_export(tmp_path, rows, "", "A1.png A1.dcm A2.png A2.jpg A3.dcm A3.DCM A4.txt"))
    assert [film.path and film.path.name for film in films] == ["A1.dcm", None, None, None]
    several = "several image files in images/"
    assert [film.fault for film in films] == [None, several, several, "no image file in images/"]


def test_image_files_that_no_table_lists_are_counted(tmp_path: Path) -> None:
    images = "A1.dcm T1.dcm P0123456.dcm P0123456.png P0654321.jpg bad.dcm notes.txt .hidden.dcm ._A1.dcm"
    folder = _export(tmp_path, "A1,1,0,,1,\r\nbad,1,x,,1,\r\n", "T1,1,0,,\r\n", images)
    (folder / "images" / "folder.dcm").mkdir()
    films = _films(folder)
    assert [film.excluded for film in films] == [None] * 2 + [ntuh.UNLISTED] * 3
    assert [film.path.name for film in films[2:]] == ["P0123456.dcm", "P0123456.png", "P0654321.jpg"]
    assert [film.origin for film in films[2:]] == [f"images/ (unlisted file {n})" for n in (1, 2, 3)]
    assert len({film.identifier for film in films}) == 5
    assert len(_films(folder, "ntuh_test")) == 1


def test_an_exam_in_both_tables_is_in_both_sets(tmp_path: Path) -> None:
    """Nothing hides it from the check for leakage."""
    folder = _export(tmp_path, "A1,1,0,,1,\r\n", "A1,1,0,,\r\n", "A1.dcm")
    (train,), (test,) = _films(folder), _films(folder, "ntuh_test")
    assert train.identifier == test.identifier == "A1"
    assert train.path == test.path
    assert (train.fault, test.fault, train.excluded, test.excluded) == (None,) * 4


def test_faulty_rows_of_the_export(tmp_path: Path) -> None:
    rows = (
        "A1,1,0,,1,\r\nA1,1,1,,1,\r\nA2,1,2,,1,\r\nA3,1,0,x,1,\r\n../A1,1,0,,1,\r\n,1,0,,1,\r\n,2,0,,1,\r\n"
    )
    films = _films(
        _export(tmp_path, rows + "A4,1,0\r\nA5,1,0,,1,Chest, supine\r\nA6,1,,,1,\r\n", "", "A1.dcm")
    )
    assert [film.fault for film in films] == [
        None,
        "its exam is listed a second time",
        "氣胸 is neither 0 nor 1",
        "胸管 is neither 1, 0 nor empty",
        *["PERSONID2 is no plain identifier"] * 3,
        *[RAGGED] * 2,
        "氣胸 is neither 0 nor 1",
    ]
    assert all(film.path is None for film in films[1:])


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (b"", "other columns"),
        ((_TRAIN + "A1,1,0,,1,報告\r\n").encode("big5"), "not UTF-8"),
        ((_TRAIN + 'A1,1,0,,1,"not closed\r\nA2,1,0,,1,\r\n').encode(), "not closed"),
        (_TEST.encode(), "other columns"),
    ],
)
def test_tables_that_cannot_be_read_are_refused(tmp_path: Path, table: bytes, said: str) -> None:
    folder = _export(tmp_path)
    (folder / "NTUH_1519.csv").write_bytes(table)
    with pytest.raises(Refusal, match=said):
        _films(folder)


def test_every_tag_spelling_and_only_the_annotated_size_counts(tmp_path: Path) -> None:
    folder = _export(tmp_path, "A1,1,1,,1,\r\n", "", "A1.dcm", "A1")
    tags = ["Pneumothorax", "Pneumothorax ", "PTX", "pneumothorax "]
    shapes = [{"a": [n, 0], "b": [n + 1, n + 1], "tagAnno": tag} for n, tag in enumerate(tags)]
    label = {"accessionNumber": "1", "size": [5, 4], "shapes": shapes}
    (folder / "labels" / "A1" / "label.json").write_text(json.dumps(label))
    (film,) = _films(folder)
    assert (film.annotation.mask(5, 4) == (np.arange(5) >= np.arange(4)[:, None]) & (np.arange(5) < 4)).all()


def test_the_semisynthetic_export(real: Path) -> None:
    folder = real / "semisynthetic" / "hospital"
    films = [film for name in ntuh.TABLES for film in _films(folder, name)]
    images = [path for path in (folder / "images").iterdir() if path.suffix in ntuh.IMAGE_ENDS]
    assert sorted(film.path for film in films if film.path) == sorted(images)
    assert not any(film.fault for film in films)


# --- SIIM-ACR ------------------------------------------------------------------------------------------


def _download(folder: Path, labels: str, files: str) -> list[SourceFilm]:
    for file in files.split():
        path = folder / siim.IMAGES / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (folder / siim.LABELS).write_text("ImageId, EncodedPixels\n" + labels)
    return siim.source_films(folder)


def test_rows_of_the_label_file(tmp_path: Path) -> None:
    labels = "a, 0 1\nb,-1\na, 5 1\n\nc, -1\nc,-1\nd,-1\ne,2 1\n"
    films = _download(tmp_path, labels, "s/t/a.dcm s/t/b.dcm s/u/c.dcm v/w/e.dcm")
    assert [(f.identifier, f.report, f.fault) for f in films] == [
        ("a", 1, None),
        ("b", 0, None),
        ("c", 0, None),
        ("d", 0, "no image file in dicom-images-train"),
        ("e", 1, None),
    ]
    assert [film.origin for film in films] == [f"train-rle.csv, row {n}" for n in (2, 3, 6, 8, 9)]
    assert films[0].annotation == RunLengths(("0 1", "5 1"))


def test_contradictions_and_double_names_are_faults(tmp_path: Path) -> None:
    files = "1/a.dcm 1/b.dcm 1/c.dcm 2/c.dcm 1/d.dcm"
    films = _download(tmp_path, "a,-1\na,0 1\nb,0 1\nb, -1\nc,-1\nd,\n", files)
    said = "one of its rows says no lesion, another one has run lengths"
    assert [film.fault for film in films] == [
        said,
        said,
        "several image files of its name in dicom-images-train",
        "a row has no EncodedPixels: no lesion is -1",
    ]


def test_image_files_without_a_row_are_counted(tmp_path: Path) -> None:
    films = _download(tmp_path, "a,-1\n", "1/a.dcm 1/b.dcm 2/b.dcm 3/c.DCM 3/._a.dcm 3/readme.txt")
    assert [film.excluded for film in films] == [None] + ["image file without a row in train-rle.csv"] * 3
    assert [film.origin for film in films[1:]] == [
        f"dicom-images-train (unlisted file {n})" for n in (1, 2, 3)
    ]
    assert len({film.identifier for film in films}) == 4
    assert not any(film.fault for film in films)


@pytest.mark.parametrize(
    ("labels", "said"), [("a,-1,-1\n", "row 2 has more or fewer"), ('a,-1\nb,"-1\n', "not closed")]
)
def test_label_files_that_cannot_be_read_are_refused(tmp_path: Path, labels: str, said: str) -> None:
    with pytest.raises(Refusal, match=said):
        _download(tmp_path, labels, "1/a.dcm")
    (tmp_path / siim.LABELS).write_text("ImageId,Pixels\na,-1\n")
    with pytest.raises(Refusal, match="lacks a column"):
        siim.source_films(tmp_path)


@pytest.mark.all
def test_the_real_label_file_of_siim_acr(real: Path, tmp_path: Path) -> None:
    """The complete file of the 2019 challenge: 12,047 films, 2,669 of them positive."""
    with gzip.open(real / "siim" / "train-rle.csv.gz") as packed, open(tmp_path / siim.LABELS, "wb") as file:
        shutil.copyfileobj(packed, file)
    (tmp_path / siim.IMAGES).mkdir()
    films = siim.source_films(tmp_path)
    rows = siim.read_labels(tmp_path / siim.LABELS)
    assert (sum(map(len, rows.values())), len(rows), len(films)) == (12_954, 12_047, 12_047)
    assert sum(len(several) > 1 for several in rows.values()) == 624
    assert {film.fault for film in films} == {f"no image file in {siim.IMAGES}"}  # and no contradiction
    pixels = [int(film.annotation.mask(1024, 1024).sum()) for film in films if film.annotation]
    assert len(pixels) == sum(film.report for film in films) == 2_669
    shares = np.array(pixels) / 1024**2
    assert (round(shares.mean(), 4), round(float(np.median(shares)), 4)) == (0.0137, 0.0082)
    assert (min(pixels), round(shares.max(), 3)) == (55, 0.154)


def _edition(folder: Path, images: str, table: str, rows: str, *names: str) -> Path:
    """A download of another edition, with empty image files."""
    (folder / images).mkdir(parents=True)
    (folder / table).write_text(rows)
    for name in names:
        (folder / images / name).touch()
    return folder


def test_siim_acr_as_kaggle_hands_it_out_today(tmp_path: Path) -> None:
    rows = "ImageId,EncodedPixels\nID_1,0 1\nID_2,-1\nID_3,-1\n"
    folder = _edition(
        tmp_path, "stage_2_images", "stage_2_train.csv", rows, "ID_1.dcm", "ID_2.dcm", "ID_9.dcm"
    )
    films = siim.source_films(folder)
    assert [(f.identifier, f.report, f.fault or f.excluded) for f in films] == [
        ("ID_1", 1, None),
        ("ID_2", 0, None),
        ("ID_3", 0, "no image file in stage_2_images"),
        ("stage_2_images/ID_9.dcm", 0, "image file without a row in stage_2_train.csv"),
    ]
    assert films[0].origin == "stage_2_train.csv, row 2"
    assert films[0].annotation == RunLengths(("0 1",))


def test_siim_acr_in_png(tmp_path: Path) -> None:
    """With a black mask for each negative film."""
    header = "new_filename,ImageId,has_pneumo\n"
    rows = header + "0_train_0_.png,1.2.1,0\n1_train_1_.png,1.2.2,1\n2_train_1_.png,1.2.3,yes\nx.png\n"
    folder = _edition(
        tmp_path, "png_images", "stage_1_train_images.csv", rows, "0_train_0_.png", "1_train_1_.png"
    )
    (folder / "png_images" / "0_test_1_.png").touch()
    (folder / "stage_1_test_images.csv").write_text(header + "0_test_1_.png,1.2.4,1\n0_test_1_.png,1.2.4,1\n")
    (folder / "png_masks").mkdir()
    for name in ("0_train_0_.png", "1_train_1_.png", "0_test_1_.png"):
        mask = np.zeros((8, 8), np.uint8)
        mask[2:4, 3] = 255 * ("_1_" in name)
        Image.fromarray(mask).save(folder / "png_masks" / name)
    films = siim.source_films(folder)
    assert [(f.origin, f.report, f.fault) for f in films] == [
        ("stage_1_train_images.csv, row 2", 0, None),
        ("stage_1_train_images.csv, row 3", 1, None),
        ("stage_1_train_images.csv, row 4", 0, "has_pneumo is neither 0 nor 1"),
        ("stage_1_train_images.csv, row 5", 0, RAGGED),
        ("stage_1_test_images.csv, row 2", 1, None),
        ("stage_1_test_images.csv, row 3", 0, "its film is listed a second time"),
    ]
    assert [film.annotation.mask(8, 8).sum() for film in films if film.annotation] == [0, 2, 2]


def test_siim_acr_in_two_editions_or_in_none(tmp_path: Path) -> None:
    rows = "ImageId,EncodedPixels\nID_1,-1\n"
    folder = _edition(tmp_path, "stage_2_images", "stage_2_train.csv", rows)
    (folder / "stage_2_train.csv").rename(folder / "train-rle.csv")
    with pytest.raises(Refusal) as refusal:
        siim.source_films(folder)
    assert all(name in str(refusal.value) for name in ("stage_2_images/", "stage_2_train.csv", "png_images/"))
    (folder / "stage_2_train.csv").write_text(rows)
    (folder / siim.IMAGES).mkdir()
    with pytest.raises(Refusal, match="more than one edition"):
        siim.source_films(folder)


# --- all sources ---------------------------------------------------------------------------------------


def test_every_source_marks_the_same_pixels(tmp_path: Path) -> None:
    """A lesion in the upper right corner and a smaller one at the lower left, through all three sources."""
    lesion = np.zeros((1024, 1024), np.uint8)
    lesion[:2, -3:] = lesion[-1, 0] = 255
    runs = f"a,1023 1\na,{1021 * 1024} 2 1022 2\na,{1023 * 1024} 2\n"
    (film,) = _download(tmp_path / "siim", runs, "1/a.dcm")
    masks = {"siim": film.annotation.mask(1024, 1024)}
    folder = _export(tmp_path / "ntuh", "A1,1,1,,1,\r\n", "", "A1.dcm", "A1")
    shapes = [{"a": [1021, 2], "b": [1024, 0]}, {"a": [1, 1024], "b": [0, 1023]}]
    (folder / "labels" / "A1" / "label.json").write_text(json.dumps({"size": [1024, 1024], "shapes": shapes}))
    masks["ntuh"] = _films(folder)[0].annotation.mask(1024, 1024)
    Image.fromarray(lesion).save(tmp_path / "mask.png")
    (tmp_path / "film.png").touch()
    (tmp_path / "cases.csv").write_text("image,mask,pneumothorax,set\nfilm.png,mask.png,1,train\n")
    (film,) = case_table.source_films(tmp_path, "ntuh_train", Rules())
    masks["hospital"] = film.annotation.mask(1024, 1024)
    for source, mask in masks.items():
        assert (mask == (lesion > 0)).all(), source
