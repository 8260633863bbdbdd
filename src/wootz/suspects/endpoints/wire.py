"""One request over HTTP, within its limits; nothing here tries twice.

No redirects, no cookies, no compression, nothing from the environment, TLS verified. The exchange runs on an event
loop of its own thread, because only there one deadline can cover all of it: a timeout of a blocking read starts anew
with every byte that drips in.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator, Mapping
from contextlib import aclosing, contextmanager
from threading import Thread
from typing import NamedTuple

import httpx

from wootz.errors import ConfigError
from wootz.store import sha256
from wootz.suspects.endpoints.settings import Client

_SILENT = "Server disconnected without sending a response."
"""What httpx says of a server that hung up; any other error of the protocol was found in an answer."""


class Request(NamedTuple):
    """What is sent: method, full URL, headers and body."""

    method: str
    url: str
    headers: Mapping[str, str] = {}
    body: bytes = b""


class Reply(NamedTuple):
    """What came back.

    Attributes:
        answered: whether anything of an answer was read; if not, nothing is known to have happened.
        status: of HTTP; 0 where none was read.
        headers: keys in lower case.
        body: whole, or empty where there is a problem; read for status 200 only.
        problem: what went wrong, in a few words; empty where nothing did.
        certificate: SHA-256 of the server's TLS certificate (DER); empty without TLS.
    """

    answered: bool
    status: int = 0
    headers: Mapping[str, str] = {}
    body: bytes = b""
    problem: str = ""
    certificate: str = ""


class Wire:
    """A connection that sends one request at a time; made by `wire`."""

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

    def send(self, request: Request, limit: int) -> Reply:
        """Send `request` once; an answer of more than `limit` bytes is cut off and dropped."""
        return asyncio.run_coroutine_threadsafe(self._exchange(request, limit), self._loop).result()

    async def _exchange(self, request: Request, limit: int) -> Reply:
        reply = Reply(answered=False)
        sent = httpx.Request(
            request.method,
            request.url,
            headers={**self._headers, **request.headers},
            content=request.body,
            extensions={"timeout": self._timeouts},
        )
        try:
            async with asyncio.timeout(self._deadline):
                response = await self._transport.handle_async_request(sent)
                async with aclosing(response):
                    reply = Reply(
                        answered=True,
                        status=response.status_code,
                        headers=dict(response.headers),
                        certificate=_certificate(response),
                    )
                    return await _read(response, reply, limit)
        except (TimeoutError, httpx.TimeoutException):
            return reply._replace(problem="took too long")
        except httpx.TransportError as error:
            spoke = isinstance(error, httpx.RemoteProtocolError) and str(error) != _SILENT
            return reply._replace(answered=reply.answered or spoke, problem=_words(error))


@contextmanager
def wire(cfg: Client, token: str) -> Iterator[Wire]:
    """Give a `Wire`, and close its connections after.

    Raises:
        ConfigError: the file of certificate authorities can not be used.
    """
    transport = httpx.AsyncHTTPTransport(
        verify=_trusted(cfg.authorities), trust_env=False, limits=httpx.Limits(max_connections=1)
    )
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, name="wootz-wire", daemon=True)
    thread.start()
    try:
        yield Wire(cfg, token, transport, loop)
    finally:
        asyncio.run_coroutine_threadsafe(_close(transport), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _read(response: httpx.Response, reply: Reply, limit: int) -> Reply:
    if reply.status != 200:
        return reply
    if reply.headers.get("content-encoding", "identity") != "identity":
        return reply._replace(problem="is compressed, which was not asked for")
    body = bytearray()
    assert isinstance(response.stream, httpx.AsyncByteStream)
    async for chunk in response.stream:
        body += chunk
        if len(body) > limit:
            return reply._replace(problem=f"is longer than {limit} bytes")
    return reply._replace(body=bytes(body))


async def _close(transport: httpx.AsyncHTTPTransport) -> None:
    """End what an interrupt left under way, then close."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await transport.aclose()


def _trusted(authorities: str | None) -> ssl.SSLContext:
    if authorities is None:
        return httpx.create_ssl_context(trust_env=False)
    try:
        return ssl.create_default_context(cafile=authorities)
    except OSError as error:
        raise ConfigError(f"authorities = {authorities!r}: can not be used ({error})") from error


def _certificate(response: httpx.Response) -> str:
    stream = response.extensions.get("network_stream")
    secured = stream.get_extra_info("ssl_object") if stream is not None else None
    return sha256(secured.getpeercert(binary_form=True)) if secured is not None else ""


def _words(error: httpx.TransportError) -> str:
    return " ".join(f"{type(error).__name__} {error}".split())[:200]
