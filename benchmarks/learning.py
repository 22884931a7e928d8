"""What the chain learns from a few hundred real films in an hour of two cores: recipes side by side.

    python benchmarks/learning.py --siim PATH --ntuh PATH --imagenet PATH --workspace PATH
    python benchmarks/learning.py ... --recipe fine_tuned --image-size 192

`--siim` and `--ntuh` are folders in the layouts of the README, `--imagenet` holds the encoder's weights in
timm's names. All recipes run the four stages and five folds of `eff` on an EfficientNet-Lite encoder:

    published    the published numbers with all epochs cut by the same factor (7%)
    pretrained   numbers for few films; most steps are pre-training on `--siim`
    fine_tuned   the same numbers; most steps are fine-tuning on `--ntuh`

Printed are minutes of training and validation, and the metrics that no difference of source can reach. The
same command goes on after an interruption. The learning curves are `curves.png` of each run.
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
# narrow decoder, crops that keep most of the film, learning rates for few steps
_FEW = {
    "siim_segmentation": "--preset demo --initial-weights imagenet --learning-rate 5e-4",
    "siim_classification": "--preset demo --films-per-epoch 304 --learning-rate 3e-4",
    "ntuh_segmentation": "--preset demo --learning-rate 3e-4",
    "ntuh_classification": "--preset demo --films-per-epoch 240 --learning-rate 2e-4",
}
# epochs of the four stages
_EPOCHS = {"published": (7, 1, 7, 3), "pretrained": (60, 12, 4, 6), "fine_tuned": (4, 2, 10, 3)}
METRICS = (
    *("auroc", "auroc_thumbnail", "dice_segmentation", "dice_positives", "dice_true_positives"),
    *("dice_full_size", "dice_lesser_half", "laterality", "outline_laterality", "hit"),
    *("lesions_found", "false_outlines"),
)


def run_chain(recipe: str, arguments: argparse.Namespace, workspace: Path) -> float:
    """Train, choose thresholds, test; the minutes that training and validation took."""
    from common.stages import STAGES

    os.environ |= {"PTX_WORKSPACE": str(workspace), "VIRTUAL_ENV": sys.prefix}

    def script(path: str, *flags: str) -> None:
        command = ["bash", str(REPOSITORY / path), "cpu", "--system", "eff", *flags]
        subprocess.run(command, check=True)

    sources = {"siim": ["--siim", arguments.siim], "ntuh": ["--ntuh", arguments.ntuh]}
    for (key, stage), epochs in zip(STAGES.items(), _EPOCHS[recipe], strict=True):
        first = [] if stage.parent else ["--encoder", ENCODER, "--imagenet", arguments.imagenet]
        flags = [] if recipe == "published" else _FEW[key].split()
        flags += ["--epochs", str(epochs), "--image-size", arguments.image_size]
        script(f"{stage.folder}/train.sh", *sources[stage.source], *first, *flags)
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
    """The metrics on the test films."""
    with (workspace / "step3_testing/testing/metrics.csv").open() as file:
        found = {
            row["metric"]: row
            for row in csv.DictReader(file)
            if (row["reference"], row["decision"], row["stratum"]) == ("mask", "two_stage", "all")
        }
    return [
        f"{name} {row['estimate'] or 'not estimable'} ({row['ci_low']}-{row['ci_high']}) n={row['n']}"
        for name, row in ((name, found[name]) for name in METRICS)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name in ("siim", "ntuh", "imagenet", "workspace"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--recipe", nargs="+", choices=_EPOCHS, default=list(_EPOCHS))
    parser.add_argument("--image-size", default="224", help="working size of all stages")
    arguments = parser.parse_args()
    lines = []
    for recipe in arguments.recipe:
        workspace = Path(arguments.workspace).resolve() / recipe
        minutes = run_chain(recipe, arguments, workspace)
        lines += [f"{recipe}: {minutes:.0f} minutes of training", *map("  {}".format, estimates(workspace))]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
