"""RFC 3161 time tokens: who asks an authority for one, and what one proves. Nothing here touches a network."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from cryptography.x509 import Certificate, load_pem_x509_certificates
from rfc3161_client import (
    HashAlgorithm,
    TimestampRequestBuilder,
    VerificationError,
    VerifierBuilder,
    decode_timestamp_response,
)

from wootz.errors import KeyFolderError, SignatureError
from wootz.store import read_bytes

_LIMIT = 1 << 20


def stamp_request(digest: bytes) -> bytes:
    """Return the request, DER, that asks for a token over SHA-256(digest), the signer's certificate in it."""
    builder = TimestampRequestBuilder().data(digest).hash_algorithm(HashAlgorithm.SHA256)
    return builder.nonce(nonce=True).cert_request(cert_request=True).build().as_bytes()


def read_roots(path: Path) -> list[Certificate]:
    """Read the certificates (PEM) of the authorities that a judge trusts.

    Raises:
        KeyFolderError: the file holds none.
    """
    try:
        return load_pem_x509_certificates(read_bytes(path))
    except ValueError as error:
        raise KeyFolderError(f"{path}: holds no certificate in PEM form") from error


def stamped_at(token: bytes, digest: bytes, roots: Sequence[Certificate]) -> datetime:
    """Verify a time-stamp response over `digest` and return its time (UTC).

    Args:
        token: the response, DER.
        digest: what it must be about.
        roots: authorities that are trusted; the chain must end in one of them.

    Raises:
        SignatureError: it is damaged, about something else, or signed by nobody who is trusted.
    """
    if len(token) > _LIMIT:
        raise SignatureError(f"a time token of {len(token):,} bytes; one has some thousands")
    try:
        response = decode_timestamp_response(token)
        builder = VerifierBuilder()
        for root in roots:
            builder = builder.add_root_certificate(root)
        builder.build().verify_message(response, digest)
        return response.tst_info.gen_time
    except (VerificationError, ValueError, TypeError, OverflowError) as error:
        raise SignatureError(f"the time token does not verify ({' '.join(str(error).split())})") from error
