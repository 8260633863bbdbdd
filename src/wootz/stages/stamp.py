"""Ask a time-stamp authority (RFC 3161) over HTTP."""

from __future__ import annotations

import httpx

from wootz.errors import SignatureError
from wootz.ownership import stamp_request

_LIMIT = 1 << 20


def fetch_stamp(url: str, digest: bytes) -> bytes:
    """Return an authority's response over SHA-256(digest), DER; it is verified by whoever trusts the authority.

    Raises:
        SignatureError: the authority does not answer, or refuses.
    """
    try:
        answer = httpx.post(
            url, content=stamp_request(digest), headers={"Content-Type": "application/timestamp-query"},
            timeout=30, trust_env=False,
        )  # fmt: skip
        answer.raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise SignatureError(f"{url}: gave no time token ({error}); it must be an RFC 3161 authority") from error
    if not 0 < len(answer.content) <= _LIMIT:
        raise SignatureError(f"{url}: answered {len(answer.content):,} bytes; a time token has some thousands")
    return answer.content
