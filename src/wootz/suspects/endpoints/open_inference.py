"""The client side of the Open Inference Protocol (KServe v2): JSON, and its binary extension.

Sources: kserve/open-inference-protocol, `inference_rest.md`; triton-inference-server/server,
`docs/protocol/extension_binary_data.md`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from wootz.errors import ConfigError, ModelError
from wootz.store import canonical
from wootz.suspects.endpoints.client_config import Client
from wootz.suspects.endpoints.context import EndpointContext, EndpointInfo, model_name_from_url
from wootz.suspects.endpoints.parsing import UnusableAnswerError, parse_json, parse_numbers, short_repr
from wootz.suspects.endpoints.preprocessing import Pixels, preprocess
from wootz.suspects.endpoints.transport import Request, Response

JSON_LENGTH = "Inference-Header-Content-Length"

_FLOATS = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
_INTEGERS = {
    "INT8": "|i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "UINT8": "|u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
}
DTYPES: Mapping[str, np.dtype[Any]] = MappingProxyType({k: np.dtype(v) for k, v in (_FLOATS | _INTEGERS).items()})
"""Numeric datatypes of the protocol, little-endian."""

_MAX_AXES = 8
_INPUT_DATATYPES = (*_FLOATS, "UINT8")


class _TensorSpec(NamedTuple):
    """An input or output tensor, as the metadata describe it; -1 in `shape` is a variable size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class _OutputValues(NamedTuple):
    """The flat values of an output tensor, row-major."""

    shape: tuple[int, ...]
    values: Any
    is_integer: bool


def read_info(url: str, metadata: Mapping[str, Any], cfg: Client) -> EndpointInfo:
    """Check the metadata of a model, the response to `GET /v2/models/M`.

    Raises:
        ModelError: the metadata do not follow the protocol, or do not describe an image classifier.
        ConfigError: the settings do not fit the metadata.
    """
    model, parameters = metadata.get("name"), metadata.get("parameters")
    inputs, outputs = _tensor_specs(url, metadata, "inputs"), _tensor_specs(url, metadata, "outputs")
    if not isinstance(model, str) or model != model_name_from_url(url):
        raise ModelError(f"{url}: its metadata are of another model ({short_repr(model)})")
    if len(inputs) > 1:
        raise ModelError(f"{url}: takes {len(inputs)} inputs; an image classifier takes one")
    if not isinstance(parameters, dict):
        parameters = {}
    image = inputs[0] if inputs else _TensorSpec(cfg.input, "FP32", ())
    if image.datatype not in _INPUT_DATATYPES:
        raise ModelError(f"{url}: takes {short_repr(image.datatype)}, not one of {', '.join(_INPUT_DATATYPES)}")
    if image.datatype == "UINT8" and cfg.presentation.scale != "0-255":
        raise ConfigError(f"{url}: takes whole gray levels; set presentation.scale=0-255")
    output = _select_output(url, outputs, cfg)
    classes = cfg.classes or _class_names(parameters.get("classes"))
    width = output.shape[1] if output and len(output.shape) == 2 and output.shape[1] > 1 else None
    if classes and width not in (None, len(classes)):
        raise ConfigError(f"{url}: scores {width} classes, and {len(classes)} are named")
    return EndpointInfo(
        model=model,
        shape=_image_shape(url, image, cfg),
        classes=classes,
        num_classes=len(classes) if classes else width,
        parameters=MappingProxyType(parameters),
        input=image.name,
        datatype=image.datatype,
        output=output.name if output else cfg.output,
        batch=image.shape[0] if image.shape and image.shape[0] > 0 else None,
    )


def encode_request(context: EndpointContext, x: Tensor, request_id: str, binary: bool) -> Request:
    """Encode images [N, C, H, W] in [0, 1] as an inference request, as JSON or with the binary extension."""
    info = context.info
    pixels = _cast(preprocess(x, context.cfg.presentation), info.datatype)
    data = pixels.tobytes()
    tensor: dict[str, Any] = {"name": info.input, "shape": list(pixels.shape), "datatype": info.datatype}
    tensor |= {"parameters": {"binary_data_size": len(data)}} if binary else {"data": pixels.ravel().tolist()}
    payload: dict[str, Any] = {"id": request_id, "inputs": [tensor]}
    if info.output is not None:
        binary_output = {"parameters": {"binary_data": True}} if binary else {}
        payload["outputs"] = [{"name": info.output, **binary_output}]
    elif binary:
        payload["parameters"] = {"binary_data_output": True}
    header = canonical(payload)
    if not binary:
        return Request("POST", f"{context.url}/infer", {"Content-Type": "application/json"}, header)
    # No Content-Type, like the reference client: with the documented octet-stream, MLServer 1.7 fails with status 500
    # instead of rejecting the encoding with 422, and the fallback to JSON would not follow.
    return Request("POST", f"{context.url}/infer", {JSON_LENGTH: str(len(header))}, header + data)


def decode_response(context: EndpointContext, response: Response, count: int, request_id: str) -> list[Any]:
    """Return one item per image: scores (an array, or a list of JSON numbers) or a label.

    Raises:
        UnusableAnswerError: the response is of another model or request, or does not follow the protocol.
    """
    payload, binary_data = _split_body(response)
    if payload.get("model_name") != context.info.model:
        raise UnusableAnswerError(f"is of another model ({short_repr(payload.get('model_name'))})")
    if payload.get("id") not in (request_id, None, ""):
        raise UnusableAnswerError("belongs to another request")
    shape, values, is_integer = _read_outputs(payload.get("outputs"), binary_data, context.info.output)
    if not shape or shape[0] != count or len(shape) > 2:
        raise UnusableAnswerError(f"has the shape {short_repr(list(shape))} for {count} images")
    if math.prod(shape) == count:
        return values if is_integer else [float(value) for value in values]
    return [values[row * shape[1] : (row + 1) * shape[1]] for row in range(count)]


def _cast(pixels: Pixels, datatype: str) -> Pixels:
    if datatype == "UINT8":
        pixels = pixels.round().clip(0, 255)
    return pixels.astype(DTYPES[datatype])


def _tensor_specs(url: str, metadata: Mapping[str, Any], key: str) -> list[_TensorSpec]:
    try:
        return [
            _TensorSpec(str(tensor["name"]), str(tensor["datatype"]), _sides(tensor["shape"]))
            for tensor in metadata.get(key) or ()
        ]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelError(f"{url}: its metadata are not those of the Open Inference Protocol ({key})") from error


def _sides(shape: Any) -> tuple[int, ...]:
    """Return the sides of a shape; ValueError where it has too many axes, or a side is not a small integer."""
    sides = tuple(int(side) for side in shape[: _MAX_AXES + 1])
    if len(sides) > _MAX_AXES or any(abs(side) >= 1 << 63 for side in sides):
        raise ValueError("not the shape of a tensor")
    return sides


def _select_output(url: str, outputs: list[_TensorSpec], cfg: Client) -> _TensorSpec | None:
    if cfg.output is None:
        return outputs[0] if outputs else None
    matching = [output for output in outputs if output.name == cfg.output]
    if outputs and not matching:
        raise ConfigError(
            f"output = {cfg.output!r}: {url} has {', '.join(short_repr(output.name) for output in outputs[:9])}"
        )
    return matching[0] if matching else None


def _class_names(names: Any) -> tuple[str, ...] | None:
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        return tuple(names)
    return None


def _image_shape(url: str, image: _TensorSpec, cfg: Client) -> tuple[int, int, int] | None:
    """Return (C, H, W) if the metadata give all three."""
    if image.shape and len(image.shape) != 4:
        raise ModelError(f"{url}: takes {short_repr(list(image.shape))}; images have 4 axes")
    if not image.shape or any(side < 1 for side in image.shape[1:]):
        return None
    first, second, third = image.shape[1:]
    return (first, second, third) if cfg.presentation.layout == "NCHW" else (third, first, second)


def _split_body(response: Response) -> tuple[dict[str, Any], bytes]:
    """Return the JSON part of a response, and the binary data that follow it."""
    length, end = response.headers.get(JSON_LENGTH.lower()), len(response.body)
    if length is not None:
        if not length.isdecimal() or len(length) > 12 or int(length) > len(response.body):
            raise UnusableAnswerError(f"has a JSON part of {short_repr(length)} bytes")
        end = int(length)
    payload = parse_json(response.body[:end])
    if not isinstance(payload, dict):
        raise UnusableAnswerError("is not a JSON object")
    return payload, response.body[end:]


def _read_outputs(outputs: Any, binary_data: bytes, name: str | None) -> _OutputValues:
    """Return the output with this name, or the first one if `name` is None; check the sizes of all outputs."""
    if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
        raise UnusableAnswerError("has no outputs")
    start, selected = 0, None
    for output in outputs:
        parameters = output.get("parameters")
        size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
        if size is not None and (type(size) is not int or not 0 <= size <= len(binary_data) - start):
            raise UnusableAnswerError(f"has an output of {short_repr(size)} bytes")
        if selected is None and name in (None, output.get("name")):
            selected = _read_output(output, None if size is None else binary_data[start : start + size])
        start += size or 0
    if selected is None:
        raise UnusableAnswerError(f"has no output {short_repr(name)}")
    if start != len(binary_data):
        raise UnusableAnswerError(f"has {len(binary_data) - start} bytes too many")
    return selected


def _read_output(output: dict[str, Any], data: bytes | None) -> _OutputValues:
    shape, datatype = output.get("shape"), output.get("datatype")
    if not isinstance(datatype, str) or datatype not in DTYPES:
        raise UnusableAnswerError(f"has the datatype {short_repr(datatype)}, which is not numeric")
    if not isinstance(shape, list) or len(shape) > _MAX_AXES or not all(type(n) is int and n >= 0 for n in shape):
        raise UnusableAnswerError(f"has the shape {short_repr(shape)}")
    if data is None:
        values = _flatten(output.get("data"))
    elif len(data) % DTYPES[datatype].itemsize:
        raise UnusableAnswerError(f"has an output of {len(data)} bytes")
    else:
        values = np.frombuffer(data, DTYPES[datatype])
        values = values.tolist() if datatype in _INTEGERS else values
    if len(values) != math.prod(shape):
        raise UnusableAnswerError(f"has {len(values)} numbers for the shape {short_repr(shape)}")
    return _OutputValues(tuple(shape), values, datatype in _INTEGERS)


def _flatten(data: Any) -> Any:
    """Flatten the nested lists that the protocol allows, and check that they hold numbers."""
    while isinstance(data, list) and data and all(isinstance(row, list) for row in data):
        data = [value for row in data for value in row]
    parse_numbers(data)
    return data
