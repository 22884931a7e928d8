"""New films by DICOM: received, predicted, findings sent on. Research use only, not a medical device.

    bash listen.sh --caller MODALITY1 --destination PACS@127.0.0.1:11113          on GPU 0
    bash listen.sh cpu --backend openvino --caller MODALITY1 --caller MODALITY2   without GPU and destination
    bash listen.sh 1 --bundle eff.bundle --caller MODALITY1                       by a system packed elsewhere

Try it: `echoscu -aet MODALITY1 -aec PTX 127.0.0.1 11112`, then `storescu` with a film. Needs pynetdicom
(pip install pynetdicom). Films are processed in order of arrival; of each, the folder gets what predict.sh
writes, and the destination the DICOM objects among it. Who is not named by --caller is refused.

A film that was accepted is not lost, whatever happens: started again with the same command after a kill, the
listener goes on. It is deleted when its results were sent. A fault of the machine stops the queue and costs
no film; what the destination refuses for now is sent again for --give-up days. What cannot be read or sent is
listed in rejected.csv and kept in rejected/; to have it tried again, move it back to inbox/ (.dcm) or outbox/
(.json) and start again. Ctrl-C or SIGTERM: the film at hand is finished, and the exit status is 0.
"""

if __name__ == "__main__":  # all imports are below: processes that read films import this file again
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from common import start
    from common.refusal import run_script

    run_script(lambda: start.listen(__doc__))
