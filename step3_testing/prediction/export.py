"""Pack a trained system in one file, to predict on a machine that has neither training data nor workspace.

    bash export.sh                                            both systems: eff.bundle and vit.bundle
    bash export.sh --system eff --output /media/eff.bundle    one of them, elsewhere
    bash predict.sh INPUT OUTPUT cpu --bundle eff.bundle      predicts from it, there
    bash export.sh --onnx                                     eff_onnx/, vit_onnx/: for other programs

A bundle holds the ten networks, the thresholds, what the training films look like (in numbers), how films are
prepared, and what all of it was made from; no film of a patient, and no pseudonym. Every part is hashed, and
predict.sh checks all hashes; the identity printed here stands in every finding and tells one system from
another. A synthetic film is in it too: a machine on which its probability differs by more than 1e-4 is
refused. Packing computes on the CPU, for a few minutes. With --onnx each network and each task's five folds
become ONNX files, each compared with torch before it counts; system.json beside them has thresholds and rule.

Research use only, not a medical device.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from common import start
    from common.refusal import run_script

    run_script(lambda: start.export(__doc__))
