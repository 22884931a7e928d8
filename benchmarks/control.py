"""Negative control: what the chain reaches when the training labels mean nothing.

    bash demo.sh && python benchmarks/control.py     about 10 minutes on 2 cores
    python benchmarks/control.py --quick             one seed

Within SIIM and within NTUH the pairs (label, mask) are permuted among all films, validation films included.
Steps 1.1, 1.2 and 2.2 (`eff`, fold 0) are trained again on them, and the network scores the test films,
whose labels are true. Without leakage the AUROC is about 0.5: the goal is a mean from 0.40 to 0.60.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
SEEDS = 5
_LABEL = ["has_mask", "report", "mask_row", "mask_area_fraction"]


def permute(source: Path, target: Path, seed: int) -> None:
    """Write a prepared set whose labels and masks have changed films; the pixels are linked."""
    import pandas as pd

    from common.files import digest, read_json, write_json
    from common.preparation.film_store import ARRAYS
    from common.preparation.folds import assign_folds, choose_validation

    target.mkdir(parents=True)
    for name in (*ARRAYS, "flow.json"):
        (target / name).symlink_to(source / name)
    cases = pd.read_csv(source / "cases.csv")
    order = np.random.default_rng([seed, len(cases)]).permutation(len(cases))
    cases[_LABEL] = cases[_LABEL].to_numpy()[order]
    cases.to_csv(target / "cases.csv", index=False)
    split = choose_validation if source.name == "siim" else assign_folds
    part = split(cases["has_mask"].to_numpy() == 1, cases["patient"].to_numpy()).astype(int).tolist()
    write_json(target / "folds.json", {"part": part})
    manifest = read_json(source / "manifest.json", "bash demo.sh")
    changed = {"content": digest(manifest["content"], *map(str, order)), "split": digest(*map(str, part))}
    write_json(target / "manifest.json", manifest | changed)


def control_auroc(demo: Path, seed: int) -> float:
    """AUROC on the demo's test films after training on permuted labels."""
    from sklearn.metrics import roc_auc_score

    from common.distributed import one_device
    from common.inference.run_networks import Predictor
    from common.networks import weights
    from common.preparation.film_store import PreparedSet
    from common.stages import STAGES

    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"PTX_WORKSPACE": folder, "VIRTUAL_ENV": sys.prefix}
        prepared = demo / "data" / "prepared"
        for name in ("siim", "ntuh_train"):
            permute(prepared / name, Path(folder) / "data" / "prepared" / name, seed)
        flags = ["--preset", "demo", "--system", "eff", "--seed", str(seed)]
        for key in ("siim_segmentation", "siim_classification", "ntuh_classification"):
            fold = ["--folds", "0"] if key.startswith("ntuh") else []
            command = ["bash", str(REPOSITORY / STAGES[key].folder / "train.sh"), "cpu", *flags, *fold]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        state, metadata = weights.read_stage_weights(STAGES["ntuh_classification"], "eff", 0, "the control")
        net = weights.build(metadata)
        weights.load(net, state, Path(folder))
        test = PreparedSet(prepared / "ntuh_test")
        predictor = Predictor(test, metadata["recipe"]["image_size"], one_device("cpu"))
        scores = predictor.probabilities([net], np.arange(len(test.cases)))[:, 0]
        return float(roc_auc_score(test.has_mask, scores))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed")
    parser.add_argument("--workspace", type=Path, default=REPOSITORY / "demo_workspace", help="of the demo")
    arguments = parser.parse_args()
    sys.path.insert(0, str(REPOSITORY))
    found = []
    for seed in range(1 if arguments.quick else SEEDS):
        found.append(control_auroc(arguments.workspace.resolve(), seed))
        print(f"seed {seed}: AUROC {found[-1]:.3f}", flush=True)
    print(f"control: {np.mean(found):.3f} (goal >= 0.40 and <= 0.60, n = {len(found)} seeds)")


if __name__ == "__main__":
    main()
