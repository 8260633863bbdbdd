"""The Open Inference Protocol (KServe v2): JSON, and its binary extension.

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
from wootz.suspects.endpoints.answers import UnusableError, brief, numbers, read_json
from wootz.suspects.endpoints.presentation import Pixels, present
from wootz.suspects.endpoints.service import Service, model_in
from wootz.suspects.endpoints.settings import Client, EndpointInfo
from wootz.suspects.endpoints.wire import Reply, Request

JSON_LENGTH = "Inference-Header-Content-Length"

_FLOATS = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
_WHOLE = {
    "INT8": "|i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "UINT8": "|u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
}
DTYPES: Mapping[str, np.dtype[Any]] = MappingProxyType({k: np.dtype(v) for k, v in (_FLOATS | _WHOLE).items()})
"""Datatypes of the protocol that images and answers may have, little-endian."""

_INPUTS = (*_FLOATS, "UINT8")


class _Slot(NamedTuple):
    """An input or an output, as the metadata describe it."""

    name: str
    datatype: str
    shape: tuple[int, ...]


def info(url: str, metadata: Mapping[str, Any], cfg: Client) -> EndpointInfo:
    """Read what `GET /v2/models/M` says.

    Raises:
        ModelError: it is not what the protocol says, or no image classifier.
        ConfigError: the images as they are presented do not fit.
    """
    model, told = metadata.get("name"), metadata.get("parameters")
    inputs, outputs = _slots(url, metadata, "inputs"), _slots(url, metadata, "outputs")
    if not isinstance(model, str) or model != model_in(url):
        raise ModelError(f"{url}: its metadata are of another model ({brief(model)})")
    if len(inputs) > 1:
        raise ModelError(f"{url}: takes {len(inputs)} inputs; an image classifier takes one")
    parameters = told if isinstance(told, dict) else {}
    slot = inputs[0] if inputs else _Slot(cfg.input, "FP32", ())
    if slot.datatype not in _INPUTS:
        raise ModelError(f"{url}: takes {brief(slot.datatype)}, not one of {', '.join(_INPUTS)}")
    if slot.datatype == "UINT8" and cfg.presentation.scale != "0-255":
        raise ConfigError(f"{url}: takes whole gray levels; set presentation.scale=0-255")
    output = _chosen(url, outputs, cfg)
    classes = cfg.classes or _classes(parameters.get("classes"))
    width = output.shape[1] if output and len(output.shape) == 2 and output.shape[1] > 1 else None
    if classes and width not in (None, len(classes)):
        raise ConfigError(f"{url}: scores {width} classes, and {len(classes)} are named")
    return EndpointInfo(
        model=model,
        shape=_image(url, slot, cfg),
        classes=classes,
        num_classes=len(classes) if classes else width,
        parameters=MappingProxyType(parameters),
        input=slot.name,
        datatype=slot.datatype,
        output=output.name if output else cfg.output,
        batch=slot.shape[0] if slot.shape and slot.shape[0] > 0 else None,
    )


def encode(service: Service, x: Tensor, ident: str, binary: bool) -> Request:
    """Ask about images [N, C, H, W] in [0, 1]."""
    pixels = _typed(present(x, service.cfg.presentation), service.info.datatype)
    data = pixels.tobytes()
    slot: dict[str, Any] = {
        "name": service.info.input,
        "shape": list(pixels.shape),
        "datatype": service.info.datatype,
    }
    slot |= {"parameters": {"binary_data_size": len(data)}} if binary else {"data": pixels.ravel().tolist()}
    question: dict[str, Any] = {"id": ident, "inputs": [slot]}
    if service.info.output is not None:
        wanted = {"parameters": {"binary_data": True}} if binary else {}
        question["outputs"] = [{"name": service.info.output, **wanted}]
    elif binary:
        question["parameters"] = {"binary_data_output": True}
    told = canonical(question)
    if not binary:
        return Request("POST", f"{service.url}/infer", {"Content-Type": "application/json"}, told)
    # No Content-Type, as the reference client does: with the documented octet-stream, MLServer 1.7 fails instead of
    # refusing (500 where 422 is meant), and no fallback to JSON would follow.
    return Request("POST", f"{service.url}/infer", {JSON_LENGTH: str(len(told))}, told + data)


def decode(service: Service, reply: Reply, count: int, ident: str) -> list[Any]:
    """Return one item an image: scores (an array, or a list of JSON numbers) or a label.

    Raises:
        UnusableError: the answer is of another model or request, or not what the protocol says.
    """
    told, tail = _split(reply)
    if told.get("model_name") != service.info.model:
        raise UnusableError(f"is of another model ({brief(told.get('model_name'))})")
    if told.get("id") not in (ident, None, ""):
        raise UnusableError("belongs to another request")
    shape, values, whole = _values(told.get("outputs"), tail, service.info.output)
    if not shape or shape[0] != count or len(shape) > 2:
        raise UnusableError(f"has the shape {brief(list(shape))} for {count} images")
    if whole and math.prod(shape) == count:
        return list(values)
    if len(shape) == 1:
        raise UnusableError("is one number an image, and no label")
    return [values[row * shape[1] : (row + 1) * shape[1]] for row in range(count)]


def _typed(pixels: Pixels, datatype: str) -> Pixels:
    if datatype == "UINT8":
        pixels = pixels.round().clip(0, 255)
    return pixels.astype(DTYPES[datatype])


def _slots(url: str, metadata: Mapping[str, Any], key: str) -> list[_Slot]:
    try:
        return [
            _Slot(str(slot["name"]), str(slot["datatype"]), tuple(int(side) for side in slot["shape"]))
            for slot in metadata.get(key) or ()
        ]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelError(f"{url}: its metadata are not those of the Open Inference Protocol ({key})") from error


def _chosen(url: str, outputs: list[_Slot], cfg: Client) -> _Slot | None:
    if cfg.output is None:
        return outputs[0] if outputs else None
    named = [slot for slot in outputs if slot.name == cfg.output]
    if outputs and not named:
        raise ConfigError(f"output = {cfg.output!r}: {url} has {', '.join(slot.name for slot in outputs)}")
    return named[0] if named else None


def _classes(told: Any) -> tuple[str, ...] | None:
    if isinstance(told, list) and told and all(isinstance(name, str) for name in told):
        return tuple(told)
    return None


def _image(url: str, slot: _Slot, cfg: Client) -> tuple[int, int, int] | None:
    """Return (C, H, W), where the metadata say all three."""
    if slot.shape and len(slot.shape) != 4:
        raise ModelError(f"{url}: takes {list(slot.shape)}; images have 4 axes")
    if not slot.shape or any(side < 1 for side in slot.shape[1:]):
        return None
    one, two, three = slot.shape[1:]
    return (one, two, three) if cfg.presentation.layout == "NCHW" else (three, one, two)


def _split(reply: Reply) -> tuple[dict[str, Any], bytes]:
    """Return the JSON part of an answer, and the binary part that follows it."""
    length, end = reply.headers.get(JSON_LENGTH.lower()), len(reply.body)
    if length is not None:
        if not length.isdecimal() or len(length) > 12 or int(length) > len(reply.body):
            raise UnusableError(f"has a JSON part of {brief(length)} bytes")
        end = int(length)
    told = read_json(reply.body[:end])
    if not isinstance(told, dict):
        raise UnusableError("is no JSON object")
    return told, reply.body[end:]


def _values(outputs: Any, tail: bytes, wanted: str | None) -> tuple[tuple[int, ...], Any, bool]:
    """Return shape, flat values and whether they are whole numbers, of the output that is wanted (or the first)."""
    if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
        raise UnusableError("has no outputs")
    start, found = 0, None
    for output in outputs:
        parameters = output.get("parameters")
        size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
        if size is not None and (type(size) is not int or not 0 <= size <= len(tail) - start):
            raise UnusableError(f"has an output of {brief(size)} bytes")
        if found is None and wanted in (None, output.get("name")):
            found = _output(output, None if size is None else tail[start : start + size])
        start += size or 0
    if found is None:
        raise UnusableError(f"has no output {brief(wanted)}")
    if start != len(tail):
        raise UnusableError(f"has {len(tail) - start} bytes too many")
    return found


def _output(output: dict[str, Any], data: bytes | None) -> tuple[tuple[int, ...], Any, bool]:
    shape, datatype = output.get("shape"), output.get("datatype")
    if not isinstance(datatype, str) or datatype not in DTYPES:
        raise UnusableError(f"is of type {brief(datatype)}, not numbers")
    if not isinstance(shape, list) or not all(type(side) is int and side >= 0 for side in shape):
        raise UnusableError(f"has the shape {brief(shape)}")
    if data is None:
        values = _flat(output.get("data"))
    elif len(data) % DTYPES[datatype].itemsize:
        raise UnusableError(f"has an output of {len(data)} bytes")
    else:
        values = np.frombuffer(data, DTYPES[datatype])
        values = values.tolist() if datatype in _WHOLE else values
    if len(values) != math.prod(shape):
        raise UnusableError(f"holds {len(values)} numbers for the shape {brief(shape)}")
    return tuple(shape), values, datatype in _WHOLE


def _flat(data: Any) -> Any:
    """Undo the nesting that the protocol allows."""
    while isinstance(data, list) and data and all(isinstance(part, list) for part in data):
        data = [value for part in data for value in part]
    numbers(data)
    return data
