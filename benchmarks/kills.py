"""Exact resuming: every stage is killed at random moments and run again, against runs that were left alone.

    python benchmarks/kills.py            24 kills: 3 in each of the four stages, both systems (6 minutes)
    python benchmarks/kills.py --quick    2 kills: step 1.1 of vit

Each stage runs as a user runs it, on tiny networks. SIGKILL strikes at a random moment after training began,
every third time while a checkpoint is being written. Checkpoints come after every epoch, or every step.
The final weights files must be the same byte by byte.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
TINY = ["--preset", "demo", "--image-size", "64", "--epochs", "4", "--batch-size", "4"]
STAGES = {
    "siim_segmentation": "step1_pretraining/step1_segmentation",
    "siim_classification": "step1_pretraining/step2_classification",
    "ntuh_segmentation": "step2_ntuh_training/ntuh_segmentation",
    "ntuh_classification": "step2_ntuh_training/ntuh_classification",
}


def start(workspace: Path, folder: str, flags: list[str]) -> subprocess.Popen:
    """Start a stage as a process group of its own, so that all of it can be killed."""
    environment = os.environ | {
        "PTX_WORKSPACE": str(workspace),
        "VIRTUAL_ENV": sys.prefix,
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        ["bash", "train.sh", "cpu", *TINY, *flags],
        cwd=REPOSITORY / folder,
        env=environment,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    """Wait for a stage; what it printed."""
    output = process.communicate()[0]
    if process.returncode:
        raise SystemExit(f"a stage failed with exit status {process.returncode}\n{output}")
    return output


def killed(process: subprocess.Popen, run: Path, wait: float, in_write: bool) -> str:
    """Kill a stage some seconds after its training began, or in its next write; where it struck."""
    while process.poll() is None and not (run / "config.json").is_file():
        time.sleep(0.005)
    time.sleep(wait)
    limit = time.monotonic() + 5
    while in_write and process.poll() is None and time.monotonic() < limit:
        if list(run.glob(".last.pt.*")):
            break
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    if process.returncode != -signal.SIGKILL:
        return "too late"
    return "in a write" if list(run.glob(".last.pt.*")) else "between writes"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--kills", type=int, default=3, help="of each stage and system")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sys.path.insert(0, str(REPOSITORY))
    from common.demo.phantom_sets import write_ntuh, write_siim
    from common.paths import run_name
    from common.stages import STAGES as DESCRIBED

    rng = random.Random(arguments.seed)
    kills = 2 if arguments.quick else arguments.kills
    struck: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        write_siim(root / "siim", positives=15, negatives=15, seed=1)
        write_ntuh(root / "ntuh", 15, 15, 6, 8, seed=1)
        alone, other = root / "alone", root / "killed"
        different = 0
        compared = 0
        for key, folder in STAGES.items():
            for system in ("vit",) if arguments.quick else ("eff", "vit"):
                stage = DESCRIBED[key]
                fold = None if stage.source == "siim" else 0
                flags = ["--system", system, f"--{stage.source}", str(root / stage.source)]
                flags += ["--films-per-epoch", "16"] if stage.task == "cls" else []
                flags += [] if fold is None else ["--folds", "0"]
                name = run_name(stage, system, fold)
                finish(start(alone, folder, flags))
                began = (alone / folder / "runs" / name / "config.json").stat().st_mtime
                weights = alone / folder / "model_weights" / f"{name}.safetensors"
                seconds = weights.stat().st_mtime - began
                for number in range(kills):
                    often = ["--save-minutes", "0"] if number % 3 else []
                    process = start(other, folder, [*flags, *often])
                    where = killed(
                        process, other / folder / "runs" / name, rng.uniform(0, seconds), number % 3 == 2
                    )
                    struck[where] = struck.get(where, 0) + 1
                said = finish(start(other, folder, flags))
                files = [w / folder / "model_weights" / f"{name}.safetensors" for w in (alone, other)]
                same = files[0].read_bytes() == files[1].read_bytes()
                left = [p.name for p in (other / folder).rglob(".*.tmp")]
                different += not same or bool(left)
                compared += 1
                went_on = "goes on" in said or "finished before" in said
                verdict = "the same bytes" if same else "OTHER BYTES"
                print(f"{name}: {verdict}, {'went on' if went_on else 'began anew'} {left or ''}", flush=True)
            if arguments.quick:
                break
    print(", ".join(f"{count} {where}" for where, count in sorted(struck.items())))
    done = sum(count for where, count in struck.items() if where != "too late")
    print(f"kills: {done} in {compared} runs, {different} with other weights (goal <= 0)")
    raise SystemExit(different > 0)


if __name__ == "__main__":
    main()
