"""Admission of requests: the bearer token, and limits on the size and the arrival time of bodies."""

from __future__ import annotations

import asyncio
import hmac
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from wootz import checks
from wootz.errors import ConfigError
from wootz.serving.infer_codec import ProtocolError
from wootz.store import read_bytes

TOKEN_VARIABLE = "WOOTZ_TOKEN"

_PUBLIC_PATHS = "/v2/health/"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingLimits:
    """Limits of a service.

    Attributes:
        max_bytes: the maximum size of a request body in bytes.
        batch: the maximum number of images per call of the model.
        waiting: the maximum number of images that wait for the model; further requests get status 503.
        read_seconds: the maximum time in seconds for the body of a request to arrive.
    """

    max_bytes: int = 16 * 2**20
    batch: int = 256
    waiting: int = 1024
    read_seconds: float = 30.0

    def __post_init__(self) -> None:
        checks.at_least(1, max_bytes=self.max_bytes, batch=self.batch, waiting=self.waiting)
        checks.positive(read_seconds=self.read_seconds)


async def read_body(request: Request, limits: ServingLimits) -> bytearray:
    """Return the body of a request; at most `limits.max_bytes` of it are held in memory.

    Raises:
        ProtocolError: the body is too large, compressed, or does not arrive in time.
        ClientDisconnect: the client closed the connection.
    """
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise ProtocolError("Content-Encoding: must be identity", 415)
    too_large = ProtocolError(f"the body: must be at most {limits.max_bytes} bytes", 413)
    if int(request.headers.get("Content-Length", "0")) > limits.max_bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(limits.read_seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limits.max_bytes:
                    raise too_large
    except TimeoutError:
        raise ProtocolError(f"the body: must arrive within {limits.read_seconds:g} s", 408) from None
    return body


class BearerAuth:
    """ASGI middleware that requires a bearer token, except for health checks.

    Args:
        app: the application that gets the admitted requests.
        token: the expected token.
        error_response: (status, message, headers) -> the response to a request without the token.
    """

    def __init__(
        self, app: ASGIApp, token: str, error_response: Callable[[int, str, dict[str, str]], Response]
    ) -> None:
        self._app, self._token, self._error_response = app, token.encode(), error_response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or respond with status 401."""
        if scope["type"] != "http" or scope["path"].startswith(_PUBLIC_PATHS) or self._is_authorized(scope):
            await self._app(scope, receive, send)
            return
        message = "needs a token (Authorization: Bearer TOKEN)"
        response = self._error_response(401, message, {"WWW-Authenticate": "Bearer"})
        await response(scope, receive, send)

    def _is_authorized(self, scope: Scope) -> bool:
        header = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, token = header.partition(b" ")
        return hmac.compare_digest(token.strip(), self._token) and scheme.lower() == b"bearer"


def read_token(path: Path | None) -> str:
    """Return the token in a file, or in $WOOTZ_TOKEN if `path` is None; empty if the variable is not set.

    Raises:
        StoreError: the file cannot be read.
        ConfigError: the file is empty, or the text is not one word of printable ASCII.
    """
    text = os.environ.get(TOKEN_VARIABLE, "") if path is None else read_bytes(path).decode("latin-1")
    token = text.strip()
    if not all("!" <= character <= "~" for character in token) or (path is not None and not token):
        raise ConfigError(f"{path or TOKEN_VARIABLE}: must be one word of printable ASCII")
    return token
