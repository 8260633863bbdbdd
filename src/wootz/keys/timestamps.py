"""RFC 3161 time-stamp tokens: the request, the verification, and the digest that keys depend on; no network access.

A response contains more than what the authority signs: status strings, certificates, unsigned attributes, and an ECDSA
signature that can be replaced by another valid one. Keys must not depend on any of these, so `token_digest` covers only
the fields of the signed TSTInfo (RFC 3161, 2.4.2).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from cryptography.x509 import Certificate, ObjectIdentifier, load_pem_x509_certificates
from pyasn1.codec.der.encoder import encode
from pyasn1.type.univ import ObjectIdentifier as Oid
from pyasn1_modules.rfc3161 import TimeStampReq
from rfc3161_client import TimeStampResponse, VerificationError, VerifierBuilder, decode_timestamp_response

from wootz.errors import KeyFolderError, SignatureError
from wootz.store import canonical, read_bytes

_MAX_BYTES = 1 << 20
_SHA256 = "2.16.840.1.101.3.4.2.1"


def timestamp_request(digest: bytes, *, policy: str = "") -> bytes:
    """Return the DER request for a token over SHA-256(digest) that includes the signer's certificate.

    The nonce is a function of the digest, so a registration determines the nonce of its token.

    Args:
        digest: the digest to be time-stamped.
        policy: the authority's policy as a dotted object identifier; empty for its default.
    """
    request = TimeStampReq()
    request["version"] = "v1"
    request["messageImprint"]["hashAlgorithm"]["algorithm"] = _SHA256
    request["messageImprint"]["hashedMessage"] = hashlib.sha256(digest).digest()
    if policy:
        request["reqPolicy"] = Oid(policy)
    request["nonce"] = _nonce(digest)
    request["certReq"] = True
    return bytes(encode(request))


def check_token(response: bytes, digest: bytes, *, policy: str = "") -> None:
    """Check that a response is over `digest`, with the expected nonce and policy; the signature is not checked.

    Raises:
        SignatureError: the response is damaged, or is over something else.
    """
    _check_content(_decoded(response), digest, policy)


def token_digest(response: bytes) -> bytes:
    """Return the 32-byte digest of the signed content of a response: SHA-256 of the TSTInfo's fields.

    Two responses with equal TSTInfo have equal digests, whatever else they contain.

    Raises:
        SignatureError: the response is damaged.
    """
    info = _decoded(response).tst_info
    fields = {
        "version": info.version,
        "policy": info.policy.dotted_string,
        "algorithm": info.message_imprint.hash_algorithm.dotted_string,
        "imprint": info.message_imprint.message.hex(),
        "serial": str(info.serial_number),
        "time": info.gen_time.isoformat(),
        "nonce": str(info.nonce),
    }
    return hashlib.sha256(canonical(fields)).digest()


def read_roots(path: Path) -> list[Certificate]:
    """Read the certificates (PEM) of the authorities that a judge trusts.

    Raises:
        KeyFolderError: the file holds no certificate.
    """
    try:
        return load_pem_x509_certificates(read_bytes(path))
    except ValueError as error:
        raise KeyFolderError(f"{path}: holds no certificate in PEM form") from error


def verify_token(response: bytes, digest: bytes, roots: Sequence[Certificate], *, policy: str = "") -> datetime:
    """Verify a time-stamp response over `digest` and return its time (UTC).

    Args:
        response: the authority's response, DER.
        digest: the digest that the response must be over.
        roots: certificates of the trusted authorities; the certificate chain must end in one of them.
        policy: the registered policy; empty accepts any.

    Raises:
        SignatureError: the response is damaged, over something else, or not signed by a trusted authority.
    """
    decoded = _decoded(response)
    _check_content(decoded, digest, policy)
    try:
        builder = VerifierBuilder(roots=list(dict.fromkeys(roots)))
        builder.build().verify_message(decoded, digest)
        return decoded.tst_info.gen_time
    except (VerificationError, ValueError, TypeError, OverflowError) as error:
        raise SignatureError(f"the time token does not verify ({' '.join(str(error).split())})") from error


def _decoded(response: bytes) -> TimeStampResponse:
    if len(response) > _MAX_BYTES:
        raise SignatureError(f"a time token of {len(response):,} bytes; the maximum is {_MAX_BYTES:,}")
    try:
        decoded = decode_timestamp_response(response)
        _ = decoded.tst_info.serial_number
    except (ValueError, TypeError, OverflowError) as error:
        raise SignatureError(f"the time token does not verify ({' '.join(str(error).split())})") from error
    return decoded


def _check_content(decoded: TimeStampResponse, digest: bytes, policy: str) -> None:
    info = decoded.tst_info
    imprint = info.message_imprint
    if imprint.hash_algorithm.dotted_string != _SHA256 or imprint.message != hashlib.sha256(digest).digest():
        raise SignatureError("the time token does not verify (it is about something else)")
    if info.nonce != _nonce(digest):
        raise SignatureError("the time token does not verify (its nonce is not the registered one)")
    if policy and info.policy != ObjectIdentifier(policy):
        raise SignatureError(f"the time token does not verify (its policy is not the registered one, {policy})")


def _nonce(digest: bytes) -> int:
    return int.from_bytes(hashlib.sha256(b"nonce/" + digest).digest()[:8], "big") >> 1 or 1
