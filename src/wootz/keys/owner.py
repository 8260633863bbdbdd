"""The owner's two long-term keys, each created at its first use: the secret and the Ed25519 signing key.

The secret is 32 bytes from the operating system, from which the key of every run is derived. A run that is repeated
with the same settings and seed therefore gets the same key, on this computer only, and the key cannot be guessed from
the seed.
"""

from __future__ import annotations

import logging
import os
import secrets
import shlex
from collections.abc import Callable
from pathlib import Path

import platformdirs
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from wootz.errors import KeyFolderError
from wootz.keys.prf import subkey
from wootz.store import create_bytes, read_bytes

_BYTES = 32
_LOG = logging.getLogger("wootz")


def owner_file() -> Path:
    """Return the path of the secret: `$WOOTZ_OWNER_KEY`, else `owner.key` in the user's configuration folder."""
    path = os.environ.get("WOOTZ_OWNER_KEY")
    return Path(path) if path else Path(platformdirs.user_config_dir("wootz")) / "owner.key"


def owner_secret(path: Path | None = None) -> bytes:
    """Return the owner's secret; the first call creates it with mode 0600, and logs a warning that it did.

    Raises:
        KeyFolderError: the file exists but is not an owner's secret, leads nowhere, or can be read by others.
    """
    path = path or owner_file()
    data = _read_or_create(path, lambda: fresh_secret().hex().encode() + b"\n", "owner's secret")
    try:
        secret = bytes.fromhex(data.decode().strip())
    except ValueError:
        secret = b""
    if len(secret) != _BYTES:
        raise KeyFolderError(f"{path}: is not an owner's secret ({_BYTES} bytes in hexadecimal)")
    return secret


def run_secret(owner: bytes, run: str) -> bytes:
    """Return the secret of the run with this digest."""
    return subkey(owner, "run", run)


def fresh_secret() -> bytes:
    """Return 32 random bytes, for keys that need not be reproducible."""
    return secrets.token_bytes(_BYTES)


def signing_file() -> Path:
    """Return the path of the signing key: `$WOOTZ_SIGNING_KEY`, else `signing.pem` beside the owner's secret."""
    path = os.environ.get("WOOTZ_SIGNING_KEY")
    return Path(path) if path else owner_file().with_name("signing.pem")


def signing_key(path: Path | None = None) -> Ed25519PrivateKey:
    """Return the signing key; the first call creates it as PKCS8, mode 0600, encrypted if a password is set.

    The password is read from `$WOOTZ_SIGNING_PASSWORD`. A new key is logged as a warning.

    Raises:
        KeyFolderError: the file is not an Ed25519 key, leads nowhere, can be read by others, or is not decrypted by the
            password.
    """
    path = path or signing_file()
    password = os.environ.get("WOOTZ_SIGNING_PASSWORD", "").encode() or None

    def new_key() -> bytes:
        encryption = BestAvailableEncryption(password) if password else NoEncryption()
        return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)

    data = _read_or_create(path, new_key, "signing key")
    try:
        key = load_pem_private_key(data, password)
    except (ValueError, TypeError) as error:
        raise KeyFolderError(
            f"{path}: cannot be opened as a signing key ({error}); a password is read from $WOOTZ_SIGNING_PASSWORD"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFolderError(f"{path}: is not an Ed25519 key")
    return key


def _read_or_create(path: Path, create: Callable[[], bytes], what: str) -> bytes:
    """Return the content of a private file; if there is none, create it.

    Of several processes that create it at once one succeeds, and all return its data.
    """
    if not os.path.lexists(path) and create_bytes(path, create(), mode=0o600):
        _LOG.warning("made a new %s, %s; keep a copy of it: no other file can replace it", what, path)
    if not path.exists():
        raise KeyFolderError(f"{path}: is a link to a file that does not exist; restore that file, or remove the link")
    data = read_bytes(path)
    if os.name == "posix" and path.stat().st_mode & 0o077:
        raise KeyFolderError(f"{path}: can be read by others than its owner; run: chmod 600 {shlex.quote(str(path))}")
    return data


def public_hex(key: Ed25519PrivateKey) -> str:
    """Return the raw public key in hexadecimal, which identifies the signer in registrations and statements."""
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def public_pem(key: Ed25519PrivateKey) -> bytes:
    """Return the public key as PEM, for a judge to pin."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def read_public(path: Path) -> str:
    """Read a pinned public key (PEM) and return it in the form of `public_hex`.

    Raises:
        KeyFolderError: the file is not an Ed25519 public key.
    """
    try:
        key = load_pem_public_key(read_bytes(path))
    except ValueError as error:
        raise KeyFolderError(f"{path}: is not a public key in PEM form") from error
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFolderError(f"{path}: is not an Ed25519 public key")
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
