"""Step 3.3: a trained system on new films. Research use only, not a medical device.

    bash predict.sh INPUT OUTPUT                 a film or a folder of films, on GPU 0
    bash predict.sh INPUT OUTPUT cpu             without a GPU;  cpu --backend openvino: the same, faster
    bash predict.sh INPUT OUTPUT 0,1             several share the films;  --shard 0/4: so do several machines
    bash predict.sh INPUT OUTPUT 0 --bundle eff.bundle      with a system that export.sh packed elsewhere

Needs no label and no training data. Writes in OUTPUT: findings.csv (a row a film), unread.csv (what could not
be read, and why), and for each film findings/<case>.json (the same and what it was made by),
overlays/<case>.png (the film with the outline) and, for DICOM, dicom/<case>_segmentation.dcm, _overlay.dcm
and, if positive, _outline.dcm, which belong to the patient's study and therefore hold his or her identity.
Interrupted, the same command goes on. written.jsonl lists all files that were written; --fresh deletes
these, as long as nobody changed them, and nothing else. INPUT and OUTPUT must not lie in each other.

Exit status: 0 all films were read, 3 some were not, 2 nothing could be done.
"""

if __name__ == "__main__":  # all imports are below: processes that read films import this file again
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from common import start
    from common.refusal import run_script

    run_script(lambda: start.predict(__doc__))
