"""Our side of an isolated process: start it, talk to it within time, check what it says, end it and all it started."""

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
from wootz.errors import SuspectError
from wootz.models import ModelSpec
from wootz.suspects.files.budget import Limits
from wootz.suspects.files.confine import Isolation
from wootz.suspects.files.files import Untrusted
from wootz.suspects.files.frames import HEAD, frame, packed_images, scores_length, unpacked_scores
from wootz.suspects.files.own_network import check_image
from wootz.suspects.files.words import one_line, strict_json

_START = (
    "import sys; root = sys.argv[1]; root in sys.path or sys.path.insert(0, root); "
    "from wootz.suspects.files.child import main; main()"
)
_JSON_BYTES = 1 << 23
_PIECE = 1 << 20
_KINDS: Mapping[str, type[errors.Error]] = MappingProxyType(
    {name: getattr(errors, name) for name in errors.__all__ if name != "Error"}
)
_ENDS: Mapping[int, str] = {signal.SIGXCPU: "it took too much processor time", signal.SIGKILL: "it was killed"}


class Worker:
    """A running isolated process; its pipes belong to whoever holds the lock.

    Attributes:
        isolation: the walls that it says it stands behind, said before it saw the suspect.
        spec: what the suspect takes and knows.
    """

    isolation: Isolation
    spec: ModelSpec

    def __init__(self, process: subprocess.Popen[bytes], name: str, limits: Limits) -> None:
        self._process, self._name, self._limits = process, name, limits
        self._lock = threading.Lock()

    def open(self, given: Untrusted, *, threads: int) -> None:
        """Send the suspect over, and learn what it is.

        Raises:
            Error: what the isolated process found wrong, or a SuspectError if it broke or took too long.
        """
        limits, order = asdict(self._limits), {"name": self._name, "kind": given.kind, "threads": threads}
        until = time.monotonic() + self._limits.start_seconds
        self._send(frame(b"J", json.dumps(order | {"limits": limits}).encode()), until)
        walls = strict_json(self._receive(b"J", _JSON_BYTES, until), self._name)
        if not isinstance(walls, dict):
            raise SuspectError(f"{self._name}: its isolated process does not say how it is isolated")
        self.isolation = Isolation(**{wall: walls.get(wall) is True for wall in Isolation._fields})
        until = time.monotonic() + self._limits.open_seconds
        self._send(frame(b"B", given.description or b""), until)
        self._send(frame(b"B", memoryview(given.data)), until)
        self.spec = self._spec(strict_json(self._receive(b"J", _JSON_BYTES, until), self._name))

    def ask(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the scores [N, K] of images [N, C, H, W].

        Raises:
            SuspectError: no answer, or one of the wrong shape.
        """
        with self._turn() as until:
            return self._ask(x, until)

    def weights(self, name: str, shape: tuple[int, ...]) -> Tensor | None:
        """Return the suspect's tensor of this name and shape, float32, or None where it has no such one.

        Raises:
            SuspectError: no answer, or something that is no such tensor.
        """
        with self._turn() as until:
            self._send(frame(b"W", json.dumps({"name": name, "shape": shape}).encode()), until)
            payload = self._receive(b"W", 4 * math.prod(shape), until)
            if not payload:
                return None
            if len(payload) != 4 * math.prod(shape):
                raise SuspectError(f"{self._name}: showed something else than a tensor {list(shape)}")
            tensor = torch.from_numpy(np.frombuffer(payload, "<f4").astype(np.float32)).view(shape)
            if not tensor.isfinite().all():
                raise SuspectError(f"{self._name}: showed NaN or infinity as weights")
            return tensor

    @contextmanager
    def _turn(self) -> Iterator[float]:
        """Give the time until which one question must be answered; who fails to answer one is asked no other."""
        with self._lock:
            if self._process.returncode is not None:
                raise self._gone()
            try:
                yield time.monotonic() + self._limits.answer_seconds
            except errors.Error:
                self.end()  # whatever it may still say would be taken for the next answer
                raise

    def end(self) -> None:
        """Kill the process and all that it started, and wait for it."""
        if self._process.returncode is not None:
            return  # the number may be another process's by now
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
            raise SuspectError(f"{self._name}: answered {len(x)} images with something else than [N, {classes}] scores")
        return scores

    def _send(self, pieces: Sequence[bytes | memoryview], until: float) -> None:
        descriptor = _number(self._process.stdin)
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                self._wait(descriptor, select.POLLOUT, until)
                try:
                    rest = rest[os.write(descriptor, rest[:_PIECE]) :]
                except BlockingIOError:
                    continue
                except BrokenPipeError:
                    raise self._gone() from None

    def _receive(self, letter: bytes, most: int, until: float) -> bytes:
        said, length = HEAD.unpack(self._exactly(HEAD.size, until))
        if said not in (letter, b"E") or length > (most if said == letter else _JSON_BYTES):
            raise SuspectError(f"{self._name}: its isolated process answered out of turn")
        payload = self._exactly(length, until)
        if said == b"E":
            raise self._reported(strict_json(payload, self._name))
        return payload

    def _exactly(self, length: int, until: float) -> bytes:
        descriptor, got = _number(self._process.stdout), bytearray()
        while len(got) < length:
            self._wait(descriptor, select.POLLIN, until)
            try:
                piece = os.read(descriptor, min(_PIECE, length - len(got)))
            except BlockingIOError:
                continue
            if not piece:
                raise self._gone()
            got += piece
        return bytes(got)

    def _wait(self, descriptor: int, event: int, until: float) -> None:
        """Wait until the pipe is ready; a process that takes too long is killed."""
        poll = select.poll()
        poll.register(descriptor, event)
        left = until - time.monotonic()
        if left <= 0 or not poll.poll(1000 * left):
            self.end()
            raise SuspectError(f"{self._name}: took too long to answer and was ended")

    def _gone(self) -> SuspectError:
        """Return the error about a process that is not there any more."""
        self.end()
        code = self._process.returncode
        how = _ENDS.get(-code, f"signal {-code}") if code < 0 else f"exit code {code}"
        return SuspectError(f"{self._name}: the isolated process that read it broke ({how})")

    def _reported(self, said: Any) -> errors.Error:
        """Return the error that the process reports, in one plain line whatever it says."""
        kind, text = (one_line(said.get(key, ""), 400) if isinstance(said, dict) else "" for key in ("kind", "text"))
        if kind in _KINDS:
            return _KINDS[kind](text)
        if kind == "MemoryError":
            return SuspectError(f"{self._name}: needs more memory than a suspect may take")
        return SuspectError(f"{self._name}: the isolated process that read it broke ({kind}: {one_line(text, 160)})")

    def _spec(self, said: Any) -> ModelSpec:
        if not isinstance(said, dict) or not isinstance(said.get("settings"), dict):
            raise SuspectError(f"{self._name}: its isolated process does not say what it is")
        check_image(said.get("shape"), said.get("classes"), self._name, self._limits)
        channels, height, width = said["shape"]
        return ModelSpec(
            architecture=one_line(said.get("architecture"), 80),
            settings=said["settings"],
            shape=(channels, height, width),
            classes=tuple(said["classes"]),
        )


@contextmanager
def isolated(given: Untrusted, limits: Limits, *, threads: int) -> Iterator[Worker]:
    """Open a suspect in a process of its own, which ends with the context.

    Raises:
        Error: see `Worker.open`.
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
        os.set_blocking(_number(pipe), False)
    worker = Worker(process, given.name, limits)
    try:
        worker.open(given, threads=threads)
        del given  # both processes need not keep the bytes
        yield worker
    finally:
        worker.end()


def _number(pipe: Any) -> int:
    return int(pipe.fileno())
