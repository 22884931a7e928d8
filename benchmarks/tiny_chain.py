"""The chain of `same_results.py`: every command of a user, on tiny networks, and how each is given.

A tree of the project is driven by its customer scripts only, whose names and flags are fixed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

FILMS = 4  # to predict
KEY = "5a" * 32  # of the pseudonyms
LASTING = (".safetensors", ".npy")  # of what costs most to make again
PATIENCE = 900  # seconds until a command is taken to hang

TINY = "--preset demo --image-size 64 --epochs 1 --batch-size 4"
SEGMENT, CLASSIFY = "step1_pretraining/step1_segmentation", "step1_pretraining/step2_classification"
TRAINING, TESTING, PREDICTION = "step2_ntuh_training", "step3_testing/testing", "step3_testing/prediction"
SIIM = f"bash train.sh cpu {TINY} --siim {{sources}}/siim"
NTUH = f"bash train.sh cpu {TINY} --ntuh {{sources}}/ntuh --system {{systems}}"
LOG = f"{SEGMENT}/runs/vit_seg_siim/log.csv"
BOOTSTRAP = """
awk -F, 'NR == 1 {{print "case,reader,call"}} NR > 1 {{print $1 ",A," NR % 2}}' \
    {work}/step3_testing/testing/result_{system}/cases.csv > {work}/calls.csv
python bootstrap.py --replicates 200 --system {systems} --interval bca --prevalence 0.05 \
    --readers {work}/calls.csv > {work}/bca_and_readers.txt
mkdir {work}/bca_and_readers
cp {work}/step3_testing/testing/{{metrics.*,report.html}} {work}/bca_and_readers
python bootstrap.py --replicates 200 --system {systems} > {work}/bootstrap.txt
"""
RECEIVE = """
mkdir -p {work}/listener/inbox
touch {work}/listener/last_number # by which the folder is known as a listener's
number=0
for film in {sources}/new/P*.dcm; do
    number=$((number + 1))
    cp "$film" {work}/listener/inbox/00000000${{number}}_c000000000000000$number.dcm
done
"""
LISTEN = "exec bash listen.sh cpu --port 0 --caller MODALITY1 --system vit"


@dataclass(frozen=True)
class Step:
    """One command of a user.

    Attributes:
        folder: Where it is given, relative to the repository.
        command: For bash, with {sources}, {work}, {system} (the first one), {systems}, {port}.
        again: Glob patterns of what is taken away before `readable` gives it again; None: it does not.
        copies: A folder of the workspace, and the copy of it that the command works on.
        workspace: Its own workspace, a folder in the run's; empty: the run's.
        until: From the run's workspace, whether to end the command now; None: it ends by itself.
        status: Exit status that it must have; -9: `until` is followed by SIGKILL, else by SIGTERM.
    """

    folder: str
    command: str
    again: tuple[str, ...] | None = ()
    copies: tuple[str, str] | None = None
    workspace: str = ""
    until: Callable[[Path], bool] | None = None
    status: int = 0


CHAIN = {
    "prepare": Step("", "bash common/prepare.sh --siim {sources}/siim --ntuh {sources}/ntuh"),
    "prepare a table": Step("", "bash common/prepare.sh --ntuh {sources}/table", workspace="table"),
    "siim segmentation eff": Step(SEGMENT, f"{SIIM} --system eff --encoder test_efficientnet"),
    "siim segmentation vit": Step(SEGMENT, f"{SIIM} --system vit"),
    "siim classification": Step(
        CLASSIFY,
        f"{SIIM} --films-per-epoch 8 --system {{systems}}",
        again=(f"{CLASSIFY}/*/{{system}}_cls_siim*",),
    ),
    "ntuh segmentation": Step(
        f"{TRAINING}/ntuh_segmentation", NTUH, again=(f"{TRAINING}/ntuh_segmentation/*/fold_0_{{system}}*",)
    ),
    "ntuh classification": Step(
        f"{TRAINING}/ntuh_classification",
        f"{NTUH} --films-per-epoch 8",
        again=(f"{TRAINING}/ntuh_classification/*/fold_0_{{system}}*",),
    ),
    "a training killed": Step(
        SEGMENT,
        f"{SIIM} --system vit --epochs 6",
        again=None,
        copies=("data", "killed/data"),
        workspace="killed",
        until=lambda work: len(_lines(work / "killed" / LOG)) > 2,
        status=-signal.SIGKILL,
    ),
    "and resumed": Step(
        SEGMENT,
        f"{SIIM} --system vit --epochs 6",
        again=("resumed",),
        copies=("killed", "resumed"),
        workspace="resumed",
    ),
    "thresholds": Step(
        f"{TRAINING}/get_thres",
        "bash get_thresholds.sh cpu --system {systems}",
    ),
    "inference": Step(
        TESTING, "bash inference.sh cpu --system {systems}", again=(f"{TESTING}/result_{{system}}",)
    ),
    "bootstrap": Step(
        TESTING,
        BOOTSTRAP,
        again=("bca_and_readers*",),
    ),
    "predict": Step(
        PREDICTION,
        "bash predict.sh {sources}/new {work}/predicted cpu --system {system} --keep-identifiers",
        again=("predicted",),  # on purpose, findings without a list of what was written are refused
        status=3,  # a file among the films is none
    ),
    "export": Step(PREDICTION, "bash export.sh --system {systems}"),
    "predict by a bundle": Step(
        PREDICTION,
        f"bash predict.sh {{sources}}/new {{work}}/by_bundle cpu --bundle {{work}}/{PREDICTION}/vit.bundle",
        again=("by_bundle",),
        status=3,
    ),
    "receive": Step(
        PREDICTION,
        f"{RECEIVE} {LISTEN} --folder {{work}}/listener --destination NOBODY@127.0.0.1:9",
        again=None,
        until=lambda work: len([*work.glob("listener/outbox/*.json")]) == FILMS,
    ),
    "deliver": Step(
        PREDICTION,
        f"{LISTEN} --folder {{work}}/delivered --destination PACS@127.0.0.1:{{port}}",
        again=("delivered", "received"),
        copies=("listener", "delivered"),
        until=lambda work: not [*work.glob("delivered/[io]*box/*")],
    ),
}


class CommandFailed(Exception):
    """A command ended with another exit status than it must."""


@dataclass(frozen=True)
class Runs:
    """Runs of the chain, all in the same folder `work`, which then gets the run's name.

    Attributes:
        root: Folder of everything that is made.
        chain: Commands by title.
        names: What stands in braces in commands and patterns, and its value.
    """

    root: Path
    chain: dict[str, Step]
    names: dict[str, object]

    def make(self, tree: Path, name: str) -> list[str]:
        """Give all commands of a tree in an empty workspace; what went wrong."""
        work = self._clear(name)
        for title, step in self.chain.items():
            self._give(tree, work, title, step)
        work.rename(self.root / name)
        return _began_anew(self.root / name)

    def make_again(self, tree: Path, name: str, made: str) -> list[str]:
        """Give all commands again, the last one first, on a copy of another run; what went wrong."""
        work = self._clear(name)
        shutil.copytree(self.root / made, work)
        times = {path: path.stat().st_mtime_ns for path in work.rglob("*") if path.suffix in LASTING}
        for title, step in reversed(self.chain.items()):
            if step.again is None:
                continue
            for path in [path for glob in step.again for path in work.glob(glob.format(**self.names))]:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            times = {path: then for path, then in times.items() if path.exists()}
            self._give(tree, work, title, step)
        remade = [path.relative_to(work) for path, then in times.items() if path.stat().st_mtime_ns != then]
        work.rename(self.root / name)
        return [f"{path}: made again although it was there" for path in remade] + _began_anew(
            self.root / name
        )

    def _clear(self, name: str) -> Path:
        for left in ("work", name):  # of an earlier run
            shutil.rmtree(self.root / left, ignore_errors=True)
        return self.root / "work"

    def _give(self, tree: Path, work: Path, title: str, step: Step) -> None:
        """Give one command.

        Raises:
            CommandFailed: It ended otherwise than it must, or hangs.
        """
        began = time.monotonic()
        if step.copies:
            source, target = (work / folder for folder in step.copies)
            shutil.copytree(source, target)
        key, printed = work / step.workspace / "data/pseudonym.key", work / "printed" / f"{title}.txt"
        for file in (key, printed):
            file.parent.mkdir(parents=True, exist_ok=True)
        key.write_text(f"{KEY}\n")
        with printed.open("w") as output:
            process = subprocess.Popen(
                ["bash", "-euc", step.command.format(work=work, **self.names)],
                cwd=tree / step.folder,
                env=_environment(work / step.workspace),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that all of it can be ended
            )
        status = _wait(process, step, work)
        if status != step.status:
            said = printed.read_text().strip()
            raise CommandFailed(f"{title}: exit status {status} instead of {step.status}\n{said}")
        print(f"  {title}: {time.monotonic() - began:.0f} s", flush=True)


def _environment(workspace: Path) -> dict[str, str]:
    return os.environ | {
        "PTX_WORKSPACE": str(workspace),
        "VIRTUAL_ENV": sys.prefix,
        "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


def _wait(process: subprocess.Popen, step: Step, work: Path) -> int:
    """Wait for the end of a command, or end it as soon as it is time; its exit status."""
    limit, asked = time.monotonic() + PATIENCE, False
    try:
        while process.poll() is None and time.monotonic() < limit:
            if step.until and not asked and step.until(work):
                os.killpg(process.pid, -step.status or signal.SIGTERM)
                asked = True
            time.sleep(0.02)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def _began_anew(run: Path) -> list[str]:
    """The seconds of the killed training's first epoch must still be those of the resumed one."""
    killed, resumed = (_lines(run / name / LOG)[1:2] for name in ("killed", "resumed"))
    return [] if killed == resumed else ["the killed training began anew"]


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []
