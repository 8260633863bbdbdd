"""The isolated process: reads a suspect from a pipe, answers requests over another pipe, and may do nothing else.

The sequence of messages (see `wootz.suspects.files.ipc`): settings (J); the process drops its rights and reports which
(J); the suspect's bytes (B, B); the suspect's spec (J); then images to scores (Q -> A) and weights (W -> W) until the
pipe closes. Errors are reported as E.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, BinaryIO

from wootz.suspects.files.ipc import HEAD, frame, packed_scores, unpacked_images
from wootz.suspects.files.sandbox import Isolation, drop_rights, leave_network

if TYPE_CHECKING:
    from wootz.models import ModelSpec


def main() -> None:
    """Serve one suspect on standard input and output."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # output of libraries must not reach the pipe for replies
    try:
        _serve(sys.stdin.buffer, answers)
    except Exception as error:  # process boundary: every error is reported to the parent
        kind = "MemoryError" if _no_memory(error) else type(error).__name__
        _write(answers, frame(b"E", json.dumps({"kind": kind, "text": str(error)[:2000]}).encode()))


def _serve(pipe: BinaryIO, answers: BinaryIO) -> None:
    offline, own_users = leave_network()
    request: dict[str, Any] = json.loads(_read(pipe))
    threads = request["threads"]
    import torch  # only now: a process with threads cannot change its network namespace

    from wootz.config import from_mapping
    from wootz.suspects.files.limits import Limits
    from wootz.suspects.files.loading import load
    from wootz.suspects.files.untrusted import Untrusted

    if request["kind"] == "onnx":
        import onnx
        import onnxruntime  # type: ignore[import-untyped]  # ships no types

        _ = onnx, onnxruntime
    else:
        import safetensors.torch

        _ = safetensors
    torch.set_num_threads(threads)
    network = _named_network(request)
    limits = from_mapping(Limits, request["limits"])
    rlimits, landlock = drop_rights(limits, threads=threads, own_users=own_users)
    isolation = Isolation(process=True, rlimits=rlimits, network=offline, landlock=landlock)
    _write(answers, frame(b"J", json.dumps(isolation._asdict()).encode()))
    description = _read(pipe) or None
    untrusted = Untrusted(request["name"], request["kind"], _read(pipe), description)
    suspect = load(untrusted, limits, threads=threads, network=network)
    _write(answers, frame(b"J", json.dumps(asdict(suspect.spec)).encode()))
    while True:
        letter, payload = _next(pipe)
        if letter == b"W":
            query = json.loads(payload)
            tensor = suspect.weights(query["name"], tuple(query["shape"])) if suspect.weights else None
            _write(answers, frame(b"W", b"" if tensor is None else tensor.numpy().astype("<f4").tobytes()))
        else:
            x = torch.from_numpy(unpacked_images(payload).copy())
            _write(answers, packed_scores(suspect.predict(x).numpy()))


def _named_network(request: dict[str, Any]) -> ModelSpec | None:
    """Return the network that the parent named, once its code is imported and was run."""
    if request["network"] is None:
        return None
    from wootz.config import from_mapping
    from wootz.models import ModelSpec, Wrapper, build

    sys.path += [place for place in request["search"] if place not in sys.path]
    fields = request["network"]
    fields |= {name: tuple(fields[name]) for name in ("shape", "classes")}
    wrapper = from_mapping(Wrapper, fields["wrapper"])
    spec = ModelSpec(**fields | {"wrapper": wrapper, "source": ""})  # its file cannot be read later
    build(spec, seed=0)
    return spec


def _read(pipe: BinaryIO) -> bytes:
    """Return the next payload."""
    return _next(pipe)[1]


def _next(pipe: BinaryIO) -> tuple[bytes, bytes]:
    """Return the next message type and payload; exit when the pipe is closed."""
    head = pipe.read(HEAD.size)
    if len(head) < HEAD.size:
        raise SystemExit(0)
    letter, length = HEAD.unpack(head)
    return letter, pipe.read(length)


def _write(answers: BinaryIO, chunks: list[bytes | memoryview]) -> None:
    for chunk in chunks:
        rest = memoryview(chunk)
        while rest:
            rest = rest[answers.write(rest) :]


def _no_memory(error: Exception) -> bool:
    """Return whether this is an out-of-memory error of Python, PyTorch or ONNX Runtime."""
    return isinstance(error, MemoryError) or "can't allocate memory" in str(error) or "bad_alloc" in str(error)
