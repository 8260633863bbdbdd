"""Files as attackers write them, built in code: nothing in them is executed unless a reader is wrong."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from wootz.errors import Error
from wootz.models import ModelSpec
from wootz.suspects.files import Limits, open_file

SPEC = ModelSpec(
    architecture="small-cnn", settings={"width": 2, "hidden": 4}, shape=(1, 8, 8), classes=("cat", "dog", "owl")
)
CANARY = "canary"


class Bomb:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {CANARY}",)


def refused(path: Path, match: str, *, limits: Limits | None = None, isolated: bool = False) -> str:
    """Check that a file is refused by one plain line with these words in it, and that nothing ran."""
    with pytest.raises(Error, match=match) as caught:  # noqa: SIM117
        with open_file(path, isolated=isolated, allow_torch_zip=True, limits=limits) as opened:
            opened.predict(_gray(opened.spec.shape))
    text = str(caught.value)
    assert text == " ".join(text.splitlines()), "more than one line"
    assert text.isprintable()
    assert len(text) < 700
    assert not (Path.cwd() / CANARY).exists(), "it ran"
    return text


def _gray(shape: tuple[int, int, int]) -> Any:
    import torch

    return torch.full((2, *shape), 0.5)


def pickled(value: object, protocol: int = 2) -> bytes:
    return pickle.dumps(value, protocol=protocol)


def entry(shape: Sequence[Any], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def tensors_file(header: Any, body: bytes = b"", *, length: int | None = None) -> bytes:
    """Return a safetensors file with this header, whatever it says."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def zip_file(members: Sequence[tuple[str, bytes]], *, packed: bool = False) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name) if not packed else name, data)
    return file.getvalue()


def state_zip(pickle_bytes: bytes, *more: tuple[str, bytes]) -> bytes:
    """Return a PyTorch zip file with this pickle."""
    return zip_file([("a/data.pkl", pickle_bytes), ("a/byteorder", b"little"), *more])


def text_op(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def tensor_op(
    key: str = "0",
    *,
    elements: int = 4,
    offset: int = 0,
    shape: Sequence[int] = (4,),
    strides: Sequence[int] = (1,),
    storage: str = "torch\nFloatStorage",
    function: str = "torch._utils\n_rebuild_tensor_v2",
) -> bytes:
    """Return the opcodes that `torch.save` writes for one tensor."""
    numbers = [b"(" + b"".join(map(_integer, some)) + b"t" for some in (shape, strides)]
    place = b"(" + text_op("storage") + b"c" + storage.encode() + b"\n" + text_op(key) + text_op("cpu")
    place += _integer(elements) + b"tQ"
    empty = b"ccollections\nOrderedDict\n)R"
    return (
        b"c" + function.encode() + b"\n(" + place + _integer(offset) + numbers[0] + numbers[1] + b"\x89" + empty + b"tR"
    )


def state_pickle(*items: tuple[str, bytes]) -> bytes:
    """Return the pickle of a state dict whose values are given as opcodes."""
    return b"\x80\x02}(" + b"".join(text_op(key) + value for key, value in items) + b"u."


def _integer(value: int) -> bytes:
    return pickle.dumps(value, protocol=2)[2:-1]


def onnx_graph(
    nodes: Sequence[onnx.NodeProto] | None = None,
    initializers: Sequence[onnx.TensorProto] | None = None,
    *,
    batch: Any = "N",
    classes: Any = 3,
    inputs: Sequence[onnx.ValueInfoProto] | None = None,
) -> onnx.GraphProto:
    """Return a graph that flattens images [N, 1, 8, 8] and multiplies them by a matrix, or the nodes given."""
    weight = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    return helper.make_graph(
        nodes
        or [
            helper.make_node("Flatten", ["images"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weight"], ["scores"]),
        ],
        "graph",
        inputs or [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 1, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, classes])],
        [onnx.numpy_helper.from_array(weight, "weight"), *(initializers or [])],
    )


def onnx_model(graph: onnx.GraphProto | None = None, **more: Any) -> onnx.ModelProto:
    return helper.make_model(
        graph or onnx_graph(), **({"opset_imports": [helper.make_opsetid("", 17)], "ir_version": 8} | more)
    )


def outside(name: str = "secret", location: str = "/etc/passwd") -> onnx.TensorProto:
    """Return a tensor whose elements lie in another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor
