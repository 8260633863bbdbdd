"""HTTP requests with limits on time and size, and retries of those that were not answered.

No redirects, cookies, compression or settings from the environment; TLS certificates are verified. A request runs on
the event loop of a separate thread, because only asyncio can put one deadline on a whole exchange: the timeout of a
blocking read starts again with every byte received.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from threading import Thread
from typing import NamedTuple

import httpx

from wootz import rng
from wootz.errors import ConfigError
from wootz.store import sha256
from wootz.suspects.endpoints.client_config import Client

RETRYABLE_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses of requests that were not answered and may be sent again."""

ENCODING_REJECTED_STATUSES = frozenset({400, 415, 422})
"""Statuses that reject the encoding of a request before it is answered."""

_NO_RESPONSE = "Server disconnected without sending a response."
"""The message of httpx for a connection closed without a response; its other protocol errors are about a response."""


class Request(NamedTuple):
    """An HTTP request."""

    method: str
    url: str
    headers: Mapping[str, str] = {}
    body: bytes = b""


class Response(NamedTuple):
    """An HTTP response, or the error that replaced it.

    Attributes:
        received: whether any part of a response arrived.
        status: the HTTP status; 0 if none was received.
        headers: header values by lower-case name.
        body: the complete body of a response with status 200; empty otherwise.
        problem: a short description of an error; empty if there was none.
        certificate: SHA-256 of the server's TLS certificate (DER); empty without TLS.
    """

    received: bool
    status: int = 0
    headers: Mapping[str, str] = {}
    body: bytes = b""
    problem: str = ""
    certificate: str = ""

    @property
    def retryable(self) -> bool:
        """Whether the request was not answered and may be sent again."""
        return not self.received or self.status in RETRYABLE_STATUSES


class SendResult(NamedTuple):
    """The result of `send_with_retry`.

    Attributes:
        response: the last response.
        statuses: the status of every attempt; 0 if none was received.
        encoding: the index of the request that was sent last.
    """

    response: Response
    statuses: tuple[int, ...]
    encoding: int


class HttpTransport:
    """A connection that sends one request at a time; created by `open_transport`."""

    def __init__(
        self, cfg: Client, token: str, transport: httpx.AsyncHTTPTransport, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._transport, self._loop = transport, loop
        self._deadline = cfg.connect_timeout + cfg.read_timeout
        self._timeouts = httpx.Timeout(cfg.read_timeout, connect=cfg.connect_timeout).as_dict()
        self._headers = {
            "Accept": "application/json, */*",
            "Accept-Encoding": "identity",
            "User-Agent": f"python-httpx/{httpx.__version__}",
        } | ({"Authorization": f"Bearer {token}"} if token else {})

    def send(self, request: Request, limit: int) -> Response:
        """Send `request` once; a response body of more than `limit` bytes is discarded."""
        return asyncio.run_coroutine_threadsafe(self._exchange(request, limit), self._loop).result()

    async def _exchange(self, request: Request, limit: int) -> Response:
        response = Response(received=False)
        httpx_request = httpx.Request(
            request.method,
            request.url,
            headers={**self._headers, **request.headers},
            content=request.body,
            extensions={"timeout": self._timeouts},
        )
        try:
            async with asyncio.timeout(self._deadline):
                stream = await self._transport.handle_async_request(httpx_request)
                async with aclosing(stream):
                    response = Response(
                        received=True,
                        status=stream.status_code,
                        headers=dict(stream.headers),
                        certificate=_certificate_digest(stream),
                    )
                    return await _read_body(stream, response, limit)
        except (TimeoutError, httpx.TimeoutException):
            return response._replace(problem="took too long")
        except httpx.TransportError as error:
            invalid_response = isinstance(error, httpx.RemoteProtocolError) and str(error) != _NO_RESPONSE
            return response._replace(
                received=response.received or invalid_response,
                problem=" ".join(f"{type(error).__name__} {error}".split())[:200],
            )


@contextmanager
def open_transport(cfg: Client, token: str) -> Iterator[HttpTransport]:
    """Start the thread of an `HttpTransport`; close its connections and end the thread at exit.

    Args:
        cfg: the timeouts and the trusted certificate authorities.
        token: sent as `Authorization: Bearer`; empty sends none.

    Raises:
        ConfigError: the file of certificate authorities cannot be used.
    """
    transport = httpx.AsyncHTTPTransport(
        verify=_ssl_context(cfg.authorities), trust_env=False, limits=httpx.Limits(max_connections=1)
    )
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, name="wootz-http", daemon=True)
    thread.start()
    try:
        yield HttpTransport(cfg, token, transport, loop)
    finally:
        asyncio.run_coroutine_threadsafe(_close(transport), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def send_with_retry(
    transport: HttpTransport,
    requests: Sequence[Request],
    limit: int,
    cfg: Client,
    request_id: str,
    sleep: Callable[[float], None],
) -> SendResult:
    """Send a request until the response is final or `cfg.max_tries` attempts are used.

    A status 200 is final whatever the body contains, and so is every status that is not retryable.

    Args:
        transport: sends the requests.
        requests: encodings of the same query, in order of preference. If the server rejects an encoding, the next one
            is sent.
        limit: the maximum size of the response body in bytes.
        cfg: the number of attempts and the delays between them.
        request_id: selects the random delays.
        sleep: waits for a number of seconds.
    """
    statuses: list[int] = []
    encoding = 0
    while True:
        response = transport.send(requests[encoding], limit)
        statuses.append(response.status)
        encoding_rejected = response.status in ENCODING_REJECTED_STATUSES and encoding + 1 < len(requests)
        if len(statuses) == cfg.max_tries or not (encoding_rejected or response.retryable):
            return SendResult(response, tuple(statuses), encoding)
        if encoding_rejected:
            encoding += 1
        else:
            sleep(retry_delay(cfg, request_id, len(statuses), response.headers))


def retry_delay(cfg: Client, request_id: str, attempts: int, headers: Mapping[str, str]) -> float:
    """Return the delay in seconds after a number of attempts.

    Exponential backoff with full jitter, and at least the delay of a `Retry-After` header up to `cfg.retry_after_cap`.
    """
    jitter = rng.derive(cfg.seed, request_id, attempts) / 2**63 * min(cfg.backoff_cap, cfg.backoff * 2.0**attempts)
    return max(jitter, min(_parse_retry_after(headers.get("retry-after", "")), cfg.retry_after_cap))


def _parse_retry_after(value: str) -> float:
    """Return the seconds of a `Retry-After` value (RFC 9110, 10.2.3): a number or a date; 0 if it is neither."""
    if re.fullmatch(r"\d{1,9}", value):
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return 0.0
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


async def _read_body(stream: httpx.Response, response: Response, limit: int) -> Response:
    if response.status != 200:
        return response
    if response.headers.get("content-encoding", "identity") != "identity":
        return response._replace(problem="is compressed, which was not requested")
    body = bytearray()
    assert isinstance(stream.stream, httpx.AsyncByteStream)
    async for chunk in stream.stream:
        body += chunk
        if len(body) > limit:
            return response._replace(problem=f"is longer than {limit} bytes")
    return response._replace(body=bytes(body))


async def _close(transport: httpx.AsyncHTTPTransport) -> None:
    """Cancel requests that an interrupt left running, then close the connections."""
    pending = asyncio.all_tasks() - {asyncio.current_task()}
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    await transport.aclose()


def _ssl_context(authorities: str | None) -> ssl.SSLContext:
    if authorities is None:
        return httpx.create_ssl_context(trust_env=False)
    try:
        return ssl.create_default_context(cafile=authorities)
    except OSError as error:
        raise ConfigError(f"authorities = {authorities!r}: cannot be used ({error})") from error


def _certificate_digest(stream: httpx.Response) -> str:
    connection = stream.extensions.get("network_stream")
    tls = connection.get_extra_info("ssl_object") if connection is not None else None
    return sha256(tls.getpeercert(binary_form=True)) if tls is not None else ""
