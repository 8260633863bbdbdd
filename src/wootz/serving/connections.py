"""Bounds of connections: how many there are, how large their header blocks are, and how long they may take.

uvicorn's parser in C has no bounds of its own: header blocks of any size and age, and pipelined requests without end.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import struct
from collections import Counter
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from wootz.serving.admission import ServingLimits

_FIELD_BYTES = 32
"""What a header field counts beyond its name and value, as in RFC 9113, section 6.5.2."""

_MAX_PIPELINED = 16
_NO_LINGER = struct.pack("ii", 1, 0)
_RESERVED_DESCRIPTORS = 64
"""Files that the service itself opens; all other descriptors are for connections."""


class HeaderError(Exception):
    """A header block is too large, or too many requests are pipelined; ends the connection."""


class Connections:
    """The open connections of one service.

    A new connection for which there is no room replaces the one whose header block has been incomplete for longest; if
    its own address has too many, one of that address. Connections with a request in progress are never replaced.

    Args:
        limits: the limits of the service; the numbers are lowered to what the process's descriptors allow.
    """

    def __init__(self, limits: ServingLimits) -> None:
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._total = max(2, min(limits.connections, descriptors - _RESERVED_DESCRIPTORS))
        self._per_address = min(limits.connections_per_address, max(1, self._total // 2))
        self._open: dict[BoundedProtocol, str] = {}
        self._count: Counter[str] = Counter()
        self._waiting: dict[BoundedProtocol, None] = {}

    def admit(self, connection: BoundedProtocol, address: str) -> bool:
        """Make room for a connection; return whether it is admitted."""
        crowded = self._count[address] >= self._per_address
        if crowded or len(self._open) >= self._total:
            candidates = (one for one in self._waiting if not crowded or self._open[one] == address)
            oldest = next(candidates, None)
            if oldest is None:
                return False
            oldest.abort()
            self.remove(oldest)
        self._open[connection] = address
        self._count[address] += 1
        self._waiting[connection] = None
        return True

    def remove(self, connection: BoundedProtocol) -> None:
        """Forget a connection."""
        self._waiting.pop(connection, None)
        address = self._open.pop(connection, None)
        if address is not None:
            self._count[address] -= 1
            if not self._count[address]:
                del self._count[address]

    def set_waiting(self, connection: BoundedProtocol, waiting: bool) -> None:
        """Note whether a connection waits for a header block to end, or has a request in progress."""
        self._waiting.pop(connection, None)
        if waiting and connection in self._open:
            self._waiting[connection] = None

    def is_waiting(self, connection: BoundedProtocol) -> bool:
        """Tell whether a connection waits for a header block to end."""
        return connection in self._waiting


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol, with bounds.

    Args:
        config: uvicorn's config.
        server_state: uvicorn's state.
        app_state: the application's state.
        limits: the limits of the service.
        connections: the open connections of the service.
        _loop: the event loop.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: ServingLimits,
        connections: Connections,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits, self._places = limits, connections
        self._deadline: asyncio.TimerHandle | None = None
        self._too_large = f"the header block: must be at most {limits.header_bytes} bytes"
        self._head_bytes = self._unparsed_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time in which the first header block must end; without a place, the connection is closed."""
        super().connection_made(transport)
        if self._places.admit(self, self.client[0] if self.client else ""):
            self._start_deadline(self._limits.header_seconds)
        else:
            self._refuse(503, "too many connections; try again later")

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up the place."""
        self._stop_deadline()
        self._places.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, unless it makes an unfinished header field too long."""
        if self.transport.is_closing():
            return
        self._unparsed_bytes += len(data)
        super().data_received(data)
        if self._unparsed_bytes > self._limits.header_bytes and not self.transport.is_closing():
            self._refuse(431, self._too_large)

    def abort(self) -> None:
        """Close the connection at once; what was not sent yet is dropped, also by the operating system."""
        if self.transport.get_write_buffer_size():
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that is not HTTP or has too large a header block."""
        if self._head_bytes > self._limits.header_bytes:
            self._refuse(431, self._too_large)
        else:
            self._refuse(400, f"the request: must be HTTP/1.1, with at most {_MAX_PIPELINED} requests ahead of it")

    def on_message_begin(self) -> None:
        """Count the bytes of a new header block."""
        super().on_message_begin()
        self._head_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Count the bytes of the URL."""
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count the bytes of a field, of the header block or of the trailers after a body."""
        self._count_head(len(name) + len(value) + _FIELD_BYTES)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the request, whose body and answer have limits of their own."""
        if len(self.pipeline) >= _MAX_PIPELINED:
            raise HeaderError
        self._unparsed_bytes = 0
        self._stop_deadline()
        self._places.set_waiting(self, False)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Pass on a part of the body; the framing of a body may be as long as the body."""
        self._unparsed_bytes = max(0, self._unparsed_bytes - 2 * len(body))
        super().on_body(body)

    def on_response_complete(self) -> None:
        """Start the time in which the answer must be read and the next header block must end."""
        idle = not self.pipeline
        super().on_response_complete()
        if idle:
            self._places.set_waiting(self, True)
            self._start_deadline(self._limits.idle_seconds)

    def pause_writing(self) -> None:
        """Start the time in which a client must read what is sent."""
        super().pause_writing()
        self._start_deadline(self._limits.idle_seconds)

    def resume_writing(self) -> None:
        """End that time; while no request is in progress, the connection stays idle."""
        super().resume_writing()
        if not self._places.is_waiting(self):
            self._stop_deadline()

    def _count_head(self, size: int) -> None:
        self._unparsed_bytes = 0
        self._head_bytes += size
        if self._head_bytes > self._limits.header_bytes:
            raise HeaderError

    def _refuse(self, status: int, message: str) -> None:
        content = b'{"error":"%s"}' % message.encode()
        retry = "retry-after: 1\r\n" if status == 503 else ""
        head = f"HTTP/1.1 {status} \r\n{retry}content-type: application/json\r\ncontent-length: {len(content)}\r\n"
        self.transport.write(head.encode() + b"connection: close\r\n\r\n" + content)
        self.transport.close()
        self._start_deadline(self._limits.header_seconds)

    def _start_deadline(self, seconds: float) -> None:
        self._stop_deadline()
        self._deadline = self.loop.call_later(seconds, self.abort)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
