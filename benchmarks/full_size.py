"""Full size without a GPU: every stage of a preset, both systems, at 512 with its own batch, on the CPU.

    python benchmarks/full_size.py                    about 20 minutes on 2 cores
    python benchmarks/full_size.py --preset strong    the same with its batches of 8
    python benchmarks/full_size.py --quick            the same steps at 64 px with `eff` only

Runs the scripts that a user runs on a few synthetic films, from random weights instead of ImageNet's: at
least 10 steps, one validation and one export a stage, then thresholds, inference and metrics. Only fold 0
is trained; folds 1 to 4 are its copies under other numbers, so the metrics mean nothing: what is shown is
that full size runs, how long it takes and how much memory it needs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
STEPS = 10


def run(folder: str, *command: str) -> tuple[float, float]:
    """Run a command in a folder of the repository; seconds and peak memory in GB."""
    begun = time.monotonic()
    process = subprocess.Popen(command, cwd=REPOSITORY / folder, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None  # it is a pipe
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed\n{output}")
    return time.monotonic() - begun, usage.ru_maxrss / 2**20


def copy_fold(system: str, task: str) -> None:
    """Put fold 0's network under the numbers of the other folds."""
    from common.networks.weights import read_weights, save_weights
    from common.paths import weights_file
    from common.stages import N_FOLDS, STAGES

    stage = STAGES["ntuh_segmentation" if task == "seg" else "ntuh_classification"]
    state, metadata = read_weights(weights_file(stage, system, 0), "")
    del metadata["sha256"]
    for fold in range(1, N_FOLDS):
        save_weights(weights_file(stage, system, fold), state, metadata | {"fold": fold})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="at 64 px, eff only")
    parser.add_argument("--preset", choices=("published", "strong"), default="published")
    arguments = parser.parse_args()
    quick, preset = arguments.quick, arguments.preset
    sys.path.insert(0, str(REPOSITORY))
    from common.demo.phantom_sets import write_ntuh, write_siim

    systems = ["eff"] if quick else ["eff", "vit"]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"PTX_WORKSPACE": folder, "VIRTUAL_ENV": sys.prefix}
        data = Path(folder) / "data"
        # batches of 4 positives: 10 steps need 40 that are not held out
        write_siim(data / "siim", positives=50, negatives=15, seed=0)
        write_ntuh(data / "ntuh", 53, 15, 4, 4, seed=0)
        size = ["--image-size", "64"] if quick else []
        drawn = ["--films-per-epoch", str(8 * STEPS)]
        drawn_to_segment = drawn if preset == "strong" else []  # else every positive once
        for system in systems:
            train = ["bash", "train.sh", "cpu", "--preset", preset, "--system", system]
            train += ["--epochs", "1", *size]
            plan = {
                "1.1 SIIM segmentation": (
                    "step1_pretraining/step1_segmentation",
                    [*train, *drawn_to_segment, "--initial-weights", "random"],
                ),
                "1.2 SIIM classification": ("step1_pretraining/step2_classification", [*train, *drawn]),
                "2.1 NTUH segmentation": (
                    "step2_ntuh_training/ntuh_segmentation",
                    [*train, *drawn_to_segment, "--folds", "0"],
                ),
                "2.2 NTUH classification": (
                    "step2_ntuh_training/ntuh_classification",
                    [*train, *drawn, "--folds", "0"],
                ),
            }  # fmt: skip
            for title, (where, command) in plan.items():
                rows.append((system, title, *run(where, *command)))
                print("{}  {:<24} {:6.0f} s  {:5.2f} GB peak".format(*rows[-1]), flush=True)
            copy_fold(system, "seg")
            copy_fold(system, "cls")
            for title, where, script in (
                ("2.3 thresholds", "step2_ntuh_training/get_thres", "get_thresholds.sh"),
                ("3.1 inference", "step3_testing/testing", "inference.sh"),
            ):
                rows.append((system, title, *run(where, "bash", script, "cpu", "--system", system)))
                print("{}  {:<24} {:6.0f} s  {:5.2f} GB peak".format(*rows[-1]), flush=True)
            logs = list(Path(folder).rglob(f"runs/*{system}*/log.csv"))
            steps = [int(log.read_text().splitlines()[-1].split(",")[1]) for log in logs]
            assert len(steps) == 4, logs
            assert min(steps) >= STEPS, steps
        run("step3_testing/testing", sys.executable, "bootstrap.py", "--system", *systems)
    print(f"full_size: {len(rows)} stages ran (goal >= {6 * len(systems)})")


if __name__ == "__main__":
    main()
