"""The body of a request, as far as it may go."""

from __future__ import annotations

import asyncio

from starlette.requests import Request

from wootz.serving.protocol import ProtocolError
from wootz.serving.settings import Limits


async def read_body(request: Request, limits: Limits) -> bytearray:
    """Return the body; no more of it is kept than is allowed.

    Raises:
        ProtocolError: it is too long, compressed, or does not arrive in time.
        ClientDisconnect: the client went away.
    """
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise ProtocolError("Content-Encoding: must be identity", 415)
    too_much = ProtocolError(f"the body: must be at most {limits.max_bytes} bytes", 413)
    if int(request.headers.get("Content-Length", "0")) > limits.max_bytes:
        raise too_much
    body = bytearray()
    try:
        async with asyncio.timeout(limits.read_seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limits.max_bytes:
                    raise too_much
    except TimeoutError:
        raise ProtocolError(f"the body: must arrive within {limits.read_seconds:g} s", 408) from None
    return body
