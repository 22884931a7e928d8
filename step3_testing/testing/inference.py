"""Step 3.1: both systems on the test films.

    bash inference.sh             on GPU 0;  bash inference.sh cpu: without a GPU
    bash inference.sh 0,1         on both: each takes its share of the films

Reads the networks and thresholds of step 2. Writes result_<system>/: cases.csv (the tested cases, a row a
film; meta.json says what its columns mean), meta.json, flow.json, and maps/, truth/ and films/ with the
pictures. Interrupted, even killed, the same command goes on where it stopped. Films without a label are
predicted and never counted. python bootstrap.py then computes the metrics, without a GPU.
"""

if __name__ == "__main__":  # all imports are below: processes that read films import this file again
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from common import start
    from common.refusal import run_script

    run_script(lambda: start.inference(__doc__))
