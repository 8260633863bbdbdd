"""Admission of requests: the bearer token, and limits on the size and the arrival time of bodies."""

from __future__ import annotations

import asyncio
import hmac
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
        max_images: the maximum number of images per request.
        batch: the maximum number of images per call of the model.
        waiting: the maximum number of images that wait for the model; further requests get status 503.
        connections: the maximum number of open connections; at most the process's descriptors less 64.
        connections_per_address: the same for one client address; at most half of all.
        header_bytes: the maximum size of a header block, with 32 bytes added per field.
        header_seconds: the maximum time in seconds from the start of a connection to the end of its first header block.
        idle_seconds: the maximum time in seconds from the end of a response to the end of the next header block; also
            for a client to read a response.
        read_seconds: the maximum time in seconds for the body of a request to arrive.
    """

    max_bytes: int = 16 * 2**20
    max_images: int = 1024
    batch: int = 256
    waiting: int = 1024
    connections: int = 1024
    connections_per_address: int = 256
    header_bytes: int = 32 * 2**10
    header_seconds: float = 10.0
    idle_seconds: float = 60.0
    read_seconds: float = 30.0

    def __post_init__(self) -> None:
        checks.at_least(1, max_bytes=self.max_bytes, max_images=self.max_images, batch=self.batch)
        checks.at_least(1, waiting=self.waiting, header_bytes=self.header_bytes)
        checks.at_least(1, connections=self.connections, connections_per_address=self.connections_per_address)
        checks.positive(header_seconds=self.header_seconds, idle_seconds=self.idle_seconds)
        checks.positive(read_seconds=self.read_seconds)

    @property
    def bytes_per_address(self) -> int:
        """The maximum size of the bodies and images of one client address's requests in progress, in bytes.

        Further requests get status 503. One body of gray levels needs at most five times its size, as float32 images.
        """
        return 8 * self.max_bytes

    @property
    def bytes_in_flight(self) -> int:
        """The same for the requests of all clients."""
        return 2 * self.bytes_per_address


class BusyError(Exception):
    """Too much is in progress: the request must be sent again later."""


class MemoryBudget:
    """The bytes that requests in progress hold, in all and per client address.

    Args:
        total: the maximum in all.
        per_address: the maximum per client address.
    """

    def __init__(self, total: int, per_address: int) -> None:
        self._total, self._per_address = total, per_address
        self._held: Counter[str] = Counter()

    @contextmanager
    def request(self, address: str) -> Iterator[Callable[[int], None]]:
        """Give a function that holds a number of bytes more until the block ends.

        It raises BusyError if they are too many.
        """
        own = 0

        def hold(count: int) -> None:
            nonlocal own
            if self._held.total() + count > self._total or self._held[address] + count > self._per_address:
                raise BusyError
            own += count
            self._held[address] += count

        try:
            yield hold
        finally:
            self._held[address] -= own
            if not self._held[address]:
                del self._held[address]


async def read_body(request: Request, limits: ServingLimits, hold: Callable[[int], None]) -> bytearray:
    """Return the body of a request; at most `limits.max_bytes` of it are held in memory.

    Args:
        request: the request.
        limits: the limits of the service.
        hold: called with the size of each part that arrives, see `MemoryBudget`.

    Raises:
        ProtocolError: the body is too large, compressed, or does not arrive in time.
        BusyError: the bodies of all requests are too large.
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
                if len(body) + len(chunk) > limits.max_bytes:
                    raise too_large
                hold(len(chunk))
                body += chunk
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
