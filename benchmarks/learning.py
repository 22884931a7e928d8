"""What the chain learns from a hundred real films in an hour of two cores: two recipes, the same minutes.

    python benchmarks/learning.py --siim PATH --ntuh PATH --imagenet PATH --workspace PATH
    python benchmarks/learning.py ... --recipe published

`--siim` and `--ntuh` are folders in the layouts of the README, `--imagenet` holds the encoder's weights in
timm's names. `short` is the recipe for few films and little time; `published` has the published numbers with
all epochs cut by the same factor (7%). Both run all four stages and five folds of `eff` on an
EfficientNet-Lite encoder at 224 px. Interrupted, the same command goes on. The learning curves are
`curves.png` of each run.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

ENCODER = "tf_efficientnet_lite0"
COMMON = ["--image-size", "224"]
RECIPES = {
    "short": {  # narrow decoder, crops that keep most of the film, learning rates for few steps
        "siim_segmentation": "--preset demo --initial-weights imagenet --epochs 60 --learning-rate 5e-4",
        "siim_classification": "--preset demo --epochs 12 --films-per-epoch 304 --learning-rate 3e-4",
        "ntuh_segmentation": "--preset demo --epochs 40 --learning-rate 3e-4",
        "ntuh_classification": "--preset demo --epochs 12 --films-per-epoch 240 --learning-rate 2e-4",
    },
    "published": {
        "siim_segmentation": "--epochs 7",
        "siim_classification": "--epochs 1",
        "ntuh_segmentation": "--epochs 7",
        "ntuh_classification": "--epochs 3",
    },
}
METRICS = ("auroc", "dice_segmentation", "dice_positives", "dice_true_positives")


def run_chain(recipe: str, arguments: argparse.Namespace, workspace: Path) -> float:
    """Train, choose thresholds, test; the minutes that training and validation took."""
    from common.stages import STAGES

    os.environ |= {"PTX_WORKSPACE": str(workspace), "VIRTUAL_ENV": sys.prefix}

    def script(path: str, *flags: str) -> None:
        command = ["bash", str(REPOSITORY / path), "cpu", "--system", "eff", *flags]
        subprocess.run(command, check=True)

    sources = {"siim": ["--siim", arguments.siim], "ntuh": ["--ntuh", arguments.ntuh]}
    for key, stage in STAGES.items():
        first = [] if stage.parent else ["--encoder", ENCODER, "--imagenet", arguments.imagenet]
        flags = RECIPES[recipe][key].split()
        script(f"{stage.folder}/train.sh", *COMMON, *sources[stage.source], *first, *flags)
    script("step2_ntuh_training/get_thres/get_thresholds.sh", *sources["ntuh"])
    script("step3_testing/testing/inference.sh", *sources["ntuh"])
    subprocess.run(
        [sys.executable, str(REPOSITORY / "step3_testing/testing/bootstrap.py"), "--system", "eff"],
        check=True,
    )
    return sum(
        float(row["seconds"]) / 60
        for stage in STAGES.values()
        for log in (workspace / stage.folder / "runs").glob("*/log.csv")
        for row in csv.DictReader(log.open())
    )


def estimates(workspace: Path) -> list[str]:
    """AUROC and the three Dice on the test films."""
    with (workspace / "step3_testing/testing/metrics.csv").open() as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if (row["reference"], row["stratum"]) == ("mask", "all") and row["metric"] in METRICS
        ]
    found = {row["metric"]: row for row in rows}  # the same under either decision, but for the last Dice
    return [
        f"{name} {row['estimate'] or 'not estimable'} ({row['ci_low']}-{row['ci_high']}) n={row['n']}"
        for name, row in found.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name in ("siim", "ntuh", "imagenet", "workspace"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--recipe", nargs="+", choices=RECIPES, default=list(RECIPES))
    arguments = parser.parse_args()
    lines = []
    for recipe in arguments.recipe:
        workspace = Path(arguments.workspace).resolve() / recipe
        minutes = run_chain(recipe, arguments, workspace)
        lines += [f"{recipe}: {minutes:.0f} minutes of training", *map("  {}".format, estimates(workspace))]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
