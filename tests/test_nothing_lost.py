"""What this program did not write stays as it was, wherever it removes or replaces its own files."""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import STEP_1_1, TESTING, THRESHOLDS, TINY, Scripts

from common import start
from common.command_line import PrepareOptions, Rules
from common.demo import phantom_sets
from common.files import CASE, alone
from common.inference import choose_thresholds
from common.inference.resumable_result import written_in
from common.paths import prepared_folder
from common.prediction.listener.spool import Spool
from common.preparation import run as preparation
from common.preparation.notes import FILE as NOTES
from common.preparation.resume_log import JOURNAL, JOURNALS_OF_SHARDS
from common.preparation.run import SET_FILES, prepare_sources
from common.preparation.second_masks import FILE as SECOND_MASKS
from common.refusal import Refusal, run_script
from common.removal import Written, move_along, refuse_foreign, remove_temporaries, remove_written
from common.report import terminal
from common.training.inputs import RUN_FILES

PSEUDONYM = "c0123456789abcdef"
RUN = "vit_seg_siim"
ON_CPU = ("--gpu", "cpu")


@dataclass
class Theirs:
    """Files, a folder and links of a user in one of our folders, and what they point to."""

    folder: Path
    names: tuple[str, ...]
    outside: Path

    @classmethod
    def put(cls, folder: Path, outside: Path, *more: str, ours: tuple[str, ...] = ()) -> Theirs:
        """Put them there.

        Args:
            folder: One of our folders.
            outside: A new folder, to which links lead; it gets files of the names `ours`, too.
            more: Further files in `folder`.
            ours: Names that this program gives to files in `folder`.
        """
        names = (
            "notes.txt",
            ".hidden",
            "exported/picture.png",
            *(f"exported/{name}" for name in ours),
            *more,
        )
        for path in (*(folder / name for name in names), *(outside / name for name in ("far.txt", *ours))):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"a user's {path.name}")
        (folder / "disk").symlink_to(outside)
        (folder / "film.link").symlink_to(outside / "far.txt")
        return cls(folder, names, outside)

    def seen(self) -> dict[str, str | bytes]:
        """Content of each file, and where each link leads."""
        found: dict[str, str | bytes] = {
            name: (self.folder / name).read_bytes() for name in self.names if (self.folder / name).is_file()
        }
        for name in ("disk", "film.link"):
            if (self.folder / name).is_symlink():
                found[name] = os.readlink(self.folder / name)
        return found | {str(p): p.read_bytes() for p in self.outside.rglob("*") if p.is_file()}


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    return tmp_path / "another disk"


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _link_away(folder: Path, place: Path) -> None:
    """Move a folder to another place and leave a link."""
    place.parent.mkdir(exist_ok=True)
    folder.rename(place)
    folder.symlink_to(place)


def _main(main: Callable[[], None], scripts: Scripts, flags: tuple[str, ...], expect: int = 0) -> str:
    """What a script prints, run in this process, which is seconds quicker."""
    said, status = io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(said):
        patch.setenv("PTX_WORKSPACE", str(scripts.workspace))
        patch.setattr(sys, "argv", ["script.py", *flags])
        try:
            run_script(main)
        except SystemExit as end:
            status = end.code
        finally:
            torch.use_deterministic_algorithms(False)
    assert status == expect, said.getvalue()
    return said.getvalue()


MAINS = {
    "inference.sh": (start.inference, ON_CPU),
    "get_thresholds.sh": (start.get_thresholds, ON_CPU),
    "bootstrap.py": (start.bootstrap, ("--replicates", "40")),
}


# --- the removal by itself -------------------------------------------------------------------------

KINDS = {
    "run": (RUN_FILES, "last.pt"),
    "prepared set": (SET_FILES, "manifest.json"),
    "result": (written_in(Path("/nowhere")), f"maps/{PSEUDONYM}.png"),
    "thresholds": (choose_thresholds.FILES, "roc.png"),
    "figures": (terminal.FILES, "figures/roc.svg"),
}


def _fill(folder: Path, written: Written) -> set[Path]:
    """One file of each name, marks as they must be."""
    files = set()
    for name in written.names:
        path = folder / name.replace(CASE, PSEUDONYM).replace("[0-9]", "3")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{{{written.marks.get(path.name, '')}: 0}}")
        files.add(path)
    return files


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_was_written_is_removed(
    kind: str, tmp_path: Path, outside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written, _ = KINDS[kind]
    folder = tmp_path / "folder"
    ours = _fill(folder, written)
    for path in [*ours]:
        ours.add(path.with_name(f".{path.name}.4711.tmp"))
        path.with_name(f".{path.name}.4711.tmp").touch()
    near = [path.relative_to(folder) for path in ours if path.suffix != ".tmp"]
    more = [
        str(path.with_name(name)) for path in near for name in (f"my {path.name}", f".{path.name}.mine.tmp")
    ]
    more += [str(path.with_name(f"{path.name}.bak")) for path in near]
    theirs = Theirs.put(folder, outside, *more, ours=tuple(path.name for path in near))
    before = theirs.seen()
    refuse_foreign(folder, written)
    kept = remove_written(folder, written)
    assert not [path for path in ours if path.exists()]
    assert theirs.seen() == before
    assert {folder / "notes.txt", folder / "exported", folder / "disk", folder / "film.link"} <= set(kept)
    said = capsys.readouterr().out
    assert said.startswith(f"kept, not ours: {folder}")
    assert said.count("\n") == 1


def test_one_line_names_what_is_kept(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)  # from where paths are shown
    folder = workspace / "runs" / "eff_seg_siim"
    _fill(folder, RUN_FILES)
    (folder / "notes.txt").touch()
    remove_written(folder, RUN_FILES)
    assert capsys.readouterr().out == "kept, not ours: runs/eff_seg_siim/notes.txt\n"
    for number in range(20):
        (folder / f"{number:02d}").touch()
    remove_written(folder, RUN_FILES)
    assert capsys.readouterr().out.endswith("runs/eff_seg_siim/07 and 13 more\n")


@pytest.mark.parametrize("kind", KINDS)
def test_killed_removal_is_gone_on_with(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is still known as ours, and what would make it look whole goes first."""
    written, first = KINDS[kind]
    unlink = Path.unlink

    class Killed(BaseException):
        pass

    for count in range(len(written.names)):
        folder = tmp_path / str(count)
        ours = _fill(folder, written)
        left = iter(range(count, -1, -1))

        def stopping(path: Path, missing_ok: bool = False, left=left) -> None:
            if next(left) == 0:
                raise Killed
            unlink(path, missing_ok=missing_ok)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", stopping)
            with pytest.raises(Killed):
                remove_written(folder, written)
        there = [path for path in ours if path.exists()]
        assert len(there) == len(written.names) - count
        assert (folder / first).exists() == (count == 0)
        refuse_foreign(folder, written)
        remove_written(folder, written)
        assert not list(folder.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_folder_without_our_mark_is_refused(kind: str, tmp_path: Path) -> None:
    written, _ = KINDS[kind]
    folder = tmp_path / "folder"
    for name in ("notes.txt", "my.csv"):
        folder.mkdir(exist_ok=True)
        (folder / name).touch()
    refuse_foreign(folder, written)  # nothing of theirs is where we write
    ours = _fill(folder, written)
    refuse_foreign(folder, written)
    for mark, text in written.marks.items():
        (folder / mark).write_text("{}") if text else (folder / mark).unlink()
    before = _files(folder)
    with pytest.raises(Refusal, match="did not write") as refused:
        refuse_foreign(folder, written)
    assert "move them away" in str(refused.value)
    for path in ours:
        path.unlink(missing_ok=True)
    assert set(before) - set(_files(folder)) == {
        str(path.relative_to(folder)) for path in ours if str(path.relative_to(folder)) in before
    }


def test_links_and_folders_of_our_names_are_refused(tmp_path: Path, outside: Path) -> None:
    outside.mkdir()
    for way, make in (
        ("a link", lambda path: path.symlink_to(outside)),
        ("a link", lambda path: path.symlink_to(outside / "nothing")),
        ("a folder", lambda path: path.mkdir()),
    ):
        for name in ("last.pt", "config.json"):
            folder = tmp_path / "folder"
            _fill(folder, RUN_FILES)
            (folder / name).unlink()
            make(folder / name)
            with pytest.raises(Refusal, match="in the way") as refused:
                refuse_foreign(folder, RUN_FILES)
            assert f"found:   {way}" in str(refused.value)
            remove_written(folder, RUN_FILES)
            assert [path.name for path in folder.iterdir()] == [name]
            shutil.rmtree(folder)
    result = written_in(tmp_path)
    (tmp_path / "maps").symlink_to(outside)
    (outside / f"{PSEUDONYM}.png").touch()
    with pytest.raises(Refusal, match="maps is in the way"):
        refuse_foreign(tmp_path, result)
    remove_written(tmp_path, result)
    assert (outside / f"{PSEUDONYM}.png").exists()


def test_temporaries_of_others_stay(tmp_path: Path) -> None:
    ours = [".last.pt.1.tmp", ".last.pt.12345.tmp"]
    theirs = [
        ".last.pt.tmp",
        ".last.pt.old.tmp",
        ".last.pt.old.1.tmp",
        ".first.pt.1.tmp",
        "last.pt.1.tmp",
        "..1.tmp",
    ]
    for name in (*ours, *theirs):
        (tmp_path / name).touch()
    (tmp_path / ".last.pt.7.tmp").mkdir()
    remove_temporaries(tmp_path, "last.pt")
    assert {path.name for path in tmp_path.iterdir()} == {*theirs, ".last.pt.7.tmp"}


def test_what_is_kept_replaces_nothing(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        (folder / "maps").mkdir(parents=True)
        (folder / "maps" / "mine.png").write_text(folder.name)
    with pytest.raises(Refusal, match="is there, too"):
        move_along([old / "maps" / "mine.png"], old, new)
    assert (old / "maps" / "mine.png").read_text() == "old"
    assert (new / "maps" / "mine.png").read_text() == "new"


def test_claiming_a_folder_changes_no_file(workspace: Path) -> None:
    lock = workspace / ".lock"
    lock.write_text("a user's")
    alone(lock, "busy").close()
    assert lock.read_text() == "a user's"


# --- training --------------------------------------------------------------------------------------


def _train(scripts: Scripts, sources: Path, *more: str, expect: int = 0) -> str:
    """Step 1.1 of `vit`."""
    flags = (*ON_CPU, *TINY, "--siim", str(sources / "siim"), "--system", "vit", *more)
    return _main(lambda: start.train("siim_segmentation", ""), scripts, flags, expect)


def test_training_anew_keeps_what_is_not_its_own(
    chain: Scripts, sources: Path, tmp_path: Path, outside: Path
) -> None:
    """With --fresh; then with what a killed run left, in a folder that is a link to another disk."""
    scripts = chain.copy(tmp_path / "workspace")
    stage = scripts.workspace / STEP_1_1
    run = stage / "runs" / RUN
    theirs = Theirs.put(run, outside, "events.out.tfevents.1700000000.host", "best.pt", ours=("config.json",))
    more = [stage / "model_weights" / ".writable", stage / "runs" / f".{RUN}.lock"]
    for path in more:
        path.write_text("a user's")
    before = theirs.seen()
    (run / "events.out.tfevents.000009").touch()
    said = _train(scripts, sources, "--fresh")
    assert theirs.seen() == before
    assert not (run / "events.out.tfevents.000009").exists()
    assert said.count("kept, not ours: ") == 1
    assert f"{STEP_1_1}/runs/{RUN}/notes.txt" in said
    _link_away(run, tmp_path / "large" / "run")
    for path in (run / "config.json.bak", run / "events.out.tfevents.000009", run / "curves.png"):
        path.write_text("left")
    (stage / "model_weights" / f"{RUN}.safetensors").unlink()
    _train(scripts, sources)
    assert theirs.seen() == before
    assert run.is_symlink()
    assert (run / "config.json.bak").read_text() == "left"
    assert not (run / "events.out.tfevents.000009").exists()
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert [path.read_text() for path in more] == ["a user's"] * 2


def test_training_replaces_nothing_that_is_not_its_own(chain: Scripts, sources: Path, tmp_path: Path) -> None:
    scripts = chain.copy(tmp_path / "workspace")
    stage = scripts.workspace / STEP_1_1
    weights = stage / "model_weights" / f"{RUN}.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(b"weights of another project")
    assert "move it away" in _train(scripts, sources, "--fresh", expect=2)
    assert "move it away" in _train(scripts, sources, expect=2)
    assert weights.read_bytes() == b"weights of another project"
    weights.rename(tmp_path / "theirs")
    (tmp_path / "theirs").write_bytes(kept)
    weights.symlink_to(tmp_path / "theirs")
    assert "found:   a link" in _train(scripts, sources, "--fresh", expect=2)
    assert weights.is_symlink()
    (stage / "runs" / RUN / "config.json").write_text('{"of": "another project"}')
    before = _files(stage / "runs" / RUN)
    assert "did not write" in _train(scripts, sources, "--fresh", expect=2)
    assert _files(stage / "runs" / RUN) == before


# --- preparing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("linked", [False, True], ids=["folder", "link"])
def test_preparing_anew_keeps_what_is_not_its_own(
    workspace: Path, sources: Path, tmp_path: Path, outside: Path, linked: bool
) -> None:
    options = PrepareOptions(siim=str(sources / "siim"))
    prepare_sources(options)
    folder = prepared_folder("siim")
    if linked:
        _link_away(folder, tmp_path / "large" / "siim")
    theirs = Theirs.put(folder, outside, "cases.xlsx", "mine.npy", ours=("films.npy", "manifest.json"))
    before, films = theirs.seen(), (folder / "films.npy").stat().st_mtime_ns
    prepare_sources(PrepareOptions(siim=str(sources / "siim"), fresh=True))
    assert theirs.seen() == before
    assert (folder / "films.npy").stat().st_mtime_ns > films
    assert folder.is_symlink() == linked
    ours = {path.name for path in folder.iterdir()} - {name.split("/")[0] for name in before}
    some = {NOTES, SECOND_MASKS}  # only where there are any
    assert ours | some == set(SET_FILES.names) - {
        JOURNAL, JOURNALS_OF_SHARDS, "films.partial.npy", "masks.partial.npy", "rules.json"
    }  # fmt: skip


def test_interrupted_preparing_of_something_else_keeps_what_is_not_its_own(
    workspace: Path, sources: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepared_folder("siim")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(preparation, "_finish", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare_sources(PrepareOptions(siim=str(sources / "siim")))
    journal = (folder / "journal.jsonl").read_bytes()
    theirs = Theirs.put(folder, outside, ours=("journal.jsonl", "films.npy"))
    before = theirs.seen()
    with monkeypatch.context() as patch:
        patch.setattr(preparation, "_finish", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare_sources(PrepareOptions(siim=str(sources / "siim"), rules=Rules(replace_saturated=True)))
    assert (folder / "journal.jsonl").read_bytes() != journal
    assert theirs.seen() == before


def test_preparing_anew_from_a_wrong_folder_keeps_the_films(
    workspace: Path, sources: Path, tmp_path: Path
) -> None:
    prepare_sources(PrepareOptions(siim=str(sources / "siim")))
    before = _files(prepared_folder("siim"))
    (tmp_path / "wrong").mkdir()
    with pytest.raises(Refusal):
        prepare_sources(PrepareOptions(siim=str(tmp_path / "wrong"), fresh=True))
    assert _files(prepared_folder("siim")) == before


def test_source_where_prepared_films_are_written_is_refused(workspace: Path, sources: Path) -> None:
    """Its cases.csv has the name of ours."""
    folder = prepared_folder("ntuh_train")
    source = Path(shutil.copytree(sources / "ntuh", folder))
    shutil.copytree(sources / "ntuh", folder / "deeper")
    before = _files(folder)
    for place in (source, source / "deeper"):
        for fresh in (False, True):
            with pytest.raises(Refusal, match="lie where prepared films are written"):
                prepare_sources(PrepareOptions(ntuh=str(place), fresh=fresh))
    assert _files(folder) == before


@pytest.mark.parametrize("name", ["ntuh_test/cases.csv", "ntuh_train/films.npy", "leaks.csv"])
def test_preparing_replaces_nothing_that_is_not_its_own(workspace: Path, sources: Path, name: str) -> None:
    path = workspace / "data" / "prepared" / name
    path.parent.mkdir(parents=True)
    path.write_text("case,a user's table\n")
    for fresh in (False, True):
        with pytest.raises(Refusal, match="did not write"):
            prepare_sources(PrepareOptions(ntuh=str(sources / "ntuh"), fresh=fresh))
    assert _files(workspace / "data" / "prepared") == {name: b"case,a user's table\n"}


# --- testing ---------------------------------------------------------------------------------------


def _infer(scripts: Scripts) -> str:
    return _main(lambda: start.inference(""), scripts, (*ON_CPU, "--system", "eff"))


def test_new_result_takes_along_what_is_not_its_own(chain: Scripts, tmp_path: Path, outside: Path) -> None:
    """Also from the partial result of something else, and where the result folder is a link."""
    scripts = chain.copy(tmp_path / "workspace")
    result = scripts.workspace / TESTING / "result_eff"
    whole = _files(result)
    marked = [f"maps/{PSEUDONYM} marked.png", "truth/mine.png", "films/deeper/film.jpg", "journal_mine.jsonl"]
    theirs = Theirs.put(result, outside, *marked, ours=("meta.json", "cases.csv"))
    (result / "maps" / "linked").symlink_to(outside)
    partial = result.with_name("result_eff.partial")
    late = partial / "truth" / "late.png"
    for path in (late, partial / "maps" / f"{PSEUDONYM}.png", partial / "belongs_to.json"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('"something else"')
    stray = result / "maps" / f"{PSEUDONYM}.png"  # of a film that is no longer in the test set
    stray.touch()
    before = theirs.seen()
    said = _infer(scripts)
    assert theirs.seen() == before
    assert (result / "maps" / "linked").readlink() == outside
    assert (result / "truth" / "late.png").read_text() == '"something else"'
    assert not stray.exists()
    assert not partial.exists()
    names = {*theirs.names, "film.link", "truth/late.png"}
    assert {name: content for name, content in _files(result).items() if name not in names} == whole
    assert said.count("kept, not ours: ") == 2
    _link_away(result, tmp_path / "large" / "result")
    _infer(scripts)
    assert theirs.seen() == before
    assert result.is_symlink()
    assert {name: content for name, content in _files(result).items() if name not in names} == whole
    assert [path.name for path in (tmp_path / "large").iterdir()] == ["result"]


def test_pictures_named_by_identifiers_are_known_by_the_case_table(tmp_path: Path) -> None:
    """And, in a result that is not finished, by its journal."""
    pd.DataFrame({"case": ["P 1", "P[2]", "../P3", PSEUDONYM]}).to_csv(tmp_path / "cases.csv")
    (tmp_path / "journal_0.jsonl").write_text('{"case":"P4","row":1,"stage":1}\n{"row":0,"stage":2}\n5\n{"ca')
    ours = [f"maps/{name}.png" for name in ("P 1", "P[2]", "P4", PSEUDONYM)]
    theirs = ["maps/P2.png", "maps/notes.png", "P3.png"]
    (tmp_path / "maps").mkdir()
    for name in (*ours, *theirs):
        (tmp_path / name).touch()
    remove_written(tmp_path, written_in(tmp_path))
    assert set(_files(tmp_path)) == set(theirs)


@pytest.mark.parametrize(
    ("folder", "name", "command"),
    [
        (f"{TESTING}/result_eff", "cases.csv", ("inference.sh", "meta.json")),
        (f"{TESTING}/result_eff.partial", f"maps/{PSEUDONYM}.png", ("inference.sh", "meta.json")),
        (
            f"{THRESHOLDS}/cls_eff_5fold_result",
            "roc.png",
            ("get_thresholds.sh", "out_of_fold.csv", "5cv_avg.json"),
        ),
        (TESTING, "report.html", ("bootstrap.py", "metrics.csv", "metrics.json")),
        (TESTING, "figures/roc.svg", ("bootstrap.py", "metrics.csv", "metrics.json")),
    ],
)
def test_results_replace_nothing_that_is_not_theirs(
    chain: Scripts, tmp_path: Path, folder: str, name: str, command: tuple[str, ...]
) -> None:
    script, *marks = command
    scripts = chain.copy(tmp_path / "workspace")
    place = scripts.workspace / folder
    for mark in marks:
        (place / mark).unlink(missing_ok=True)
    (place / name).parent.mkdir(parents=True, exist_ok=True)
    (place / name).write_text("a user's")
    before = _files(place)
    main, flags = MAINS[script]
    said = _main(lambda: main(""), scripts, (*flags, "--system", "eff"), expect=2)
    assert "holds files that this program would replace and did not write" in said
    assert _files(place) == before


def test_metrics_are_written_beside_what_is_not_theirs(chain: Scripts, tmp_path: Path, outside: Path) -> None:
    scripts = chain.copy(tmp_path / "workspace")
    folder = scripts.workspace / TESTING
    theirs = Theirs.put(folder, outside, "figures/mine.svg", "report.md", ours=("metrics.csv", "report.html"))
    before = theirs.seen()
    main, flags = MAINS["bootstrap.py"]
    _main(lambda: main(""), scripts, (*flags, "--system", "eff"))
    assert theirs.seen() == before


# --- bundles, the listener, the demo ---------------------------------------------------------------


def test_bundle_replaces_bundles_only(
    chain: Scripts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTX_WORKSPACE", str(chain.workspace))
    output = tmp_path / "eff.bundle"
    arguments = ["--system", "eff", "--output", str(output)]
    for content in (b"a user's", b""):
        output.write_bytes(content)
        with pytest.raises(Refusal, match="is there already"):
            start.export("", arguments)
        assert output.read_bytes() == content
    shutil.make_archive(str(tmp_path / "theirs"), "zip", chain.workspace / TESTING / "result_eff" / "maps")
    (tmp_path / "theirs.zip").replace(output)
    before = output.read_bytes()
    with pytest.raises(Refusal, match="no bundle of this project"):
        start.export("", arguments)
    assert output.read_bytes() == before
    output.unlink()
    start.export("", arguments)
    made = output.read_bytes()
    output.rename(tmp_path / "elsewhere")
    output.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Refusal, match="a link"):
        start.export("", arguments)
    assert output.readlink() == tmp_path / "elsewhere"
    output.unlink()
    (tmp_path / "elsewhere").rename(output)
    start.export("", arguments)
    assert output.read_bytes() == made


def test_listener_takes_and_deletes_only_what_it_received(workspace: Path, outside: Path) -> None:
    folder = workspace / "listener"
    Spool(folder).close()
    names = ("000000001_chest.dcm", "film.dcm", f".000000001_{PSEUDONYM}.dcm.old.tmp", ".notes.txt.1.tmp")
    more = [f"{place}/{name}" for place in ("inbox", "outbox", "dicom", "exported") for name in names]
    theirs = Theirs.put(folder, outside, *more, ".notes.txt.2.tmp")
    (outside / f".{PSEUDONYM}.json.4.tmp").touch()
    left = [
        folder / "inbox" / f".000000001_{PSEUDONYM}.dcm.5.tmp",
        folder / "outbox" / f".000000001_{PSEUDONYM}.json.5.tmp",
        folder / "dicom" / f".{PSEUDONYM}_segmentation.dcm.5.tmp",
    ]
    for path in left:
        path.touch()
    before = theirs.seen()
    spool = Spool(folder)
    assert spool.films() == spool.deliveries() == []
    name = spool.keep(b"a film", "1.2.3")
    assert spool.films() == [name]
    spool.processed(name, [])
    spool.close()
    assert spool.films() == []
    assert theirs.seen() == before
    assert not [path for path in left if path.exists()]


@pytest.mark.parametrize("name", [f"inbox/000000001_{PSEUDONYM}.dcm", "rejected.csv"])
def test_listener_refuses_a_folder_in_which_none_worked(workspace: Path, name: str) -> None:
    folder = workspace / "listener"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_bytes(b"a user's line\nand half of one")
    for _ in range(2):
        with pytest.raises(Refusal, match="no listener worked there"):
            Spool(folder)
    assert (folder / name).read_bytes() == b"a user's line\nand half of one"


@pytest.fixture
def small_demo(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Writes a demo of few films, by one process."""
    for name, counts in (
        ("DEMO_SIIM", {"positives": 2, "negatives": 1}),
        ("DEMO_NTUH", dict.fromkeys(phantom_sets.DEMO_NTUH, 1)),
        ("DEMO_NEW", {"positives": 1, "negatives": 1}),
    ):
        monkeypatch.setattr(phantom_sets, name, counts | {"workers": 1})
    return phantom_sets.write_demo


@pytest.mark.slow
def test_interrupted_demo_goes_on_and_keeps_what_is_not_its_own(
    small_demo: Callable[[Path], None], tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_demo(tmp_path / "whole")
    folder = tmp_path / "stopped"

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(phantom_sets, "encode_rle", stop)
        with pytest.raises(KeyboardInterrupt):
            small_demo(folder)
    half = folder / "siim.partial"
    films = list(half.rglob("*.dcm"))
    assert films
    films[0].write_bytes(b"half")
    theirs = Theirs.put(half, outside)
    before = theirs.seen()
    small_demo(folder)
    theirs.folder = folder / "siim"
    assert theirs.seen() == before
    assert not half.exists()
    for name in theirs.names:
        (theirs.folder / name).unlink()
    for name in ("disk", "film.link"):
        (theirs.folder / name).unlink()
    assert _files(folder) == _files(tmp_path / "whole")
    assert not [name for name in _files(folder) if "partial" in name]


def test_demo_writes_into_no_folder_of_others(small_demo: Callable[[Path], None], tmp_path: Path) -> None:
    theirs = tmp_path / "siim.partial" / "train-rle.csv"
    theirs.parent.mkdir()
    theirs.write_text("a user's")
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "notes.txt").write_text("a user's")
    with pytest.raises(Refusal, match="the demo did not write"):
        small_demo(tmp_path)
    assert _files(tmp_path) == {
        "siim.partial/train-rle.csv": b"a user's",
        "export/notes.txt": b"a user's",
    }
    phantom_sets.write_new(tmp_path, 1, 1, seed=1, workers=1)
    assert (tmp_path / "export" / "notes.txt").read_text() == "a user's"
