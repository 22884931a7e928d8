"""The pause between two epochs, in which a GPU has nothing to do: at full size, by two commits.

    python benchmarks/pause.py                        against 41e1b68: ten minutes on two cores
    python benchmarks/pause.py --base HEAD --quick    against another commit, `eff` only, one round

No GPU is needed. Networks, films and checkpoints have their full size, and all is read, copied, hashed, drawn
and written as in a classification run with 4 workers; only what a GPU computes is left out: a pass of the
network gives zeros at once, and a step waits. The pause is the time from the end of an epoch's last step to
the beginning of the next epoch's first. The trees take turns, each time in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

REPOSITORY = Path(__file__).resolve().parents[1]
GOAL, BASE = 0.5, "41e1b68"
EPOCHS, STEPS, SECONDS = 5, 6, 0.5  # of a run; the seconds are a step's
ROUNDS = 3

if TYPE_CHECKING:
    import torch


def measure(tree: Path, system: str, workspace: Path) -> list[float]:
    """Seconds of the pauses in a run by the modules of a tree, but for the first, which takes new memory."""
    sys.path.insert(0, str(tree))
    import numpy as np
    import torch

    from benchmarks.training_loop import fit_of, prepared

    films = prepared(workspace)
    arguments = argparse.Namespace(preset="published", image_size=512, gpu="cpu", steps=STEPS)
    fit = fit_of(films, system, arguments, workspace / "runs" / system)
    object.__setattr__(fit.predictor, "workers", 4)
    object.__setattr__(fit.predictor, "batch_size", 2 * fit.recipe.batch_size)  # as `stage.py` has it
    loader_of = sys.modules[type(fit.sampler).__module__].training_loader  # wherever the tree has it
    fit = replaced(
        fit,
        loader=loader_of(fit.loader.dataset, fit.sampler, 4, pin=False),
        validation=np.arange(len(films.cases)),
    )
    for parameter in fit.learner.net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    fit.learner.optimiser.step()  # from here on it has its moments
    compute_nothing(type(fit.learner.net))
    steps: list[float] = []

    def step(*_: object) -> torch.Tensor:
        steps.append(time.perf_counter())
        time.sleep(SECONDS)
        steps.append(time.perf_counter())
        return torch.zeros(2)

    fit.learner.step = step
    fit.run()
    ends, begins = steps[2 * STEPS - 1 :: 2 * STEPS], steps[2 * STEPS :: 2 * STEPS]
    return [begin - end for end, begin in zip(ends, begins, strict=False)][1:]


def replaced(fit: Any, **changes: Any) -> Any:
    """A run with other parts, that ends after `EPOCHS` epochs."""
    from dataclasses import replace

    for name, value in changes.items():
        setattr(fit, name, value)
    fit.recipe = replace(fit.recipe, epochs=EPOCHS)
    return fit


def compute_nothing(net: Any) -> None:
    """Have the class of networks answer at once, by whichever of its methods is asked."""
    import torch

    def masks(film: torch.Tensor) -> torch.Tensor:
        return torch.zeros(1).expand(len(film), 2, *film.shape[2:])

    def logits(film: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(film))

    net.forward = lambda self, film: (masks(film), logits(film))
    net.classify = lambda self, film: logits(film)
    net.features = lambda self, film: [film]
    net.masks = lambda self, features: masks(features[0])
    net.logits = lambda self, features: logits(features[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--base", default=BASE)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--measure", nargs=2, metavar=("TREE", "SYSTEM"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        tree, system = arguments.measure
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(Path(tree), system, Path(folder))))
        return
    import numpy as np

    sys.path.insert(0, str(REPOSITORY))
    from benchmarks.same_results import check_out

    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        trees = {"before": check_out(arguments.base, Path(folder) / "base"), "now": REPOSITORY}
        for system in ("eff",) if arguments.quick else ("eff", "vit"):
            pauses: dict[str, list[float]] = {name: [] for name in trees}
            for _ in range(1 if arguments.quick else ROUNDS):
                for name, tree in trees.items():
                    pauses[name] += _by(tree, system)
            before, now = (float(np.median(pauses[name])) for name in trees)
            spread = ", ".join(f"{min(each):.2f}-{max(each):.2f} s {name}" for name, each in pauses.items())
            print(f"{system}: {before:.2f} s before, {now:.2f} s now ({spread})", flush=True)
            worst = max(worst, now / before)
    print(f"pause: {worst:.2f} (goal <= {GOAL})")


def _by(tree: Path, system: str) -> list[float]:
    command = [sys.executable, __file__, "--measure", str(tree), system]
    done = subprocess.run(command, cwd=tree, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
