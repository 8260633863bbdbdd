"""Run an application: the listening socket, and a server ended by a signal or as a context manager."""

from __future__ import annotations

import math
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import uvicorn
from starlette.applications import Starlette

from wootz.errors import ConfigError
from wootz.serving.admission import ServingLimits
from wootz.serving.connections import BoundedProtocol, Connections

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_BACKLOG = 1024
_SHUTDOWN_SECONDS = 30


class _Server(uvicorn.Server):
    """A server that returns after the signal that ended it; `uvicorn.Server` raises the signal again."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End the service by SIGINT or SIGTERM; only the main thread can install signal handlers."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; connections wait until a server runs.

    Args:
        host: a host name or an address.
        port: 0 takes a free one.

    Raises:
        ConfigError: the address does not exist, or the port is in use.
    """
    try:
        # With an explicit protocol; otherwise asyncio leaves Nagle's algorithm on and responses are delayed.
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"{host}, port {port}: is not an address ({error}); choose another --host") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise ConfigError(f"{host}, port {port}: cannot listen there ({error.strerror}); choose another") from error
    return listening


def url_of(listening: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(app: Starlette, listening: socket.socket) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish open requests and return. A second Ctrl-C ends it at once."""
    _server(app).run(sockets=[listening])


@contextmanager
def running(app: Starlette, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve in a thread while the context is open; yields the URL."""
    with listen(host, port) as listening:
        server = _server(app)
        thread = threading.Thread(target=server.run, args=([listening],), name="wootz-serve")
        thread.start()
        try:
            yield url_of(listening)
        finally:
            server.should_exit = True
            thread.join()


def _server(app: Starlette) -> _Server:
    limits: ServingLimits = getattr(app.state, "limits", ServingLimits())
    protocol = partial(BoundedProtocol, limits=limits, connections=Connections(limits))
    config = uvicorn.Config(
        app,
        http=protocol,  # type: ignore[arg-type]  # any callable that makes one
        lifespan="on",
        ws="none",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=math.ceil(limits.idle_seconds),
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    return _Server(config)
