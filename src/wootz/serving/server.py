"""Where a service listens, and how it is started and ended: by a signal, or as a context manager."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette

from wootz.errors import ConfigError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_BACKLOG = 1024
_SECONDS_TO_FINISH = 30
_SECONDS_IDLE = 60


class _Server(uvicorn.Server):
    """A server whose process goes on after the signal that ended it: uvicorn's own raises it once more."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let the signals end the service; only the main thread may listen to them."""
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
    """Return a socket that listens: whoever connects is served as soon as a service runs. Port 0 takes a free one.

    Raises:
        ConfigError: there is no such address, or the port is taken.
    """
    try:
        # With its protocol named, or asyncio leaves Nagle's algorithm on, and an answer waits for an acknowledgement.
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"{host}, port {port}: is no address ({error}); choose another --host") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise ConfigError(f"{host}, port {port}: can not be listened at ({error.strerror}); choose another") from error
    return listening


def url_of(listening: socket.socket) -> str:
    """Return the URL that a socket is reached at."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(app: Starlette, listening: socket.socket) -> None:
    """Serve until SIGTERM or Ctrl-C; then answer what is under way, and return. A second Ctrl-C ends it at once."""
    _server(app).run(sockets=[listening])


@contextmanager
def running(app: Starlette, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve in a thread while the context is open, and give the URL."""
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
    config = uvicorn.Config(
        app,
        lifespan="on",
        ws="none",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_SECONDS_IDLE,
        timeout_graceful_shutdown=_SECONDS_TO_FINISH,
    )
    return _Server(config)
