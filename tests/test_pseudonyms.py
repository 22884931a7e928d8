"""Pseudonyms: keyed hashes, the same for the same key."""

from __future__ import annotations

import hmac
import stat
from pathlib import Path

import pytest

from common.pseudonyms import _make_key, pseudonym
from common.refusal import Refusal


def test_pseudonyms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = []
    for root in ("one", "two"):
        monkeypatch.setenv("PTX_WORKSPACE", str(tmp_path / root))
        names.append([pseudonym(kind, "A123") for kind in ("case", "patient")])
        assert [pseudonym(kind, "A123") for kind in ("case", "patient")] == names[-1]
        key = tmp_path / root / "data" / "pseudonym.key"
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        code = hmac.digest(bytes.fromhex(key.read_text()), b"case:A123", "sha256").hex()
        assert names[-1][0] == f"c{code[:16]}"
    assert len({name for pair in names for name in pair}) == 4


@pytest.mark.parametrize("content", ["not hex", "", "5a" * 31], ids=["words", "empty", "short"])
def test_damaged_key_is_refused(workspace: Path, content: str) -> None:
    """An empty one above all: HMAC would take it, and anybody could test a guessed identifier."""
    (workspace / "data").mkdir()
    (workspace / "data" / "pseudonym.key").write_text(content)
    with pytest.raises(Refusal, match="is not a key"):
        pseudonym("case", "A123")


@pytest.mark.parametrize("links", [True, False])
def test_key_is_written_whole(workspace: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    def refused(*_: object) -> None:
        raise PermissionError("no links here")

    if not links:
        monkeypatch.setattr("os.link", refused)
    pseudonym("case", "A123")
    assert [path.name for path in (workspace / "data").iterdir()] == ["pseudonym.key"]
    assert len(bytes.fromhex((workspace / "data" / "pseudonym.key").read_text())) == 32


def test_key_that_another_process_made_meanwhile_stays(workspace: Path) -> None:
    (workspace / "data").mkdir()
    key = workspace / "data" / "pseudonym.key"
    key.write_text("5a" * 32)
    _make_key(key)
    assert key.read_text() == "5a" * 32
    assert list(key.parent.iterdir()) == [key]
