"""An HTTP server that classifies images, injects faults, and records the queries it received."""

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

_DEEP_JSON = b"[" * 900 + b"]" * 900
CLASSES = [f"class {number}" for number in range(10)]
LENGTH = "Inference-Header-Content-Length"

Plan = Callable[[int, str], str | None]
"""(how often this image was received before, its digest) -> the name of a fault, or None to answer it."""


def digest(image: NDArray[Any]) -> str:
    """Return the SHA-256 of the gray levels of an image [C, H, W] in [0, 1]."""
    return hashlib.sha256(np.rint(image * 255).astype(np.uint8).tobytes()).hexdigest()


def scores(image: NDArray[Any]) -> list[float]:
    """Return scores [10] that depend on the digest of an image."""
    raw = bytes.fromhex(digest(image))[:10]
    return [value / 256 for value in raw]


class FaultServer(ThreadingHTTPServer):
    """A server with the given faults.

    Attributes:
        plan: selects the fault of each image.
        accepts_binary: whether binary requests are accepted.
        seen: how often each image was received, by digest.
        answered: how often each image was answered with status 200, by digest.
        repeated: digests of images received after they were answered.
        bodies: the request bodies.
        headers: the request headers.
        before: called with the number of requests before each response.
        after: called with the number of requests after each response.
    """

    daemon_threads = True

    def __init__(self, plan: Plan) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.plan = plan
        self.accepts_binary = True
        self.shape: Any = [-1, -1, -1, -1]
        self.output_shape: Any = [-1, len(CLASSES)]
        self.model_name = "digits"
        self.classes: list[str] | None = CLASSES
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.seen: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.repeated: list[str] = []
        self.bodies: list[bytes] = []
        self.headers: list[Mapping[str, str]] = []
        self.before: Callable[[int], None] = lambda _: None
        self.after: Callable[[int], None] = lambda _: None

    def handle_error(self, *_: object) -> None:
        """Ignore closed connections, which the tests cause."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FaultServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if "/missing" in self.path:
            self.send_json(404, {"error": "no such model"})
            return
        tensor = {"name": "pixels", "datatype": "FP32", "shape": self.server.shape}
        output = {"name": "scores", "datatype": "FP32", "shape": self.server.output_shape}
        self.send_json(
            200,
            {
                "name": self.server.model_name,
                "versions": None,
                "platform": "test",
                "inputs": [tensor],
                "outputs": [output],
                "parameters": {"classes": self.server.classes, "eps": 0.1},
            },
        )

    def do_POST(self) -> None:
        server, body = self.server, self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get(LENGTH) and not server.accepts_binary:
            self.send_json(415, {"error": "JSON only"})
            return
        images, request_id, binary = self.images(body)
        digests = [digest(image) for image in images]
        with server.lock:
            fault = next((name for name in (server.plan(server.seen[n], n) for n in digests) if name), None)
            server.repeated += [name for name in digests if server.answered[name]]
            server.seen.update(digests)
            server.bodies.append(body)
            server.headers.append(dict(self.headers))
            count = len(server.bodies)
            if fault is None or FAULTS[fault][0]:
                server.answered.update(digests)
        server.before(count)
        document = self.document(images, request_id)
        if fault is not None:
            self.close_connection = True
            with suppress(OSError):
                FAULTS[fault][1](self, document)
        elif binary:
            self.send_binary(document)
        else:
            self.send_json(200, document)
        server.after(count)

    def images(self, body: bytes) -> tuple[list[NDArray[Any]], str | None, bool]:
        """Return images [C, H, W] in [0, 1], the request ID, and whether the request is binary."""
        if self.headers["Content-Type"] == "image/png":
            image = np.asarray(Image.open(io.BytesIO(body)), np.float32) / 255
            return [np.atleast_3d(image).transpose(2, 0, 1)], None, False
        length = self.headers.get(LENGTH)
        payload = json.loads(body[: int(length)] if length else body)
        if "inputs" not in payload:
            return list(np.array(payload["instances"], np.float32)), None, False
        (tensor,) = payload["inputs"]
        assert tensor["name"] == "pixels"
        flat = np.frombuffer(body[int(length) :], "<f4") if length else np.array(tensor["data"], np.float32)
        assert length is None or tensor["parameters"]["binary_data_size"] == 4 * flat.size
        return list(flat.reshape(tensor["shape"])), payload["id"], bool(length)

    def document(self, images: list[NDArray[Any]], request_id: str | None) -> Any:
        rows = [scores(image) for image in images]
        if "/v2/" in self.path:
            data = [value for row in rows for value in row]
            output = {"name": "scores", "datatype": "FP32", "shape": [len(rows), 10], "data": data}
            return {"model_name": self.server.model_name, "id": request_id, "parameters": None, "outputs": [output]}
        if self.path.endswith(":predict"):
            return {"predictions": rows}
        order = np.argsort(rows[0])[::-1]
        return [{"label": CLASSES[int(k)], "score": rows[0][int(k)]} for k in order]

    def send_json(self, status: int, document: Any, **headers: str) -> None:
        self.send_bytes(status, json.dumps(document).encode(), **headers)

    def send_binary(self, document: Any) -> None:
        (output,) = document["outputs"]
        data = np.array(output.pop("data"), "<f4").tobytes()
        output["parameters"] = {"binary_data_size": len(data)}
        header = json.dumps(document).encode()
        self.send_bytes(200, header + data, **{LENGTH: str(len(header))})

    def send_bytes(self, status: int, body: bytes, **headers: str) -> None:
        self.send_head(status, len(body), **headers)
        self.wfile.write(body)

    def send_head(self, status: int, length: int, **headers: str) -> None:
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


def _reset_within_body(handler: _Handler, document: Any) -> None:
    body = json.dumps(document).encode()
    handler.send_head(200, len(body))
    handler.wfile.write(body[: len(body) // 2])
    handler.wfile.flush()
    handler.reset()


def _drip(handler: _Handler, document: Any) -> None:
    body = json.dumps(document).encode()
    handler.send_head(200, len(body))
    for byte in body:
        handler.wfile.write(bytes([byte]))
        handler.wfile.flush()
        if handler.server.stopped.wait(0.02):
            return


def _giant(handler: _Handler, document: Any) -> None:
    handler.send_head(200, 2**40)
    while not handler.server.stopped.is_set():
        handler.wfile.write(b" " * 2**16)


def _garbage(handler: _Handler, _: Any) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n: no name\r\n\r\n")


def _altered(**changes: Any) -> Callable[[_Handler, Any], None]:
    """Return a fault that answers with changed fields: those of the output if it has them, else of the document."""

    def fault(handler: _Handler, document: Any) -> None:
        output = document["outputs"][0]
        for key, value in changes.items():
            (output if key in output else document)[key] = value
        handler.send_json(200, document)

    return fault


def _status(status: int, **headers: str) -> Callable[[_Handler, Any], None]:
    return lambda handler, _: handler.send_json(status, {"error": "no"}, **headers)


FAULTS: Mapping[str, tuple[bool, Callable[[_Handler, Any], None]]] = MappingProxyType(
    {
        "429, seconds": (False, _status(429, Retry_After="7")),
        "429, date": (False, _status(429, Retry_After="Fri, 31 Dec 9999 23:59:59 GMT")),
        "500": (False, _status(500)),
        "503": (False, _status(503, Retry_After="soon")),
        "reset before the answer": (False, lambda handler, _: handler.reset()),
        "closed before the answer": (False, lambda *_: None),
        "reset within the body": (True, _reset_within_body),
        "slow drip": (True, _drip),
        "giant body": (True, _giant),
        "wrong shape": (True, _altered(shape=[1, 7])),
        "null fields": (True, _altered(data=None)),
        "null numbers": (True, _altered(data=[None] * 10)),
        "NaN": (True, _altered(data=[float("nan")] * 10)),
        "another model": (True, _altered(model_name="letters")),
        "another request": (True, _altered(id="1")),
        "no JSON": (True, lambda handler, _: handler.send_bytes(200, b"[" * 100_000)),
        "deep JSON": (True, lambda handler, _: handler.send_bytes(200, b'{"model_name":' + _DEEP_JSON + b"}")),
        "no HTTP": (True, _garbage),
        "compressed": (True, lambda handler, document: handler.send_json(200, document, Content_Encoding="gzip")),
        "redirect": (False, _status(302, Location="/v2/models/digits/infer")),
        "refusal": (False, _status(403)),
    }
)
"""Name -> (whether it sends status 200, the function that sends the faulty response)."""


@contextmanager
def run_fault_server(plan: Plan = lambda *_: None, *, certificate: Path | None = None) -> Iterator[FaultServer]:
    """Run a server on a free port of 127.0.0.1; with a certificate (PEM, including the key) it uses TLS."""
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


def url_of(server: FaultServer, path: str = "/v2/models/digits", scheme: str = "http") -> str:
    """Return the URL of a path on the server."""
    return f"{scheme}://127.0.0.1:{server.server_port}{path}"
