"""The isolated process: it answers as the model does, can do nothing else, and always ends."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile import SPEC, onnx_graph, onnx_model, refused, state_zip, tensors_file
from onnx import TensorProto, helper
from torch import nn

from wootz.errors import Error, ModelError, SuspectError
from wootz.suspects.files import Isolation, Limits, open_file, open_suspect, predictor, worker
from wootz.suspects.files.ipc import HEAD


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the numbers of the processes that were started."""
    numbers, start = [], subprocess.Popen

    def note(*args: Any, **more: Any) -> subprocess.Popen[bytes]:
        process = start(*args, **more)
        numbers.append(process.pid)
        return process

    monkeypatch.setattr(subprocess, "Popen", note)
    return numbers


def _is_gone(process: int) -> bool:
    try:
        os.killpg(process, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt", "model.onnx"])
def test_every_kind_answers_as_the_model_does(run: Path, name: str, net: nn.Module, x: torch.Tensor) -> None:
    many = torch.cat([x] * 50)  # more than go at once
    with open_file(run / name, allow_torch_zip=True) as opened:
        scores = opened.predict(many)
        assert opened.spec.shape == SPEC.shape
        assert opened.spec.classes == SPEC.classes
        assert opened.isolation.process
    assert torch.allclose(scores, predictor(net)(many), atol=1e-4)
    assert torch.equal(scores.argmax(1), predictor(net, "label")(many))


def test_labels_alone_and_callers_side_by_side(run: Path, net: nn.Module, x: torch.Tensor, started: list[int]) -> None:
    expected, found = predictor(net, "label")(x), {}
    with open_suspect(run, "label") as (predict, spec):
        assert spec == SPEC
        askers = [threading.Thread(target=lambda n=n: found.update({n: predict(x[: n + 1])})) for n in range(len(x))]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
        assert not _is_gone(started[0])
    assert all(torch.equal(found[n], expected[: n + 1]) for n in range(len(x)))
    assert _is_gone(started[0])


def test_a_suspect_that_never_ends_is_ended(run: Path, x: torch.Tensor, started: list[int]) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Sin", ["value"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info(name, kind, shape)
            for name, kind, shape in (
                ("count", TensorProto.INT64, []),
                ("go", TensorProto.BOOL, []),
                ("value", TensorProto.FLOAT, None),
            )
        ],
        [
            helper.make_tensor_value_info(name, kind, None)
            for name, kind in (("on", TensorProto.BOOL), ("next", TensorProto.FLOAT))
        ],
    )
    plain = onnx_graph().node
    loop = helper.make_node("Loop", ["trips", "", "products"], ["scores"], body=body)
    trips = helper.make_tensor("trips", TensorProto.INT64, [], [1 << 62])
    product = helper.make_node("MatMul", ["flat", "weight"], ["products"])
    model = onnx_model(onnx_graph([plain[0], product, loop], [trips]))
    (run / "model.onnx").write_bytes(model.SerializeToString())
    with open_file(run / "model.onnx", limits=Limits(answer_seconds=0.5)) as opened:
        with pytest.raises(SuspectError, match="took too long to answer and was killed"):
            opened.predict(x)
        assert _is_gone(started[0])
        with pytest.raises(SuspectError, match="was killed"):
            opened.predict(x)


def test_a_suspect_that_eats_memory(run: Path) -> None:
    shape = helper.make_tensor("shape", TensorProto.INT64, [1], [1 << 40])
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0),
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["products"]),
        helper.make_node("Add", ["products", "sum"], ["scores"]),
    ]
    (run / "model.onnx").write_bytes(onnx_model(onnx_graph(nodes, [shape])).SerializeToString())
    refused(run / "model.onnx", "ONNX Runtime|memory", isolated=True)


def test_what_is_found_inside_is_told_outside(run: Path) -> None:
    (run / "model.safetensors").write_bytes(state_zip(b"\x80\x02cposix\nsystem\n(X\1\0\0\0atR."))
    assert "names 'posix system'" in refused(run, "plain state dict", isolated=True)


@pytest.mark.parametrize(
    ("says", "match"),
    [
        ("raise SystemExit(0)", r"ended \(exit code 0\)"),
        ("raise SystemExit(3)", r"ended \(exit code 3\)"),
        ("import os; os.kill(os.getpid(), 11)", r"ended \(signal 11\)"),
        ("import resource, os; os.kill(os.getpid(), 24)", "processor time"),
        ("say(b'garbage' * 100)", "unexpected message"),
        ("frame(b'A', b'')", "unexpected message"),
        ("head(b'J', 1 << 62)", "unexpected message"),
        ("head(b'E', 1 << 40)", "unexpected message"),
        ("frame(b'J', b'{}' * 9)", "not strict JSON"),
        ("frame(b'J', b'[' * 100000)", "nested too deeply|not strict JSON"),
        ("frame(b'E', b'[]')", "failed"),
        ("frame(b'J', b'[]')", "did not report its isolation"),
        (r"""frame(b'E', b'{"kind": "Error\\n", "text": "a\\n\\u001b[2Jb"}')""", r"failed \(Error: a \?\[2Jb\)"),
        ("""frame(b'E', b'{"kind": "MemoryError", "text": ""}')""", "more memory"),
        ("""isolation(); frame(b'J', b'[]')""", "did not report a model spec"),
        (
            """isolation(); frame(b'J', b'{"settings": {}, "shape": [1, 8], "classes": ["a", "b"]}')""",
            "shape of its images",
        ),
        ("""isolation(); spec(); frame(b'A', b'')""", "something else than"),
        ("""isolation(); spec(); frame(b'A', b'\\2\\0\\0\\0\\5\\0\\0\\0' + bytes(8))""", "something else than"),
        ("""isolation(); spec(); head(b'A', 1 << 40)""", "unexpected message"),
        ("""isolation(); spec(); frame(b'J', b'{}')""", "unexpected message"),
    ],
)
def test_a_process_that_lies_is_not_believed(run: Path, says: str, match: str, monkeypatch: pytest.MonkeyPatch) -> None:
    start = """
import struct, sys
def say(data): sys.stdout.buffer.write(data); sys.stdout.buffer.flush()
def head(letter, length): say(struct.pack("<cQ", letter, length))
def frame(letter, data): head(letter, len(data)); say(data)
def isolation(): frame(b"J", b'{"process": true, "rlimits": true, "network": true, "landlock": true}')
def spec(): frame(b"J", b'{"architecture": "a", "settings": {}, "shape": [1, 8, 8], "classes": ["a", "b"]}')
"""
    monkeypatch.setattr(worker, "_START", start + says + "\nsys.stdin.buffer.read()")
    with pytest.raises(SuspectError, match=match) as caught:  # noqa: SIM117
        with open_file(run) as opened:
            opened.predict(torch.zeros(2, *SPEC.shape))
    assert str(caught.value).isprintable()


def test_a_process_that_does_not_start_in_time(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_START", "import threading; threading.Event().wait()")
    with pytest.raises(SuspectError, match="took too long"), open_file(run, limits=Limits(start_seconds=0.2)):
        pass


PROBE = """
import json, os, resource, socket, sys
from wootz.suspects.files.limits import Limits
from wootz.suspects.files.sandbox import drop_rights, leave_network

network, users = leave_network()
rlimits, landlock = drop_rights(Limits(memory_bytes=1 << 28), threads=1, own_users=users)

def tried(deed):
    try:
        deed()
    except (OSError, MemoryError, ValueError) as error:
        return type(error).__name__
    return "done"

print(json.dumps({
    "network": network, "rlimits": rlimits, "landlock": landlock,
    "reads": tried(lambda: open("/etc/passwd").close()),
    "writes": tried(lambda: open(sys.argv[2], "w").close()),
    "starts": tried(lambda: os.execv("/bin/true", ["true"])),
    "connects": tried(lambda: socket.create_connection(("127.0.0.1", int(sys.argv[1])), 1)),
    "allocates": tried(lambda: bytearray(1 << 29)),
    "asks for more": tried(lambda: resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)),
    "opens": tried(lambda: [os.pipe() for _ in range(100)]),
    "imports": tried(lambda: __import__("xml.dom.minidom")),
}))
"""


def test_the_walls_that_are_said_to_stand_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        said = subprocess.run(
            [sys.executable, "-I", "-c", PROBE, str(port), str(tmp_path / "written")], capture_output=True, check=True
        )
    found = json.loads(said.stdout)
    assert found["imports"] == "done"
    assert not (tmp_path / "written").exists() or not found["landlock"]
    if found["rlimits"]:
        assert found["allocates"] == "MemoryError"
        assert found["asks for more"] == "ValueError"
        assert found["opens"] == "OSError"
    if found["network"]:
        assert found["connects"] != "done"
    if found["landlock"]:
        assert found["reads"] == found["writes"] == found["starts"] == "PermissionError"


def test_the_walls_in_words() -> None:
    assert Isolation(True, True, False, True).summary == "isolation: process, rlimits, landlock; without: network"
    assert Isolation().summary == "isolation: none; without: process, rlimits, network, landlock"


def test_a_file_of_ones_own_needs_no_process(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_START", "raise SystemExit(9)")
    with open_file(run, isolated=False) as opened:
        assert opened.isolation == Isolation()


def test_damaged_weights_are_a_model_error_from_inside_too(run: Path) -> None:
    data = bytearray((run / "model.safetensors").read_bytes())
    data[-4:] = np.array([np.nan], "<f4").tobytes()
    (run / "model.safetensors").write_bytes(bytes(data))
    with pytest.raises(ModelError, match="NaN or infinity"), open_file(run):
        pass


def test_bytes_beyond_a_pipe_reach_the_process(run: Path) -> None:
    """A refused file of some megabytes: more than a pipe holds, so both sides must read and write in turn."""
    header = {"a": {"dtype": "U8", "shape": [1 << 22], "data_offsets": [0, 1 << 22]}}
    (run / "model.safetensors").write_bytes(tensors_file(header, bytes(1 << 22)))
    with pytest.raises(Error, match=r"'0\.weight' is missing"), open_file(run):
        pass


def test_a_frame_head_is_nine_bytes() -> None:
    assert HEAD.size == 9
