"""Pseudonyms: keyed hashes, the same for the same key."""

from __future__ import annotations

import hmac
import stat
from pathlib import Path

import pytest

from common.pseudonyms import pseudonym
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


def test_damaged_key_is_refused(workspace: Path) -> None:
    (workspace / "data").mkdir()
    (workspace / "data" / "pseudonym.key").write_text("not hex")
    with pytest.raises(Refusal, match="is not a key"):
        pseudonym("case", "A123")
