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


@cache
def _pseudonyms(root: Path) -> hmac.HMAC:
    """HMAC-SHA-256 with the key of a workspace, before anything is put in."""
    path = root / "data" / "pseudonym.key"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # EXCL: of two that start at once one makes the key. 600: nobody else may read it.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass  # made earlier, or by another process just now
    else:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32) + "\n")
    try:
        return hmac.new(bytes.fromhex(path.read_text().strip()), digestmod=hashlib.sha256)
    except ValueError:
        raise Refusal(
            f"{shown(path)} is not a key", do="restore it, or delete it and data/prepared"
        ) from None


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
