"""The parent side of an isolated process: start it, exchange messages under time limits, check replies, and end it."""

from __future__ import annotations

import json
import math
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import wootz
from wootz import errors
from wootz.errors import InconclusiveError
from wootz.models import ModelSpec
from wootz.suspects.files.ipc import HEAD, frame, packed_images, scores_length, unpacked_scores
from wootz.suspects.files.limits import Limits
from wootz.suspects.files.own_network import check_image
from wootz.suspects.files.sandbox import Isolation
from wootz.suspects.files.sanitize import one_line, strict_json
from wootz.suspects.files.untrusted import Untrusted

_START = (
    "import sys; root = sys.argv[1]; root in sys.path or sys.path.insert(0, root); "
    "from wootz.suspects.files.child import main; main()"
)
_JSON_BYTES = 1 << 23
_CHUNK = 1 << 20
_KINDS: Mapping[str, type[errors.Error]] = MappingProxyType(
    {name: getattr(errors, name) for name in errors.__all__ if name != "Error"}
)
_EXIT_REASONS: Mapping[int, str] = {signal.SIGXCPU: "it exceeded its processor time", signal.SIGKILL: "it was killed"}


class Worker:
    """A running isolated process with one suspect; a lock serializes the use of its pipes.

    Attributes:
        isolation: The restrictions that the process reported before it received the suspect.
        spec: The image shape and the classes of the suspect.
    """

    isolation: Isolation
    spec: ModelSpec

    def __init__(self, process: subprocess.Popen[bytes], name: str, limits: Limits) -> None:
        self._process, self._name, self._limits = process, name, limits
        self._lock = threading.Lock()

    def open(self, untrusted: Untrusted, *, threads: int, network: ModelSpec | None) -> None:
        """Send the suspect to the process, and set `isolation` and `spec` from its replies.

        Args:
            untrusted: The suspect.
            threads: Of the process.
            network: The network that weights are loaded into, whose code the process imports before it drops its
                rights; None is the built-in one of the description.

        Raises:
            Error: The error that the isolated process reported, or an InconclusiveError if it crashed or timed out.
        """
        limits, request = asdict(self._limits), {"name": self._name, "kind": untrusted.kind, "threads": threads}
        request |= {"network": None if network is None else asdict(network), "search": _search_path()}
        until = time.monotonic() + self._limits.start_seconds
        self._send(frame(b"J", json.dumps(request | {"limits": limits}).encode()), until)
        isolation = strict_json(self._receive(b"J", _JSON_BYTES, until), self._name)
        if not isinstance(isolation, dict):
            raise InconclusiveError(f"{self._name}: its isolated process did not report its isolation")
        self.isolation = Isolation(**{name: isolation.get(name) is True for name in Isolation._fields})
        until = time.monotonic() + self._limits.open_seconds
        self._send(frame(b"B", untrusted.description or b""), until)
        self._send(frame(b"B", memoryview(untrusted.data)), until)
        self.spec = self._spec(strict_json(self._receive(b"J", _JSON_BYTES, until), self._name))

    def ask(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the scores [N, K] of images [N, C, H, W].

        Raises:
            InconclusiveError: There was no reply, or one of the wrong shape.
        """
        with self._request() as until:
            return self._ask(x, until)

    def weights(self, name: str, shape: tuple[int, ...]) -> Tensor | None:
        """Return the suspect's tensor of this name and shape, float32, or None if it has no such tensor.

        Raises:
            InconclusiveError: There was no reply, or one that is not such a tensor.
        """
        with self._request() as until:
            self._send(frame(b"W", json.dumps({"name": name, "shape": shape}).encode()), until)
            payload = self._receive(b"W", 4 * math.prod(shape), until)
            if not payload:
                return None
            if len(payload) != 4 * math.prod(shape):
                raise InconclusiveError(f"{self._name}: returned something else than a tensor {list(shape)}")
            tensor = torch.from_numpy(np.frombuffer(payload, "<f4").astype(np.float32)).view(shape)
            if not tensor.isfinite().all():
                raise InconclusiveError(f"{self._name}: returned weights with NaN or infinity")
            return tensor

    @contextmanager
    def _request(self) -> Iterator[float]:
        """Yield the deadline for one request; after a failed request the process is killed."""
        with self._lock:
            if self._process.returncode is not None:
                raise self._ended()
            try:
                yield time.monotonic() + self._limits.answer_seconds
            except errors.Error:
                self.end()  # a late reply would be taken for the reply to the next request
                raise

    def end(self) -> None:
        """Kill the process and its children, and wait for it."""
        if self._process.returncode is not None:
            return  # the process id may belong to another process by now
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

    def _ask(self, x: NDArray[np.float32], until: float) -> NDArray[np.float32]:
        classes = len(self.spec.classes)
        self._send(packed_images(x), until)
        scores = unpacked_scores(self._receive(b"A", scores_length(len(x), classes), until), len(x), classes)
        if scores is None:
            raise InconclusiveError(
                f"{self._name}: answered {len(x)} images with something else than scores [N, {classes}]"
            )
        return scores

    def _send(self, chunks: Sequence[bytes | memoryview], until: float) -> None:
        descriptor = _fileno(self._process.stdin)
        for chunk in chunks:
            rest = memoryview(chunk)
            while rest:
                self._wait(descriptor, select.POLLOUT, until)
                try:
                    rest = rest[os.write(descriptor, rest[:_CHUNK]) :]
                except BlockingIOError:
                    continue
                except BrokenPipeError:
                    raise self._ended() from None

    def _receive(self, letter: bytes, most: int, until: float) -> bytes:
        letter_received, length = HEAD.unpack(self._exactly(HEAD.size, until))
        if letter_received not in (letter, b"E") or length > (most if letter_received == letter else _JSON_BYTES):
            raise InconclusiveError(f"{self._name}: its isolated process sent an unexpected message")
        payload = self._exactly(length, until)
        if letter_received == b"E":
            raise self._reported(strict_json(payload, self._name))
        return payload

    def _exactly(self, length: int, until: float) -> bytes:
        descriptor, received = _fileno(self._process.stdout), bytearray()
        while len(received) < length:
            self._wait(descriptor, select.POLLIN, until)
            try:
                chunk = os.read(descriptor, min(_CHUNK, length - len(received)))
            except BlockingIOError:
                continue
            if not chunk:
                raise self._ended()
            received += chunk
        return bytes(received)

    def _wait(self, descriptor: int, event: int, until: float) -> None:
        """Wait until the pipe is ready; kill the process when the deadline passes."""
        poll = select.poll()
        poll.register(descriptor, event)
        left = until - time.monotonic()
        if left <= 0 or not poll.poll(1000 * left):
            self.end()
            raise InconclusiveError(f"{self._name}: took too long to answer and was killed")

    def _ended(self) -> InconclusiveError:
        """Return the error for a process that has ended."""
        self.end()
        code = self._process.returncode
        how = _EXIT_REASONS.get(-code, f"signal {-code}") if code < 0 else f"exit code {code}"
        return InconclusiveError(f"{self._name}: the isolated process that read it ended ({how})")

    def _reported(self, message: Any) -> errors.Error:
        """Return the error that the process reported, reduced to one printable line."""
        fields = message if isinstance(message, dict) else {}
        kind, text = (one_line(fields.get(key, ""), 400) for key in ("kind", "text"))
        if kind in _KINDS:
            return _KINDS[kind](text)
        if kind == "MemoryError":
            return InconclusiveError(f"{self._name}: needs more memory than a suspect may use")
        return InconclusiveError(
            f"{self._name}: the isolated process that read it failed ({kind}: {one_line(text, 160)})"
        )

    def _spec(self, message: Any) -> ModelSpec:
        if not isinstance(message, dict) or not isinstance(message.get("settings"), dict):
            raise InconclusiveError(f"{self._name}: its isolated process did not report a model spec")
        check_image(message.get("shape"), message.get("classes"), self._name, self._limits)
        channels, height, width = message["shape"]
        return ModelSpec(
            architecture=one_line(message.get("architecture"), 80),
            settings=message["settings"],
            shape=(channels, height, width),
            classes=tuple(message["classes"]),
        )


@contextmanager
def isolated(
    untrusted: Untrusted, limits: Limits, *, threads: int, network: ModelSpec | None = None
) -> Iterator[Worker]:
    """Open a suspect in a separate process, which ends with the context.

    Raises:
        Error: See `Worker.open`.
    """
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", _START, str(Path(wootz.__file__).parent.parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"OMP_NUM_THREADS": str(threads)},
        cwd="/",
        bufsize=0,
        start_new_session=True,
    )
    for pipe in (process.stdin, process.stdout):
        os.set_blocking(_fileno(pipe), False)
    worker = Worker(process, untrusted.name, limits)
    try:
        worker.open(untrusted, threads=threads, network=network)
        del untrusted  # both processes need not keep the bytes
        yield worker
    finally:
        worker.end()


def _search_path() -> list[str]:
    """Return the folders that modules are searched in, for the code of a named network."""
    return [os.path.abspath(place) for place in ("", *sys.path)]


def _fileno(pipe: Any) -> int:
    return int(pipe.fileno())
