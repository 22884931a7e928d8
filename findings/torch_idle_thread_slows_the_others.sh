#!/usr/bin/env bash
# With torch 2.14.1 on a CPU, a thread that once added two tensors and now waits makes the network of another thread
# slower for good, here 1.3 times on 2 cores (up to 2 times in a training). One would guess that an idle thread costs
# nothing. Each Python thread that computes with torch gets a team of as many OpenMP threads as there are cores, which
# stays; and torch's libgomp, once it manages more threads than there are cores, lets every team fall asleep right after
# each operation instead of waiting awake for the next. A network has hundreds of short ones, and each wakes its team by
# the kernel: what this counts are the process's voluntary context switches. A checkpoint written by a thread of its
# own, or a server that loads its networks in one thread and answers in another, is enough. If the other thread limits
# OpenMP to one thread first (threadpoolctl 3.8.0), all is as before.
#
#   bash findings/torch_idle_thread_slows_the_others.sh      installs in a temporary folder; fails when this is no longer so
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    torch==2.14.1 threadpoolctl==3.8.0 numpy==2.4.6

cat > "$folder/steps.py" <<'PYTHON'
import resource
import statistics
import sys
import threading
import time

import torch
from threadpoolctl import threadpool_limits

net = torch.nn.Sequential(*(torch.nn.Conv2d(16, 16, 3, padding=1) for _ in range(100)))
film = torch.rand(1, 16, 96, 96)


def steps():
    """Median milliseconds of a forward pass, and voluntary context switches of the process in each."""
    with torch.inference_mode():
        for _ in range(5):
            net(film)
        seconds, before = [], resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
        for _ in range(40):
            begun = time.perf_counter()
            net(film)
            seconds.append(time.perf_counter() - begun)
        switches = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before
    return 1000 * statistics.median(seconds), switches / 40


def once():
    if sys.argv[1] == "limited":
        threadpool_limits(1, "openmp")
    (torch.ones(1 << 20) + 1).sum()
    done.set()
    end.wait()


done, end = threading.Event(), threading.Event()
before = steps()
other = threading.Thread(target=once)
other.start()
done.wait()
after = steps()
end.set()
other.join()
print(*before, *after)
PYTHON

"$folder/venv/bin/python" -W ignore - "$folder" <<'PYTHON'
import os
import subprocess
import sys

cores = len(os.sched_getaffinity(0))
if cores < 2:
    sys.exit("needs two cores")
outcomes = {}
for kind in ("usual", "limited"):
    command = [sys.executable, "-W", "ignore", f"{sys.argv[1]}/steps.py", kind]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_", "MKL_"))}
    said = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    milliseconds, switches, later, more = map(float, said.split())
    outcomes[kind] = later / milliseconds, more / (switches + 1)
    print(f"{kind}: {milliseconds:.1f} ms and {switches:.0f} switches a pass; with the idle thread {later:.1f} ms and {more:.0f}")
if not outcomes["usual"][1] > 10 or not outcomes["limited"][1] < 3:
    sys.exit("changed")
print(f"as seen: {outcomes['usual'][0]:.2f} times as long beside an idle thread, {outcomes['limited'][0]:.2f} if it was limited")
PYTHON
