"""A system in one file: packed where it was trained, checked wherever it is used.

A bundle is a plain zip file whose members are stored, not compressed:

    manifest.json      what the bundle is, and bytes and SHA-256 of every other member
    thresholds.json    the thresholds file, which also says what the training films look like
    check.png          a synthetic film, by which a machine shows that it computes what it should
    *.safetensors      the ten networks, or a student's two, as training wrote them; each says what it was
                       made from

It holds no film of a patient and no pseudonym, and its bytes depend on no clock, host or path. The hashes
find every accident. They cannot find a forgery, whose author would have hashed it too: compare the identity
in the findings with the one that exporting printed.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
import torch
from PIL import Image
from safetensors.torch import load

from common.command_line import ExportOptions
from common.compute import set_up
from common.demo.phantom import draw_film
from common.files import whole_file
from common.films.own_outputs import RESEARCH_ONLY
from common.inference.run_networks import Predictor
from common.inference.trained_system import CLASSIFICATION, SEGMENTATION, TrainedSystem
from common.inference.two_stage_rule import OperatingPoint, parse_operating_point
from common.missing import refuse_missing_bundle
from common.networks.ensemble import Nets
from common.networks.weights import State, tensors_digest
from common.paths import bundle_file, shown, thresholds_file, weights_file
from common.prediction.deployed import PREPROCESSING, Deployed
from common.prediction.finding import ROUNDING
from common.prediction.new_films import NewFilms
from common.preparation.film_store import SIDE
from common.progress import progress
from common.recipes.recipe import LOADING_ARGS
from common.refusal import Refusal
from common.stages import EXPORT_COMMAND, STUDENTS, SYSTEMS, folds_of, stages_of

FORMAT, VERSION = "pneumothorax bundle", 1

_MANIFEST, _THRESHOLDS, _FILM = "manifest.json", "thresholds.json", "check.png"
_AGAIN = f"copy it again from where it was made, or make it there again: {EXPORT_COMMAND}"
# What a member's record in the directory (PKWARE's APPNOTE 4.3.12) holds beside its header in the file:
# made on Unix by version 2.0; no extra field, comment, other disk and internal attributes
_DIRECTORY_START, _DIRECTORY_MIDDLE = b"PK\1\2\x14\3", bytes(6)
_LARGEST_MANIFEST = 2**20  # bytes
_GRID = 16  # places along a side of the map that the check compares
_CANDIDATES, _SEED = 8, 20231  # synthetic films of which one becomes the check film
_DIGITS = 6  # of the expected values: far below what is allowed, and above what rounding disturbs

Networks = tuple[Nets, Nets]  # to classify, to segment; fold 0 first


@dataclass(frozen=True, eq=False)
class Check:
    """What the networks of a system make of a synthetic film where they were packed.

    Attributes:
        film: (1024, 1024) uint8, air dark.
        folds: (networks,) float64, probability of pneumothorax by each of five, or by the one of a student,
            0-1.
        grid: (16, 16) float64, means of the mean map over equal squares of the film, 0-1.
    """

    film: np.ndarray
    folds: np.ndarray
    grid: np.ndarray

    @classmethod
    def of(cls, trained: TrainedSystem) -> Check:
        """Draw some films and keep the one of which the networks are least certain, computed on the CPU.

        A probability next to 0 or 1 would hide what a machine gets wrong: that of a logit is multiplied by
        p (1 - p).
        """
        device = torch.device("cpu")
        networks = _networks(trained, device)
        films = [_draw(number) for number in range(_CANDIDATES)]
        predictor = Predictor(NewFilms(films), trained.image_size, device)
        found = predictor.probabilities(networks[0], range(_CANDIDATES), f"{trained.system} check films")
        film = films[int(np.argmax((found * (1 - found)).sum(axis=1)))]
        return cls(film, *(np.round(part, _DIGITS) for part in _compute(trained, film, device, networks)))

    def to_json(self) -> dict[str, Any]:
        """All but the film."""
        return {"folds": self.folds.tolist(), "map": self.grid.tolist()}

    @classmethod
    def of_json(cls, content: dict[str, Any], film: np.ndarray, networks: int) -> Check:
        """The reverse of `to_json`; ValueError, KeyError or TypeError where it is malformed."""
        folds, grid = (np.array(content[key], dtype=np.float64) for key in ("folds", "map"))
        return cls(film, folds.reshape(networks), grid.reshape(_GRID, _GRID))


@dataclass(frozen=True)
class Bundle(Deployed):
    """A system that came out of a bundle.

    Attributes:
        check: Film and expected output by which a machine shows that it computes what it should.
    """

    check: Check


def check_here(
    deployed: Deployed,
    expected: Check,
    device: torch.device,
    networks: Networks | None = None,
    tolerance: float = ROUNDING,
) -> None:
    """Refuse a machine that computes something else than the one where a system was packed.

    A refusal and no warning: the thresholds were chosen for these probabilities, what is wrong with the
    machine (a library's fault, memory that flips bits, arithmetic of lower precision) is unknown, and a
    pneumothorax missed for it can kill.

    Args:
        deployed: System that the machine is to run.
        expected: Check film and what the system should make of it.
        device: Device that it is to compute on.
        networks: Networks of another backend that compute the same; None: the system's own.
        tolerance: Largest difference of a probability or of the coarse map: 1e-4 for its own networks, 1e-3
            for those of an accelerated backend.

    Raises:
        Refusal: The probabilities differ by more, or are no numbers.
    """
    networks = networks or _networks(deployed.trained, device)
    folds, grid = _compute(deployed.trained, expected.film, device, networks)
    for what, found, known in (
        ("fold probability", folds, expected.folds),
        ("map of pneumothorax", grid, expected.grid),
    ):
        difference = float(np.abs(found - known).max())
        if not difference <= tolerance:  # NaN is no match either
            raise Refusal(
                f"this machine must not use the {deployed.system} system: it computes something else than "
                "the machine where the system was packed",
                found=f"a {what} of the check film differs by {difference:.1e}; {tolerance:.0e} is allowed",
                do="compute on the CPU (name cpu as the device) with the packages of requirements.txt; "
                "if it is refused there too, use another machine",
            )


def _networks(trained: TrainedSystem, device: torch.device) -> Networks:
    return trained.networks(CLASSIFICATION, device), trained.networks(SEGMENTATION, device)


def _compute(
    trained: TrainedSystem, film: np.ndarray, device: torch.device, networks: Networks
) -> tuple[np.ndarray, np.ndarray]:
    """Fold probabilities, (networks,), and coarse mean map, (16, 16), of a film."""
    image_size = trained.image_size
    predictor = Predictor(NewFilms([film]), image_size, device)
    folds = predictor.probabilities(networks[0], [0])[0]
    _, mean_map, _ = next(predictor.maps(networks[1], [0]))
    squares = mean_map.astype(np.float64).reshape(_GRID, image_size // _GRID, _GRID, image_size // _GRID)
    return folds, squares.mean(axis=(1, 3))


def _draw(number: int) -> np.ndarray:
    # Every other one with a lesion, so that the segmentation networks have something to differ in.
    film, _ = draw_film(np.random.default_rng([_SEED, number]), number % 2 == 0, "ntuh", SIDE)
    return film


# --- reading ---------------------------------------------------------------------------------------


def read_bundle(path: str | Path) -> Bundle:
    """Read a bundle and check all that can be checked without computing (for that see `check_here`).

    Nothing is unpacked to the disk, nothing is decompressed and no pickle is loaded.

    Raises:
        Refusal: It is missing, damaged, no bundle, or of a version or preprocessing that this project does
            not know; it holds less, more or something else than its manifest says; or its parts do not belong
            together.
    """
    path = Path(path)
    refuse_missing_bundle(path)
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            _refuse_other_layout(archive.infolist(), file)
            return _read(archive)
    except Refusal as refusal:
        found = "; ".join(str(each) for each in (refusal.what, refusal.details.get("found")) if each)
    except Exception as error:  # zip, JSON, safetensors and PNG have each their own for what is damaged
        found = f"it is damaged, or no bundle of this project ({type(error).__name__})"
    raise Refusal(f"the bundle {shown(path)} cannot be used", found=found, do=_AGAIN)


def _read(archive: zipfile.ZipFile) -> Bundle:
    manifest = _read_manifest(archive)
    system, claims = manifest["system"], manifest["members"]
    _refuse_other_members(archive.namelist(), claims, system)

    def read(name: str) -> bytes:
        content = archive.read(name)
        if claims[name] != _claim(content):
            raise Refusal(f"{name} is not what the manifest says: other size or SHA-256")
        return content

    deployed = _assemble(system, read)
    for key, value in _description(deployed).items():
        if manifest[key] != value:
            raise Refusal(f"the manifest does not belong to the rest: it says another {key}")
    check = Check.of_json(manifest["check"], _decode_film(read(_FILM)), len(folds_of(system)))
    return Bundle(deployed.trained, deployed.point, deployed.likeness, deployed.thresholds, check)


def _refuse_other_layout(entries: list[zipfile.ZipInfo], file: IO[bytes]) -> None:
    """Refuse a file that differs in any byte outside its members from what packing writes.

    The readers of zip files are lenient: a member may be compressed a thousandfold, many members may share
    their bytes, and bytes of no member may stand anywhere. The hashes of the members see none of this.
    """
    directory, at = b"", 0
    for entry in entries:
        own = _entry(entry.filename)
        own.CRC, own.file_size, own.compress_size = entry.CRC, entry.file_size, entry.file_size
        header, name = own.FileHeader(), own.filename.encode()
        _refuse_other_bytes(file, at, header)
        directory += _DIRECTORY_START + header[4:30] + _DIRECTORY_MIDDLE  # the fields of a header, repeated
        directory += struct.pack("<LL", own.external_attr, at) + name
        at += len(header) + entry.file_size
    counts = (len(entries), len(entries), len(directory), at, 0)
    _refuse_other_bytes(file, at, directory + b"PK\5\6\0\0\0\0" + struct.pack("<HHLLH", *counts), last=True)


def _refuse_other_bytes(file: IO[bytes], at: int, expected: bytes, last: bool = False) -> None:
    file.seek(at)
    if file.read(len(expected) + last) != expected:  # `last`: one byte more must not be there
        raise Refusal("it is no zip file as packing writes it: bytes were added, taken away or changed")


def _read_manifest(archive: zipfile.ZipFile) -> dict[str, Any]:
    """The manifest of a bundle that this version can read."""
    if _MANIFEST not in archive.namelist() or archive.getinfo(_MANIFEST).file_size > _LARGEST_MANIFEST:
        raise Refusal("it is no bundle of this project: it has no manifest of less than a megabyte")
    manifest = json.loads(archive.read(_MANIFEST))
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise Refusal("it is no bundle of this project: its manifest is of something else")
    if manifest["version"] != VERSION:
        raise Refusal(f"it is of version {manifest['version']}; this version of the project reads {VERSION}")
    if manifest["system"] not in (*SYSTEMS, *STUDENTS):
        raise Refusal(f"it is of the system {manifest['system']}, which this project does not know")
    if manifest["preprocessing"] != PREPROCESSING:
        raise Refusal(
            "its films are brought to the networks in another way than by this version of the project"
        )
    return manifest


def _refuse_other_members(names: list[str], claims: dict[str, Any], system: str) -> None:
    """Refuse a bundle that does not hold exactly its members, each once and in order."""
    expected = [_MANIFEST, *_files(system), _FILM]
    missing = [name for name in expected if name not in names or name not in [_MANIFEST, *claims]]
    more = [name for name in [*names, *claims] if name not in expected]
    if missing:
        raise Refusal(f"it lacks {', '.join(missing)}")
    if more:
        raise Refusal(f"it holds what is no part of a bundle: {', '.join(map(repr, more[:3]))}")
    if names != expected:
        raise Refusal("a member is there twice, or not in its place")


def _decode_film(content: bytes) -> np.ndarray:
    """(1024, 1024) uint8; the size is looked at before memory is taken for the pixels."""
    with Image.open(BytesIO(content), formats=["PNG"]) as image:
        if image.size != (SIDE, SIDE) or image.mode != "L":
            raise Refusal(f"{_FILM} is no check film")
        return np.array(image)


# --- what a bundle is made of ----------------------------------------------------------------------


def _files(system: str) -> dict[str, Path]:
    """The members that lie in the workspace, and where."""
    segmentation, classification = stages_of(system)
    nets = [
        weights_file(stage, system, fold)
        for stage in (classification, segmentation)
        for fold in folds_of(system)
    ]
    return {_THRESHOLDS: thresholds_file(system), **{path.name: path for path in nets}}


def _claim(content: bytes) -> dict[str, Any]:
    """What the manifest says of a member."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _description(deployed: Deployed) -> dict[str, Any]:
    """What the manifest says of the whole; all of it follows from the members."""
    facts = deployed.trained.facts
    return {
        "format": FORMAT,
        "version": VERSION,
        "note": RESEARCH_ONLY,
        "system": deployed.system,
        "image_size": deployed.image_size,
        "preprocessing": PREPROCESSING,
        "identity": deployed.identity,
        "preset": facts["preset"],
        "made_from": deployed.trained.made_from,
        "lineage": facts["lineage"],
    }


def _assemble(system: str, read: Callable[[str], bytes]) -> Deployed:
    """A system from the members of a bundle; `read` gives the content of one by its name.

    Raises:
        Refusal: The parts do not belong together.
    """
    networks: dict[str, list[tuple[State, dict[str, Any]]]] = {}
    for stage in stages_of(system):
        networks[stage.key] = []
        for fold in folds_of(system):
            name = weights_file(stage, system, fold).name
            state, metadata = _parse_weights(read(name))
            expected = [stage.key, STUDENTS.get(system, system), fold]
            if [metadata[key] for key in ("stage", "system", "fold")] != expected:
                raise Refusal(f"{name} holds other weights than its name says")
            _refuse_foreign_code(metadata)
            networks[stage.key].append((state, metadata))
    trained = TrainedSystem.of(system, networks)
    thresholds = json.loads(read(_THRESHOLDS))
    return Deployed.of(trained, _operating_point(trained, thresholds), thresholds)


def _parse_weights(content: bytes) -> tuple[State, dict[str, Any]]:
    """As `weights.read_weights`: state, and metadata with `sha256` of the tensors."""
    # From the very bytes that were hashed: a file could change between two readings.
    state = load(content)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    (metadata,) = header["__metadata__"].values()  # one key, holding all
    return state, json.loads(metadata) | {"sha256": tensors_digest(state)}


def _refuse_foreign_code(metadata: dict[str, Any]) -> None:
    """Refuse a network that timm would fetch from elsewhere, or fill from a file."""
    import timm  # takes seconds, which a refusal need not wait

    network = metadata["network"]
    if not timm.is_model(network["encoder"]) or set(network["encoder_args"]) & LOADING_ARGS:
        raise Refusal(f"it asks for a network that this project does not make: {network['encoder']}")


def _operating_point(trained: TrainedSystem, thresholds: dict[str, Any]) -> OperatingPoint:
    point = parse_operating_point(thresholds, trained.system, _THRESHOLDS)
    if (thresholds["made_from"], point.image_size) != (trained.made_from, trained.image_size):
        raise Refusal("its thresholds were computed from other networks or another working size")
    return point


# --- packing ---------------------------------------------------------------------------------------


def export_systems(options: ExportOptions) -> None:
    """Pack the systems asked for on the command line.

    Raises:
        Refusal: Networks or thresholds are missing or do not belong together, or the file cannot be written.
    """
    set_up(torch.device("cpu"))
    outputs = {system: Path(options.output or bundle_file(system)) for system in options.systems}
    for output in outputs.values():
        _refuse_foreign(output)
    for system, output in outputs.items():
        export(system, output)


def export(system: str, output: Path) -> Bundle:
    """Pack the system that was trained in this workspace.

    Args:
        system: `eff` or `vit`; `eff_student` or `vit_student`.
        output: Path of the bundle, written whole or not at all; an earlier bundle is replaced.

    Returns:
        What the bundle holds.

    Raises:
        Refusal: Networks or thresholds are missing or do not belong together, or the file cannot be written,
            or would replace something else than a bundle.
    """
    _refuse_foreign(output)
    Deployed.of_workspace(system, "export")  # says what is missing, and the command that makes it
    files = _files(system)
    claims: dict[str, dict[str, Any]] = {}

    def read(name: str) -> bytes:
        content = files[name].read_bytes()  # once to be checked, once to be packed: the same both times
        if claims.setdefault(name, _claim(content)) != _claim(content):
            raise Refusal(
                f"{shown(files[name])} changed while it was packed", do="export again when it is finished"
            )
        return content

    deployed = _assemble(system, read)
    check = Check.of(deployed.trained)
    film = cv2.imencode(".png", check.film)[1].tobytes()
    members = {name: claims[name] for name in files} | {_FILM: _claim(film)}
    manifest = _description(deployed) | {"members": members, "check": check.to_json()}
    with whole_file(output) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        _add(archive, _MANIFEST, (json.dumps(manifest, indent=1, allow_nan=False) + "\n").encode())
        with progress(len(files), f"{system} members", unit="file") as bar:
            for name in files:
                _add(archive, name, read(name))
                bar.update()
        _add(archive, _FILM, film)
    bundle = Bundle(deployed.trained, deployed.point, deployed.likeness, deployed.thresholds, check)
    _say(bundle, output)
    return bundle


def _refuse_foreign(output: Path) -> None:
    """Refuse to replace what is no bundle, of whatever version."""
    if not output.exists() and not output.is_symlink():
        return
    try:
        with zipfile.ZipFile(output) as archive:
            ours = not output.is_symlink() and json.loads(archive.read(_MANIFEST))["format"] == FORMAT
    except Exception:  # zip and JSON have each their own for what is something else
        ours = False
    if not ours:
        raise Refusal(
            f"{shown(output)} is there already",
            found="a link" if output.is_symlink() else "no bundle of this project",
            do="name another file (--output), or move it away",
        )


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    archive.writestr(_entry(name), content)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)  # of 1980, as early as the format knows
    entry.create_system, entry.external_attr = 3, 0o644 << 16  # not this machine's
    return entry


def _say(bundle: Bundle, output: Path) -> None:
    point = bundle.point
    print(
        f"{bundle.system}: {2 * len(folds_of(bundle.system))} networks at {bundle.image_size} x "
        f"{bundle.image_size}, thresholds {point.cls_threshold:.4f} and {point.seg_threshold} pixels, "
        f"{RESEARCH_ONLY}\n"
        "  holds no film of a patient; one synthetic film, by which a machine that uses it is checked\n"
        f"  identity {bundle.identity}\n"
        f"  -> {shown(output)}, {output.stat().st_size / 1e6:,.1f} MB"
    )
