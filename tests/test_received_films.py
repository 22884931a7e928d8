"""Received films: another one of the same SOP Instance UID, one that comes again, results that grow old."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest
from conftest import Scripts
from pydicom import uid
from pydicom.dataset import Dataset

from common.inference.two_stage_rule import OperatingPoint
from common.prediction.finding import find
from common.prediction.finding_files import FindingFiles, write_finding
from common.prediction.listener.spool import Spool
from common.prediction.new_films import read_new_film
from common.prediction.predictor import FilmPredictor
from common.prediction.written_files import WrittenFiles
from common.pseudonyms import pseudonym
from common.refusal import Refusal
from tests.conftest import wait_for
from tests.test_listener import archive, done, files, film, listening, networked, rejected, save, send

POINT = OperatingPoint(0.5, 20, 96)
MADE_BY = {"system": "eff", "identity": "0123456789abcdef" * 4}
MAP = np.zeros((96, 96), dtype=np.float32)
MAP[20:60, 10:40] = 0.9
RESULTS = (
    uid.SegmentationStorage,
    uid.SecondaryCaptureImageStorage,
    uid.GrayscaleSoftcopyPresentationStateStorage,
)
DAY = 86400.0


def process(path: Path, folder: Path) -> list[Path]:
    """As FilmPredictor.process, of a made-up finding."""
    film = read_new_film(path)
    place = FindingFiles(folder, path.stem.split("_")[1]).of_film(film)
    finding = find(film.film, [0.9] * 5, MAP, POINT, [])
    return write_finding(place, film, finding, MADE_BY, WrittenFiles(folder))[1]


def changed(number: int, **values: object) -> Dataset:
    made = film(number)
    for name, value in values.items():
        setattr(made, name, value)
    return made


def other_pixels(number: int) -> Dataset:
    return changed(number, PixelData=film(number + 100).PixelData)


@networked
def test_other_film_under_the_same_uid_is_a_film_of_its_own(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "listener"
    with archive(classes=RESULTS) as pacs, listening(folder, pacs, process) as listener:
        for each in (
            film(1),
            other_pixels(1),
            changed(1, PatientID="PAT-2"),
            changed(1, PatientName="ZEBULON^QUINCY"),
            changed(1, StudyDescription="corrected"),  # the first one again
        ):
            send(listener, each)
            wait_for(lambda: done(listener))
    assert len(pacs.received) == 15
    segmentations = [ds for ds in pacs.datasets if ds.Modality == "SEG"]
    assert len({ds.SOPInstanceUID for ds in pacs.datasets}) == 12
    assert segmentations[4].SOPInstanceUID == segmentations[0].SOPInstanceUID
    assert [ds.PatientID for ds in segmentations] == ["PAT-1", "PAT-1", "PAT-2", "PAT-1", "PAT-1"]
    tracked = {ds.SegmentSequence[0].TrackingUID for ds in segmentations}
    assert len(tracked) == 4
    first = folder / "findings" / f"{pseudonym('case', film(1).SOPInstanceUID)}.json"
    findings = {path: json.loads(path.read_text()) for path in (folder / "findings").iterdir()}
    assert len(findings) == 4
    for path, content in findings.items():
        assert ("another film came before" in content["finding"]["warnings"]) == (path != first)
    assert pydicom.dcmread(folder / findings[first]["files"]["capture"]).StudyDescription == "corrected"
    said = capsys.readouterr().out
    assert said.count("another film under a SOP Instance UID that came before") == 3
    assert "ZEBULON" not in said + "".join(map(str, findings.values()))


@networked
def test_result_of_before_is_not_replaced_by_another_film(workspace: Path, tmp_path: Path) -> None:
    """Of an earlier version, whose findings do not say of which patient and picture they are."""
    path, folder = save(film(1), tmp_path / f"000000001_{pseudonym('case', '1')}.dcm"), tmp_path / "listener"
    process(path, folder)
    (finding,) = (folder / "findings").iterdir()
    content = json.loads(finding.read_text())
    del content["film"]["identity"]
    finding.write_text(json.dumps(content))
    place = FindingFiles(folder, path.stem.split("_")[1])
    assert place.of_film(read_new_film(path)).case == place.case
    save(changed(1, StudyDescription="corrected"), path)
    assert place.of_film(read_new_film(path)).second


def test_folder_of_an_earlier_listener_is_taken_over(workspace: Path, tmp_path: Path) -> None:
    """As 41e1b68 left it: a film that waits, another whose objects wait, none of it in a manifest."""
    folder = tmp_path / "listener"
    cases = [pseudonym("case", f"1.2.826.0.1.{number}") for number in (1, 2)]
    for name in ("inbox", "outbox", "dicom", "findings", "rejected"):
        (folder / name).mkdir(parents=True)
    for number, case in enumerate(cases, start=1):
        save(film(number), folder / "inbox" / f"{number:09d}_{case}.dcm")
    (folder / "last_number").write_text("000000002")
    (folder / "rejected.csv").write_text("number,case,reason,note\n")
    save(film(7), folder / "dicom" / f"{cases[0]}_overlay.dcm")
    (folder / "outbox" / f"000000001_{cases[0]}.json").write_text(
        json.dumps({"note": "", "objects": [f"dicom/{cases[0]}_overlay.dcm"]})
    )
    taken = [*RESULTS, uid.ComputedRadiographyImageStorage]
    with archive(classes=taken) as pacs, listening(folder, pacs, process) as listener:
        wait_for(lambda: done(listener))
    assert pacs.received[0] == film(7).SOPInstanceUID
    assert len(pacs.received) == 4
    assert files(folder / "inbox") == files(folder / "rejected") == []


# --- results that grow old ---------------------------------------------------------------------------


def _aged(folder: Path, days: float) -> None:
    then = time.time() - days * DAY
    for path in folder.rglob("*"):
        os.utime(path, (then, then))


@networked
def test_old_results_and_only_they_are_deleted(workspace: Path, tmp_path: Path) -> None:
    folder = tmp_path / "listener"
    with archive(classes=RESULTS) as pacs, listening(folder, pacs, process) as listener:
        send(listener, film(1), film(2), film(3), film(4, "short"))
        wait_for(lambda: done(listener))
    _aged(folder, days=11)
    case = [pseudonym("case", f"1.2.826.0.1.{number}") for number in range(5)]
    changed_since = folder / "overlays" / f"{case[2]}.png"
    changed_since.write_bytes(changed_since.read_bytes() + b"note")
    (folder / "dicom" / "mine.dcm").write_bytes(b"mine")
    _aged(folder / "dicom", days=11)
    spool = Spool(folder)  # the objects of film 3 wait, as when their destination was away
    name = spool.keep(save(film(3), tmp_path / "3.dcm").read_bytes(), "1.2.826.0.1.3")
    spool.processed(name, list((folder / "dicom").glob(f"{case[3]}*")))
    spool.close()
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        nobody = sock.getsockname()[1]
    with listening(folder, nobody, process, keep_days=10) as listener:
        send(listener, film(5))
        wait_for(lambda: not listener.spool.films())
    left = {
        path.name[:17] for name in ("findings", "overlays", "dicom") for path in (folder / name).iterdir()
    }
    assert left == {case[2], case[3], pseudonym("case", "1.2.826.0.1.5"), "mine.dcm"}
    assert len(files(folder / "rejected")) == len(rejected(folder)) == 1


# --- by a trained system -----------------------------------------------------------------------------


@pytest.fixture
def predictor(chain: Scripts, monkeypatch: pytest.MonkeyPatch) -> FilmPredictor:
    monkeypatch.setenv("PTX_WORKSPACE", str(chain.workspace))
    return FilmPredictor.open("eff")


@pytest.fixture
def received(new_films: Path, tmp_path: Path) -> Path:
    path = tmp_path / f"000000001_{'c' + '0' * 16}.dcm"
    path.write_bytes(min(new_films.glob("P*.dcm")).read_bytes())
    return path


def test_film_that_comes_again_is_not_predicted_again(
    predictor: FilmPredictor, received: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "listener"
    objects = predictor.process(received, folder)
    assert len(objects) >= 2  # three, where the tiny networks call it positive
    before = [path.stat().st_ino for path in objects]
    monkeypatch.setattr(predictor, "findings", lambda _: pytest.fail("predicted"))
    assert predictor.process(received, folder) == objects
    assert [path.stat().st_ino for path in objects] == before
    objects[1].unlink()
    with pytest.raises(pytest.fail.Exception):  # what is gone is made again
        predictor.process(received, folder)


def _fail(*_: object, **__: object) -> None:
    raise RuntimeError("an error that nobody has seen before")


def test_fault_of_the_machine_is_told_from_one_of_the_film(
    predictor: FilmPredictor, received: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(predictor, "findings", _fail)  # the networks compute as before
        with pytest.raises(RuntimeError, match="nobody has seen"):
            predictor.process(received, tmp_path / "listener")
    with monkeypatch.context() as broken:
        broken.setattr("torch.nn.functional.conv2d", _fail)
        broken.setattr("torch.conv2d", _fail)
        broken.setattr("torch.nn.Conv2d._conv_forward", _fail)
        with pytest.raises(Refusal, match="this machine cannot compute any more"):
            predictor.process(received, tmp_path / "listener")
    assert len(predictor.process(received, tmp_path / "listener")) >= 2
