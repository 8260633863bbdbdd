"""The owner's two long-term keys, each created at its first use: the secret and the Ed25519 signing key.

The secret is 32 bytes from the operating system, from which the key of every run is derived. A run that is repeated
with the same settings and seed therefore gets the same key, on this computer only, and the key cannot be guessed from
the seed.
"""

from __future__ import annotations

import os
import secrets
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
from wootz.store import read_bytes, write_bytes

_BYTES = 32


def owner_file() -> Path:
    """Return the path of the secret: `$WOOTZ_OWNER_KEY`, else `owner.key` in the user's configuration folder."""
    path = os.environ.get("WOOTZ_OWNER_KEY")
    return Path(path) if path else Path(platformdirs.user_config_dir("wootz")) / "owner.key"


def owner_secret(path: Path | None = None) -> bytes:
    """Return the owner's secret; the first call creates it with mode 0600.

    Raises:
        KeyFolderError: the file exists but is not an owner's secret.
    """
    path = path or owner_file()
    if not path.exists():
        write_bytes(path, fresh_secret().hex().encode() + b"\n", mode=0o600)
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


def fresh_secret() -> bytes:
    """Return 32 random bytes, for keys that need not be reproducible."""
    return secrets.token_bytes(_BYTES)


def signing_file() -> Path:
    """Return the path of the signing key: `$WOOTZ_SIGNING_KEY`, else `signing.pem` beside the owner's secret."""
    path = os.environ.get("WOOTZ_SIGNING_KEY")
    return Path(path) if path else owner_file().with_name("signing.pem")


def signing_key(path: Path | None = None) -> Ed25519PrivateKey:
    """Return the signing key; the first call creates it as PKCS8, mode 0600, encrypted if a password is set.

    The password is read from `$WOOTZ_SIGNING_PASSWORD`.

    Raises:
        KeyFolderError: the file is not an Ed25519 key, or the password does not decrypt it.
    """
    path = path or signing_file()
    password = os.environ.get("WOOTZ_SIGNING_PASSWORD", "").encode() or None
    if not path.exists():
        encryption = BestAvailableEncryption(password) if password else NoEncryption()
        new_key = Ed25519PrivateKey.generate()
        write_bytes(path, new_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption), mode=0o600)
    try:
        key = load_pem_private_key(read_bytes(path), password)
    except (ValueError, TypeError) as error:
        raise KeyFolderError(
            f"{path}: cannot be opened as a signing key ({error}); a password is read from $WOOTZ_SIGNING_PASSWORD"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFolderError(f"{path}: is not an Ed25519 key")
    return key


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
