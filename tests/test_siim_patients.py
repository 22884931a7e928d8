"""The table of SIIM-ACR's patients: what is refused, who is kept together, where it is told."""

from __future__ import annotations

import gzip
import json
import random
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pydicom
import pytest
from conftest import REPOSITORY, STEP_1_1, STEP_1_2, TINY, Scripts

from common.command_line import PrepareOptions, Rules
from common.inference.trained_system import pretraining_patients
from common.networks.weights import read_metadata
from common.paths import prepared_folder
from common.preparation.film_store import PreparedSet
from common.preparation.folds import choose_validation
from common.preparation.run import open_prepared, prepare_sources
from common.pseudonyms import pseudonym
from common.refusal import Refusal
from common.report.claim_checklist import _pretraining
from common.sources import case_table, ntuh, siim
from common.sources.siim_patients import PatientTable, find_patients, read_patients


def _write(path: Path, patients: Mapping[str, str]) -> Path:
    lines = ["nih_film,patient,ImageId", *(f"x.png,{patient},{film}" for film, patient in patients.items())]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def patients(sources: Path) -> dict[str, str]:
    """The 24 films, 12 of them positive, of eight patients."""
    films = sorted(siim.source_films(sources / "siim"), key=lambda film: film.identifier)
    return {film.identifier: f"Ada{number % 8}" for number, film in enumerate(films)}


# --- the table -------------------------------------------------------------------------------------


def test_a_table_however_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "patients.csv"
    file.write_bytes(b'\xef\xbb\xbfpatient, ImageId ,note\r\n7, a ,"x, y"\r\n\r\n 8,b,\r\n7,a,again\r\n')
    assert read_patients(file) == {"a": "7", "b": "8"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ImageId,patient\na,1\nb,2\na,3\n", "one film two patients\n.*rows 2 and 4"),
        ("Kaggle_ID,NIH_ID\na,00000001_000.png\n", "must be there once\n.*ImageId, patient\n.*docs/data.md"),
        ("ImageId,patient,patient\na,1,1\n", "must be there once\n.*missing: patient"),
        ("ImageId,patient\na,1\nb,\n", "row 3: ImageId or patient is empty"),
        ("ImageId,patient\na,1\nb\n", "row 3: its row has more or fewer"),
        ("ImageId,patient\n", "names no film"),
        ("", "must be there once"),
    ],
)
def test_tables_that_tell_nothing_or_two_things_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "patients.csv").write_text(text)
    with pytest.raises(Refusal) as refused:
        find_patients(tmp_path, None)
    assert "Ada" not in str(refused.value)
    assert re.search(said, str(refused.value)), refused.value


def test_the_table_is_the_downloads_unless_another_is_named(tmp_path: Path) -> None:
    assert find_patients(tmp_path, None) is None
    with pytest.raises(Refusal, match="no such table"):
        find_patients(tmp_path, str(tmp_path / "patients.csv"))
    _write(tmp_path / "patients.csv", {"a": "1"})
    assert find_patients(tmp_path, None).patients == {"a": "1"}
    other = _write(tmp_path / "other.csv", {"a": "2"})
    assert find_patients(tmp_path, str(other)).patients == {"a": "2"}


# --- the documents ---------------------------------------------------------------------------------


def _blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "data.md").read_text(), re.DOTALL)


def test_the_documents_make_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("nih_id.csv").write_text("Kaggle_ID,NIH_ID\n1.2.3,00028864_007.png\n1.2.4,00000001_016.png\n")
    exec(_blocks()[0], {})
    assert read_patients(tmp_path / "patients.csv") == {"1.2.3": "00028864", "1.2.4": "00000001"}


def test_the_documents_divide_siim_acr(
    tmp_path: Path, sources: Path, patients: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into a hospital's table and a download, which share no patient and together hold all films."""
    shutil.copytree(sources / "siim", tmp_path / "data" / "siim")
    _write(tmp_path / "data" / "siim" / "patients.csv", patients)
    monkeypatch.chdir(tmp_path)
    exec(_blocks()[1], {})
    folder = tmp_path / "data" / "siim"
    parts = [case_table.source_films(folder, name, Rules()) for name in ("ntuh_train", "ntuh_test")]
    rest = [film for film in siim.source_films(tmp_path / "data" / "siim_rest") if not film.excluded]
    parts.append(rest)
    assert not any(film.fault for part in parts for film in part)
    known = {film.identifier: film for film in siim.source_films(sources / "siim")}
    assert sorted(film.identifier for part in parts for film in part) == sorted(known)
    groups = [{patients[film.identifier] for film in part} for part in parts]
    assert [len(group) for group in groups] == [3, 1, 4]
    for film in parts[0] + parts[1]:
        marked = known[film.identifier].annotation
        assert (film.annotation is None) == (marked is None)
        if marked:
            assert (film.annotation.mask(1024, 1024) == marked.mask(1024, 1024)).all()
        assert film.facts["patient_id"] == patients[film.identifier]


# --- prepared by it --------------------------------------------------------------------------------


def _divided(workspace: Path, sources: Path, table: Path | None = None) -> PreparedSet:
    return open_prepared("siim", str(sources / "siim"), "test", table and str(table))


def test_patients_of_the_table_are_kept_together(
    tmp_path: Path, sources: Path, patients: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In whatever order the table stands, and whatever the pseudonyms are."""
    found = []
    for name in ("one", "two"):
        monkeypatch.setenv("PTX_WORKSPACE", str(tmp_path / name))
        prepared = _divided(tmp_path, sources, _write(tmp_path / f"{name}.csv", patients))
        validation = prepared.part == 1
        cases = prepared.cases
        assert 0 < validation.sum() < 24
        assert not set(cases["patient"][validation]) & set(cases["patient"][~validation])
        assert set(cases["patient"]) == {pseudonym("patient", patient) for patient in patients.values()}
        assert cases["patient_known"].all()
        found.append((prepared.content, prepared.split, prepared.patient_table))
        patients = dict(random.Random(0).sample(sorted(patients.items()), len(patients)))
        for file in prepared.folder.iterdir():
            assert b"Ada" not in file.read_bytes()
    assert found[0] == found[1]


def test_most_positives_have_a_twin_in_training_unless_the_table_is_there() -> None:
    """The bias that the table removes: films of a patient are alike, and validation chooses the epoch."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(400), rng.geometric(0.3, 400))
    positive = (rng.random(400) < 0.3)[patients]

    def twins(validation: np.ndarray) -> float:
        return np.isin(patients[validation & positive], patients[~validation & positive]).mean()

    assert twins(choose_validation(positive, np.arange(len(patients)))) > 0.7
    assert twins(choose_validation(positive, patients)) == 0


def test_the_real_table(real: Path, tmp_path: Path) -> None:
    """12,047 films of 6,171 patients; the positives come from 802, one of whom has 58."""
    (tmp_path / siim.LABELS).write_bytes(gzip.decompress((real / "siim/train-rle.csv.gz").read_bytes()))
    labels = siim.read_labels(tmp_path / siim.LABELS)
    known = read_patients(real / "siim/patients.csv")
    assert known.keys() == labels.keys()
    films = sorted(labels)
    patients = np.array([known[film] for film in films])
    positive = np.array([labels[film][0][1] != "-1" for film in films])
    assert (len(set(patients)), len(set(patients[positive]))) == (6171, 802)

    by_film = choose_validation(positive, np.array(films))
    shared = np.isin(patients[by_film & positive], patients[~by_film & positive])
    assert round(float(shared.mean()), 2) == 0.85

    by_patient = choose_validation(positive, patients)
    assert ((by_patient & positive).sum(), (by_patient & ~positive).sum()) == (200, 800)
    assert not set(patients[by_patient]) & set(patients[~by_patient])


def test_what_table_and_films_lack_is_counted(
    workspace: Path, sources: Path, patients: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    films = list(patients)
    some = {film: patients[film] for film in films[:20]} | {"elsewhere": "Ada1", "nowhere": "Ada99"}
    prepared = _divided(workspace, sources, _write(workspace / "some.csv", some))
    facts = dict(prepared.patient_table)
    assert len(facts.pop("sha256")) == 64
    assert facts == {"films": 20, "patients": 8, "films_without_entry": 4, "entries_without_film": 2}
    flow = json.loads((prepared.folder / "flow.json").read_text())
    assert flow["patients"] == 8 + 4  # each film without an entry has a PatientID of its own
    printed = capsys.readouterr().out
    assert "20 films of 8 patients by the table" in printed
    assert "without an entry in the table of patients: 4 films of SIIM-ACR" in printed


def test_a_table_of_other_films_is_refused(workspace: Path, sources: Path) -> None:
    with pytest.raises(Refusal, match="names none of the SIIM-ACR films"):
        _divided(workspace, sources, _write(workspace / "strange.csv", {"a": "1", "b": "2"}))
    assert not prepared_folder("siim").exists()


def test_films_stay_as_they_were_divided(workspace: Path, sources: Path, patients: dict[str, str]) -> None:
    """A table that comes, changes or goes later never changes a set by itself."""
    table = _write(workspace / "patients.csv", patients)
    before = _divided(workspace, sources)
    assert before.patient_table is None
    with pytest.raises(Refusal, match="without a table of patients"):
        _divided(workspace, sources, table)
    options = PrepareOptions(siim=str(sources / "siim"), siim_patients=str(table))
    with pytest.raises(Refusal, match="without a table of patients"):
        prepare_sources(options)
    prepare_sources(PrepareOptions(**vars(options) | {"fresh": True}))
    made = _divided(workspace, sources, table)
    assert made.content == before.content
    assert made.split != before.split
    assert _divided(workspace, sources).split == made.split  # without the table, as it was prepared
    _write(table, patients | {next(iter(patients)): "Eve"})
    with pytest.raises(Refusal, match="by another table of patients"):
        _divided(workspace, sources, table)


def test_a_patient_of_the_table_in_the_hospital_is_found(
    workspace: Path, sources: Path, patients: dict[str, str]
) -> None:
    """The table's identifiers are compared with the hospital's, whose films may be of NIH, too."""
    films = ntuh.source_films(sources / "ntuh", "ntuh_train", Rules())
    usable = next(film for film in films if not (film.excluded or film.fault))
    theirs = str(pydicom.dcmread(usable.path, stop_before_pixels=True).PatientID)
    table = patients | {film: theirs for film, patient in patients.items() if patient == "Ada1"}
    _divided(workspace, sources, _write(workspace / "patients.csv", table))
    with pytest.raises(Refusal, match=r"3 pairs of films leak(.|\n)*same patient"):
        open_prepared("ntuh_train", str(sources / "ntuh"), "test")


# --- told by what is trained -----------------------------------------------------------------------


@pytest.mark.all
def test_training_says_whether_patients_were_kept_together(
    chain: Scripts, tmp_path: Path, sources: Path, patients: dict[str, str]
) -> None:
    scripts = chain.copy(tmp_path / "workspace")
    download = ["--siim", str(sources / "siim")]
    train = ["bash", "train.sh", "cpu", *TINY, "--system", "vit", *download]
    said = "films of one patient lie in training and in validation"
    assert said in scripts.run(STEP_1_1, *train).stdout  # finished before, without a table
    table = ["--siim-patients", str(_write(tmp_path / "patients.csv", patients))]
    scripts.run(".", "bash", "common/prepare.sh", *download, *table, "--fresh")
    assert "other films" in scripts.run(STEP_1_1, *train, *table, expect=2).stderr
    done = scripts.run(STEP_1_1, *train, *table, "--fresh")
    assert said not in done.stdout
    assert "Ada" not in done.stdout + done.stderr
    scripts.run(STEP_1_2, *train, "--films-per-epoch", "8", "--fresh")  # by the films as they were prepared
    for folder, name in ((STEP_1_1, "vit_seg_siim"), (STEP_1_2, "vit_cls_siim")):
        config = json.loads((scripts.workspace / folder / "runs" / name / "config.json").read_text())
        metadata = read_metadata(scripts.workspace / folder / "model_weights" / f"{name}.safetensors")
        assert config["patient_table"] == metadata["patient_table"]
        assert config["patient_table"]["patients"] == 8
    assert pretraining_patients(metadata) == metadata["patient_table"]
    assert pretraining_patients({"lineage": [{"stage": "start"}]}) is None


@pytest.mark.parametrize("tables", [(None, None), (200, None), (200, 100)])
def test_the_checklist_says_it(tables: tuple[int | None, int | None]) -> None:
    """With two systems, it says what holds for both."""
    said = _pretraining(
        [films and {"films": films, "patients": 80, "films_without_entry": 7} for films in tables]
    )
    assert ("(100 films of 80 patients; 7 films without an entry)" in said) == all(tables)
    assert ("may lie in training and tuning (validation)" in said) != all(tables)


def test_equal_entries_are_the_same_table(tmp_path: Path) -> None:
    one, two = PatientTable(tmp_path, {"a": "1", "b": "2"}), PatientTable(tmp_path, {"b": "2", "a": "1"})
    assert one.content == two.content != PatientTable(tmp_path, {"a": "2", "b": "1"}).content
