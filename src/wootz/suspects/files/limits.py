"""Limits on an untrusted model file, checked against its headers before memory is allocated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from wootz import checks
from wootz.errors import SuspectError
from wootz.suspects.files.sanitize import one_line
from wootz.types import MAX_CLASSES, MAX_IMAGE_VALUES

ITEM_BYTES: Mapping[str, int] = MappingProxyType(
    {
        "C128": 16,
        "C64": 8,
        "F64": 8,
        "F32": 4,
        "F16": 2,
        "BF16": 2,
        "F8_E4M3": 1,
        "F8_E4M3FNUZ": 1,
        "F8_E5M2": 1,
        "F8_E5M2FNUZ": 1,
        "I64": 8,
        "I32": 4,
        "I16": 2,
        "I8": 1,
        "U64": 8,
        "U32": 4,
        "U16": 2,
        "U8": 1,
        "BOOL": 1,
    }
)
"""Bytes per element, by safetensors' dtype names (`C128` is PyTorch's only); no other dtype is supported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits on an untrusted suspect.

    Attributes:
        file_bytes: The size of the file.
        description_bytes: The size of `model.json`.
        header_bytes: The size of a safetensors header (the limit of the format).
        tensor_bytes: The size of all tensors together.
        elements: The number of elements of all tensors together.
        tensors: The number of tensors, and of members of a zip file.
        rank: The number of dimensions per tensor.
        image_elements: The channels times the height times the width of an image.
        classes: The number of classes.
        nodes: The number of nodes of an ONNX graph and its subgraphs.
        depth: The nesting depth of ONNX subgraphs.
        memory_bytes: The address space beyond that of the interpreter and its libraries.
        cpu_seconds: The processor time of the isolated process, for all answers together.
        start_seconds: The wall time to start the isolated process, before it receives the suspect.
        open_seconds: The wall time to read the suspect.
        answer_seconds: The wall time per batch of images.
    """

    file_bytes: int = (2 << 30) + 100_000_008
    description_bytes: int = 1 << 20
    header_bytes: int = 100_000_000
    tensor_bytes: int = 2 << 30
    elements: int = 1 << 31
    tensors: int = 4096
    rank: int = 8
    image_elements: int = MAX_IMAGE_VALUES
    classes: int = MAX_CLASSES
    nodes: int = 1 << 16
    depth: int = 8
    memory_bytes: int = 8 << 30
    cpu_seconds: int = 14_400
    start_seconds: float = 120.0
    open_seconds: float = 120.0
    answer_seconds: float = 120.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            checks.positive(**{name: getattr(self, name)})


class TensorSpec(NamedTuple):
    """The dtype (of `ITEM_BYTES`) and the shape of a tensor, as a header states them."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """The size in bytes."""
        return self.elements * ITEM_BYTES[self.dtype]


def check_limits(tensors: Mapping[str, TensorSpec], limits: Limits, name: str) -> None:
    """Raise SuspectError unless the tensors of a header are within the limits; error messages start with `name`."""
    if not tensors:
        raise SuspectError(f"{name}: holds no tensors")
    if len(tensors) > limits.tensors:
        raise SuspectError(f"{name}: holds {len(tensors):,} tensors; {limits.tensors:,} are read at most")
    elements = size = 0
    for key, spec in tensors.items():
        check_shape(spec, limits, f"{name}: tensor {one_line(key, 80)!r}")
        elements += spec.elements
        size += spec.size
    if elements > limits.elements or size > limits.tensor_bytes:
        raise SuspectError(
            f"{name}: asks for {_short(elements)} elements in {_short(size)} bytes; "
            f"{limits.elements:,} elements in {limits.tensor_bytes:,} bytes are read at most"
        )


def check_shape(spec: TensorSpec, limits: Limits, what: str) -> None:
    """Raise SuspectError unless dtype, rank and every dimension are supported; error messages start with `what`."""
    if spec.dtype not in ITEM_BYTES:
        raise SuspectError(f"{what} has dtype {one_line(spec.dtype, 40)!r}; supported are {', '.join(ITEM_BYTES)}")
    if len(spec.shape) > limits.rank:
        raise SuspectError(f"{what} has {len(spec.shape):,} dimensions; {limits.rank} are read at most")
    if not all(type(size) is int and 0 <= size < 1 << 63 for size in spec.shape):
        raise SuspectError(f"{what} has an invalid dimension")


def _short(count: int) -> str:
    """Format a count that may have a thousand digits."""
    return f"{count:,}" if count < 10**15 else "more than 10^15"
