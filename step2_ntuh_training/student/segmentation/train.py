"""Step 2.4: one segmentation network for five, the student of those of step 2.1.

    bash train.sh                   both systems, on GPU 0: five students that hold out a fold, then the final
    bash train.sh 1 --folds 0 1     two of the five, on GPU 1; the final one comes where all folds are named

Reads data/ntuh (or --ntuh PATH), the weights of step 1.1 and the networks of steps 2.1 and 2.2, whose
recipe it obeys. common/training/teachers.py says who teaches which student. Writes model_weights/
fold_<k>_<system>_seg_student.safetensors, <system>_seg_student.safetensors and runs/.
"""

if __name__ == "__main__":  # all imports are below: processes that read films import this file again
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
    from common import start
    from common.refusal import run_script

    run_script(lambda: start.train("student_segmentation", __doc__))
