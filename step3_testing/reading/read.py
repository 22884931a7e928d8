"""The reading room: look at films in a browser. Research use only, not a medical device.

    bash read.sh                       the test films, beside the truth and the metrics
    bash read.sh --predicted OUTPUT    the new films of an output folder of predict.sh
    bash read.sh --study FOLDER        a reader study: FOLDER/plan.toml is its plan, FOLDER/calls.csv its end

Prints the address of a page, with a token in it, that only this machine can open. Needs the packages of
requirements.txt beside it; nothing is asked for outside. The rooms read results and change none; a study
writes calls.jsonl and calls.csv into its folder.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from common import start
    from common.refusal import run_script

    run_script(lambda: start.read(__doc__))
