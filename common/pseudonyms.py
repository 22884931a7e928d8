"""The names under which cases, patients and studies appear in everything written."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from functools import cache
from pathlib import Path

from common.paths import shown, workspace
from common.refusal import Refusal

_KEY_BYTES = 32


@cache
def _pseudonyms(root: Path) -> hmac.HMAC:
    """HMAC-SHA-256 with the key of a workspace, before anything is put in."""
    path = root / "data" / "pseudonym.key"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _make_key(path)
    try:
        key = bytes.fromhex(path.read_text().strip())
    except ValueError:
        key = b""
    if len(key) < _KEY_BYTES:  # an empty one is a key to HMAC, and anybody could test a guess with it
        raise Refusal(f"{shown(path)} is not a key", do="restore it, or delete it and data/prepared")
    return hmac.new(key, digestmod=hashlib.sha256)


def _make_key(path: Path) -> None:
    """Write a new key, whole or not at all; a key that another process makes meanwhile stays."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        # 600: nobody else may read it
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(_KEY_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # unlike a rename, it replaces nothing
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def pseudonym(kind: str, identifier: str) -> str:
    """The name under which a case or patient appears in everything written.

    HMAC-SHA-256 (RFC 2104) with the workspace's key, 64 bits of it: without the key nobody can test a
    guessed identifier.

    Args:
        kind: `case` or `patient`; the same identifier gives different names in the two kinds.
        identifier: The hospital's own identifier.
    """
    code = _pseudonyms(workspace()).copy()  # an HMAC is used up by what is put in
    code.update(f"{kind}:{identifier}".encode(errors="surrogateescape"))  # a path may be any bytes
    return f"{kind[0]}{code.hexdigest()[:16]}"
