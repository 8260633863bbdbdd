"""Requests per second of our server and of kserve: the same model, one image per request, over loopback.

    make servers && python benchmarks/serve.py [--kserve .venvs/kserve] [--requests 1000] [--turns 5] [--json]

Both serve the small CNN on 28 x 28 images with one PyTorch thread. They are measured in alternating turns; every
connection sends its next request after the response to the last one, and the result is the median of the turns. Without
--kserve only our server runs.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Thread

import numpy as np

from wootz.models import ModelSpec, build, write_model

ROOT = Path(__file__).parent.parent
SHAPE = (1, 28, 28)
CONNECTIONS = (1, 8)
START_TIMEOUT = 120
OURS = """
import sys
from pathlib import Path
from wootz.workflows.serving import serve_run
serve_run(Path(sys.argv[1]), port=int(sys.argv[2]), threads=1)
"""


def http_request(port: int, binary: bool) -> bytes:
    """Return a complete HTTP request for one image."""
    image = np.random.default_rng(0).random((1, *SHAPE), np.float32)
    tensor: dict[str, object] = {"name": "image", "shape": list(image.shape), "datatype": "FP32"}
    payload: dict[str, object] = {"id": "1", "inputs": [tensor]}
    if binary:
        tensor["parameters"] = {"binary_data_size": image.nbytes}
        payload["parameters"] = {"binary_data_output": True}
    else:
        tensor["data"] = image.ravel().tolist()
    head = json.dumps(payload | {"outputs": [{"name": "scores"}]}).encode()
    body = head + image.tobytes() if binary else head
    content_type = (
        f"application/octet-stream\r\nInference-Header-Content-Length: {len(head)}" if binary else "application/json"
    )
    lines = f"POST /v2/models/digits/infer HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: {content_type}\r\n"
    return f"{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


def send(connection: socket.socket, request: bytes) -> bytes:
    """Send one request and return the body of the response; any status but 200 ends the benchmark."""
    connection.sendall(request)
    data = b""
    while (split := data.find(b"\r\n\r\n")) < 0:
        data += connection.recv(65536)
    head = data[:split].lower()
    if b" 200 " not in head.split(b"\r\n", 1)[0]:
        raise SystemExit(f"request failed: {data[:500]!r}")
    length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
    while len(data) < split + 4 + length:
        data += connection.recv(65536)
    return data[split + 4 :]


def rate(port: int, connections: int, requests: int, binary: bool) -> float:
    """Return the requests per second of all connections together."""
    request = http_request(port, binary)
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(connections)]
        for connection in sockets:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            send(connection, request)

        def run(connection: socket.socket) -> None:
            for _ in range(requests // connections):
                send(connection, request)

        threads = [Thread(target=run, args=[connection]) for connection in sockets]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return requests // connections * connections / (time.perf_counter() - start)


@contextmanager
def running_server(command: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server at this port; yields its process once it accepts connections."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    with (
        tempfile.TemporaryFile("w+") as output,
        subprocess.Popen([*command, str(port)], env=environment, stdout=output, stderr=output) as server,
    ):
        try:
            deadline = time.monotonic() + START_TIMEOUT
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    if server.poll() is not None or time.monotonic() > deadline:
                        output.seek(0)
                        last = (output.read().strip().splitlines() or ["no output"])[-1]
                        raise SystemExit(f"does not start: {' '.join(command)}: {last}") from None
                    time.sleep(0.1)
            yield server
        finally:
            server.terminate()


def write_digits(directory: Path) -> Path:
    """Write the run folder of a small CNN, untrained, and return it."""
    spec = ModelSpec(architecture="small-cnn", settings={}, shape=SHAPE, classes=tuple("0123456789"))
    about = {"data": "mnist", "eps": 0.25, "kind": "independent", "seed": 0}
    write_model(directory / "digits", build(spec, 0), spec, about)
    return directory / "digits"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description="Requests per second of our server and of kserve.")
    parser.add_argument("--kserve", type=Path, help="virtual environment with kserve and PyTorch")
    parser.add_argument("--requests", type=int, default=1000, help="requests per turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        folder = write_digits(Path(directory))
        commands = {"wootz": [sys.executable, "-c", OURS, str(folder)]}
        if options.kserve is not None:
            script = ROOT / "scripts/servers/kserve_model.py"
            commands["kserve"] = [str(options.kserve / "bin/python"), str(script), str(folder)]
        ports = {name: free_port() for name in commands}
        for name, command in commands.items():
            stack.enter_context(running_server(command, ports[name]))
        rows = []
        for binary in (True, False):
            for connections in CONNECTIONS:
                rates: dict[str, list[float]] = {name: [] for name in ports}
                for _ in range(options.turns):
                    for name, port in ports.items():
                        rates[name].append(rate(port, connections, options.requests, binary))
                row = {name: round(statistics.median(values), 1) for name, values in rates.items()}
                ratio = {"ratio": round(row["wootz"] / row["kserve"], 2)} if "kserve" in row else {}
                setting = {"data": "binary" if binary else "json", "connections": connections}
                rows.append({**setting, **row, **ratio})
    if options.json:
        print(json.dumps(rows))
        return
    for entry in rows:
        print("  ".join(f"{key} {value}" for key, value in entry.items()))


if __name__ == "__main__":
    main()
