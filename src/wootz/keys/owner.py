"""The owner's secret: 32 bytes from the operating system, made once, from which the key of every run is derived.

A run repeated with the same settings and seed gets the same key, on this computer only, and nobody can
guess the key from the seed.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import platformdirs

from wootz.errors import KeyFolderError
from wootz.keys.prf import subkey
from wootz.store import read_bytes, write_bytes

_BYTES = 32


def owner_file() -> Path:
    """Return where the secret lives: `$WOOTZ_OWNER_KEY`, else `owner.key` in the user's configuration folder."""
    named = os.environ.get("WOOTZ_OWNER_KEY")
    return Path(named) if named else Path(platformdirs.user_config_dir("wootz")) / "owner.key"


def owner_secret(path: Path | None = None) -> bytes:
    """Return the owner's secret; at the first call make it, with mode 0600.

    Raises:
        KeyFolderError: the file is there but is not such a secret.
    """
    path = path or owner_file()
    if not path.exists():
        write_bytes(path, secrets.token_hex(_BYTES).encode() + b"\n", mode=0o600)
    try:
        secret = bytes.fromhex(read_bytes(path).decode().strip())
    except ValueError:
        secret = b""
    if len(secret) != _BYTES:
        raise KeyFolderError(f"{path}: is not an owner's secret ({_BYTES} bytes in hexadecimal)")
    return secret


def run_secret(owner: bytes, run: str) -> bytes:
    """Return the secret of the run with this digest."""
    return subkey(owner, "run", run)
