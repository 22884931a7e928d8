"""A trained system on new films, one or many: the same loop, rule and geometry as in testing.

    from common.prediction.predictor import FilmPredictor

    predictor = FilmPredictor.open("eff", gpu="cpu")             # trained in this workspace, or
    predictor = FilmPredictor.open(bundle="eff.bundle")          # packed by export.sh
    finding = predictor.predict("film.dcm")                      # or a (height, width) uint8 array, air dark
    finding.decision, finding.probability, finding.outline

Research use only, not a medical device.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.compute import set_up
from common.distributed import one_device
from common.files import json_text
from common.films.decode import Film
from common.inference.run_networks import PRECISION, Predictor
from common.inference.trained_system import CLASSIFICATION, SEGMENTATION
from common.networks.ensemble import Nets
from common.paths import shown
from common.prediction.bundle import Bundle, check_here, read_bundle
from common.prediction.deployed import PREPROCESSING, Deployed
from common.prediction.finding import ROUNDING, Finding, find
from common.prediction.finding_files import FindingFiles, adopt_findings, same_maker, write_finding
from common.prediction.new_films import FilmReader, NewFilm, NewFilms, read_new_film
from common.prediction.suitability import Concern, concerns_of
from common.prediction.written_files import WrittenFiles
from common.preparation.film_store import SIDE
from common.refusal import Refusal
from common.stages import SYSTEMS, Stage

ACCELERATED_ROUNDING = 1e-3  # by which another backend may differ in a probability


class FilmPredictor:
    """A system ready to say what it finds in films.

    Args:
        deployed: System that predicts.
        device: Device to compute on.
        backend: `torch`, or `openvino` for the same networks, compiled for a CPU.

    Raises:
        Refusal: The backend is not installed; or the system is a bundle's, and this machine computes
            something else than the one where it was packed.
    """

    def __init__(self, deployed: Deployed, device: torch.device, backend: str = "torch") -> None:
        set_up(device)
        self.deployed, self.device, self.backend = deployed, device, backend
        self._written: WrittenFiles | None = None
        if isinstance(deployed, Bundle):
            allowed = ROUNDING if backend == "torch" else ACCELERATED_ROUNDING
            check_here(deployed, deployed.check, device, (self._classifiers, self._segmenters), allowed)

    @classmethod
    def open(
        cls,
        system: str | None = None,
        bundle: str | Path | None = None,
        gpu: str = "cpu",
        backend: str = "torch",
    ) -> FilmPredictor:
        """The system trained in this workspace, or that of a bundle.

        Args:
            system: `eff` or `vit`, `eff_student` or `vit_student`; not needed with a bundle.
            bundle: Path of a bundle made by export.sh.
            gpu: Number of the GPU, or `cpu`.
            backend: `torch`, or `openvino` on a CPU.

        Raises:
            Refusal: It is missing, incomplete or damaged, or there is no such GPU or backend.
        """
        device = one_device(gpu)
        if bundle is None:
            return cls(Deployed.of_workspace(system or SYSTEMS[0], "prediction"), device, backend)
        deployed = read_bundle(bundle)
        if system not in (None, deployed.system):
            raise Refusal(
                f"the bundle {shown(Path(bundle))} holds the system {deployed.system}, not {system}"
            )
        return cls(deployed, device, backend)

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What its findings are made by: plain JSON without clock, host or path."""
        facts, point = self.deployed.trained.facts, self.deployed.point
        return {
            "system": self.deployed.system,
            "identity": self.deployed.identity,
            **point.facts(),
            "preset": facts["preset"],
            **self.deployed.trained.made_from,
            "lineage": facts["lineage"],
            "preprocessing": PREPROCESSING,
            "device": self.device.type,
            "precision": PRECISION,
            "backend": self.backend,
            "torch": torch.__version__,
        }

    def predict(self, film: str | Path | np.ndarray) -> Finding:
        """What the system says of one film.

        Args:
            film: A DICOM, PNG, JPEG or TIFF file, read in this process; or (height, width) uint8, air dark.

        Raises:
            FilmFault: The file cannot be read; the message says why.
            ValueError: The array is no film.
        """
        if not isinstance(film, np.ndarray):
            return self.findings([read_new_film(Path(film))])[0]
        if film.ndim != 2 or film.dtype != np.uint8 or 0 in film.shape:
            raise ValueError(f"a film is (height, width) uint8, not {film.shape} {film.dtype}")
        return self.findings([NewFilm.of(Film(np.ascontiguousarray(film)))])[0]

    def process(self, path: Path, folder: Path) -> list[Path]:
        """Predict a film that came to the listener, reading it in a process that may be lost.

        Args:
            path: Path of the DICOM file, `<number>_<case>.dcm`.
            folder: Folder that the finding is written to, as by predict.sh.

        Returns:
            The DICOM objects that go back to the archive.

        Raises:
            FilmFault: It cannot be read, or its place among the findings is taken; the message says why.
            Refusal: The disk is full, or the machine cannot compute any more.
        """
        film, written = self._reader.read(path), self._written_in(folder)
        files = FindingFiles(folder, path.stem.split("_")[-1]).of_film(film)
        known = files.read()
        if known and film.file and known["film"]["file"] == film.file.digest and self._made(known):
            objects = [path for path in files.objects if path.is_file()]
            if all(written.is_ours(path) for path in files.all):
                return objects
        try:
            finding = self.findings([film])[0]
        except Exception:
            self._require_working()
            raise
        _, objects = write_finding(files, film, finding, self.provenance, written)
        return objects

    def _made(self, content: dict[str, Any]) -> bool:
        """Whether a finding was made by this very system."""
        # By way of JSON, as what it is compared with came.
        return same_maker(content["made_by"], json.loads(json_text(self.provenance)))

    def _require_working(self) -> None:
        """Tell a fault of the machine from one of a film: the first one strikes at a blank film, too.

        Raises:
            Refusal: The networks cannot be computed, so that it is the machine.
        """
        size = self.deployed.image_size
        blank = NewFilms([np.zeros((SIDE, SIDE), dtype=np.uint8)])
        predictor = Predictor(blank, size, self.device, batch_size=1)
        try:
            dict(predictor.scores(self._classifiers, [0]))  # nothing is computed before it is asked for
            list(predictor.maps(self._segmenters, [0]))
        except Exception as error:
            raise Refusal(
                "this machine cannot compute any more", found=type(error).__name__, do="start again"
            ) from error

    def findings(self, films: Sequence[NewFilm]) -> list[Finding]:
        """What the system says of films; stage 2 runs only where stage 1 says positive."""
        squares = NewFilms([each.square for each in films])
        alone = 1 if self.device.type == "cpu" else 0  # for the same bits whatever films are beside it
        predictor = Predictor(squares, self.deployed.image_size, self.device, batch_size=alone)
        rows = np.arange(len(films))
        point = self.deployed.point
        folds = dict(predictor.scores(self._classifiers, rows))
        # With a type, since an empty list would become an array of floats, which is no index.
        called = np.array(
            [row for row in rows.tolist() if point.stage_1(float(np.mean(folds[row])))], dtype=int
        )
        maps = {}
        if len(called):
            maps = {row: found for row, found, _ in predictor.maps(self._segmenters, called)}
        return [
            find(each.film, folds[row].tolist(), maps.get(row), point, self._concerns(each))
            for row, each in enumerate(films)
        ]

    def _concerns(self, film: NewFilm) -> list[Concern]:
        return concerns_of(film.film, film.square, self.deployed.likeness)

    def _written_in(self, folder: Path) -> WrittenFiles:
        """The manifest of the listener's folder, read when its first film comes."""
        if self._written is None or self._written.folder != folder:
            known = WrittenFiles.known_in(folder)
            self._written = WrittenFiles(folder)
            if not known:
                adopt_findings(folder, self._written)
        return self._written

    @cached_property
    def _reader(self) -> FilmReader:
        return FilmReader()

    @cached_property
    def _classifiers(self) -> Nets:
        return self._networks(CLASSIFICATION)

    @cached_property
    def _segmenters(self) -> Nets:
        """Loaded when the first film needs them."""
        return self._networks(SEGMENTATION)

    def _networks(self, stage: Stage) -> Nets:
        if self.backend == "torch":
            return self.deployed.trained.networks(stage, self.device)
        from common.networks.openvino_backend import accelerate  # its package is optional

        nets = self.deployed.trained.each_network(stage, self.device)  # one in memory at a time
        return [accelerate(nets, self.deployed.image_size)]
