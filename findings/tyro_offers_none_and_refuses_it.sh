#!/usr/bin/env bash
# tyro 1.0.17: DisallowNone keeps None out of the help and of what is accepted, not out of the message. For an option
# of type Literal["a", "b"] | None, help says {a,b}. Who types another value is told "Expected one of ('a', 'None',
# 'b')", in an order that changes from run to run; who then types None is refused, by "choices ('a', 'b')".
#
#   bash findings/tyro_offers_none_and_refuses_it.sh      installs in a temporary folder; fails when this is no longer so
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check tyro==1.0.17

cat > "$folder/options.py" <<'PYTHON'
import dataclasses
from typing import Literal

import tyro


@dataclasses.dataclass
class Options:
    kind: Literal["a", "b"] | None = None


print(tyro.cli(Options, config=(tyro.conf.DisallowNone,)))
PYTHON

"$folder/venv/bin/python" - "$folder/options.py" <<'PYTHON'
import os
import re
import subprocess
import sys


def answer(*words, seed="0"):
    """What it says, in one line, and its exit status."""
    done = subprocess.run(
        [sys.executable, sys.argv[1], *words], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True
    )
    return " ".join(re.sub("[│─╭╮╰╯]", " ", done.stdout + done.stderr).split()), done.returncode


shown, _ = answer("--help")
offered = {answer("--kind", "c", seed=str(seed))[0] for seed in range(8)}
refused, status = answer("--kind", "None")
orders = sorted({re.search(r"Expected one of \((.*?)\)", text)[1] for text in offered})
print("help:", re.search(r"--kind \{.*?\}", shown)[0])
print("offered for another value:", orders)
print("None:", status, re.search(r"does not match choices \(.*?\)", refused)[0])
if not all("'None'" in each for each in orders) or len(orders) < 2 or status != 2 or "None}" in shown:
    sys.exit("changed")
print("as seen")
PYTHON
