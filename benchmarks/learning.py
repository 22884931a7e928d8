"""What the chain learns from a few hundred real films in an hour of two cores: recipes side by side.

    python benchmarks/learning.py --siim PATH --ntuh PATH --imagenet PATH --workspace PATH
    python benchmarks/learning.py ... --recipe fine_tuned --image-size 192
    python benchmarks/learning.py ... --recipe strong --students
    python benchmarks/learning.py ... --recipe strong plain --longer 3 --plain-steps 2450

`--siim` and `--ntuh` are folders in the layouts of the README, `--imagenet` holds the encoder's weights in
timm's names. All recipes run the four stages and five folds of `eff` on an EfficientNet-Lite encoder:

    published    the published numbers with all epochs cut by the same factor (3%), as many minutes as strong
    pretrained   numbers for few films; most steps are pre-training on `--siim`
    fine_tuned   the same numbers; most steps are fine-tuning on `--ntuh`
    strong       the recipe `strong`, its learning rates and steps those of half an hour of one core;
                 `--longer 3`: its segmentation folds take three times the steps
    plain        one plain U-Net (plain_unet.py), `--plain-steps` of training

Printed are CPU minutes of training and validation (which do not depend on what else runs), the metrics that
no difference of source can reach, and of `strong` and `plain` the difference, paired by patient. With
`--students`, each recipe's ensemble teaches students by the same flags, which are tested beside it. The same
command goes on after an interruption. The learning curves are `curves.png` of each run.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import TypeAlias

import numpy as np

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
_FOLD_FILMS = 400  # an epoch
_STRONG = {
    "siim_segmentation": "--preset strong --films-per-epoch 160 --learning-rate 5e-4",
    "siim_classification": "--preset strong --films-per-epoch 80 --learning-rate 3e-4",
    "ntuh_segmentation": "--preset strong --learning-rate 5e-4",
    "ntuh_classification": "--preset strong --films-per-epoch 240 --learning-rate 3e-4",
}
_PUBLISHED = dict.fromkeys(_FEW, "") | {"siim_classification": "--films-per-epoch 160"}  # as it has few films
_FLAGS = {"published": _PUBLISHED, "pretrained": _FEW, "fine_tuned": _FEW, "strong": _STRONG}
# epochs of the four stages
_EPOCHS = {
    "published": (3, 1, 3, 1),
    "pretrained": (60, 12, 4, 6),
    "fine_tuned": (4, 2, 10, 3),
    "strong": (1, 1, 8, 5),
}
PLAIN, STUDENT = "plain", "eff_student"
REPLICATES = 2000  # of the paired differences
METRICS = (
    *("auroc", "auroc_thumbnail", "dice_segmentation", "dice_positives", "dice_true_positives"),
    *("dice_full_size", "dice_lesser_half", "laterality", "outline_laterality", "hit"),
    *("lesions_found", "false_outlines"),
)


def script(path: str, *flags: str) -> float:
    """Run a script of the project for `eff`; its CPU minutes."""
    return cpu_minutes("bash", str(REPOSITORY / path), "cpu", "--system", "eff", *flags)


def numbers(recipe: str, key: str, arguments: argparse.Namespace) -> list[str]:
    """Flags of a stage of a recipe, by the stage's key."""
    epochs = dict(zip(_FEW, _EPOCHS[recipe], strict=True))[key]
    flags = [*_FLAGS[recipe][key].split(), "--epochs", str(epochs), "--image-size", arguments.image_size]
    if recipe == "strong" and key == "ntuh_segmentation":
        flags += ["--films-per-epoch", str(_FOLD_FILMS * arguments.longer)]
    return [*flags, "--seed", str(arguments.seed)]


def run_chain(recipe: str, arguments: argparse.Namespace, workspace: Path) -> float:
    """Train, choose thresholds, test; the CPU minutes that training and validation took."""
    from common.stages import STAGES

    os.environ |= {"PTX_WORKSPACE": str(workspace), "VIRTUAL_ENV": sys.prefix}
    sources = {"siim": ["--siim", arguments.siim], "ntuh": ["--ntuh", arguments.ntuh]}
    script_of_films = str(REPOSITORY / "common/prepare.sh")
    cpu_minutes("bash", script_of_films, *sources["siim"], *sources["ntuh"])
    minutes = 0.0
    for key, stage in STAGES.items():
        first = [] if stage.parent else ["--encoder", ENCODER, "--imagenet", arguments.imagenet]
        flags = numbers(recipe, key, arguments)
        minutes += script(f"{stage.folder}/train.sh", *sources[stage.source], *first, *flags)
    script("step2_ntuh_training/get_thres/get_thresholds.sh", *sources["ntuh"])
    script("step3_testing/testing/inference.sh", *sources["ntuh"])
    bootstrap = str(REPOSITORY / "step3_testing/testing/bootstrap.py")
    cpu_minutes(sys.executable, bootstrap, "--system", "eff")
    return minutes


def run_students(recipe: str, arguments: argparse.Namespace) -> float:
    """Train, choose thresholds of, test the students of `run_chain`; the CPU minutes that training took."""
    from common.stages import STUDENT_STAGES

    ntuh, minutes = ["--ntuh", arguments.ntuh], 0.0
    for stage in STUDENT_STAGES.values():
        flags = numbers(recipe, str(stage.teachers), arguments)
        minutes += script(f"{stage.folder}/train.sh", *ntuh, *flags)
    script("step2_ntuh_training/get_thres/get_thresholds.sh", *ntuh, "--student")
    script("step3_testing/testing/inference.sh", *ntuh, "--student")
    bootstrap = str(REPOSITORY / "step3_testing/testing/bootstrap.py")
    cpu_minutes(sys.executable, bootstrap, "--system", STUDENT, "eff")
    return minutes


def cpu_minutes(*command: str) -> float:
    """Run a command; the CPU time of it and its children in minutes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 60


def estimates(workspace: Path, system: str = "eff") -> list[str]:
    """The metrics of a system, or of the difference of two, on the test films."""
    with (workspace / "step3_testing/testing/metrics.csv").open() as file:
        found = {
            row["metric"]: row
            for row in csv.DictReader(file)
            if row["system"] == system
            and (row["reference"], row["decision"], row["stratum"]) == ("mask", "two_stage", "all")
        }
    return [
        f"{name} {row['estimate'] or 'not estimable'} ({row['ci_low']} to {row['ci_high']}) n={row['n']}"
        for name, row in ((name, found[name]) for name in METRICS if name in found)
    ]


def run_plain(arguments: argparse.Namespace, workspace: Path) -> list[str]:
    """Train the plain U-Net and score the test films; its metrics, and how `strong` differs from it."""
    beside = workspace / "strong"  # the same prepared films, under the same pseudonyms
    os.environ |= {"PTX_WORKSPACE": str(beside)}
    output = workspace / "plain.csv"
    minutes = cpu_minutes(
        *(sys.executable, str(REPOSITORY / "benchmarks/plain_unet.py"), "--ntuh", arguments.ntuh),
        *("--imagenet", arguments.imagenet, "--output", str(output), "--encoder", ENCODER),
        *("--steps", str(arguments.plain_steps), "--seed", str(arguments.seed)),
    )
    lines = [f"{PLAIN}: {minutes:.1f} CPU minutes, those of testing among them"]
    facts, found = read_films(beside / "data/prepared/ntuh_test/cases.csv"), read_films(output)
    tested = beside / "step3_testing/testing/result_eff/cases.csv"
    strong = read_films(tested) if tested.is_file() else {}
    return lines + [f"  {line}" for line in compared(facts, found, strong)]


Rows: TypeAlias = dict[str, dict[str, str]]


def read_films(path: Path) -> Rows:
    """The rows of a table by case."""
    with path.open() as file:
        return {row["case"]: row for row in csv.DictReader(file)}


def compared(facts: Rows, plain: Rows, strong: Rows) -> list[str]:
    """Means over the test films with intervals by patient, of the plain U-Net, and of `strong` less it."""
    from common.statistics.auroc import auroc
    from common.statistics.bootstrap import resample_counts

    cases = list(facts)
    patient = np.array([facts[case]["patient"] for case in cases])
    area = np.array([float(facts[case]["mask_area_fraction"] or 0) for case in cases])
    positive = area > 0
    counts = np.concatenate(list(resample_counts(patient, positive, REPLICATES, 0)))
    lesser = positive & (area <= np.median(area[positive]))
    score = np.array([float(plain[case]["probability"]) for case in cases])
    lines = [f"auroc of the map's top {auroc(positive, score):.3f} n={len(cases)}"]
    for name, column, films in (
        ("dice_full_size", "dice_full_size", positive),
        ("dice_lesser_half", "dice_full_size", lesser),
        ("laterality", "laterality", positive),
        ("hit", "hit", positive),
    ):
        one, other = (
            np.array([float(rows.get(case, {}).get(column) or "nan") for case in cases])
            for rows in (plain, strong)
        )
        for title, values in ((name, one), (f"{name}, strong less plain", other - one)):
            known = films & ~np.isnan(values)
            if known.any():
                means = counts[:, known] @ values[known] / counts[:, known].sum(axis=1)
                low, high = np.quantile(means, [0.025, 0.975])
                lines.append(f"{title} {values[known].mean():.3f} ({low:.3f}-{high:.3f}) n={known.sum()}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name in ("siim", "ntuh", "imagenet", "workspace"):
        parser.add_argument(f"--{name}", required=True)
    recipes = [*_EPOCHS, PLAIN]
    parser.add_argument("--recipe", nargs="+", choices=recipes, default=recipes, help="in this order")
    parser.add_argument("--image-size", default="224", help="working size of all stages")
    parser.add_argument("--plain-steps", type=int, default=1100, help="steps of the plain U-Net")
    parser.add_argument("--longer", type=int, default=1, help="steps of a fold of `strong`, times this")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--students", action="store_true", help="train and test each recipe's students, too")
    arguments = parser.parse_args()
    workspace = Path(arguments.workspace).resolve()
    lines = []
    for recipe in arguments.recipe:
        if recipe == PLAIN:
            lines += run_plain(arguments, workspace)
        else:
            minutes = run_chain(recipe, arguments, workspace / recipe)
            lines += [f"{recipe}: {minutes:.1f} CPU minutes of training"]
            lines += [f"  {line}" for line in estimates(workspace / recipe)]
            if arguments.students:
                lines += [f"{STUDENT}: {run_students(recipe, arguments):.1f} CPU minutes of training"]
                for system in (STUDENT, f"{STUDENT}-eff"):
                    lines += [f"  {system} {line}" for line in estimates(workspace / recipe, system)]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
