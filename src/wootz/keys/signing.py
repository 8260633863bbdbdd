"""Signed statements: in-toto Statement v1 in a DSSE envelope, signed with Ed25519, as canonical bytes (RFC 8785).

A statement is verified before it is parsed, and exactly the verified bytes are parsed. A file is accepted only in the
form that `sign_statement` writes, so that no byte of it can be changed unnoticed, not even outside the signature.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import Error as FormatError
from securesystemslib.signer._signature import Signature

from wootz.errors import SignatureError
from wootz.keys.owner import public_hex

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
_MAX_BYTES = 16 << 20


class Statement(NamedTuple):
    """A verified statement.

    Attributes:
        subject: SHA-256 digest in hexadecimal, by name of the subject.
        predicate_type: URI of the type of the predicate.
        predicate: the content.
        signer: the signer's raw Ed25519 public key in hexadecimal.
    """

    subject: Mapping[str, str]
    predicate_type: str
    predicate: Mapping[str, Any]
    signer: str


def sign_statement(
    key: Ed25519PrivateKey, subject: Mapping[str, str], predicate_type: str, predicate: Mapping[str, Any]
) -> bytes:
    """Return the signed statement as canonical JSON. Numbers whose exact value matters must be strings in it."""
    statement: dict[str, Any] = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in subject.items()],
        "predicateType": predicate_type,
        "predicate": predicate,
    }
    envelope = Envelope(rfc8785.dumps(statement), PAYLOAD_TYPE, {})
    signer = public_hex(key)
    envelope.signatures[signer] = Signature(signer, key.sign(envelope.pae()).hex())
    return rfc8785.dumps(envelope.to_dict())


def verify_statement(data: bytes, predicate_type: str) -> Statement:
    """Verify and parse a signed statement.

    Raises:
        SignatureError: the statement is not in canonical form, is not signed by the key it names, or has another
            predicate type.
    """
    try:
        if len(data) > _MAX_BYTES:
            raise ValueError(f"{len(data):,} bytes; a statement has at most {_MAX_BYTES:,}")
        plain = json.loads(data)
        if rfc8785.dumps(plain) != data:
            raise ValueError("is not in canonical form")
        envelope = Envelope.from_dict(plain)
        if rfc8785.dumps(envelope.to_dict()) != data or envelope.payload_type != PAYLOAD_TYPE:
            raise ValueError("is not an in-toto statement in one envelope")
        ((signer, signature),) = envelope.signatures.items()
        if bytes.fromhex(signer).hex() != signer:
            raise ValueError("its signer is not named in canonical form")
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signer))
        public.verify(bytes.fromhex(signature.signature), envelope.pae())
        statement = json.loads(envelope.payload)
        if rfc8785.dumps(statement) != envelope.payload or statement["_type"] != STATEMENT_TYPE:
            raise ValueError("its payload is not a canonical in-toto statement")
        if set(statement) != {"_type", "subject", "predicateType", "predicate"}:
            raise ValueError("its payload has other fields than a statement")
        if statement["predicateType"] != predicate_type:
            raise ValueError(f"is a {statement['predicateType']!r}, not a {predicate_type!r}")
        subject = {entry["name"]: entry["digest"]["sha256"] for entry in statement["subject"]}
        if len(subject) != len(statement["subject"]):
            raise ValueError("it names a subject twice")
        return Statement(subject, predicate_type, statement["predicate"], signer)
    except InvalidSignature as error:
        raise SignatureError("the signature does not fit") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, FormatError) as error:
        raise SignatureError(
            f"is not a signed statement of the expected type ({' '.join(str(error).split())})"
        ) from error
