"""A real HTTP server that classifies images, badly behaved on demand, and remembers what it was asked."""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_DEEP = b"[" * 900 + b"]" * 900
CLASSES = [f"class {number}" for number in range(10)]
LENGTH = "Inference-Header-Content-Length"

Plan = Callable[[int, str], str | None]
"""(how often this image came before, its digest) -> the name of a fault, or None to answer it."""


def digest(image: NDArray[Any]) -> str:
    """Name an image [C, H, W] in [0, 1] by its gray levels."""
    return hashlib.sha256(np.rint(image * 255).astype(np.uint8).tobytes()).hexdigest()


def scores(image: NDArray[Any]) -> list[float]:
    """Classify an image by its name."""
    raw = bytes.fromhex(digest(image))[:10]
    return [value / 256 for value in raw]


class FaultServer(ThreadingHTTPServer):
    """What was asked, and what came of it; all images by name."""

    daemon_threads = True

    def __init__(self, plan: Plan) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.plan = plan
        self.tell_binary = True
        self.shape = [-1, -1, -1, -1]
        self.named = "digits"
        self.classes: list[str] | None = CLASSES
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.seen: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.again: list[str] = []
        self.bodies: list[bytes] = []
        self.headers: list[Mapping[str, str]] = []
        self.before: Callable[[int], None] = lambda _: None
        self.after: Callable[[int], None] = lambda _: None

    def handle_error(self, *_: object) -> None:
        """Clients hang up; that is what this is about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FaultServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if "/missing" in self.path:
            self.say(404, {"error": "no such model"})
            return
        slot = {"name": "pixels", "datatype": "FP32", "shape": self.server.shape}
        output = {"name": "scores", "datatype": "FP32", "shape": [-1, len(CLASSES)]}
        self.say(
            200,
            {
                "name": self.server.named,
                "versions": None,
                "platform": "test",
                "inputs": [slot],
                "outputs": [output],
                "parameters": {"classes": self.server.classes, "eps": 0.1},
            },
        )

    def do_POST(self) -> None:
        server, body = self.server, self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get(LENGTH) and not server.tell_binary:
            self.say(415, {"error": "JSON only"})
            return
        images, ident, binary = self.images(body)
        names = [digest(image) for image in images]
        with server.lock:
            fault = next((name for name in (server.plan(server.seen[n], n) for n in names) if name), None)
            server.again += [name for name in names if server.answered[name]]
            server.seen.update(names)
            server.bodies.append(body)
            server.headers.append(dict(self.headers))
            count = len(server.bodies)
            if fault is None or FAULTS[fault][0]:
                server.answered.update(names)
        server.before(count)
        document = self.document(images, ident)
        if fault is not None:
            self.close_connection = True
            with suppress(OSError):
                FAULTS[fault][1](self, document)
        elif binary:
            self.say_binary(document)
        else:
            self.say(200, document)
        server.after(count)

    def images(self, body: bytes) -> tuple[list[NDArray[Any]], str | None, bool]:
        """Return images [C, H, W] in [0, 1], the id, and whether the question was binary."""
        if self.headers["Content-Type"] == "image/png":
            picture = np.asarray(Image.open(io.BytesIO(body)), np.float32) / 255
            return [np.atleast_3d(picture).transpose(2, 0, 1)], None, False
        length = self.headers.get(LENGTH)
        told = json.loads(body[: int(length)] if length else body)
        if "inputs" not in told:
            return list(np.array(told["instances"], np.float32)), None, False
        (slot,) = told["inputs"]
        assert slot["name"] == "pixels"
        flat = np.frombuffer(body[int(length) :], "<f4") if length else np.array(slot["data"], np.float32)
        assert length is None or slot["parameters"]["binary_data_size"] == 4 * flat.size
        return list(flat.reshape(slot["shape"])), told["id"], bool(length)

    def document(self, images: list[NDArray[Any]], ident: str | None) -> Any:
        rows = [scores(image) for image in images]
        if "/v2/" in self.path:
            data = [value for row in rows for value in row]
            output = {"name": "scores", "datatype": "FP32", "shape": [len(rows), 10], "data": data}
            return {"model_name": self.server.named, "id": ident, "parameters": None, "outputs": [output]}
        if self.path.endswith(":predict"):
            return {"predictions": rows}
        order = np.argsort(rows[0])[::-1]
        return [{"label": CLASSES[int(k)], "score": rows[0][int(k)]} for k in order]

    def say(self, status: int, document: Any, **headers: str) -> None:
        self.say_bytes(status, json.dumps(document).encode(), **headers)

    def say_binary(self, document: Any) -> None:
        (output,) = document["outputs"]
        data = np.array(output.pop("data"), "<f4").tobytes()
        output["parameters"] = {"binary_data_size": len(data)}
        told = json.dumps(document).encode()
        self.say_bytes(200, told + data, **{LENGTH: str(len(told))})

    def say_bytes(self, status: int, body: bytes, **headers: str) -> None:
        self.begin(status, len(body), **headers)
        self.wfile.write(body)

    def begin(self, status: int, length: int, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close" if self.close_connection else "keep-alive")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.flush()

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())


def _half(handler: _Handler, document: Any) -> None:
    body = json.dumps(document).encode()
    handler.begin(200, len(body))
    handler.wfile.write(body[: len(body) // 2])
    handler.wfile.flush()
    handler.reset()


def _drip(handler: _Handler, document: Any) -> None:
    body = json.dumps(document).encode()
    handler.begin(200, len(body))
    for byte in body:
        handler.wfile.write(bytes([byte]))
        handler.wfile.flush()
        if handler.server.stopped.wait(0.02):
            return


def _giant(handler: _Handler, document: Any) -> None:
    handler.begin(200, 2**40)
    while not handler.server.stopped.is_set():
        handler.wfile.write(b" " * 2**16)


def _garbage(handler: _Handler, _: Any) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n: no name\r\n\r\n")


def _altered(**changes: Any) -> Callable[[_Handler, Any], None]:
    """Answer with the document, some fields of which are changed; those of the output, where it has them."""

    def fault(handler: _Handler, document: Any) -> None:
        output = document["outputs"][0]
        for key, value in changes.items():
            (output if key in output else document)[key] = value
        handler.say(200, document)

    return fault


def _status(status: int, **headers: str) -> Callable[[_Handler, Any], None]:
    return lambda handler, _: handler.say(status, {"error": "no"}, **headers)


FAULTS: Mapping[str, tuple[bool, Callable[[_Handler, Any], None]]] = MappingProxyType(
    {
        "429, seconds": (False, _status(429, Retry_After="7")),
        "429, date": (False, _status(429, Retry_After="Fri, 31 Dec 9999 23:59:59 GMT")),
        "500": (False, _status(500)),
        "503": (False, _status(503, Retry_After="soon")),
        "reset before the answer": (False, lambda handler, _: handler.reset()),
        "closed before the answer": (False, lambda *_: None),
        "reset within the body": (True, _half),
        "slow drip": (True, _drip),
        "giant body": (True, _giant),
        "wrong shape": (True, _altered(shape=[1, 7])),
        "null fields": (True, _altered(data=None)),
        "null numbers": (True, _altered(data=[None] * 10)),
        "NaN": (True, _altered(data=[float("nan")] * 10)),
        "another model": (True, _altered(model_name="letters")),
        "another request": (True, _altered(id="1")),
        "no JSON": (True, lambda handler, _: handler.say_bytes(200, b"[" * 100_000)),
        "deep JSON": (True, lambda handler, _: handler.say_bytes(200, b'{"model_name":' + _DEEP + b"}")),
        "no HTTP": (True, _garbage),
        "compressed": (True, lambda handler, told: handler.say(200, told, Content_Encoding="gzip")),
        "redirect": (False, _status(302, Location="/v2/models/digits/infer")),
        "refusal": (False, _status(403)),
    }
)
"""Name -> (whether status 200 was sent, how to do it)."""


@contextmanager
def serving(plan: Plan = lambda *_: None, *, certificate: Path | None = None) -> Iterator[FaultServer]:
    """Run a server on a free port of this computer; with a certificate (PEM, key and all) it speaks TLS."""
    with FaultServer(plan) as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.stopped.set()
        server.shutdown()
        thread.join()


def at(server: FaultServer, path: str = "/v2/models/digits", scheme: str = "http") -> str:
    """Return the URL of a path on the server."""
    return f"{scheme}://127.0.0.1:{server.server_port}{path}"
