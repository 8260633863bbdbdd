"""ONNX files: external data anywhere, unsupported operators, other inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hostile import onnx_graph, onnx_model, outside, refused
from onnx import TensorProto, helper

from wootz.errors import SuspectError
from wootz.suspects.files import Limits, open_file
from wootz.suspects.files.onnx_file import check_onnx


def _tensor(**fields: Any) -> onnx.TensorProto:
    plain: dict[str, Any] = {"name": "t", "data_type": TensorProto.FLOAT, "dims": [2], "raw_data": bytes(8)}
    return TensorProto(**(plain | fields))


def _constant(tensor: onnx.TensorProto) -> onnx.ModelProto:
    """Return a model with a constant node, unused."""
    return _nodes(helper.make_node("Constant", [], ["unused"], value=tensor))


def _nodes(*more: onnx.NodeProto) -> onnx.ModelProto:
    plain = onnx_graph().node
    return onnx_model(onnx_graph([*plain, *more]))


def _with(*tensors: onnx.TensorProto) -> onnx.ModelProto:
    return onnx_model(onnx_graph(initializers=tensors))


def _branch(graph: onnx.GraphProto, *, listed: bool = False) -> onnx.ModelProto:
    node = helper.make_node("If", ["flat"], ["unused"], then_branch=graph)
    if listed:
        del node.attribute[:]
        node.attribute.append(helper.make_attribute("branches", [graph]))
    return _nodes(node)


def _deep(levels: int) -> onnx.ModelProto:
    graph = onnx_graph()
    for _ in range(levels):
        graph = onnx_graph([helper.make_node("If", ["c"], ["scores"], then_branch=graph)])
    return onnx_model(graph)


def _sparse() -> onnx.SparseTensorProto:
    values, indices = helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0]), _tensor(data_type=TensorProto.INT64)
    return helper.make_sparse_tensor(values, indices, [4])


def _function() -> onnx.ModelProto:
    node = helper.make_node("Constant", [], ["y"], value=outside())
    function = helper.make_function("", "Own", [], ["y"], [node], [helper.make_opsetid("", 17)])
    return onnx_model(functions=[function])


def _training() -> onnx.ModelProto:
    model = onnx_model()
    model.training_info.add().initialization.CopyFrom(onnx_graph(initializers=[outside()]))
    return model


def _sparse_initializer() -> onnx.ModelProto:
    model = onnx_model()
    model.graph.sparse_initializer.append(_sparse())
    return model


def _raw(values: list[float], kind: str) -> bytes:
    return np.array(values, kind).tobytes()


def _io_spec(shape: list[str | int | None], kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    return onnx_model(onnx_graph(inputs=[helper.make_tensor_value_info("images", kind, shape)]))


def _two_outputs() -> onnx.ModelProto:
    model = onnx_model()
    model.graph.output.append(model.graph.output[0])
    return model


def _reference() -> onnx.ModelProto:
    node = helper.make_node("Flatten", ["images"], ["unused"])
    node.attribute.append(onnx.AttributeProto(name="axis", ref_attr_name="axis", type=onnx.AttributeProto.INT))
    return _nodes(node)


MODELS: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "external initializer": (lambda: _with(outside()), "'secret' is stored outside the file"),
    "external, upwards": (lambda: _with(outside(location="../../etc/passwd")), "stored outside"),
    "external, in memory": (lambda: _with(outside(location="*/_ORT_MEM_ADDR_/*")), "stored outside"),
    "external, by entries alone": (
        lambda: _with(_tensor(external_data=[onnx.StringStringEntryProto(key="location", value="x")])),
        "stored outside",
    ),
    "external, by location alone": (lambda: _with(_tensor(data_location=1)), "stored outside"),
    "external in a constant": (lambda: _constant(outside()), "stored outside"),
    "external in a list of tensors": (
        lambda: _nodes(helper.make_node("Constant", [], ["u"], values=[_tensor(), outside()])),
        "stored outside",
    ),
    "external in a subgraph": (lambda: _branch(onnx_graph(initializers=[outside()])), "stored outside"),
    "external in a list of graphs": (
        lambda: _branch(onnx_graph(initializers=[outside()]), listed=True),
        "stored outside",
    ),
    "external three graphs down": (
        lambda: _branch(_branch(_branch(_constant(outside()).graph).graph).graph),
        "stored outside",
    ),
    "external in a function": (_function, "functions of its own"),
    "external in training": (_training, "training information"),
    "sparse initializer": (_sparse_initializer, "sparse"),
    "sparse constant": (lambda: _nodes(helper.make_node("Constant", [], ["u"], sparse_value=_sparse())), "sparse"),
    "foreign operators": (
        lambda: onnx_model(opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.evil", 1)]),
        "'com.evil'",
    ),
    "Microsoft's operators": (
        lambda: _nodes(helper.make_node("Gelu", ["flat"], ["u"], domain="com.microsoft")),
        "'com.microsoft', not a standard one",
    ),
    "a foreign operator in a subgraph": (
        lambda: _branch(onnx_graph([helper.make_node("X", ["a"], ["scores"], domain="evil\n\x1b[2J")])),
        "not a standard one",
    ),
    "an operator that is none": (lambda: _nodes(helper.make_node("Nonsense", ["flat"], ["u"])), "ONNX Runtime"),
    "an operator set of the future": (lambda: onnx_model(opset_imports=[helper.make_opsetid("", 99)]), "version 99"),
    "an operator set of the past": (lambda: onnx_model(opset_imports=[helper.make_opsetid("", 1)]), "version 1"),
    "an operator set twice": (
        lambda: onnx_model(opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("", 18)]),
        "twice",
    ),
    "no operator set": (lambda: onnx_model(opset_imports=[]), "ONNX Runtime"),
    "IR of the future": (lambda: onnx_model(ir_version=99), "IR version 99"),
    "IR of the past": (lambda: onnx_model(ir_version=1), "IR version 1"),
    "a reference to a function's attribute": (_reference, "refers to an attribute"),
    "226 GB": (lambda: _with(_tensor(dims=[6 * 10**10])), "as many elements"),
    "2^124 elements": (lambda: _with(_tensor(dims=[1 << 62, 1 << 62])), "as many elements"),
    "below zero": (lambda: _with(_tensor(dims=[-1, -2])), "invalid dimension"),
    "rank 9": (lambda: _with(_tensor(dims=[1] * 9)), "9 dimensions"),
    "too few bytes": (lambda: _with(_tensor(raw_data=bytes(7))), "as many elements"),
    "too few numbers": (lambda: _with(_tensor(raw_data=b"", float_data=[1.0])), "as many elements"),
    "elements twice": (lambda: _with(_tensor(float_data=[1.0, 2.0])), "twice, or as another type"),
    "elements of another type": (lambda: _with(_tensor(raw_data=b"", int64_data=[1, 2])), "another type"),
    "text": (lambda: _with(_tensor(data_type=TensorProto.STRING)), r"data type 8 \(STRING\)"),
    "complex numbers": (lambda: _with(_tensor(data_type=TensorProto.COMPLEX64)), "data type 14"),
    "NaN in float8": (lambda: _with(_tensor(data_type=17, raw_data=b"\x00\xff")), "NaN or infinity"),
    "infinity in float8": (lambda: _with(_tensor(data_type=19, raw_data=b"\x00\x7c")), "NaN or infinity"),
    "NaN in float8 as a number": (lambda: _with(_tensor(data_type=20, raw_data=b"", int32_data=[0, 128])), "NaN or"),
    "too many bytes of uint16": (lambda: _with(_tensor(data_type=4)), "as many elements"),
    "a data type that is none": (lambda: _with(_tensor(data_type=1000)), "data type 1000"),
    "a segment": (lambda: _with(_tensor(segment=TensorProto.Segment(begin=0, end=1))), "one segment"),
    "NaN": (lambda: _with(_tensor(raw_data=_raw([1, np.nan], "<f4"))), "NaN or infinity"),
    "infinity": (lambda: _with(_tensor(raw_data=_raw([1, -np.inf], "<f4"))), "NaN or infinity"),
    "NaN as a number": (lambda: _with(_tensor(raw_data=b"", float_data=[1.0, float("nan")])), "NaN or infinity"),
    "NaN in float64": (lambda: _with(_tensor(data_type=11, raw_data=_raw([1, np.nan], "<f8"))), "NaN or infinity"),
    "NaN in float16": (lambda: _with(_tensor(data_type=10, raw_data=_raw([1, np.nan], "<f2"))), "NaN or infinity"),
    "infinity in bfloat16": (lambda: _with(_tensor(data_type=16, raw_data=b"\x80\x3f\x80\x7f")), "NaN or infinity"),
    "NaN in a constant": (lambda: _constant(_tensor(raw_data=_raw([1, np.nan], "<f4"))), "NaN or infinity"),
    "no input": (
        lambda: onnx_model(onnx_graph(inputs=[helper.make_tensor_value_info("weight", 1, [64, 3])])),
        "0 inputs",
    ),
    "two outputs": (_two_outputs, "2 outputs"),
    "integers in": (lambda: _io_spec(["N", 1, 8, 8], TensorProto.INT64), "must be float32"),
    "vectors in": (lambda: _io_spec(["N", 64]), "must be float32"),
    "images of any size": (lambda: _io_spec(["N", 1, "H", "W"]), "must be float32"),
    "images of size 0": (lambda: _io_spec(["N", 1, 0, 8]), "must be float32"),
    "images of 2^60 pixels": (lambda: _io_spec(["N", 1, 1 << 30, 1 << 30]), "images"),
    "any number of classes": (lambda: onnx_model(onnx_graph(classes="K")), "must be float32"),
    "one class": (lambda: onnx_model(onnx_graph(classes=1)), "must have 2 to"),
    "2^40 classes": (lambda: onnx_model(onnx_graph(classes=1 << 40)), "must have 2 to"),
    "a batch of 2^40": (lambda: onnx_model(onnx_graph(batch=1 << 40)), "images and returns"),
    "nine graphs deep": (lambda: _deep(9), "more than 8 nested graphs"),
    "100,000 nodes": (
        lambda: _nodes(*(helper.make_node("Relu", ["flat"], [str(n)]) for n in range(100_000))),
        "65,536 nodes",
    ),
    "another number of classes than it says": (lambda: onnx_model(onnx_graph(classes=5)), "ONNX Runtime|scores"),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_is_refused(run: Path, name: str) -> None:
    make, match = MODELS[name]
    (run / "model.onnx").write_bytes(make().SerializeToString())
    refused(run / "model.onnx", match)


@pytest.mark.parametrize("text", [b"images", b"scores", b"MatMul"])
@pytest.mark.parametrize("isolated", [False, True])
def test_a_damaged_name(run: Path, text: bytes, isolated: bool, capsys: pytest.CaptureFixture[str]) -> None:
    data = onnx_model().SerializeToString()
    (run / "model.onnx").write_bytes(data.replace(text, text[:-2] + b"\xff\xfe"))
    refused(run / "model.onnx", r"ONNX Runtime cannot (load|run) it \(a name in it is damaged\)", isolated=isolated)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("data_type", "dtype"),
    [
        *((4, torch.uint16), (12, torch.uint32), (13, torch.uint64)),
        *((17, torch.float8_e4m3fn), (18, torch.float8_e4m3fnuz), (19, torch.float8_e5m2), (20, torch.float8_e5m2fnuz)),
    ],
)
def test_all_bytes_of_a_dtype_are_finite_where_torch_says_so(data_type: int, dtype: torch.dtype) -> None:
    for byte in range(256):
        raw = bytes([byte] * dtype.itemsize)
        finite = bool(torch.frombuffer(bytearray(raw), dtype=dtype).double().isfinite())
        tensor = _tensor(data_type=data_type, dims=[1], raw_data=raw)
        if finite:
            check_onnx(_with(tensor).SerializeToString(), "x", Limits())
        else:
            with pytest.raises(SuspectError, match="NaN or infinity"):
                check_onnx(_with(tensor).SerializeToString(), "x", Limits())


def test_nesting_beyond_the_parser(run: Path) -> None:
    data = b""
    for _ in range(400):  # graph: a node with an attribute with a graph with ...
        for tag in (b"\x32", b"\x2a", b"\x0a"):
            data = tag + _varint(len(data)) + data
    (run / "model.onnx").write_bytes(b"\x08\x08" + b"\x3a" + _varint(len(data)) + data)
    refused(run / "model.onnx", "damaged ONNX file, or one nested too deeply")


def test_unknown_fields_do_not_reach_the_runtime() -> None:
    data = onnx_model().SerializeToString()
    graph_with_more = onnx_model().graph.SerializeToString() + b"\xfa\x3f\x06hidden"
    odd = b"\x08\x08\x42\x02\x10\x11\x3a" + _varint(len(graph_with_more)) + graph_with_more
    assert b"hidden" in odd
    assert b"hidden" not in check_onnx(odd, "x", Limits()).data
    assert check_onnx(data, "x", Limits()).spec.shape == (1, 8, 8)


def test_more_data_than_the_limits() -> None:
    data = onnx_model().SerializeToString()
    for limits in (Limits(tensor_bytes=700), Limits(elements=100), Limits(tensors=1, nodes=1)):
        with pytest.raises(SuspectError, match=r"read at most|1 nodes"):
            check_onnx(data, "x", limits)


@pytest.mark.parametrize("batch", ["N", 1, 4, 6])
def test_batches_of_any_size(run: Path, x: torch.Tensor, batch: object) -> None:
    model = onnx_model(onnx_graph(batch=batch))
    weight = torch.from_numpy(onnx.numpy_helper.to_array(model.graph.initializer[0]).copy())
    (run / "model.onnx").write_bytes(model.SerializeToString())
    with open_file(run / "model.onnx", isolated=False) as opened:
        assert torch.allclose(opened.predict(x), x.flatten(1) @ weight, atol=1e-5)
        assert opened.spec.classes == ("0", "1", "2")


def test_answers_that_are_none_are_missing(run: Path, x: torch.Tensor) -> None:
    plain = onnx_graph().node
    logs = helper.make_node("Log", ["products"], ["scores"])  # NaN below zero
    product = helper.make_node("MatMul", ["flat", "weight"], ["products"])
    (run / "model.onnx").write_bytes(onnx_model(onnx_graph([plain[0], product, logs])).SerializeToString())
    with open_file(run / "model.onnx", isolated=False) as opened:
        scores = opened.predict(torch.cat([x, -x, 0 * x]))
    missing = scores.isnan()
    assert missing.any()
    assert torch.equal(missing.all(1), missing.any(1))
    assert missing[-6:].all()  # the logarithm of zero is minus infinity
    with open_file(run / "model.onnx", "label", isolated=False) as opened:
        assert torch.equal(opened.predict(torch.cat([x, -x, 0 * x])) == -1, missing.any(1))


@pytest.mark.parametrize("said", ['["a", "b"]', "[1, 2, 3]", "{", "[" * 100_000, '{"a": 1}'])
def test_classes_in_the_metadata_that_do_not_fit(said: str) -> None:
    model = onnx_model()
    helper.set_model_props(model, {"classes": said})
    assert check_onnx(model.SerializeToString(), "x", Limits()).spec.classes == ("0", "1", "2")


def test_classes_in_the_metadata() -> None:
    model = onnx_model()
    helper.set_model_props(model, {"classes": '["a", "b", "c"]'})
    assert check_onnx(model.SerializeToString(), "x", Limits()).spec.classes == ("a", "b", "c")


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])
