"""Prediction and the user's files: nothing of theirs is read as a film, replaced or deleted by mistake."""

from __future__ import annotations

import csv
import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from conftest import PREDICTION, Scripts

from common.command_line import Rules
from common.films.decode import decode_film, read_film
from common.films.fault import FilmFault
from common.films.own_outputs import MANUFACTURER
from common.prediction.input_files import refuse_overlap
from common.prediction.predictor import FilmPredictor
from common.prediction.written_files import MANIFEST, NotOurs, WrittenFiles
from common.preparation.film_task import REJECTED, Task, prepare_film
from common.pseudonyms import pseudonym
from common.refusal import Refusal
from common.sources.folder_files import list_input
from common.sources.source_film import SourceFilm

Predict = Callable[..., int]
Content = dict[str, bytes]


def _rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _content(folder: Path) -> Content:
    """Content of every file under a folder, links not followed."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


@pytest.fixture
def study(new_films: Path, tmp_path: Path) -> Path:
    """A folder with two films in `dicom/`."""
    folder = tmp_path / "study"
    (folder / "dicom").mkdir(parents=True)
    for path in sorted(new_films.glob("P*.dcm"))[:2]:
        shutil.copyfile(path, folder / "dicom" / path.name)
    return folder


# --- the manifest ----------------------------------------------------------------------------------


def test_only_what_was_written_and_is_unchanged_is_replaced_or_deleted(tmp_path: Path) -> None:
    mine, theirs, changed = (tmp_path / "findings" / name for name in ("mine", "theirs", "changed"))
    written = WrittenFiles(tmp_path)
    written.write({mine: b"1", changed: b"1"})
    written.write({mine: b"2"})
    theirs.write_bytes(b"theirs")
    changed.write_bytes(b"changed")
    for path in (theirs, changed):
        with pytest.raises(NotOurs):
            written.write({mine: b"3", path: b"3"})
        with pytest.raises(NotOurs):
            written.remove([mine, path])
    assert mine.read_bytes() == b"2"  # all or nothing
    assert WrittenFiles(tmp_path).remove_all() == [changed]  # another process, later
    assert _content(tmp_path / "findings") == {"theirs": b"theirs", "changed": b"changed"}


def test_file_that_was_noted_and_not_written_is_no_obstacle_and_a_half_line_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "dicom" / "film.dcm"
    written = WrittenFiles(tmp_path)
    written._note({"dicom/film.dcm": "0" * 64})  # killed before the file was written
    with open(tmp_path / MANIFEST, "a") as manifest:
        manifest.write('{"path":"dicom/film.dcm","sha2')  # killed within the next line
    again = WrittenFiles(tmp_path)
    again.write({path: b"whole"})
    last = WrittenFiles(tmp_path)
    assert last.is_ours(path)
    assert last.remove_all() == []
    assert not path.exists()


def test_link_in_the_place_of_a_file_is_not_ours(tmp_path: Path) -> None:
    outside = tmp_path / "film"
    outside.write_bytes(b"1")
    written = WrittenFiles(tmp_path / "out")
    written.write({tmp_path / "out" / "file": b"1"})
    (tmp_path / "out" / "file").unlink()
    (tmp_path / "out" / "file").symlink_to(outside)
    assert written.remove_all() == [tmp_path / "out" / "file"]
    assert outside.read_bytes() == b"1"


# --- everything in the input is accounted for --------------------------------------------------------


def test_everything_is_listed_in_the_order_of_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "input"
    for name in ("b/2.dcm", "b/10.dcm", "a.png", "DICOMDIR", ".hidden/x.dcm", "b/.DS_Store", "locked/film"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    os.mkfifo(folder / "pipe")
    (folder / "dead").symlink_to(folder / "nowhere")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "linked").symlink_to(folder / "a.png")
    (folder / "linked_folder").symlink_to(folder / "b")
    monkeypatch.chdir(folder)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        (folder / "device").symlink_to("/dev/null")
        scan = os.scandir

        def no_rights(path: Path) -> object:
            if Path(path).name == "locked":
                raise PermissionError(13, "Permission denied")
            return scan(path)

        monkeypatch.setattr(os, "scandir", no_rights)  # root may read everything
        listing = list_input(folder)
    found = {each.path.relative_to(folder).as_posix(): each.fault for each in listing.entries}
    assert found == {
        "a.png": "",
        "b/10.dcm": "",
        "b/2.dcm": "",
        "dead": "is a link that leads nowhere (No such file or directory)",
        "device": "is a device, no file",
        "linked": "",
        "linked_folder": "is a link to a folder, which is not followed",
        "locked": "its folder cannot be read (Permission denied)",
        "loop": "is a link that leads nowhere (Too many levels of symbolic links)",
        "pipe": "is a named pipe, no file",
        "socket": "is a socket, no file",
    }
    assert list(found) == sorted(found)
    assert listing.passed_over == 3
    assert [each.path for each in list_input(folder / "a.png").entries] == [folder / "a.png"]
    with pytest.raises(Refusal, match="neither a file nor a folder"):
        list_input(folder / "c")
    with pytest.raises(Refusal, match="neither a file nor a folder"):
        list_input(folder / "pipe")
    (tmp_path / "empty").mkdir()
    with pytest.raises(Refusal, match="no file in"):
        list_input(tmp_path / "empty")


def test_what_is_no_file_stands_in_the_table_with_its_reason(
    predict: Predict, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    films, output = study / "dicom", tmp_path / "out"
    os.mkfifo(films / "pipe")
    (films / "dead").symlink_to(films / "nowhere")
    (films / "other").symlink_to(study)
    (films / ".hidden").write_bytes(b"x")
    strange = Path(os.fsdecode(os.fsencode(films) + b"/\xff.dcm"))  # a name that is no UTF-8
    shutil.copyfile(sorted(films.glob("P*.dcm"))[0], strange)
    assert predict(films, output, "--keep-identifiers") == 3
    unread = {row["file"]: row["reason"] for row in _rows(output / "unread.csv")}
    assert set(unread) == {"pipe", "dead", "other"}
    assert all(unread.values())
    found = {row["file"] for row in _rows(output / "findings.csv")}
    assert found == {path.name for path in films.glob("P*.dcm")} | {"\\udcff.dcm"}
    said = capsys.readouterr().out
    assert "6 films" in said
    assert "3 not read" in said
    assert "passed over: 1 hidden" in said


# --- input and output apart ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("films", "output"),
    [
        ("study/dicom", "study"),  # would write among the films
        ("study/dicom", "study/dicom"),
        ("study", "study/out"),
        ("study/dicom/a.dcm", "study"),
        ("study", "link_to_study/out"),
        ("link_to_study", "study/out"),
        ("study/dicom", "linked_overlays"),  # its overlays/ is a link to the films
        ("linked_films", "results"),  # holds a link to a folder that holds the results
        ("linked_results", "results"),  # holds a link to a picture among the results
    ],
)
def test_films_and_results_in_each_others_folder_are_refused(tmp_path: Path, films: str, output: str) -> None:
    for folder in ("study/dicom", "linked_overlays", "linked_films", "linked_results", "results/overlays"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "study" / "dicom" / "a.dcm").write_bytes(b"x")
    (tmp_path / "results" / "overlays" / "c0.png").write_bytes(b"x")
    (tmp_path / "link_to_study").symlink_to("study")
    (tmp_path / "linked_overlays" / "overlays").symlink_to(tmp_path / "study" / "dicom")
    (tmp_path / "linked_films" / "everything").symlink_to(tmp_path)
    (tmp_path / "linked_films" / "b.dcm").write_bytes(b"x")
    (tmp_path / "linked_results" / "c0.png").symlink_to(tmp_path / "results" / "overlays" / "c0.png")
    source, out = tmp_path / films, tmp_path / output
    folders = [out / name for name in ("findings", "overlays", "dicom")]
    with pytest.raises(Refusal, match="in each other's folder") as refused:
        refuse_overlap(source, out, folders, list_input(source).links)
    assert {"films", "results"} <= set(refused.value.details)


def test_films_and_results_side_by_side_are_fine(tmp_path: Path) -> None:
    for folder in ("study/dicom", "study/out", "study_2"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "study" / "dicom" / "a.dcm").write_bytes(b"x")
    (tmp_path / "study" / "dicom" / "b.dcm").symlink_to(tmp_path / "study" / "dicom" / "a.dcm")
    source = tmp_path / "study" / "dicom"
    for output in ("study/out", "study/new", "study_2", "study/dicom_2"):
        refuse_overlap(source, tmp_path / output, [], list_input(source).links)


def test_user_who_names_the_folder_above_the_films_loses_nothing(chain: Scripts, study: Path) -> None:
    before = _content(study)
    done = chain.run(
        PREDICTION, "bash", "predict.sh", str(study / "dicom"), str(study), "cpu", "--fresh", expect=2
    )
    assert str(study) in done.stderr
    assert str(study / "dicom") in done.stderr
    assert done.stderr.count("error:") == 1
    assert _content(study) == before


# --- what --fresh deletes ----------------------------------------------------------------------------


def test_fresh_deletes_what_was_written_and_nothing_else(
    predict: Predict, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    films, output = study / "dicom", tmp_path / "out"
    assert predict(films, output) == 0
    first, second = (row["case"] for row in _rows(output / "findings.csv"))
    notes = {"notes.txt": b"mine", "overlays/c_mine.png": b"mine", "dicom/series/film.dcm": b"mine"}
    for name, content in notes.items():
        (output / name).parent.mkdir(exist_ok=True)
        (output / name).write_bytes(content)
    edited = output / "overlays" / f"{first}.png"
    edited.write_bytes(b"with an arrow")
    (output / "findings" / f"{second}.json").unlink()
    capsys.readouterr()
    assert predict(films, output, "--fresh") == 3
    said = capsys.readouterr().out
    assert f"overlays/{first}.png" in said
    assert edited.read_bytes() == b"with an arrow"
    after = _content(output)
    assert {name: after[name] for name in notes} == notes
    assert [row["case"] for row in _rows(output / "findings.csv")] == [second]
    (listed,) = _rows(output / "unread.csv")
    assert listed["case"] == first
    assert f"overlays/{first}.png is not as this program wrote it" in listed["reason"]
    assert not (output / "findings" / f"{first}.json").exists()
    edited.unlink()
    assert predict(films, output) == 0


def test_finding_that_somebody_changed_is_neither_believed_nor_replaced(
    predict: Predict, study: Path, tmp_path: Path
) -> None:
    films, output = study / "dicom", tmp_path / "out"
    assert predict(films, output) == 0
    case = _rows(output / "findings.csv")[0]["case"]
    path = output / "findings" / f"{case}.json"
    content = json.loads(path.read_text())
    content["finding"]["decision"] = "positive, I say"
    path.write_text(json.dumps(content))
    edited = path.read_bytes()
    assert predict(films, output) == 3
    assert path.read_bytes() == edited
    assert case not in {row["case"] for row in _rows(output / "findings.csv")}
    assert [row["case"] for row in _rows(output / "unread.csv")] == [case]


@pytest.mark.parametrize("flags", [(), ("--fresh",)])
def test_results_of_unknown_origin_are_left_alone(
    predict: Predict, study: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    for name in ("findings.csv", "dicom/mine.dcm"):
        output = tmp_path / name.replace("/", "_")
        (output / name).parent.mkdir(parents=True)
        (output / name).write_bytes(b"mine")
        with pytest.raises(Refusal, match="holds results") as refused:
            predict(study / "dicom", output, *flags)
        assert refused.value.details["do"] == "choose another folder"
        assert _content(output) == {name: b"mine"}


@pytest.mark.parametrize("flags", [(), ("--fresh",)])
def test_table_that_somebody_changed_is_left_alone(
    predict: Predict, study: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    films, output = study / "dicom", tmp_path / "out"
    assert predict(films, output) == 0
    with open(output / "findings.csv", "a") as table:
        table.write("a remark of mine\n")
    before = _content(output)
    with pytest.raises(Refusal, match="not as this program wrote it") as refused:
        predict(films, output, *flags)
    assert "findings.csv" in refused.value.details["kept"]
    assert _content(output) == before


# --- our own pictures and objects are no films -------------------------------------------------------


@pytest.fixture
def own(predict: Predict, study: Path, tmp_path: Path) -> Path:
    """What a prediction wrote."""
    output = tmp_path / "own"
    assert predict(study / "dicom", output) == 0
    return output


def test_our_own_outputs_are_no_films(
    predict: Predict, own: Path, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(own, study / "dicom" / "earlier")
    assert predict(study / "dicom", tmp_path / "out", "--keep-identifiers") == 3
    unread = {row["file"]: row["reason"] for row in _rows(tmp_path / "out" / "unread.csv")}
    assert len(_rows(tmp_path / "out" / "findings.csv")) == 2
    kinds = {"overlays": "picture that this project made", "dicom": "this project made|is a Segmentation"}
    for name, expected in kinds.items():
        reasons = [reason for file, reason in unread.items() if file.startswith(f"earlier/{name}/")]
        assert len(reasons) >= 2
        assert all(any(each in reason for each in expected.split("|")) for reason in reasons)


def test_our_own_outputs_are_rejected_in_preparation(own: Path, tmp_path: Path) -> None:
    for path in (*own.glob("overlays/*"), *own.glob("dicom/*")):
        film = SourceFilm("film", path, "cases.csv, row 2", report=0, annotation=None)
        outcome = prepare_film(Task(0, film, tmp_path, Rules()), lambda: None)
        assert outcome.kind == REJECTED
        assert "no film" in outcome.reason


def test_marks_of_our_own_outputs(own: Path, new_films: Path, tmp_path: Path) -> None:
    """Either mark of a Secondary Capture is enough; any Segmentation, and no other film, is refused."""
    capture = pydicom.dcmread(next(own.glob("dicom/*_overlay.dcm")))
    for mark in ("Manufacturer", "ImageComments"):
        other = pydicom.dcmread(next(own.glob("dicom/*_overlay.dcm")))
        other[mark].value = "somebody's"
        other.save_as(tmp_path / "one.dcm")
        with pytest.raises(FilmFault, match="this project made"):
            read_film(tmp_path / "one.dcm")
    capture.Manufacturer = capture.ImageComments = "somebody's"
    capture.save_as(tmp_path / "none.dcm")
    assert read_film(tmp_path / "none.dcm").pixels.ndim == 2
    film = pydicom.dcmread(next(new_films.glob("P*.dcm")))
    film.Modality = "SEG"
    film.save_as(tmp_path / "segmentation.dcm")
    with pytest.raises(FilmFault, match="is a Segmentation"):
        read_film(tmp_path / "segmentation.dcm")
    overlay = next(own.glob("overlays/*"))
    pixels = cv2.imread(str(overlay), cv2.IMREAD_UNCHANGED)
    assert decode_film(cv2.imencode(".png", pixels)[1].tobytes()).pixels.shape == pixels.shape[:2]
    assert MANUFACTURER.encode() in overlay.read_bytes()


def test_listener_takes_over_the_results_of_a_folder_without_a_manifest(
    chain: Scripts, new_films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTX_WORKSPACE", str(chain.workspace))
    case = pseudonym("case", "1.2.3")
    arrived = tmp_path / f"000000001_{case}.dcm"
    first, second = sorted(new_films.glob("P*.dcm"))[:2]
    shutil.copyfile(first, arrived)
    FilmPredictor.open("eff").process(arrived, tmp_path)
    (tmp_path / MANIFEST).unlink()  # as a listener of before left it
    foreign = tmp_path / "findings" / "notes.json"
    foreign.write_text("mine")
    shutil.copyfile(second, arrived)
    predictor = FilmPredictor.open("eff")
    for _ in range(2):
        assert predictor.process(arrived, tmp_path)
    assert foreign.read_text() == "mine"
    assert not WrittenFiles(tmp_path).is_ours(foreign)
    changed = tmp_path / "findings" / f"{case}.json"
    changed.write_text("changed")
    with pytest.raises(FilmFault, match="not as this program wrote it"):
        predictor.process(arrived, tmp_path)
    assert changed.read_text() == "changed"


# --- a finding is of the patient whose film was read ---------------------------------------------------


def _replace(path: Path, other: Path | None) -> None:
    """Put another film in the place of a file, or take it away."""
    if other is None:
        path.unlink()
    else:
        shutil.copyfile(other, path)


@pytest.mark.parametrize("gone", [False, True])
@pytest.mark.parametrize("when", ["predicted", "written"])
def test_film_replaced_or_gone_meanwhile_gets_no_finding(
    predict: Predict,
    study: Path,
    new_films: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    gone: bool,
    when: str,
) -> None:
    films, output = study / "dicom", tmp_path / "out"
    first, second = sorted(films.glob("*.dcm"))
    other = None if gone else sorted(new_films.glob("P*.dcm"))[5]
    step = {"predicted": (FilmPredictor, "findings"), "written": (WrittenFiles, "write")}[when]
    real, done = getattr(*step), []

    def then_replace(self: object, given: object) -> object:
        result = real(self, given)
        if not done:
            done.append(1)
            _replace(first, other)
        return result

    monkeypatch.setattr(*step, then_replace)
    assert predict(films, output, "--keep-identifiers") == 3
    (listed,) = _rows(output / "unread.csv")
    assert listed["file"] == first.name
    assert ("went away" if gone else "was changed") in listed["reason"]
    assert [row["file"] for row in _rows(output / "findings.csv")] == [second.name]
    patients = {pydicom.dcmread(path).PatientID for path in (output / "dicom").iterdir()}
    assert patients == {pydicom.dcmread(second).PatientID}
    assert not list((output / "findings").glob(f"{listed['case']}*"))
    if not gone:  # and the next run predicts the film that lies there now
        assert predict(films, output, "--keep-identifiers") == 0
        objects = [pydicom.dcmread(path) for path in (output / "dicom").glob(f"{listed['case']}*")]
        assert {each.PatientID for each in objects} == {pydicom.dcmread(other).PatientID}


def test_file_that_was_only_touched_is_the_same_film(
    predict: Predict, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    films, output = study / "dicom", tmp_path / "out"
    real = FilmPredictor.findings

    def touch(self: FilmPredictor, given: object) -> object:
        for path in films.iterdir():
            os.utime(path)
        return real(self, given)

    monkeypatch.setattr(FilmPredictor, "findings", touch)
    assert predict(films, output) == 0


def test_objects_and_pixels_come_from_one_read(
    predict: Predict, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once read, no file of the input is opened again."""
    films, output = study / "dicom", tmp_path / "out"
    opened: list[str] = []
    real = pydicom.dcmread

    def watch(file: object, *arguments: object, **named: object) -> object:
        opened.append(str(file))
        return real(file, *arguments, **named)

    monkeypatch.setattr(pydicom, "dcmread", watch)
    assert predict(films, output) == 0
    assert not [each for each in opened if each.startswith(str(films))]
    assert len(list((output / "dicom").glob("*_overlay.dcm"))) == 2
    assert np.mean([path.stat().st_size for path in (output / "dicom").iterdir()]) > 0
