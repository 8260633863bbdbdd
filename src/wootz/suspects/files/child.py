"""The isolated process: reads a suspect from a pipe, answers images over another, and may do nothing else.

It is told what to expect (J), gives up its rights and says which (J), reads the suspect's bytes (B, B), says what the
suspect is (J), then answers images (Q -> A) and shows weights (W -> W) until the pipe closes. Whatever goes wrong it
says as E.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from typing import Any, BinaryIO

from wootz.suspects.files.confine import Isolation, give_up_rights, leave_network
from wootz.suspects.files.frames import HEAD, frame, packed_scores, unpacked_images


def main() -> None:
    """Serve one suspect on standard input and output."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever a library prints shall not look like an answer
    try:
        _serve(sys.stdin.buffer, answers)
    except Exception as error:  # the border of the process: whatever it is, the other side shall know it
        kind = "MemoryError" if _no_memory(error) else type(error).__name__
        _write(answers, frame(b"E", json.dumps({"kind": kind, "text": str(error)[:2000]}).encode()))


def _serve(given: BinaryIO, answers: BinaryIO) -> None:
    network, own_users = leave_network()
    order: dict[str, Any] = json.loads(_read(given))
    threads = order["threads"]
    import torch  # only now: threads would keep the process in its network

    from wootz.config import from_mapping
    from wootz.suspects.files.budget import Limits
    from wootz.suspects.files.files import Untrusted
    from wootz.suspects.files.loading import load

    if order["kind"] == "onnx":
        import onnx
        import onnxruntime  # type: ignore[import-untyped]  # ships no types

        _ = onnx, onnxruntime
    else:
        import safetensors.torch

        _ = safetensors
    torch.set_num_threads(threads)
    limits = from_mapping(Limits, order["limits"])
    rlimits, landlock = give_up_rights(limits, threads=threads, own_users=own_users)
    walls = Isolation(process=True, rlimits=rlimits, network=network, landlock=landlock)
    _write(answers, frame(b"J", json.dumps(walls._asdict()).encode()))
    description = _read(given) or None
    suspect = load(Untrusted(order["name"], order["kind"], _read(given), description), limits, threads=threads)
    _write(answers, frame(b"J", json.dumps(asdict(suspect.spec)).encode()))
    while True:
        letter, payload = _next(given)
        if letter == b"W":
            wanted = json.loads(payload)
            tensor = suspect.weights(wanted["name"], tuple(wanted["shape"])) if suspect.weights else None
            _write(answers, frame(b"W", b"" if tensor is None else tensor.numpy().astype("<f4").tobytes()))
        else:
            x = torch.from_numpy(unpacked_images(payload).copy())
            _write(answers, packed_scores(suspect.predict(x).numpy()))


def _read(given: BinaryIO) -> bytes:
    """Return the next payload."""
    return _next(given)[1]


def _next(given: BinaryIO) -> tuple[bytes, bytes]:
    """Return the next letter and payload; the process ends with the pipe."""
    head = given.read(HEAD.size)
    if len(head) < HEAD.size:
        raise SystemExit(0)
    letter, length = HEAD.unpack(head)
    return letter, given.read(length)


def _write(answers: BinaryIO, pieces: list[bytes | memoryview]) -> None:
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            rest = rest[answers.write(rest) :]


def _no_memory(error: Exception) -> bool:
    """PyTorch and ONNX Runtime have words of their own for a MemoryError."""
    return isinstance(error, MemoryError) or "can't allocate memory" in str(error) or "bad_alloc" in str(error)
