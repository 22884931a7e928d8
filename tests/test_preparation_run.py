"""Sources -> prepared sets: labels, rules, faults, splits, leakage, interruptions."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from conftest import REPOSITORY, wait_for

from common.command_line import PrepareOptions, Rules
from common.files import digest
from common.paths import leaks_file, prepared_folder
from common.preparation.listed_films import ListedFilms
from common.preparation.run import open_prepared, prepare_sources
from common.pseudonyms import pseudonym
from common.refusal import Refusal
from common.sources import ntuh, siim
from common.sources.source_film import FOUND, SourceFilm


@pytest.fixture
def export(sources: Path, tmp_path: Path) -> Path:
    """A copy of the hospital's export that a test may damage."""
    return Path(shutil.copytree(sources / "ntuh", tmp_path / "export"))


def _exams(export: Path, file: str = "NTUH_1519.csv") -> pd.DataFrame:
    return pd.read_csv(export / file, dtype=str, keep_default_na=False, encoding="utf-8-sig")


def _rewrite(export: Path, table: pd.DataFrame, file: str = "NTUH_1519.csv") -> None:
    table.to_csv(export / file, index=False, encoding="utf-8-sig", lineterminator="\r\n")


def _rejected(name: str) -> pd.DataFrame:
    """The films with a fault, after checking that all films which are not prepared are listed."""
    folder = prepared_folder(name)
    table = pd.read_csv(folder / "rejected.csv")
    if (folder / "flow.json").exists():
        flow = json.loads((folder / "flow.json").read_text())
        for kind in ("rejected", "excluded"):
            reasons = [reason.partition(FOUND)[0] for reason in table[table["kind"] == kind]["reason"]]
            assert Counter(reasons) == flow[kind]
    return table[table["kind"] == "rejected"]


def test_siim_set(workspace: Path, sources: Path) -> None:
    prepared = open_prepared("siim", str(sources / "siim"), "test")
    listed = {film.identifier: film for film in siim.source_films(sources / "siim")}
    assert len(prepared.cases) == len(listed) == 24
    assert prepared.has_mask.sum() == 12
    by_name = {pseudonym("case", identifier): film for identifier, film in listed.items()}
    for row, case in enumerate(prepared.cases["case"]):
        film = by_name[case]
        pixels = pydicom.dcmread(film.path).pixel_array
        assert (prepared.film(row) == pixels).mean() > 0.99 or np.ptp(pixels) < 255  # min-max may stretch
        mask = film.annotation.mask(1024, 1024) if film.annotation else np.zeros((1024, 1024), bool)
        assert (prepared.mask(row) == mask).all()
        assert prepared.cases["mask_area_fraction"][row] == pytest.approx(mask.mean())
    assert 0 < (prepared.part == 1).sum() < 24


def test_flow_accounts_for_every_film(workspace: Path, sources: Path) -> None:
    open_prepared("ntuh_train", str(sources / "ntuh"), "test")
    for name, file in (("ntuh_train", "NTUH_1519.csv"), ("ntuh_test", "NTUH_20.csv")):
        flow = json.loads((prepared_folder(name) / "flow.json").read_text())
        assert flow["found"] == len(_exams(sources / "ntuh", file))
        assert flow["found"] == flow["prepared"] + sum(flow["excluded"].values()) + sum(
            flow["rejected"].values()
        )
        assert {"chest tube", "age under 20"} <= set(flow["excluded"])
    train = json.loads((prepared_folder("ntuh_train") / "flow.json").read_text())
    assert train["excluded"]["Training flag is not 1"] >= 1
    assert train["excluded"][ntuh.UNMASKED] >= 1  # left out of training ...
    assert train["report_without_mask"] == 0
    test = json.loads((prepared_folder("ntuh_test") / "flow.json").read_text())
    assert test["report_without_mask"] >= 2  # ... and kept, by report, in testing


def test_faults_are_listed_and_the_rest_goes_on(workspace: Path, export: Path) -> None:
    table = _exams(export)
    kept = table[(table["Training"] == "1") & (table["胸管"] == "") & (table["氣胸"] == "0")][
        "PERSONID2"
    ].tolist()
    damaged, missing, twice, mistyped = kept[:4]
    (export / "images" / f"{damaged}.dcm").write_bytes(b"damaged")
    (export / "images" / f"{missing}.dcm").unlink()
    table.loc[table["PERSONID2"] == mistyped, "氣胸"] = "yes"
    outside = table.iloc[[0]].assign(PERSONID2="../../etc/passwd")
    table = pd.concat([table, table[table["PERSONID2"] == twice], outside])
    _rewrite(export, table)
    prepare_sources(PrepareOptions(ntuh=str(export), rules=Rules(max_fault_share=0.5)))
    prepared = open_prepared("ntuh_train", str(export), "test")
    rejected = _rejected("ntuh_train")
    assert len(rejected) == 5
    reasons = " | ".join(rejected["reason"])
    for said in (
        "is no DICOM, PNG, JPEG or TIFF file",
        "no image file",
        "second time",
        "neither 0 nor 1",
        "no plain identifier",
    ):
        assert said in reasons
    assert (rejected["origin"].str.match(r"NTUH_1519\.csv, record \d+$")).all()
    assert not any(exam in (prepared.folder / "rejected.csv").read_text() for exam in kept)


def test_folds_and_order_do_not_depend_on_the_key(
    tmp_path: Path, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for name in ("one", "two"):
        monkeypatch.setenv("PTX_WORKSPACE", str(tmp_path / name))
        prepared = open_prepared("ntuh_train", str(sources / "ntuh"), "test")
        found.append((prepared.content, prepared.split, prepared.part.tolist(), set(prepared.cases["case"])))
    assert found[0][:3] == found[1][:3]
    assert not found[0][3] & found[1][3]


def _negatives(export: Path) -> tuple[str, str]:
    """A negative exam of training and one of testing that no rule excludes."""
    train, test = _exams(export), _exams(export, "NTUH_20.csv")
    train, test = (t[(t["胸管"] == "") & (t["氣胸"] == "0")] for t in (train[train["Training"] == "1"], test))
    return train["PERSONID2"].iloc[0], test["PERSONID2"].iloc[0]


def test_patient_in_training_and_test_is_refused(workspace: Path, export: Path) -> None:
    source, target = _negatives(export)
    patient = pydicom.dcmread(export / "images" / f"{source}.dcm").PatientID
    film = pydicom.dcmread(export / "images" / f"{target}.dcm")
    film.PatientID, film.PatientAge = patient, "050Y"
    film.save_as(export / "images" / f"{target}.dcm")
    with pytest.raises(Refusal, match="same patient") as refusal:
        open_prepared("ntuh_test", str(export), "test")
    assert patient not in str(refusal.value)
    assert not (prepared_folder("ntuh_test") / "manifest.json").exists()
    assert "same patient" in leaks_file().read_text()


def test_other_source_than_prepared_is_refused(workspace: Path, export: Path) -> None:
    open_prepared("ntuh_train", str(export), "test")
    open_prepared("ntuh_train", str(export), "test")  # the same again is fine
    table = _exams(export)
    _rewrite(export, table.iloc[1:])
    with pytest.raises(Refusal, match="not those that were prepared"):
        open_prepared("ntuh_train", str(export), "test")


def test_prepared_set_serves_without_its_source(workspace: Path, sources: Path) -> None:
    open_prepared("siim", str(sources / "siim"), "test")
    assert len(open_prepared("siim", None, "test").cases) == 24
    with pytest.raises(Refusal, match=r"needs the SIIM-ACR films(?s:.*)'Without this download'"):
        open_prepared("siim", str(workspace / "nowhere"), "test")
    assert "\n### Without this download\n" in (REPOSITORY / "docs/data.md").read_text()
    with pytest.raises(Refusal) as refused:
        open_prepared("ntuh_train", str(workspace / "nowhere"), "test")
    assert "download" not in str(refused.value)


def test_films_none_of_which_can_be_used_are_refused_with_the_reason() -> None:
    films = [SourceFilm(str(row), None, f"cases.csv, row {row}", None, 0, fault="no day") for row in (2, 3)]
    with pytest.raises(
        Refusal, match=r"(?s)2 films are listed; 2 films: no day \(cases.csv, row 2.*--check-table"
    ):
        ListedFilms.of("ntuh_train", films)


def test_rules_of_the_hospital_do_not_hold_for_siim(workspace: Path, sources: Path, capsys) -> None:
    films = str(sources / "siim")
    prepare_sources(PrepareOptions(siim=films))
    rules = Rules(minimum_age=30, views=("AP",), allow_chest_tube=True, test_from="2020-01-01")
    prepare_sources(PrepareOptions(siim=films, rules=rules))
    assert "SIIM-ACR: prepared before, nothing to do" in capsys.readouterr().out
    with pytest.raises(Refusal, match=r"(?s)replace_saturated was not given, is True.*--siim PATH --fresh"):
        prepare_sources(PrepareOptions(siim=films, rules=dataclasses.replace(rules, replace_saturated=True)))


@pytest.mark.parametrize(("file", "said"), [("NTUH_20.csv", "not laid out"), ("images", "not laid out")])
def test_incomplete_export_is_refused(workspace: Path, export: Path, file: str, said: str) -> None:
    (export / file).rename(export / "elsewhere")
    with pytest.raises(Refusal, match=said):
        open_prepared("ntuh_train", str(export), "test")


def test_other_columns_are_refused(workspace: Path, export: Path) -> None:
    _rewrite(export, _exams(export).rename(columns={"氣胸": "PTX"}))
    with pytest.raises(Refusal, match="other columns"):
        open_prepared("ntuh_train", str(export), "test")


def test_png_films_are_grouped_by_exam(workspace: Path, export: Path) -> None:
    import cv2

    from common.films.decode import read_film

    for path in sorted((export / "images").glob("*.dcm")):
        cv2.imwrite(str(path.with_suffix(".png")), read_film(path).pixels)
        path.unlink()
    prepared = open_prepared("ntuh_train", str(export), "test")
    assert (prepared.cases["patient_known"] == 0).all()
    assert prepared.cases["patient"].is_unique


def _copied(export: Path, target: Path, side: int) -> None:
    """Make the first usable training film a film of another case too: resized, encoded and windowed again."""
    import cv2

    from common.films.decode import read_film

    source = next(f for f in ntuh.source_films(export, "ntuh_train", Rules()) if not f.excluded)
    pixels = cv2.resize(read_film(source.path).pixels, (side, side), interpolation=cv2.INTER_AREA)
    brighter = (255 * (pixels / 255.0) ** 0.8).astype(np.uint8)
    cv2.imwrite(str(target.with_suffix(".jpg")), brighter, [cv2.IMWRITE_JPEG_QUALITY, 80])
    target.unlink()


def test_copy_of_a_picture_is_refused_until_a_reader_clears_it(workspace: Path, export: Path) -> None:
    usable = [f for f in ntuh.source_films(export, "ntuh_test", Rules()) if not (f.excluded or f.annotation)]
    _copied(export, usable[0].path, 700)
    with pytest.raises(Refusal, match=r"(?s)same picture.*reviewed_pairs\.csv"):
        open_prepared("ntuh_test", str(export), "test")
    leaks = pd.read_csv(leaks_file())
    error = leaks[leaks["kind"] == "error"]
    assert len(error) == 1
    assert error["correlation"].item() >= 0.99
    error[["case_b", "case_a"]].set_axis(["case_a", "case_b"], axis=1).to_csv(
        workspace / "data" / "reviewed_pairs.csv", index=False
    )
    assert len(open_prepared("ntuh_test", str(export), "test").cases)


def test_picture_of_siim_in_the_hospital_is_refused(workspace: Path, sources: Path, export: Path) -> None:
    open_prepared("siim", str(sources / "siim"), "test")
    usable = [f for f in ntuh.source_films(export, "ntuh_train", Rules()) if not (f.excluded or f.annotation)]
    shutil.copy(sorted((sources / "siim").rglob("*.dcm"))[0], usable[0].path)
    with pytest.raises(Refusal, match=r"\(siim\) and|and .*\(siim\)"):
        open_prepared("ntuh_train", str(export), "test")


def test_any_hospitals_table(workspace: Path, export: Path) -> None:
    import cv2

    folder = workspace / "hospital"
    (folder / "films").mkdir(parents=True)
    rows = []
    for name in ("ntuh_train", "ntuh_test"):
        for film in ntuh.source_films(export, name, Rules()):
            if film.excluded or film.fault:
                continue
            shutil.copy(film.path, folder / "films" / film.path.name)
            row = {"image": f"films/{film.path.name}", "pneumothorax": film.report, "mask": ""}
            if film.annotation:
                header = pydicom.dcmread(film.path, stop_before_pixels=True)
                mask = film.annotation.mask(header.Columns, header.Rows)
                row["mask"] = f"films/{film.path.stem}.png"
                cv2.imwrite(str(folder / row["mask"]), mask.astype(np.uint8) * 255)
            given = {"date": "2019-12-31", "view": "LL", "age": "77"} if name == "ntuh_train" else {}
            rows.append(row | {"date": "2020-03-01", "view": "", "age": ""} | given)
    table = pd.DataFrame(rows).astype({"pneumothorax": str})
    table.loc[3, "pneumothorax"] = "perhaps"
    table.to_csv(folder / "cases.csv", index=False)
    with pytest.raises(Refusal, match="test-from"):
        prepare_sources(PrepareOptions(ntuh=str(folder)))
    prepare_sources(PrepareOptions(ntuh=str(folder), rules=Rules(test_from="2020-01-01")))
    rejected = _rejected("ntuh_train")
    assert rejected[["origin", "reason"]].to_numpy().tolist() == [
        ["cases.csv, row 5", "pneumothorax is neither 0 nor 1, found pneumothorax of the form 'aaaaaaa'"]
    ]
    by_table = {n: open_prepared(n, str(folder), "test") for n in ("ntuh_train", "ntuh_test")}
    assert (by_table["ntuh_train"].cases[["view", "age"]] == ["LL", 77]).all(axis=None)  # before the header
    found = sorted(by_table["ntuh_test"].cases["mask_area_fraction"])
    for name in by_table:
        shutil.rmtree(prepared_folder(name))
    assert found == sorted(open_prepared("ntuh_test", str(export), "test").cases["mask_area_fraction"])


# --- interruptions ---------------------------------------------------------------------------------


def _content(workspace: Path) -> dict[str, str]:
    """The bytes of everything prepared; without what holds times or pseudonyms."""
    root = workspace / "data" / "prepared"
    return {
        str(path.relative_to(root)): digest(path.read_bytes())
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != "fingerprints.csv"
    }


# Prepares as common/prepare.py does, but waits before one film more is noted: it ends only when it is killed
_HELD = """
import sys, threading
from common.command_line import parse_prepare
from common.preparation.resume_log import ResumeLog
from common.preparation.run import prepare_sources
films, add = int(sys.argv.pop(1)), ResumeLog.add
def held(journal, entry):
    if len(journal.entries) == films:
        threading.Event().wait()
    add(journal, entry)
ResumeLog.add = held
prepare_sources(parse_prepare("Held."))
"""


def _prepare_command(workspace: Path, export: Path, films: int | None = None) -> subprocess.Popen[bytes]:
    """Prepare the films; of a set no more than `films`, if given, and then wait to be killed."""
    script = ["common/prepare.py"] if films is None else ["-c", _HELD, str(films)]
    return subprocess.Popen(
        [sys.executable, *script, "--ntuh", str(export)],
        cwd=REPOSITORY,
        env={**os.environ, "PTX_WORKSPACE": str(workspace)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _lines(journal: Path) -> int:
    return journal.read_text().count("\n") if journal.exists() else 0


def test_killed_preparation_goes_on(tmp_path: Path, sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export = sources / "ntuh"
    contents = []
    for name, kills in (("whole", 0), ("killed", 3)):
        workspace = tmp_path / name
        (workspace / "data").mkdir(parents=True)
        (workspace / "data" / "pseudonym.key").write_text("ab" * 32)
        journal = workspace / "data" / "prepared" / "ntuh_train" / "journal.jsonl"
        done = 1
        for _ in range(kills):
            process = _prepare_command(workspace, export, films=done + 5)
            wait_for(lambda done=done: _lines(journal) > done + 3, process)  # noqa: B023
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert _lines(journal) > done
            done = _lines(journal) - 1
        process = _prepare_command(workspace, export)
        assert process.wait() == 0, process.stderr.read()
        contents.append(_content(workspace))
    assert contents[0] == contents[1]
    assert not list((tmp_path / "killed").rglob("*partial*"))


def test_finished_films_are_not_read_again(
    workspace: Path, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from common.preparation import run as preparation

    monkeypatch.setattr(preparation, "_finish", _stop)
    with pytest.raises(KeyboardInterrupt):
        open_prepared("ntuh_train", str(export), "test")
    monkeypatch.undo()
    monkeypatch.setenv("PTX_WORKSPACE", str(workspace))
    partial = prepared_folder("ntuh_train") / "films.partial.npy"
    with open(partial, "rb+") as file:  # as after a power cut: film 2 is noted, but not on disk
        file.seek(128 + 2 * 1024 * 1024)
        file.write(b"\0" * 1024 * 1024)
    tasks = []
    in_workers = preparation.in_workers

    def watched(function, waiting, count):
        tasks.extend(task.row for task in waiting)
        return in_workers(function, waiting, count)

    monkeypatch.setattr(preparation, "in_workers", watched)
    prepared = open_prepared("ntuh_train", str(export), "test")
    assert tasks == [2]
    assert prepared.film(2).any()


def test_interrupted_preparation_keeps_its_rules(
    workspace: Path, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from common.preparation import run as preparation

    export = str(sources / "ntuh")
    with monkeypatch.context() as patch:
        patch.setattr(preparation, "_finish", _stop)
        with pytest.raises(KeyboardInterrupt):
            prepare_sources(PrepareOptions(ntuh=export, rules=Rules(minimum_age=60)))
    ages = open_prepared("ntuh_train", export, "test").cases["age"].dropna()
    assert len(ages)
    assert (ages >= 60).all()


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def test_gaps_are_closed(workspace: Path, export: Path, sources: Path) -> None:
    whole = open_prepared("ntuh_train", str(sources / "ntuh"), "test")
    films = {case: whole.film(row) for row, case in enumerate(whole.cases["case"])}
    masks = {case: whole.mask(row) for row, case in enumerate(whole.cases["case"])}
    names = {
        pseudonym("case", film.identifier): film for film in ntuh.source_films(export, "ntuh_train", Rules())
    }
    gone = [whole.cases["case"][row] for row in (0, 3)]
    for case in gone:
        names[case].path.with_suffix(".dcm").write_bytes(b"damaged")
    for name in ("ntuh_train", "ntuh_test"):
        shutil.rmtree(prepared_folder(name))
    prepared = open_prepared("ntuh_train", str(export), "test")
    assert set(prepared.cases["case"]) == set(films) - set(gone)
    for row, case in enumerate(prepared.cases["case"]):
        assert (prepared.film(row) == films[case]).all()
        assert (prepared.mask(row) == masks[case]).all()


def test_changed_film_is_noticed_and_a_touched_one_is_not(workspace: Path, export: Path) -> None:
    prepared = open_prepared("ntuh_train", str(export), "test")
    case = prepared.cases["case"][0]
    film = next(
        film
        for film in ntuh.source_films(export, "ntuh_train", Rules())
        if pseudonym("case", film.identifier) == case
    )
    os.utime(film.path)
    open_prepared("ntuh_train", str(export), "test")
    content = bytearray(film.path.read_bytes())
    content[-1] ^= 1
    film.path.write_bytes(content)
    with pytest.raises(Refusal, match="1 with another image file"):
        open_prepared("ntuh_train", str(export), "test")
    film.path.unlink()
    with pytest.raises(Refusal, match="1 with another label, annotation or state"):
        open_prepared("ntuh_train", str(export), "test")


# --- rules -----------------------------------------------------------------------------------------


def test_rules_decide_who_is_in(workspace: Path, sources: Path) -> None:
    export = str(sources / "ntuh")
    prepare_sources(PrepareOptions(ntuh=export, rules=Rules(minimum_age=60, allow_chest_tube=True)))
    flow = json.loads((prepared_folder("ntuh_train") / "flow.json").read_text())
    assert "age under 60" in flow["excluded"]
    assert "chest tube" not in flow["excluded"]
    prepared = open_prepared("ntuh_train", export, "test")  # however it was prepared
    ages = prepared.cases["age"].dropna()
    assert len(ages)
    assert (ages >= 60).all()
    assert prepared.cases["chest_tube"].max() == 1
    with pytest.raises(Refusal, match=r"minimum_age was 60.*is 20"):
        prepare_sources(PrepareOptions(ntuh=export))
    with pytest.raises(Refusal, match=r"no film of ntuh_train could be prepared[^|]*view other than PA"):
        prepare_sources(PrepareOptions(ntuh=export, fresh=True, rules=Rules(views=("PA",))))


def test_burned_in_text_and_identifiers(workspace: Path, export: Path) -> None:
    films = [f for f in ntuh.source_films(export, "ntuh_train", Rules()) if not f.excluded]
    film = pydicom.dcmread(films[0].path)
    film.BurnedInAnnotation = "YES"
    film.save_as(films[0].path)
    rules = Rules(keep_identifiers=True, allow_burned_in=True)
    prepare_sources(PrepareOptions(ntuh=str(export), rules=rules))
    prepared = open_prepared("ntuh_train", str(export), "test")
    assert films[0].identifier in set(prepared.cases["case"])
    prepare_sources(PrepareOptions(ntuh=str(export), fresh=True))
    flow = json.loads((prepared.folder / "flow.json").read_text())
    assert flow["excluded"]["text burned into the picture"] == 1
    assert not any(f.identifier in (prepared.folder / "cases.csv").read_text() for f in films)


def test_too_many_faults_stop(workspace: Path, export: Path) -> None:
    films = [f for f in ntuh.source_films(export, "ntuh_test", Rules()) if not f.excluded]
    for film in films[:4]:
        film.path.write_bytes(b"damaged")
    with pytest.raises(Refusal, match="films have a fault, more than 10%"):
        open_prepared("ntuh_test", str(export), "test")
    assert len(_rejected("ntuh_test")) == 4
    prepare_sources(PrepareOptions(ntuh=str(export), rules=Rules(max_fault_share=0.5)))
    assert len(open_prepared("ntuh_test", str(export), "test").cases) < len(films)


def test_film_that_crashes_its_decoder_costs_only_itself(
    workspace: Path, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from common.preparation import run as preparation

    monkeypatch.setattr(preparation, "prepare_film", _crash_on_the_first)
    open_prepared("ntuh_train", str(export), "test")
    rejected = _rejected("ntuh_train")
    assert rejected["reason"].tolist() == ["its decoder crashed (SIGKILL)"]


def _crash_on_the_first(task, alive):
    from common.preparation.film_task import prepare_film

    if task.row == 0 and task.folder.name == "ntuh_train":
        os.kill(os.getpid(), signal.SIGKILL)
    return prepare_film(task, alive)
