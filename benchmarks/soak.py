"""Ten minutes of load on our server: memory, errors, and the slowest one in a hundred responses.

    apt-get install apache2-utils && python benchmarks/soak.py [--seconds 600] [--connections 8] [--silent 300] [--json]

`ab` sends one image per request in binary over kept connections. `--silent` connections beside them begin a header
block, never end it, and connect again when they are closed. Memory is the server's resident size, once a second; the
first tenth of the time is left out, in which PyTorch and the allocator fill their pools.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from serve import OURS, free_port, http_request, running_server, write_digits

MOST_REQUESTS = 10_000_000


class SilentConnections:
    """Connections that begin a header block and never end it."""

    def __init__(self, port: int, count: int) -> None:
        self._address, self._count = ("127.0.0.1", port), count
        self._open: list[socket.socket] = []

    def renew(self) -> None:
        """Open as many as are missing."""
        self._open = [connection for connection in self._open if not _is_closed(connection)]
        while len(self._open) < self._count:
            connection = socket.create_connection(self._address)
            connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n")
            self._open.append(connection)


def _is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1, socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process in MiB."""
    return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0]) / 1024


def soak(seconds: int, connections: int, silent: int) -> dict[str, float]:
    """Run the load, and return what was measured."""
    with tempfile.TemporaryDirectory() as directory:
        folder, port = write_digits(Path(directory)), free_port()
        head, _, body = http_request(port, binary=True).partition(b"\r\n\r\n")
        (length,) = re.findall(rb"(Inference-Header-Content-Length: \d+)", head)
        request, times = Path(directory) / "request", Path(directory) / "times.csv"
        request.write_bytes(body)
        load = ["ab", "-q", "-k", "-r", "-c", str(connections), "-t", str(seconds), "-n", str(MOST_REQUESTS)]
        load += ["-p", str(request), "-T", "application/octet-stream", "-H", length.decode(), "-e", str(times)]
        load.append(f"http://127.0.0.1:{port}/v2/models/digits/infer")
        memory = []
        with running_server([sys.executable, "-c", OURS, str(folder)], port) as server:
            others = SilentConnections(port, silent)
            with subprocess.Popen(load, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as client:
                while client.poll() is None:
                    others.renew()
                    memory.append(resident_mib(server.pid))
                    time.sleep(1)
                assert client.stdout is not None
                said = client.stdout.read()
        if client.returncode:
            raise SystemExit(f"ab failed: {said.strip()}")
        percentiles = dict(list(csv.reader(times.open()))[1:])
    steady = memory[len(memory) // 10 :]
    counts = {
        name: sum(map(int, re.findall(rf"{name}[^:]*: +(\d+)", said))) for name in ("Complete", "Failed", "Non-2xx")
    }
    return {
        "seconds": seconds,
        "requests": counts["Complete"],
        "errors": counts["Failed"] + counts["Non-2xx"],
        "p99_ms": float(percentiles["99"]),
        "memory_mib": round(steady[0], 1),
        "memory_growth": round(max(steady) / steady[0] - 1, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Load our server for ten minutes.")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--silent", type=int, default=0, help="connections that never end their header block")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = soak(options.seconds, options.connections, options.silent)
    print(json.dumps(found) if options.json else "  ".join(f"{name} {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
