"""A listener whose `process` is a stand-in: it decodes films as the project does, and finds nothing.

    python -m tests.listener_process --caller MODALITY1 ...

STAND_IN_FILMS, if set, is the number of the film at which it waits to be killed.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pydicom
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

from common import start
from common.command_line import ListenOptions
from common.files import digest, whole_file, write_json
from common.films.decode import read_film
from common.prediction.listener.receive import Process
from common.refusal import run_script


def result_uid(source: str) -> str:
    """SOP Instance UID of the object that is made of a film."""
    return f"2.25.{int(digest('stand-in', source)[:30], 16)}"


def stand_in(path: Path, folder: Path) -> list[Path]:
    """Decode the film, write a finding, and one small object that follows from the film."""
    read_film(path)
    film = pydicom.dcmread(path, stop_before_pixels=True)
    case = path.stem.split("_")[1]
    write_json(folder / "findings" / f"{case}.json", {"finding": {"decision": "negative"}})
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    made.SOPClassUID = uid.SecondaryCaptureImageStorage
    made.SOPInstanceUID = result_uid(film.SOPInstanceUID)
    made.PatientID, made.StudyInstanceUID = film.PatientID, film.StudyInstanceUID
    target = folder / "dicom" / f"{case}_overlay.dcm"
    with whole_file(target) as temporary:
        made.save_as(temporary, enforce_file_format=True)
    return [target]


def _prepare(_: ListenOptions) -> Process:
    def process(path: Path, folder: Path) -> list[Path]:
        if path.stem.split("_")[0].lstrip("0") == os.environ.get("STAND_IN_FILMS"):
            threading.Event().wait()
        return stand_in(path, folder)

    return process


if __name__ == "__main__":
    run_script(lambda: start.listen("The listener of the tests.", _prepare))
