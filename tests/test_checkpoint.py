"""`last.pt`: what is read back is what was written, damage is refused, and a failed write costs nothing."""

from __future__ import annotations

import errno
import json
import os
import pickle
import pickletools
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import REPOSITORY

from common.compute import seed_torch
from common.files import canonical_json
from common.networks import weights
from common.networks.weights import tensors_digest
from common.recipes.presets import preset_network
from common.refusal import Refusal
from common.training import checkpoint
from common.training.checkpoint import Best, Progress

FACTS = {"recipe": {"epochs": 3, "learning_rate": 1e-4 / 3}, "lineage": [{"stage": "start"}]}
# Floats that a careless format would round, and the signed zero
PROGRESS = Progress(
    epoch=2,
    losses=[0.1 + 0.2, 1 / 3, 5e-324, -0.0, 1.7976931348623157e308],
    positives=[0.25, 2 / 3, 1.0, 0.0, 0.1],
    seconds=12.000000000000002,
    log=[{"epoch": 1, "score": 1 / 7, "auroc": None}, {"epoch": 2, "score": 0.1 + 0.7, "auroc": 0.5}],
)


class Trained:
    """A network with its optimiser and scaler, after some steps on made-up gradients."""

    def __init__(self, net: torch.nn.Module, steps: int = 0, scaled: bool = False) -> None:
        self.net = net
        self.optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.05)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, enabled=scaled)
        self.steps = 0
        for _ in range(steps):
            self.step()

    @classmethod
    def demo(cls, system: str, seed: int = 0, **options: Any) -> Trained:
        seed_torch(seed)
        described = weights.network_facts(preset_network("demo", system))
        return cls(weights.build({"network": described, "task": "cls"}), **options)

    @classmethod
    def small(cls, **options: Any) -> Trained:
        """A network so small that the format's own bytes are most of the file."""
        seed_torch(0)
        return cls(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2)), **options)

    def step(self) -> None:
        self.steps += 1
        seed_torch(7, self.steps)
        for weight in self.net.parameters():
            weight.grad = torch.randn_like(weight)
        self.optimiser.step()
        for name, buffer in self.net.named_buffers():
            if "running" in name:
                buffer.add_(0.01 * self.steps)

    def best(self) -> Best:
        """Other weights than the network has now."""
        return Best({name: tensor * 2 for name, tensor in self.net.state_dict().items()}, 2, 0.1 + 0.7)

    def save(self, path: Path, progress: Progress | None = None) -> Progress:
        progress = progress or replace(PROGRESS, best=self.best())
        checkpoint.take(path, FACTS, progress, self.net, self.optimiser, self.scaler).write()
        return progress

    def restore(self, path: Path) -> Progress:
        return checkpoint.restore(path, self.net, self.optimiser, self.scaler)

    def facts(self) -> dict[str, Any]:
        """All of it, in a form that two of them can be compared in, bit for bit."""
        moments = self.optimiser.state_dict()["state"]
        tensors = dict(self.net.state_dict())
        tensors |= {
            f"{number}.{key}": tensor for number, each in moments.items() for key, tensor in each.items()
        }
        return {
            "tensors": tensors_digest(tensors),
            "names": sorted(tensors),
            "strides": {name: tensor.stride() for name, tensor in tensors.items()},
            "scaler": self.scaler.state_dict(),
        }


def _told(progress: Progress) -> tuple[Any, ...]:
    """A progress in a form that two of them can be compared in; repr shows each bit of a float."""
    best = progress.best
    known = best and (tensors_digest(best.state), best.epoch, repr(best.score))
    log = [sorted(row.items()) for row in progress.log]
    return repr(replace(progress, best=None, log=[])), repr(log), known


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- what is read back -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("system", ["eff", "vit"])
@pytest.mark.parametrize(
    ("steps", "with_best", "scaled"), [(3, True, True), (3, False, False), (0, False, True)]
)
def test_round_trip_is_exact(tmp_path: Path, system: str, steps: int, with_best: bool, scaled: bool) -> None:
    path = tmp_path / "last.pt"
    one = Trained.demo(system, steps=steps, scaled=scaled)
    if scaled:
        one.scaler.load_state_dict(one.scaler.state_dict() | {"scale": 2.0**9, "_growth_tracker": 77})
    saved = one.save(path, replace(PROGRESS, best=one.best() if with_best else None))
    other = Trained.demo(system, seed=1, scaled=scaled)
    assert other.facts()["tensors"] != one.facts()["tensors"]
    assert _told(other.restore(path)) == _told(saved)
    assert other.facts() == one.facts()
    assert checkpoint.read_facts(path) == FACTS
    assert checkpoint.read_progress(path) == (2, 5)
    other.steps = one.steps
    one.step()  # what follows is the same, too
    other.step()
    assert other.facts() == one.facts()


def test_what_was_taken_is_written_although_training_went_on(tmp_path: Path) -> None:
    one = Trained.small()
    one.step()
    before = one.facts()
    taken = checkpoint.take(tmp_path / "last.pt", FACTS, PROGRESS, one.net, one.optimiser, one.scaler)
    one.step()
    taken.write()
    other = Trained.small()
    other.restore(tmp_path / "last.pt")
    assert other.facts() == before != one.facts()


def test_best_is_no_view_of_the_network(tmp_path: Path) -> None:
    one = Trained.small(steps=1)
    one.save(tmp_path / "last.pt")
    best = one.restore(tmp_path / "last.pt").best
    before = tensors_digest(best.state)
    one.step()
    assert tensors_digest(best.state) == before
    one.save(tmp_path / "last.pt")  # nor of the file
    assert tensors_digest(best.state) == before


def test_without_a_checkpoint_the_run_begins(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    one = Trained.small()
    before = one.facts()
    assert one.restore(path) == Progress()
    assert one.facts() == before
    assert checkpoint.read_facts(path) is None
    assert checkpoint.read_progress(path) is None


def test_run_that_was_not_scaled_goes_on_scaled(tmp_path: Path) -> None:
    """As when a run of a CPU goes on on a GPU that computes in fp16."""
    Trained.small(steps=1).save(tmp_path / "last.pt")
    other = Trained.small(scaled=True)
    other.restore(tmp_path / "last.pt")
    assert other.scaler.get_scale() == 2.0**12


def test_former_checkpoint_is_kept(tmp_path: Path) -> None:
    path, former = tmp_path / "last.pt", tmp_path / "previous.pt"
    one = Trained.small()
    states, contents = [], []
    for epoch in range(3):
        one.step()
        one.save(path, replace(PROGRESS, epoch=epoch))
        states.append(one.facts())
        contents.append(path.read_bytes())
        if epoch:
            assert former.read_bytes() == contents[epoch - 1]
    assert sorted(_files(tmp_path)) == ["last.pt", "previous.pt"]
    other = Trained.small()
    os.replace(former, path)  # as the refusal of a damaged file advises
    assert other.restore(path).epoch == 1
    assert other.facts() == states[1] != states[2]


def test_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", link)
    one = Trained.small()
    for _ in range(2):
        one.step()
        one.save(tmp_path / "last.pt")
    assert list(_files(tmp_path)) == ["last.pt"]
    other = Trained.small()
    other.restore(tmp_path / "last.pt")
    assert other.facts() == one.facts()


def test_drop_takes_the_last_one_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is killed between the two is still known as unfinished, and drops both in the end."""
    dropped = []
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: dropped.append(path.name))
    checkpoint.drop(tmp_path)
    assert dropped == ["previous.pt", "last.pt"]


# --- damage ----------------------------------------------------------------------------------------


def _refused(path: Path, one: Trained, readers: bool = True) -> None:
    """Whoever reads the checkpoint must refuse it, say what to do, and leave the files alone."""
    before = _files(path.parent)
    reads: list[Callable[[Path], object]] = [one.restore]
    reads += [checkpoint.read_facts, checkpoint.read_progress] if readers else []
    for read in reads:
        with pytest.raises(Refusal) as caught:
            read(path)
        said = str(caught.value)
        assert str(path) in said
        assert "--fresh" in said
        assert (f"mv {path.with_name('previous.pt')} {path}" in said) == ("previous.pt" in before)
    assert _files(path.parent) == before


def _load(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def _changed(path: Path, part: str, change: Callable[[Any], Any], sign: bool = False) -> None:
    """Save a checkpoint again with a change, with its former digest or one that fits."""
    content = _load(path)
    content[part] = change(content[part])
    if sign:
        content["sha256"] = checkpoint._digest(content)
    torch.save(content, path)


def _other_tensor(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    name = next(name for name in tensors if name.endswith("exp_avg_sq"))
    tensors[name] = tensors[name] + 1e-6
    return tensors


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("last/notes.txt", "not a checkpoint")


DAMAGES: dict[str, Callable[[Path, bytes], object]] = {
    "empty": lambda path, good: path.write_bytes(b""),
    "one byte": lambda path, good: path.write_bytes(good[:1]),
    "a head": lambda path, good: path.write_bytes(good[:4096]),
    "half": lambda path, good: path.write_bytes(good[: len(good) // 2]),
    "without the directory": lambda path, good: path.write_bytes(good[:-2000]),
    "without a byte": lambda path, good: path.write_bytes(good[:-1]),
    "without the middle": lambda path, good: path.write_bytes(good[:3000] + good[-3000:]),
    "garbage": lambda path, good: path.write_bytes(random.Random(0).randbytes(100_000)),
    "zeros": lambda path, good: path.write_bytes(bytes(len(good))),
    "text": lambda path, good: path.write_text("epoch,step\n1,2\n"),
    "another zip": lambda path, good: _zip(path),
    "another dictionary": lambda path, good: torch.save({"tensors": {}, "facts": "{}"}, path),
    "a list of the keys": lambda path, good: torch.save(["tensors", "facts", "progress", "sha256"], path),
    "a tensor": lambda path, good: torch.save(torch.zeros(3), path),
    "a number": lambda path, good: torch.save(3, path),
    "other types": lambda path, good: torch.save(dict.fromkeys(checkpoint._KEYS, 3), path),
    "a changed tensor": lambda path, good: _changed(path, "tensors", _other_tensor),
    "changed facts": lambda path, good: _changed(
        path, "facts", lambda t: t.replace('"epochs":3', '"epochs":4')
    ),
    "a changed progress": lambda path, good: _changed(path, "progress", lambda t: t.replace("0.25", "0.26")),
    "a changed digest": lambda path, good: _changed(path, "sha256", lambda text: text[::-1]),
    "NaN in the progress": lambda path, good: _changed(
        path, "progress", lambda text: text.replace("0.25", "NaN"), sign=True
    ),
    "infinity in the facts": lambda path, good: _changed(
        path, "facts", lambda text: text.replace(":3,", ":Infinity,"), sign=True
    ),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A checkpoint of a demo network."""
    path = tmp_path_factory.mktemp("good") / "last.pt"
    Trained.demo("vit", steps=2).save(path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def reader() -> Trained:
    return Trained.demo("vit", seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("former", [False, True])
def test_damaged_checkpoint_is_refused(
    tmp_path: Path, good: bytes, reader: Trained, damage: str, former: bool
) -> None:
    path = tmp_path / "last.pt"
    path.write_bytes(good)
    if former:
        path.with_name("previous.pt").write_bytes(good)
    DAMAGES[damage](path, good)
    assert path.read_bytes() != good
    _refused(path, reader)


def test_checkpoint_of_another_network_is_refused(tmp_path: Path, reader: Trained) -> None:
    Trained.demo("eff", steps=1).save(tmp_path / "last.pt")
    _refused(tmp_path / "last.pt", reader, readers=False)  # it is whole: only the network does not take it


def _place(path: Path, name: str) -> range:
    """Where a member's content lies in a zip file that is not compressed."""
    with zipfile.ZipFile(path) as file:
        member = next(each for each in file.infolist() if each.filename.endswith(name))
        with file.open(member):
            head = file.fp.seek(member.header_offset + 26) and file.fp.read(4)
    begin = (
        member.header_offset + 30 + int.from_bytes(head[:2], "little") + int.from_bytes(head[2:], "little")
    )
    return range(begin, begin + member.file_size)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's, of pickles that it did not write
def test_flipped_byte_is_refused_where_it_matters(tmp_path: Path, good: bytes, reader: Trained) -> None:
    path = tmp_path / "last.pt"
    path.write_bytes(good)
    told, expected = _told(reader.restore(path)), reader.facts()
    with zipfile.ZipFile(path) as file:
        sizes = {each.filename.split("/")[-1]: each.file_size for each in file.infolist()}
    tensors = [name for name in sizes if name.isdecimal()]  # the records of the tensors, in `data/`
    rng = random.Random(0)
    in_tensors = [rng.choice(_place(path, f"/data/{name}")) for name in rng.sample(tensors, 12)]
    texts = [canonical_json(FACTS).encode(), b'"losses":[0.30000000000000004', b'"best":{"epoch":2,']
    starts = [good.index(text) for text in texts]
    in_texts = [rng.randrange(start, start + len(text)) for start, text in zip(starts, texts, strict=True)]
    in_pickle = rng.sample(_place(path, "/data.pkl"), 12)
    anywhere = rng.sample(range(len(good)), 6)
    for position in (*in_tensors, *in_texts, *in_pickle, *anywhere):
        damaged = bytearray(good)
        damaged[position] ^= rng.choice([1, 4, 32, 128, 255])
        path.write_bytes(damaged)
        if position in in_tensors or position in in_texts:
            _refused(path, reader, readers=position in in_texts)
            continue
        try:  # the format has bytes that mean nothing, such as padding
            found = _told(reader.restore(path))
        except Refusal:
            pass
        else:
            assert (found, reader.facts()) == (told, expected), position


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's, of pickles that it did not write
def test_any_flipped_byte_of_a_small_file_is_refused_or_means_nothing(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    one = Trained.small(steps=1)
    told = _told(one.save(path))
    expected, small = one.facts(), path.read_bytes()
    rng = random.Random(1)
    refused = 0
    for position in rng.sample(range(len(small)), 300):
        damaged = bytearray(small)
        damaged[position] ^= rng.choice([1, 2, 4, 8, 16, 32, 64, 128, 255])
        path.write_bytes(damaged)
        try:
            assert (_told(one.restore(path)), one.facts()) == (told, expected), position
            assert checkpoint.read_facts(path) == FACTS
        except Refusal:
            refused += 1
    assert 100 < refused < 250


class Attack:
    """Unpickled by Python itself, it makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return (os.mkdir, (str(self.target),))


def test_malicious_pickle_is_not_run(tmp_path: Path, good: bytes, reader: Trained) -> None:
    target, path = tmp_path / "was-run", tmp_path / "run" / "last.pt"
    path.parent.mkdir()
    attack = pickle.dumps({"tensors": {}, "facts": Attack(target)}, protocol=2)
    path.write_bytes(attack)
    _refused(path, reader)
    assert not target.exists()
    with zipfile.ZipFile(tmp_path / "good.pt", "w") as copy:
        path.write_bytes(good)
        with zipfile.ZipFile(path) as file:
            for member in file.infolist():
                pickled = member.filename.endswith("/data.pkl")
                copy.writestr(member.filename, attack if pickled else file.read(member))
    path.write_bytes((tmp_path / "good.pt").read_bytes())
    _refused(path, reader)
    assert not target.exists()
    # The attack is a real one, which its opcodes tell without loading it: `mkdir` is called on the folder
    opcodes = [(opcode.name, argument) for opcode, argument, _ in pickletools.genops(attack)]
    named = opcodes.index(("GLOBAL", f"{os.mkdir.__module__} mkdir"))
    told = opcodes.index(("BINUNICODE", str(target)))
    assert named < told < opcodes.index(("REDUCE", None))


# --- a write that fails ----------------------------------------------------------------------------


def _full(half: bool = True, error: Exception | None = None) -> Callable[..., None]:
    def save(content: object, file: Any) -> None:
        if half:
            file.write(b"PK" * 1000)
        raise error or OSError(errno.ENOSPC, "No space left on device")

    return save


@pytest.mark.parametrize(
    ("where", "fail"),
    [
        ("torch.save", _full()),
        ("torch.save", _full(half=False)),
        # what torch makes of an error in the midst of its archive
        ("torch.save", _full(error=RuntimeError("[enforce fail at inline_container.cc:664]"))),
        ("os.fsync", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error"))),
        ("os.replace", lambda *_: (_ for _ in ()).throw(OSError(errno.EROFS, "Read-only file system"))),
    ],
)
def test_failed_write_is_refused_and_the_former_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, fail: Callable[..., None]
) -> None:
    path = tmp_path / "last.pt"
    one = Trained.small()
    for _ in range(2):
        one.step()
        one.save(path)
    before, state = _files(tmp_path), one.facts()
    one.step()
    module, name = where.split(".")
    with monkeypatch.context() as patch:
        patch.setattr({"torch": torch, "os": os}[module], name, fail)
        with pytest.raises(Refusal, match=r"cannot write .*last\.pt"):
            one.save(path)
    after = _files(tmp_path)
    assert after["last.pt"] == before["last.pt"]
    assert sorted(after) == ["last.pt", "previous.pt"]  # no temporary file
    if module == "torch":
        assert after == before
    other = Trained.small()
    other.restore(path)
    assert other.facts() == state
    one.save(path)  # and it goes on when there is space


FULL_DISK = """
import json, os, resource, sys
from pathlib import Path
import torch
from common.networks.weights import save_weights
from common.refusal import Refusal
from common.training import checkpoint

folder = Path(sys.argv[1])
net = torch.nn.Linear(200, 200)
optimiser = torch.optim.AdamW(net.parameters())
scaler = torch.amp.GradScaler("cpu", enabled=False)
net(torch.zeros(1, 200)).sum().backward()


def last(name):
    optimiser.step()
    checkpoint.take(folder / name, {}, checkpoint.Progress(), net, optimiser, scaler).write()


def weights(name):
    optimiser.step()
    save_weights(folder / name, net.state_dict(), {})


def files():
    return {path.name: path.read_bytes() for path in folder.iterdir()}


found = []
for save, name in ((last, "last.pt"), (weights, "x.safetensors")):
    save(name)
    size = (folder / name).stat().st_size
    for limit in (0, 1, 64, 1000, 8192, size // 4, size // 2, 3 * size // 4, size - 65, size - 1, size):
        before = files()
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            save(name)
            said = "written"
        except Refusal as refusal:
            said = "refused" if f"cannot write {folder / name}" in str(refusal) else str(refusal)
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        found.append([name, limit == size, said, files() == before])
print(json.dumps(found))
"""


@pytest.mark.slow
def test_full_disk_is_refused_at_whatever_byte_it_is_full(tmp_path: Path) -> None:
    """A limit of the file's length stands for a full disk (Python ignores the signal that goes with it).

    In a process of its own, because an error in torch's archive writer could end it.
    """
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == 22
    for name, enough, said, unchanged in found:
        assert said == ("written" if enough else "refused"), name
        assert unchanged == (not enough), name


def _save_weights(path: Path) -> None:
    weights.save_weights(path, {"a": torch.ones(3)}, {})


@pytest.mark.parametrize("save", [lambda path: Trained.small().save(path), _save_weights])
def test_folder_that_is_a_file_is_refused(tmp_path: Path, save: Callable[[Path], object]) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(Refusal, match=r"cannot write .*run/"):
        save(tmp_path / "run" / "last.pt")
    assert _files(tmp_path) == {"run": b"a file"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("save", [lambda path: Trained.small().save(path), _save_weights])
def test_folder_that_cannot_be_written_is_refused(tmp_path: Path, save: Callable[[Path], object]) -> None:
    save(tmp_path / "last.pt")
    before = _files(tmp_path)
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(Refusal, match=r"cannot write .*last\.pt"):
            save(tmp_path / "last.pt")
    finally:
        tmp_path.chmod(0o700)
    assert _files(tmp_path) == before


def _with_nan(weight: torch.nn.Parameter, value: float) -> None:
    with torch.no_grad():
        weight.view(-1)[-1] = value


@pytest.mark.parametrize(
    "spoil",
    [
        lambda one, progress: progress.losses.append(float("nan")),
        lambda one, progress: progress.log.append({"epoch": 3, "dice": float("inf")}),
        lambda one, progress: replace(progress, best=replace(one.best(), score=float("nan"))),
        lambda one, progress: _with_nan(one.net[1].weight, float("nan")),
        lambda one, progress: _with_nan(one.net[0].bias, -float("inf")),
    ],
)
def test_state_that_is_not_finite_is_not_written(tmp_path: Path, spoil: Callable[..., object]) -> None:
    path = tmp_path / "last.pt"
    one = Trained.small(steps=1)
    progress = one.save(path)
    before = _files(tmp_path)
    progress = replace(progress, losses=[*progress.losses], log=[*progress.log])
    changed = spoil(one, progress)
    with pytest.raises(Refusal, match=r"last\.pt is not written.*\n.*kept.*\n.*--fresh"):
        one.save(path, changed if isinstance(changed, Progress) else progress)
    assert _files(tmp_path) == before
