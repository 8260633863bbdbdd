"""The Open Inference Protocol's question and answer (KServe v2), as JSON and with the binary extension; no transport.

Sources: kserve/open-inference-protocol, `inference_rest.md`; triton-inference-server/server,
`docs/protocol/extension_binary_data.md`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import chain
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from wootz.serving.metadata import INPUT, VERSION, datatype, outputs
from wootz.serving.settings import ModelInfo

JSON_LENGTH = "Inference-Header-Content-Length"

_HIGHEST: Mapping[str, int] = MappingProxyType({"FP32": 1, "UINT8": 255})
_DTYPES: Mapping[str, str] = MappingProxyType({"FP32": "<f4", "UINT8": "|u1", "INT64": "<i8"})
_LONGEST_ID = 256


class ProtocolError(Exception):
    """A request that can not be answered: one line for its sender, and the status of HTTP."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Question(NamedTuple):
    """A request, checked.

    Attributes:
        images: float32 [N, C, H, W] in [0, 1].
        outputs: the names of what is wanted, in order, and whether as binary data.
        id: to be given back; None where there was none.
    """

    images: NDArray[np.float32]
    outputs: Mapping[str, bool]
    id: str | None


def decode(info: ModelInfo, body: bytes | bytearray, json_length: str | None = None) -> Question:
    """Read the body of a request; `json_length` is the header that says where binary data begin.

    Raises:
        ProtocolError: it is no request for this model; says what is wrong and what would be right.
    """
    data = memoryview(body)
    end = len(data)
    if json_length is not None:
        if not (json_length.isascii() and json_length.isdigit()) or len(json_length) > 18 or int(json_length) > end:
            raise ProtocolError(f"{JSON_LENGTH}: must be a number of bytes, at most the body's {end}")
        end = int(json_length)
    told = _object(_parsed(bytes(data[:end])), "the body")
    ident = told.get("id")
    if ident is not None and not (isinstance(ident, str) and len(ident) <= _LONGEST_ID):
        raise ProtocolError(f"id: must be a string of at most {_LONGEST_ID} characters")
    inputs = told.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1:
        raise ProtocolError(f"inputs: must be a list of one input, {INPUT!r}")
    return Question(_images(info, _object(inputs[0], "inputs[0]"), data[end:]), _wanted(info, told), ident)


def encode(info: ModelInfo, question: Question, answers: NDArray[Any]) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of the reply to a question; `answers` are scores [N, K] or labels [N].

    What is not finite is null as JSON; the label of a row with NaN is -1.
    """
    shown, tail = [], []
    for name, binary in question.outputs.items():
        values = labels(answers) if name == "label" else answers
        output: dict[str, Any] = {"name": name, "datatype": datatype(name), "shape": list(values.shape)}
        if binary:
            tail.append(values.astype(_DTYPES[datatype(name)]).tobytes())
            output["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            flat = values.ravel().tolist()
            output["data"] = flat if np.isfinite(values).all() else [x if math.isfinite(x) else None for x in flat]
        shown.append(output)
    ident = {} if question.id is None else {"id": question.id}
    told = orjson.dumps({"model_name": info.name, "model_version": VERSION, **ident, "outputs": shown})
    if not tail:
        return told, {"Content-Type": "application/json"}
    return b"".join((told, *tail)), {"Content-Type": "application/octet-stream", JSON_LENGTH: str(len(told))}


def labels(answers: NDArray[Any]) -> NDArray[np.int64]:
    """Return top-1 labels int64 [N] of scores [N, K] or labels [N]; -1 where there is no answer."""
    if answers.ndim == 1:
        return answers.astype(np.int64)
    return np.where(np.isnan(answers).any(1), -1, answers.argmax(1))


def _images(info: ModelInfo, slot: dict[str, Any], tail: memoryview) -> NDArray[np.float32]:
    kind, shape = slot.get("datatype"), slot.get("shape")
    if slot.get("name") != INPUT:
        raise ProtocolError(f"inputs[0].name: must be {INPUT!r}")
    if not isinstance(kind, str) or kind not in _HIGHEST:
        raise ProtocolError(f"{INPUT}.datatype: must be one of {', '.join(_HIGHEST)}")
    whole = isinstance(shape, list) and len(shape) == 4 and all(type(side) is int for side in shape)
    if not isinstance(shape, list) or not whole or not 1 <= shape[0] < 2**31 or tuple(shape[1:]) != info.shape:
        raise ProtocolError(f"{INPUT}.shape: must be [N, {', '.join(map(str, info.shape))}], N at least 1")
    size = _parameters(slot, INPUT).get("binary_data_size")
    if size is None:
        if len(tail):
            raise ProtocolError(f"the body: {len(tail)} bytes follow the JSON, and no input says that they are its own")
        values = _listed(slot.get("data"), shape, kind)
    else:
        values = _packed(tail, size, shape, kind)
    if not (values.min() >= 0 and values.max() <= _HIGHEST[kind]):
        raise ProtocolError(f"{INPUT}: values must be finite and from 0 to {_HIGHEST[kind]} ({kind})")
    images: NDArray[np.float32] = values.astype(np.float32).reshape(shape)
    if kind == "UINT8":
        images /= 255
    return images


def _packed(tail: memoryview, size: Any, shape: list[int], kind: str) -> NDArray[Any]:
    dtype = np.dtype(_DTYPES[kind])
    right = math.prod(shape) * dtype.itemsize
    if type(size) is not int or size != right or len(tail) != right:
        raise ProtocolError(f"{INPUT}.parameters.binary_data_size: must be {right}, and as many bytes follow the JSON")
    return np.frombuffer(tail, dtype)


def _listed(data: Any, shape: list[int], kind: str) -> NDArray[Any]:
    """Read row-major numbers, flat or nested as the shape says."""
    sizes = shape[1:] if isinstance(data, list) and data and isinstance(data[0], list) else []
    for size in sizes:
        if not all(isinstance(row, list) and len(row) == size for row in data):
            raise ProtocolError(f"{INPUT}.data: must be flat, or nested as shape {shape}")
        data = list(chain.from_iterable(data))
    if not isinstance(data, list) or len(data) != math.prod(shape):
        raise ProtocolError(f"{INPUT}.data: must hold {math.prod(shape)} numbers, flat or nested as shape {shape}")
    if not set(map(type, data)) <= ({int} if kind == "UINT8" else {int, float}):
        raise ProtocolError(f"{INPUT}.data: must hold {'whole ' if kind == 'UINT8' else ''}numbers only")
    return np.array(data, np.float64)


def _wanted(info: ModelInfo, told: dict[str, Any]) -> dict[str, bool]:
    default = _parameters(told, "the request").get("binary_data_output", False)
    wanted, known = told.get("outputs"), outputs(info)
    if wanted is None or wanted == []:
        wanted = [{"name": name} for name in known]
    if not isinstance(wanted, list):
        raise ProtocolError("outputs: must be a list")
    chosen: dict[str, bool] = {}
    for place, output in enumerate(wanted):
        output = _object(output, f"outputs[{place}]")
        name = output.get("name")
        if not isinstance(name, str) or name not in known or name in chosen:
            raise ProtocolError(f"outputs[{place}].name: must be one of {', '.join(known)}, each once")
        chosen[name] = _parameters(output, name).get("binary_data", default)
    if not all(isinstance(binary, bool) for binary in chosen.values()):
        raise ProtocolError("binary_data, binary_data_output: must be true or false")
    return chosen


def _parameters(owner: dict[str, Any], where: str) -> dict[str, Any]:
    told = owner.get("parameters")
    return {} if told is None else _object(told, f"parameters of {where}")


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ProtocolError(f"{where}: must be a JSON object")
    return value


def _parsed(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        raise ProtocolError("the body: must be JSON (UTF-8, finite numbers)") from None
