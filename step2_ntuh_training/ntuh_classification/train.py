"""Step 2.2: fine-tune the classification models on the hospital's films, five folds, from step 1.2's weights.

    bash train.sh                   both systems, all folds, on GPU 0
    bash train.sh 1 --folds 0 1     two folds, on GPU 1

Reads data/ntuh (or --ntuh PATH). Writes model_weights/fold_<k>_<system>_cls_ntuh.safetensors and runs/.
The order of steps 2.1 and 2.2 does not matter.
"""

if __name__ == "__main__":  # all imports are below: processes that read films import this file again
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from common import start
    from common.refusal import run_script

    run_script(lambda: start.train("ntuh_classification", __doc__))
