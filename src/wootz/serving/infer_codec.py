"""The server side of the Open Inference Protocol (KServe v2): decode inference requests, encode responses.

JSON and the binary extension, without the transport.

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

from wootz.serving.model_info import INPUT, VERSION, ModelInfo, output_datatype, output_names

JSON_LENGTH = "Inference-Header-Content-Length"

_MAXIMA: Mapping[str, int] = MappingProxyType({"FP32": 1, "UINT8": 255})
"""Input datatypes, and the maximum of a pixel in each."""

_DTYPES: Mapping[str, str] = MappingProxyType({"FP32": "<f4", "UINT8": "|u1", "INT64": "<i8"})
_MAX_ID_LENGTH = 256
_OTHER_VALUES = 1000
"""Values of a JSON document beside those of the images, at most."""


class ProtocolError(Exception):
    """An invalid request; the message is one line for the client.

    Attributes:
        status: the HTTP status of the response.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class InferRequest(NamedTuple):
    """A checked inference request.

    Attributes:
        images: float32 [N, C, H, W] in [0, 1].
        outputs: the requested output names in order, and whether each is returned as binary data.
        request_id: returned in the response; None if the request has none.
    """

    images: NDArray[np.float32]
    outputs: Mapping[str, bool]
    request_id: str | None


def decode_request(
    info: ModelInfo, body: bytes | bytearray, json_length: str | None = None, *, max_images: int = 1024
) -> InferRequest:
    """Decode and check the body of an inference request.

    Args:
        info: the description of the model.
        body: the JSON document, and the binary data after it.
        json_length: the header `Inference-Header-Content-Length`, which gives the size of the JSON document; None
            means that there are no binary data.
        max_images: the maximum number of images.

    Raises:
        ProtocolError: the body is not a request for this model, or holds too many images; the message says what is
            expected.
    """
    data = memoryview(body)
    end = len(data)
    if json_length is not None:
        if not (json_length.isascii() and json_length.isdigit()) or len(json_length) > 18 or int(json_length) > end:
            raise ProtocolError(f"{JSON_LENGTH}: must be a number of bytes, at most {end} (the size of the body)")
        end = int(json_length)
    text = bytes(data[:end])
    if text.count(b",") > max_images * math.prod(info.shape) + _OTHER_VALUES:  # before they become objects in memory
        raise ProtocolError(f"the body: must hold at most {max_images} images", 413)
    payload = _check_object(_parse_json(text), "the body")
    request_id = payload.get("id")
    if request_id is not None and not (isinstance(request_id, str) and len(request_id) <= _MAX_ID_LENGTH):
        raise ProtocolError(f"id: must be a string of at most {_MAX_ID_LENGTH} characters")
    inputs = payload.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1:
        raise ProtocolError(f"inputs: must be a list of one input, {INPUT!r}")
    images = _decode_images(info, _check_object(inputs[0], "inputs[0]"), data[end:], max_images)
    return InferRequest(images, _requested_outputs(info, payload), request_id)


def encode_response(info: ModelInfo, request: InferRequest, answers: NDArray[Any]) -> tuple[bytes, dict[str, str]]:
    """Encode the response to a request.

    Args:
        info: the description of the model.
        request: selects the outputs and their encoding.
        answers: scores [N, K] or labels [N]. In JSON, non-finite scores become null; the label of a row with NaN is -1.

    Returns:
        The body and the headers of the response.
    """
    outputs, binary_data = [], []
    for name, binary in request.outputs.items():
        values = top1_labels(answers) if name == "label" else answers
        output: dict[str, Any] = {"name": name, "datatype": output_datatype(name), "shape": list(values.shape)}
        if binary:
            binary_data.append(values.astype(_DTYPES[output_datatype(name)]).tobytes())
            output["parameters"] = {"binary_data_size": len(binary_data[-1])}
        else:
            flat = values.ravel().tolist()
            output["data"] = flat if np.isfinite(values).all() else [x if math.isfinite(x) else None for x in flat]
        outputs.append(output)
    request_id = {} if request.request_id is None else {"id": request.request_id}
    header = orjson.dumps({"model_name": info.name, "model_version": VERSION, **request_id, "outputs": outputs})
    if not binary_data:
        return header, {"Content-Type": "application/json"}
    content_type = {"Content-Type": "application/octet-stream"}
    return b"".join((header, *binary_data)), {**content_type, JSON_LENGTH: str(len(header))}


def top1_labels(answers: NDArray[Any]) -> NDArray[np.int64]:
    """Return top-1 labels int64 [N] of scores [N, K] or labels [N]; -1 for rows with NaN."""
    if answers.ndim == 1:
        return answers.astype(np.int64)
    return np.where(np.isnan(answers).any(1), -1, answers.argmax(1))


def _decode_images(
    info: ModelInfo, tensor: dict[str, Any], binary_data: memoryview, max_images: int
) -> NDArray[np.float32]:
    datatype, shape = tensor.get("datatype"), tensor.get("shape")
    if tensor.get("name") != INPUT:
        raise ProtocolError(f"inputs[0].name: must be {INPUT!r}")
    if not isinstance(datatype, str) or datatype not in _MAXIMA:
        raise ProtocolError(f"{INPUT}.datatype: must be one of {', '.join(_MAXIMA)}")
    is_shape = isinstance(shape, list) and len(shape) == 4 and all(type(side) is int for side in shape)
    if not isinstance(shape, list) or not is_shape or not 1 <= shape[0] < 2**31 or tuple(shape[1:]) != info.shape:
        raise ProtocolError(f"{INPUT}.shape: must be [N, {', '.join(map(str, info.shape))}], N at least 1")
    if shape[0] > max_images:
        raise ProtocolError(f"{INPUT}.shape: must be at most {max_images} images per request", 413)
    size = _parameters(tensor, INPUT).get("binary_data_size")
    if size is None:
        if len(binary_data):
            raise ProtocolError(
                f"the body: {len(binary_data)} bytes follow the JSON, and no input has a binary_data_size"
            )
        values = _decode_json_data(tensor.get("data"), shape, datatype)
    else:
        values = _decode_binary_data(binary_data, size, shape, datatype)
    if not (values.min() >= 0 and values.max() <= _MAXIMA[datatype]):
        raise ProtocolError(f"{INPUT}: values must be finite and from 0 to {_MAXIMA[datatype]} ({datatype})")
    images: NDArray[np.float32] = values.astype(np.float32).reshape(shape)
    if datatype == "UINT8":
        images /= 255
    return images


def _decode_binary_data(binary_data: memoryview, size: Any, shape: list[int], datatype: str) -> NDArray[Any]:
    dtype = np.dtype(_DTYPES[datatype])
    expected = math.prod(shape) * dtype.itemsize
    if type(size) is not int or size != expected or len(binary_data) != expected:
        raise ProtocolError(
            f"{INPUT}.parameters.binary_data_size: must be {expected}, and as many bytes must follow the JSON"
        )
    return np.frombuffer(binary_data, dtype)


def _decode_json_data(data: Any, shape: list[int], datatype: str) -> NDArray[Any]:
    """Return row-major numbers as float64 [N*C*H*W], from a flat list or lists nested by `shape`."""
    sizes = shape[1:] if isinstance(data, list) and data and isinstance(data[0], list) else []
    for size in sizes:
        if not all(isinstance(row, list) and len(row) == size for row in data):
            raise ProtocolError(f"{INPUT}.data: must be flat, or nested as shape {shape}")
        data = list(chain.from_iterable(data))
    if not isinstance(data, list) or len(data) != math.prod(shape):
        raise ProtocolError(f"{INPUT}.data: must hold {math.prod(shape)} numbers, flat or nested as shape {shape}")
    if not set(map(type, data)) <= ({int} if datatype == "UINT8" else {int, float}):
        raise ProtocolError(f"{INPUT}.data: must hold {'whole ' if datatype == 'UINT8' else ''}numbers only")
    return np.array(data, np.float64)


def _requested_outputs(info: ModelInfo, payload: dict[str, Any]) -> dict[str, bool]:
    """Return the names of the requested outputs in order, and whether each is requested as binary data."""
    default = _parameters(payload, "the request").get("binary_data_output", False)
    outputs, names = payload.get("outputs"), output_names(info)
    if outputs is None or outputs == []:
        outputs = [{"name": name} for name in names]
    if not isinstance(outputs, list):
        raise ProtocolError("outputs: must be a list")
    requested: dict[str, bool] = {}
    for index, output in enumerate(outputs):
        output = _check_object(output, f"outputs[{index}]")
        name = output.get("name")
        if not isinstance(name, str) or name not in names or name in requested:
            raise ProtocolError(f"outputs[{index}].name: must be one of {', '.join(names)}, each once")
        requested[name] = _parameters(output, name).get("binary_data", default)
    if not all(isinstance(binary, bool) for binary in requested.values()):
        raise ProtocolError("binary_data, binary_data_output: must be true or false")
    return requested


def _parameters(owner: dict[str, Any], where: str) -> dict[str, Any]:
    parameters = owner.get("parameters")
    return {} if parameters is None else _check_object(parameters, f"parameters of {where}")


def _check_object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ProtocolError(f"{where}: must be a JSON object")
    return value


def _parse_json(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        raise ProtocolError("the body: must be JSON (UTF-8, finite numbers)") from None
