"""Check the header of an untrusted safetensors file before its tensors are read.

The format: eight bytes (little endian) with the length of the header, the header (JSON), then the bytes of the tensors,
one after another. The check is as strict as the specification, so that no reader's leniency matters.
"""

from __future__ import annotations

from typing import Any

from wootz.errors import SuspectError
from wootz.suspects.files.limits import Limits, TensorSpec, check_limits
from wootz.suspects.files.sanitize import one_line, strict_json


def safetensors_header(data: bytes, name: str, limits: Limits) -> dict[str, TensorSpec]:
    """Return the dtype and the shape of every tensor by its name; error messages start with `name`.

    Raises:
        SuspectError: The header is invalid, or the tensors overlap, leave gaps, do not end where the file ends, do not
            have the size of their shape, or exceed a limit.
    """
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise SuspectError(f"{name}: is truncated: its header claims {length:,} bytes of a file of {len(data):,}")
    if length > limits.header_bytes:
        raise SuspectError(f"{name}: has a header of {length:,} bytes; {limits.header_bytes:,} are read at most")
    header = strict_json(data[8 : 8 + length], f"{name}: its header")
    if not isinstance(header, dict):
        raise SuspectError(f"{name}: its header is not a JSON object")
    header.pop("__metadata__", None)
    if len(header) > limits.tensors:
        raise SuspectError(f"{name}: holds {len(header):,} tensors; {limits.tensors:,} are read at most")
    entries = {key: _entry(entry, f"{name}: tensor {one_line(key, 80)!r}") for key, entry in header.items()}
    tensor_specs = {key: tensor_spec for key, (tensor_spec, _, _) in entries.items()}
    check_limits(tensor_specs, limits, name)
    position = 0
    for key, (tensor_spec, begin, end) in sorted(entries.items(), key=lambda item: item[1][1:]):
        what = f"{name}: tensor {one_line(key, 80)!r}"
        if not tensor_spec.elements:
            raise SuspectError(f"{what} has no elements")
        if begin != position:
            raise SuspectError(f"{what} starts at byte {begin}, not at {position} where the one before it ends")
        if end - begin != tensor_spec.size:
            raise SuspectError(f"{what} has {end - begin} bytes; its shape and dtype need {tensor_spec.size}")
        position = end
    if position != len(data) - 8 - length:
        raise SuspectError(f"{name}: its tensors take {position} bytes; the file has {len(data) - 8 - length} for them")
    return tensor_specs


def _entry(entry: Any, what: str) -> tuple[TensorSpec, int, int]:
    """Return the spec of a tensor and its first and last byte offset."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise SuspectError(f"{what} does not have exactly the fields dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or not isinstance(shape, list) or not isinstance(offsets, list):
        raise SuspectError(f"{what} has fields of the wrong types")
    if len(offsets) != 2 or not all(type(position) is int and 0 <= position < 1 << 63 for position in offsets):
        raise SuspectError(f"{what} does not have two valid data offsets")
    return TensorSpec(dtype, tuple(shape)), offsets[0], offsets[1]
