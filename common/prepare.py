"""Prepare the films ahead of the first stage that needs them, by rules other than the default ones if wanted.

    bash common/prepare.sh                                   data/siim and data/ntuh, those that exist
    bash common/prepare.sh --ntuh PATH --views AP            a hospital's films, anteroposterior ones only
    bash common/prepare.sh --ntuh PATH --test-from 2020-01-01    a case table, split by date
    bash common/prepare.sh --shard 0/4                       a share of the films; the last finishes the sets
    bash common/prepare.sh --write-template FILE             an example of a case table
    bash common/prepare.sh --check-table PATH                what is in a case table and what is wrong in it

Writes data/prepared/: films and masks, cases.csv (the prepared cases), flow.json and flow.png (every film
accounted for), rejected.csv (films not prepared, and why), leaks.csv (pairs of films that should not be in
two parts). Interrupted, the same command goes on. Every later step takes the films as they were prepared
here.
"""

if __name__ == "__main__":  # all imports are below: processes that prepare films import this file again
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    sys.path.remove(str(Path(__file__).resolve().parent))  # or `statistics` would be ours, not Python's
    from common import start
    from common.refusal import run_script

    run_script(lambda: start.prepare(__doc__))
