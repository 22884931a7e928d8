"""Step 1.2: train the classification models on SIIM-ACR, from step 1.1's weights.

    bash train.sh                 both systems, eff then vit, on GPU 0
    bash train.sh 1               on GPU 1;  bash train.sh cpu: without a GPU

Each is step 1.1's whole network plus a new head. Writes model_weights/<system>_cls_siim.safetensors and
runs/.
"""

if __name__ == "__main__":  # all imports are below: processes that read films import this file again
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from common import start
    from common.refusal import run_script

    run_script(lambda: start.train("siim_classification", __doc__))
