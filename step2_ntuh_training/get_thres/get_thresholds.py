"""Step 2.3: the thresholds of both systems, from their out-of-fold predictions only.

    bash get_thresholds.sh                          on GPU 0;  bash get_thresholds.sh cpu: without a GPU
    bash get_thresholds.sh 0,1                      on two GPUs, each with half of the films
    bash get_thresholds.sh 0 --rule sensitivity-95  another rule than Youden's; choose it before testing
    bash get_thresholds.sh 0 --rule lowest-cost --prevalence 0.1 --cost-ratio 5
    bash get_thresholds.sh 0 --area-rule percentile-2.5

Reads the networks of steps 2.1 and 2.2. Writes in cls_<system>_5fold_result: 5cv_avg.json (both thresholds,
what the other rules would choose, and how steady they are), out_of_fold.csv, roc.png and dice.png.
"""

if __name__ == "__main__":  # all imports are below: processes that read films import this file again
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from common import start
    from common.refusal import run_script

    run_script(lambda: start.get_thresholds(__doc__))
