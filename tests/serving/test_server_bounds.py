"""Attacks on the service: each meets a bound, and the other clients are answered meanwhile."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import httpx
import pytest
import torch
from torch import Tensor

from serving.small_service import INFER, INFO, body, images, query, scores
from wootz.serving import ModelInfo, ServingLimits, app, running

HEAD = b"Host: x\r\n"
LIVE = b"GET /v2/health/live HTTP/1.1\r\n" + HEAD
POST = f"POST {INFER} HTTP/1.1\r\n".encode() + HEAD
NEIGHBOUR = "127.0.0.2"


@contextmanager
def service(**limits: Any) -> Iterator[str]:
    with running(app(scores, INFO, limits=ServingLimits(**limits))) as url:
        yield url


def connect(url: str, data: bytes = b"") -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=60)
    connection.sendall(data)
    return connection


def received(connection: socket.socket) -> bytes:
    """Return what arrives until the service closes the connection."""
    parts: list[bytes] = []
    try:
        while part := connection.recv(2**16):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


def half_sent(url: str, count: int) -> socket.socket:
    """Send `count` bytes of a body, and keep the rest."""
    return connect(url, POST + b"Content-Length: 10000\r\n\r\n" + b" " * count)


def ask_from(address: str, url: str, **request: Any) -> httpx.Response:
    with httpx.Client(transport=httpx.HTTPTransport(local_address=address), timeout=60) as client:
        return client.request("POST" if request else "GET", url, **request)


class TestHeaders:
    @pytest.mark.parametrize(
        ("start", "more"),
        [
            (LIVE, b"a: b\r\n"),
            (LIVE + b"a: ", b"b"),
            (LIVE + b"a", b"a"),
            (b"GET /", b"a"),
            (POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n[\r\n0\r\n", b"a: b\r\n"),
            (POST + b"Transfer-Encoding: chunked\r\n\r\n1;", b"a"),
        ],
        ids=["fields", "value", "name", "url", "trailers", "chunk extension"],
    )
    def test_an_endless_header_block_ends_the_connection(self, start: bytes, more: bytes) -> None:
        block = more * (2**16 // len(more))
        with service() as url, closing(connect(url, start)) as connection, pytest.raises(ConnectionError):
            connection.sendall(block * 1000)  # 64 MB, much more than the sockets hold

    @pytest.mark.parametrize("fields", [b"a: " + b"b" * 1000 + b"\r\n", b"a: b\r\n" * 30])
    def test_a_long_one_gets_431(self, fields: bytes) -> None:
        with service(header_bytes=1000) as url:
            with closing(connect(url, LIVE + fields + b"\r\n")) as connection:
                answer = received(connection)
            assert answer.startswith(b"HTTP/1.1 431 ")
            assert answer.endswith(b'{"error":"the header block: must be at most 1000 bytes"}')
            assert query(url, "/v2/health/live").status_code == 200

    def test_no_more_requests_are_pipelined_than_wait(self) -> None:
        with service() as url, closing(connect(url, (LIVE + b"\r\n") * 1000)) as connection:
            assert received(connection).count(b"HTTP/1.1 200 ") <= 17


class TestTime:
    @pytest.mark.parametrize(
        ("first", "drip"),
        [(b"", b""), (LIVE, b""), (LIVE + b"a: ", b"b"), (LIVE + b"\r\n", b""), (LIVE + b"\r\n" + LIVE + b"a: ", b"b")],
        ids=["silent", "unfinished", "dripping", "idle", "idle, then dripping"],
    )
    def test_a_connection_without_a_request_is_closed(self, first: bytes, drip: bytes) -> None:
        with service(header_seconds=0.2, idle_seconds=0.2) as url, closing(connect(url, first)) as connection:
            assert _ends(connection, drip)

    def test_a_body_that_goes_on_after_its_refusal_ends_with_the_idle_time(self) -> None:
        limits = ServingLimits(idle_seconds=0.2)
        with running(app(scores, INFO, token="s3cret", limits=limits)) as url, closing(half_sent(url, 9)) as connection:
            assert _ends(connection, b" ")

    def test_a_response_must_be_read(self) -> None:
        """The response is larger than what the sockets hold."""
        wide = ModelInfo(name="tiny", shape=(1, 4, 4), classes=tuple(map(str, range(2000))))

        def answer(x: Tensor) -> Tensor:
            return torch.zeros(len(x), 2000) - 0.123456789

        request = body(images(1000))
        with (
            running(app(answer, wide, limits=ServingLimits(idle_seconds=0.2))) as url,
            closing(connect(url, POST + f"Content-Length: {len(request)}\r\n\r\n".encode() + request)) as connection,
        ):
            poll = select.poll()
            poll.register(connection, select.POLLHUP | select.POLLERR)
            assert poll.poll(60_000), "the service keeps what nobody reads"


class TestConnections:
    def test_connections_without_a_request_make_room_for_others(self) -> None:
        with service(connections=20) as url, ExitStack() as stack:
            for count in range(60):
                stack.enter_context(closing(connect(url, LIVE)))
                if count % 10 == 9:
                    assert query(url, "/v2/health/live").status_code == 200

    def test_an_address_has_half_of_the_places(self) -> None:
        """Those that hold a request are not closed for others."""
        with service(connections=8) as url, ExitStack() as stack:
            held = [stack.enter_context(closing(half_sent(url, 9))) for _ in range(4)]
            _until(lambda: _status(url, "127.0.0.1") == 503)
            assert _status(url, NEIGHBOUR) == 200
            held[0].close()
            _until(lambda: _status(url, "127.0.0.1") == 200)


class TestMemory:
    def test_half_sent_bodies_share_a_budget(self) -> None:
        request = body(images(10))
        assert 500 < len(request) < 10_000
        with service(max_bytes=10_000) as url, ExitStack() as stack:
            first, *_ = [stack.enter_context(closing(half_sent(url, 9_950))) for _ in range(8)]
            full = lambda: query(url, INFER, content=request).status_code == 503  # noqa: E731
            _until(full)
            answer = query(url, INFER, content=request)
            assert answer.headers["Retry-After"] == "1"
            assert answer.json() == {"error": "too many requests are in progress; try again later"}
            assert ask_from(NEIGHBOUR, url + INFER, content=request).status_code == 200
            first.close()
            _until(lambda: not full())

    @pytest.mark.parametrize(
        "content",
        [
            body(images(9)),
            body(images(9), data=images(9).tolist()),
            b'{"inputs":[' + b"[]," * 2000 + b"[]]}",
            b"[" + b"{}," * 2000 + b"0]",
        ],
        ids=["flat", "nested", "lists", "objects"],
    )
    def test_too_many_images_are_refused_before_they_are_read(self, content: bytes) -> None:
        with service(max_images=8) as url:
            answer = query(url, INFER, content=content)
            assert (answer.status_code, "at most 8 images" in answer.json()["error"]) == (413, True)
            assert query(url, INFER, content=body(images(8))).status_code == 200


def _status(url: str, address: str) -> int:
    """Return the status of a health check, 503 if the connection is closed without one."""
    try:
        return ask_from(address, f"{url}/v2/health/live").status_code
    except httpx.TransportError:
        return 503


def _until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.02)
    pytest.fail("the state is not reached")


def _ends(connection: socket.socket, drip: bytes) -> bool:
    """Send a byte now and then, and tell whether the service closes the connection."""
    connection.settimeout(0.05)
    for _ in range(600):
        try:
            connection.sendall(drip)
            if not connection.recv(2**16):
                return True
        except TimeoutError:
            continue
        except ConnectionError:
            return True
    return False
