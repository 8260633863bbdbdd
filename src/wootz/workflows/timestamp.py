"""Ask a time-stamp authority (RFC 3161) over HTTP."""

from __future__ import annotations

import httpx

from wootz.errors import SignatureError
from wootz.keys import check_token, timestamp_request

_LIMIT = 1 << 20


def fetch_token(url: str, digest: bytes, policy: str = "") -> bytes:
    """Return an authority's response over SHA-256(digest), DER.

    Its content is checked; its signature is checked by anyone who trusts the authority.

    Args:
        url: the authority's address.
        digest: what is stamped.
        policy: the authority's policy as a dotted object identifier; empty for its default.

    Raises:
        SignatureError: the authority does not answer, refuses, or answers about something else.
    """
    try:
        answer = httpx.post(
            url,
            content=timestamp_request(digest, policy=policy),
            headers={"Content-Type": "application/timestamp-query"},
            timeout=30,
            trust_env=False,
        )
        answer.raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise SignatureError(f"{url}: gave no time token ({error}); it must be an RFC 3161 authority") from error
    if not 0 < len(answer.content) <= _LIMIT:
        raise SignatureError(f"{url}: answered {len(answer.content):,} bytes; a time token has a few thousand")
    try:
        check_token(answer.content, digest, policy=policy)
    except SignatureError as error:
        raise SignatureError(f"{url}: gave no time token for this request ({error})") from error
    return answer.content
