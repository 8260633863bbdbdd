"""Requests a second: our server beside kserve's, the same model, one image a request, over loopback.

    make servers && python benchmarks/serve.py [--kserve .venvs/kserve] [--requests 1000] [--turns 5] [--json]

Both serve the small CNN on 28 x 28 images on one thread of PyTorch. They are asked in turns, by connections that send
the next request when the last one is answered; the figure is the median of the turns. Without --kserve ours runs alone.
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
PATIENCE = 120
OURS = """
import sys
from pathlib import Path
from wootz.workflows.serving import serve_run
serve_run(Path(sys.argv[1]), port=int(sys.argv[2]), threads=1)
"""


def question(port: int, binary: bool) -> bytes:
    """Return one whole request for one image, as bytes of HTTP."""
    image = np.random.default_rng(0).random((1, *SHAPE), np.float32)
    slot = {"name": "image", "shape": list(image.shape), "datatype": "FP32"}
    told: dict[str, object] = {"id": "1", "inputs": [slot]}
    if binary:
        slot["parameters"] = {"binary_data_size": image.nbytes}
        told["parameters"] = {"binary_data_output": True}
    else:
        slot["data"] = image.ravel().tolist()
    head = json.dumps(told | {"outputs": [{"name": "scores"}]}).encode()
    body = head + image.tobytes() if binary else head
    kind = f"application/octet-stream\r\nInference-Header-Content-Length: {len(head)}" if binary else "application/json"
    lines = f"POST /v2/models/digits/infer HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: {kind}\r\n"
    return f"{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


def ask(connection: socket.socket, request: bytes) -> bytes:
    """Send one request and return the body of its answer; anything but 200 ends the benchmark."""
    connection.sendall(request)
    data = b""
    while (split := data.find(b"\r\n\r\n")) < 0:
        data += connection.recv(65536)
    head = data[:split].lower()
    if b" 200 " not in head.split(b"\r\n", 1)[0]:
        raise SystemExit(f"not answered: {data[:500]!r}")
    length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
    while len(data) < split + 4 + length:
        data += connection.recv(65536)
    return data[split + 4 :]


def rate(port: int, connections: int, requests: int, binary: bool) -> float:
    """Return requests a second of all connections together."""
    request = question(port, binary)
    with ExitStack() as opened:
        lines = [opened.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(connections)]
        for line in lines:
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ask(line, request)

        def work(line: socket.socket) -> None:
            for _ in range(requests // connections):
                ask(line, request)

        threads = [Thread(target=work, args=[line]) for line in lines]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return requests // connections * connections / (time.perf_counter() - start)


@contextmanager
def started(command: list[str], port: int) -> Iterator[int]:
    """Run a server, and give its port once it answers."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen([*command, str(port)], env=environment, stdout=said, stderr=said) as server,
    ):
        try:
            deadline = time.monotonic() + PATIENCE
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    if server.poll() is not None or time.monotonic() > deadline:
                        said.seek(0)
                        last = (said.read().strip().splitlines() or ["it said nothing"])[-1]
                        raise SystemExit(f"does not start: {' '.join(command)}: {last}") from None
                    time.sleep(0.1)
            yield port
        finally:
            server.terminate()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def main() -> None:
    options = argparse.ArgumentParser(description="Requests a second, ours and kserve's.")
    options.add_argument("--kserve", type=Path, help="virtual environment with kserve and PyTorch")
    options.add_argument("--requests", type=int, default=1000, help="a turn")
    options.add_argument("--turns", type=int, default=5)
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as place, ExitStack() as opened:
        folder = Path(place) / "digits"
        spec = ModelSpec(architecture="small-cnn", settings={}, shape=SHAPE, classes=tuple("0123456789"))
        write_model(folder, build(spec, 0), spec, {"data": "mnist", "eps": 0.25, "kind": "independent", "seed": 0})
        commands = {"wootz": [sys.executable, "-c", OURS, str(folder)]}
        if given.kserve is not None:
            script = ROOT / "scripts/servers/kserve_model.py"
            commands["kserve"] = [str(given.kserve / "bin/python"), str(script), str(folder)]
        ports = {name: opened.enter_context(started(command, free_port())) for name, command in commands.items()}
        rows = []
        for binary in (True, False):
            for connections in CONNECTIONS:
                rates: dict[str, list[float]] = {name: [] for name in ports}
                for _ in range(given.bisect_boundary):
                    for name, port in ports.items():
                        rates[name].append(rate(port, connections, given.requests, binary))
                row = {name: round(statistics.median(values), 1) for name, values in rates.items()}
                ratio = {"ratio": round(row["wootz"] / row["kserve"], 2)} if "kserve" in row else {}
                rows.append({"data": "binary" if binary else "json", "connections": connections} | row | ratio)
    if given.json:
        print(json.dumps(rows))
        return
    for entry in rows:
        print("  ".join(f"{key} {value}" for key, value in entry.items()))


if __name__ == "__main__":
    main()
