"""Start a script once a GPU, by torchrun's own machinery, and end as the script ends.

`launch.sh` calls it when the GPU argument names several (`0,1`), or when PET_NNODES names several machines.
What torchrun reads from the environment holds here as well: PET_NNODES, PET_NODE_RANK, PET_MASTER_ADDR,
PET_MASTER_PORT.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    sys.path.remove(str(Path(__file__).resolve().parent))  # or `statistics` would be ours, not Python's

from common.devices import devices_named
from common.refusal import Refusal, run_script


def launch(script: str, gpus: str, flags: list[str]) -> None:
    """Run `script --gpu GPUS FLAGS` once for each device that `gpus` names.

    Raises:
        Refusal: What the first process that failed said.
        SystemExit: It failed otherwise, with its own exit status.
    """
    count = len(devices_named(gpus))
    # takes seconds, which a refusal need not wait
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    # torchrun would set 1, which leaves most of a CPU's cores idle.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // count)))
    logging.disable()  # torchrun repeats every error at length
    one_machine = [] if "PET_NNODES" in os.environ else ["--standalone"]
    arguments = parse_args([*one_machine, f"--nproc-per-node={count}", script, "--gpu", gpus, *flags])
    try:
        run(arguments)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if isinstance(failure.message, dict):  # as `run_script` leaves it
            raise Refusal(failure.message["message"]) from None
        if failure.exitcode in (2, 3):  # a flag that does not exist, films not read: said already
            raise SystemExit(failure.exitcode) from None
        how = f"was killed by signal {-failure.exitcode}" if failure.exitcode < 0 else "failed"
        sys.stderr.write(f"error: process {rank} {how}, so the others were ended too\n")
        raise SystemExit(failure.exitcode if failure.exitcode > 0 else 1) from None
    except SignalException:
        raise KeyboardInterrupt from None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    run_script(lambda: launch(sys.argv[1], sys.argv[2], sys.argv[3:]))
