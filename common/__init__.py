"""What the three phases share. Nothing is installed: each script puts the repository root on `sys.path`."""

import importlib.util
import sys

__version__ = "0.1.0"  # the one place: CITATION.cff and CHANGELOG.md repeat it, and a test holds them equal

if not (3, 10) <= sys.version_info[:2] <= (3, 13):
    sys.stderr.write(
        f"error: Python {sys.version_info[0]}.{sys.version_info[1]} is not supported\n"
        "  needs:   Python 3.10, 3.11, 3.12 or 3.13\n"
    )
    raise SystemExit(2)

# A script started with the wrong interpreter deserves one sentence instead of an import traceback.
_NEEDED = "numpy pandas sklearn cv2 pydicom torch timm monai tyro xxhash highdicom"
_missing = [name for name in _NEEDED.split() if importlib.util.find_spec(name) is None]
if _missing:
    sys.stderr.write(
        f"error: this Python ({sys.executable}) lacks the project's packages\n"
        f"  missing: {', '.join(_missing)}\n"
        "  do:      source .venv/bin/activate    (in the repository root; `bash test.sh` makes .venv)\n"
        "           or pip install -r requirements.txt in your own environment\n"
    )
    raise SystemExit(2)
