"""Check an untrusted ONNX file and run it: a single file, dense tensors, standard operators, images in, scores out.

External data has repeatedly allowed path traversal (CVE-2022-25882 to CVE-2026-34446), so a file with external data
anywhere is refused. ONNX Runtime receives the checked message, serialized again, and not the bytes of the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wootz.errors import InconclusiveError, SuspectError
from wootz.models import ModelSpec
from wootz.suspects.files.limits import Limits, TensorSpec, check_limits, check_shape
from wootz.suspects.files.own_network import check_image
from wootz.suspects.files.sanitize import one_line

if TYPE_CHECKING:
    import onnx

Images = NDArray[np.float32]

OPSETS: Mapping[str, tuple[int, int]] = MappingProxyType({"": (7, 26), "ai.onnx": (7, 26), "ai.onnx.ml": (1, 5)})
"""Supported operator sets, with their first and last supported version."""
IR_VERSIONS = (3, 13)

_DTYPES: Mapping[int, tuple[str, str]] = MappingProxyType(
    {
        1: ("F32", "float_data"),
        2: ("U8", "int32_data"),
        3: ("I8", "int32_data"),
        4: ("U16", "int32_data"),
        5: ("I16", "int32_data"),
        6: ("I32", "int32_data"),
        7: ("I64", "int64_data"),
        9: ("BOOL", "int32_data"),
        10: ("F16", "int32_data"),
        11: ("F64", "double_data"),
        12: ("U32", "uint64_data"),
        13: ("U64", "uint64_data"),
        16: ("BF16", "int32_data"),
        17: ("F8_E4M3", "int32_data"),
        18: ("F8_E4M3FNUZ", "int32_data"),
        19: ("F8_E5M2", "int32_data"),
        20: ("F8_E5M2FNUZ", "int32_data"),
    }
)
"""TensorProto.DataType -> name of the dtype in safetensors, and the field with the elements if `raw_data` is empty."""
_FLOAT8_NAN: Mapping[str, Callable[[NDArray[Any]], NDArray[np.bool_]]] = MappingProxyType(
    {
        "F8_E4M3": lambda bits: bits & 0x7F == 0x7F,
        "F8_E4M3FNUZ": lambda bits: bits == 0x80,
        "F8_E5M2": lambda bits: bits & 0x7C == 0x7C,
        "F8_E5M2FNUZ": lambda bits: bits == 0x80,
    }
)
"""Which bytes are NaN or infinity, by dtype (arXiv 2209.05433 and 2206.02915)."""
_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")


class Checked(NamedTuple):
    """An ONNX model that passed all checks and may be run.

    Attributes:
        data: The checked message, serialized again without unknown fields.
        spec: The image shape and the classes of the model.
        batch: The fixed batch size of the model; None if it takes any number of images.
    """

    data: bytes
    spec: ModelSpec
    batch: int | None


def check_onnx(data: bytes, name: str, limits: Limits) -> Checked:
    """Check an ONNX file without running it; error messages start with `name`.

    Raises:
        SuspectError: The file is damaged, has external data, sparse tensors, functions, training information or
            operators that are not standard ones, has NaN or infinity in a tensor, does not have exactly one float32
            input [N, C, H, W] and one output [N, K], or exceeds the limits.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # ships no types

    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, RecursionError) as error:
        raise SuspectError(f"{name}: is a damaged ONNX file, or one nested too deeply") from error
    model.DiscardUnknownFields()
    _check_model(model, name)
    tensors = list(_tensors(model.graph, name, limits))
    check_limits({f"{number} {key}": tensor_spec for number, (key, tensor_spec) in enumerate(tensors)}, limits, name)
    spec, batch = _io_spec(model, name, limits)
    return Checked(model.SerializeToString(), spec, batch)


def onnx_session(checked: Checked, name: str, threads: int) -> Callable[[Images], Images]:
    """Return a function from images float32 [N, C, H, W] to scores [N, K], run by ONNX Runtime on the CPU.

    Raises:
        InconclusiveError: ONNX Runtime rejects the model, when it is loaded or when it is run.
    """
    import onnxruntime  # type: ignore[import-untyped]  # ships no types
    from onnxruntime.capi import onnxruntime_pybind11_state as state  # type: ignore[import-untyped]

    exception_types = (kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception))
    failures: tuple[type[Exception], ...] = (RuntimeError, UnicodeDecodeError, *exception_types)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 4
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        with redirect_stdout(None):  # it prints some failures
            session = onnxruntime.InferenceSession(checked.data, options, providers=["CPUExecutionProvider"])
        given = session.get_inputs()[0].name
    except failures as error:
        raise InconclusiveError(f"{name}: ONNX Runtime cannot load it ({_reason(error)})") from error

    def answer(x: Images) -> Images:
        try:
            return np.asarray(session.run(None, {given: x})[0])
        except failures as error:
            raise InconclusiveError(f"{name}: ONNX Runtime cannot run it ({_reason(error)})") from error

    return answer if checked.batch is None else _in_batches(answer, checked.batch)


def _reason(error: Exception) -> str:
    return "a name in it is damaged" if isinstance(error, UnicodeDecodeError) else one_line(error, 160)


def _in_batches(answer: Callable[[Images], Images], size: int) -> Callable[[Images], Images]:
    """Run a model of fixed batch size `size`; the last batch is padded with black images."""

    def answers(x: Images) -> Images:
        missing = -len(x) % size
        full = np.concatenate([x, np.zeros((missing, *x.shape[1:]), x.dtype)])
        return np.concatenate([answer(full[at : at + size]) for at in range(0, len(full), size)])[: len(x)]

    return answers


def _check_model(model: onnx.ModelProto, name: str) -> None:
    low, high = IR_VERSIONS
    if not low <= model.ir_version <= high:
        raise SuspectError(f"{name}: has ONNX IR version {model.ir_version}; versions {low} to {high} are supported")
    for part, what in ((model.functions, "functions of its own"), (model.training_info, "training information")):
        if part:
            raise SuspectError(f"{name}: contains {what}; only plain graphs are supported")
    versions = [(opset.domain, opset.version) for opset in model.opset_import]
    for domain, version in versions:
        low, high = OPSETS.get(domain, (1, 0))
        if not low <= version <= high:
            domain_name = one_line(domain, 80) or "ai.onnx"
            raise SuspectError(
                f"{name}: needs operators {domain_name!r} version {version}; only standard operators are supported"
            )
    if len({domain for domain, _ in versions}) != len(versions):
        raise SuspectError(f"{name}: names an operator set twice")


def _tensors(graph: onnx.GraphProto, name: str, limits: Limits) -> Iterator[tuple[str, TensorSpec]]:
    """Traverse a graph and its subgraphs, check every node, and yield the name and the spec of every tensor."""
    pending, nodes = [(graph, 0)], 0
    while pending:
        part, depth = pending.pop()
        nodes += len(part.node)
        if depth > limits.depth or nodes > limits.nodes:
            raise SuspectError(f"{name}: has more than {limits.depth} nested graphs or {limits.nodes:,} nodes")
        if part.sparse_initializer:
            raise SuspectError(f"{name}: holds sparse tensors; only dense tensors are supported")
        for tensor in part.initializer:
            yield _tensor(tensor, name, limits)
        for node in part.node:
            if node.domain not in OPSETS:
                raise SuspectError(f"{name}: uses an operator of {one_line(node.domain, 80)!r}, not a standard one")
            for attribute in node.attribute:
                yield from _attribute_tensors(attribute, name, limits)
                pending.extend((inner, depth + 1) for inner in (attribute.g, *attribute.graphs) if inner.ByteSize())


def _attribute_tensors(attribute: onnx.AttributeProto, name: str, limits: Limits) -> Iterator[tuple[str, TensorSpec]]:
    if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
        raise SuspectError(f"{name}: holds sparse tensors; only dense tensors are supported")
    if attribute.ref_attr_name:
        raise SuspectError(f"{name}: a node refers to an attribute of a function, and there is none")
    for tensor in (attribute.t, *attribute.tensors):
        if tensor.ByteSize():
            yield _tensor(tensor, name, limits)


def _tensor(tensor: onnx.TensorProto, name: str, limits: Limits) -> tuple[str, TensorSpec]:
    """Check that a tensor is stored in the file, dense, as large as its shape, and finite."""
    what = f"{name}: tensor {one_line(tensor.name, 80)!r}"
    if tensor.data_location != 0 or tensor.external_data:
        raise SuspectError(
            f"{what} is stored outside the file; write one file, with torch.onnx.export(..., external_data=False)"
        )
    if tensor.HasField("segment"):
        raise SuspectError(f"{what} is one segment of a tensor; only whole tensors are supported")
    if tensor.data_type not in _DTYPES:
        raise SuspectError(
            f"{what} has ONNX data type {tensor.data_type}{_type_name(tensor.data_type)}, which is not supported"
        )
    dtype, field = _DTYPES[tensor.data_type]
    tensor_spec = TensorSpec(dtype, tuple(tensor.dims))
    check_shape(tensor_spec, limits, what)
    if any(getattr(tensor, other) for other in _FIELDS if other != field or tensor.raw_data):
        raise SuspectError(f"{what} holds its elements twice, or as another type")
    count = len(tensor.raw_data) if tensor.raw_data else len(getattr(tensor, field))
    if count != (tensor_spec.size if tensor.raw_data else tensor_spec.elements):
        raise SuspectError(f"{what} does not hold as many elements as its shape requires")
    if not _finite(tensor, dtype, field):
        raise SuspectError(f"{what} holds NaN or infinity")
    return tensor.name, tensor_spec


def _type_name(data_type: int) -> str:
    import onnx

    names: dict[int, str] = {number: name for name, number in onnx.TensorProto.DataType.items()}
    return f" ({names[data_type]})" if data_type in names else ""


def _finite(tensor: onnx.TensorProto, dtype: str, field: str) -> bool:
    if dtype in _FLOAT8_NAN:  # a byte per element; sign, then exponent and fraction
        raw = tensor.raw_data
        bits = np.frombuffer(raw, np.uint8) if raw else np.asarray(tensor.int32_data, np.int64) & 0xFF
        return not _FLOAT8_NAN[dtype](bits).any()
    if dtype in ("F16", "BF16"):  # an exponent of ones is NaN or infinity
        raw = tensor.raw_data
        bits = np.frombuffer(raw, "<u2") if raw else np.asarray(tensor.int32_data, np.int64)
        exponent = 0x7C00 if dtype == "F16" else 0x7F80
        return bool(((bits & exponent) != exponent).all())
    if dtype not in ("F32", "F64"):
        return True
    kind = "<f4" if dtype == "F32" else "<f8"
    values = np.frombuffer(tensor.raw_data, kind) if tensor.raw_data else np.asarray(getattr(tensor, field), kind)
    return bool(np.isfinite(values).all())


def _io_spec(model: onnx.ModelProto, name: str, limits: Limits) -> tuple[ModelSpec, int | None]:
    """Return the spec of the graph's input and output, and its fixed batch size, if it has one."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initializers]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise SuspectError(
            f"{name}: has {len(inputs)} inputs and {len(model.graph.output)} outputs; it must have one of each"
        )
    batch, *shape = _dimensions(inputs[0], 4, f"{name}: its input must be float32 [N, channels, height, width]")
    batch_out, count = _dimensions(model.graph.output[0], 2, f"{name}: its output must be float32 [N, classes]")
    if not 0 <= batch <= 4096 or batch_out not in (0, batch):
        raise SuspectError(f"{name}: takes batches of {batch} images and returns {batch_out} rows")
    if not 2 <= count <= limits.classes:
        raise SuspectError(f"{name}: has {count:,} classes; it must have 2 to {limits.classes:,}")
    classes = _classes(model, count)
    check_image(shape, classes, name, limits)
    channels, height, width = shape
    spec = ModelSpec(architecture="onnx", settings={}, shape=(channels, height, width), classes=tuple(classes))
    return spec, batch or None


def _dimensions(value: onnx.ValueInfoProto, rank: int, otherwise: str) -> list[int]:
    """Return the sizes of a float32 tensor of this rank; only the first may be 0, which means any size."""
    kind = value.type.tensor_type
    sizes = [int(size.dim_value) for size in kind.shape.dim]
    if kind.elem_type != 1 or len(sizes) != rank or min(sizes[1:]) < 1:
        raise SuspectError(otherwise)
    return sizes


def _classes(model: onnx.ModelProto, count: int) -> list[str]:
    """Return the class names: those in the metadata (a JSON list) if they fit, else numbers."""
    metadata: Any = next((entry.value for entry in model.metadata_props if entry.key == "classes"), "null")
    try:
        names = json.loads(metadata)
    except (ValueError, RecursionError):
        names = None
    if isinstance(names, list) and len(names) == count and all(isinstance(label, str) for label in names):
        return names
    return [str(number) for number in range(count)]
