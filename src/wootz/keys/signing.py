"""Signed statements: in-toto Statement v1 in a DSSE envelope, signed with Ed25519, as canonical bytes (RFC 8785).

Whoever reads one verifies first and parses exactly the bytes that were verified. A file is accepted only in the one
form that `sign_statement` writes, so no byte of it can be changed without notice, not even outside the signature.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import rfc8785
from cryptography.exceptions import InvalidSignature
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
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import Error as FormatError
from securesystemslib.signer._signature import Signature

from wootz.errors import KeyFolderError, SignatureError
from wootz.keys.owner import owner_file
from wootz.store import read_bytes, write_bytes

STATEMENT = "https://in-toto.io/Statement/v1"
PAYLOAD = "application/vnd.in-toto+json"
_LIMIT = 16 << 20


class Statement(NamedTuple):
    """What was signed: its subjects (name -> sha256 in hexadecimal), its kind, its content, and by whom.

    `signer` is the raw Ed25519 public key in hexadecimal.
    """

    subject: Mapping[str, str]
    kind: str
    predicate: Mapping[str, Any]
    signer: str


def signing_file() -> Path:
    """Return where the signing key lives: `$WOOTZ_SIGNING_KEY`, else `signing.pem` beside the owner's secret."""
    named = os.environ.get("WOOTZ_SIGNING_KEY")
    return Path(named) if named else owner_file().with_name("signing.pem")


def signing_key(path: Path | None = None) -> Ed25519PrivateKey:
    """Return the signing key; at the first call make it: PKCS8, mode 0600, encrypted where a password is set.

    The password is taken from `$WOOTZ_SIGNING_PASSWORD`.

    Raises:
        KeyFolderError: the file is no Ed25519 key, or the password does not open it.
    """
    path = path or signing_file()
    password = os.environ.get("WOOTZ_SIGNING_PASSWORD", "").encode() or None
    if not path.exists():
        lock = BestAvailableEncryption(password) if password else NoEncryption()
        fresh = Ed25519PrivateKey.generate()
        write_bytes(path, fresh.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock), mode=0o600)
    try:
        key = load_pem_private_key(read_bytes(path), password)
    except (ValueError, TypeError) as error:
        raise KeyFolderError(
            f"{path}: can not be opened as a signing key ({error}); a password is read from $WOOTZ_SIGNING_PASSWORD"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFolderError(f"{path}: is not an Ed25519 key")
    return key


def public_hex(key: Ed25519PrivateKey) -> str:
    """Return the public half, raw, in hexadecimal: how registrations and statements name their signer."""
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def read_public(path: Path) -> str:
    """Read a pinned public key (PEM), as `public_hex` writes it."""
    try:
        key = load_pem_public_key(read_bytes(path))
    except ValueError as error:
        raise KeyFolderError(f"{path}: is not a public key in PEM form") from error
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFolderError(f"{path}: is not an Ed25519 public key")
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def public_pem(key: Ed25519PrivateKey) -> bytes:
    """Return the public half as PEM, to be handed to whoever pins it."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def sign_statement(
    key: Ed25519PrivateKey, subject: Mapping[str, str], kind: str, predicate: Mapping[str, Any]
) -> bytes:
    """Return the signed statement as canonical JSON; numbers that matter are strings in it."""
    statement: dict[str, Any] = {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in subject.items()],
        "predicateType": kind,
        "predicate": predicate,
    }
    envelope = Envelope(rfc8785.dumps(statement), PAYLOAD, {})
    signer = public_hex(key)
    envelope.signatures[signer] = Signature(signer, key.sign(envelope.pae()).hex())
    return rfc8785.dumps(envelope.to_dict())


def verify_statement(data: bytes, kind: str) -> Statement:
    """Verify and read a signed statement.

    Raises:
        SignatureError: it is not in canonical form, not signed by the key it names, or of another kind.
    """
    try:
        if len(data) > _LIMIT:
            raise ValueError(f"{len(data):,} bytes, more than a statement has")
        plain = json.loads(data)
        if rfc8785.dumps(plain) != data:
            raise ValueError("is not in canonical form")
        envelope = Envelope.from_dict(plain)
        if rfc8785.dumps(envelope.to_dict()) != data or envelope.payload_type != PAYLOAD:
            raise ValueError("is not an in-toto statement in one envelope")
        ((signer, signature),) = envelope.signatures.items()
        if bytes.fromhex(signer).hex() != signer:
            raise ValueError("its signer is not named in canonical form")
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signer))
        public.verify(bytes.fromhex(signature.signature), envelope.pae())
        statement = json.loads(envelope.payload)
        if rfc8785.dumps(statement) != envelope.payload or statement["_type"] != STATEMENT:
            raise ValueError("its payload is not a canonical in-toto statement")
        if set(statement) != {"_type", "subject", "predicateType", "predicate"}:
            raise ValueError("its payload has other fields than a statement")
        if statement["predicateType"] != kind:
            raise ValueError(f"is a {statement['predicateType']!r}, not a {kind!r}")
        subject = {entry["name"]: entry["digest"]["sha256"] for entry in statement["subject"]}
        if len(subject) != len(statement["subject"]):
            raise ValueError("it names a subject twice")
        return Statement(subject, kind, statement["predicate"], signer)
    except InvalidSignature as error:
        raise SignatureError("the signature does not fit") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, FormatError) as error:
        raise SignatureError(f"is not a signed statement of this kind ({' '.join(str(error).split())})") from error
