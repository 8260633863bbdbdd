"""How much of everything an untrusted file may ask for, checked from its headers before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from wootz import checks
from wootz.errors import SuspectError
from wootz.suspects.files.words import one_line

ITEM_BYTES: Mapping[str, int] = MappingProxyType(
    {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
)
"""Bytes an element, by safetensors' names; no other dtype is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits on an untrusted suspect.

    Attributes:
        file_bytes: of the file.
        description_bytes: of `model.json`.
        header_bytes: of a safetensors header (the format's own cap).
        tensor_bytes: of all tensors together.
        elements: of all tensors together.
        tensors: how many, and how many members a zip file may have.
        rank: dimensions a tensor.
        image_elements: channels times height times width.
        classes: how many.
        nodes: of an ONNX graph, subgraphs among them.
        depth: of ONNX subgraphs within subgraphs.
        memory_bytes: address space beyond what the interpreter and its libraries take.
        cpu_seconds: processor time of the isolated process, all answers together.
        start_seconds: wall clock until the isolated process stands; nothing of the suspect is read before.
        open_seconds: wall clock to read the suspect.
        answer_seconds: wall clock for one batch of images.
    """

    file_bytes: int = (2 << 30) + 100_000_008
    description_bytes: int = 1 << 20
    header_bytes: int = 100_000_000
    tensor_bytes: int = 2 << 30
    elements: int = 1 << 31
    tensors: int = 4096
    rank: int = 8
    image_elements: int = 1 << 22
    classes: int = 1 << 16
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


class Described(NamedTuple):
    """What a header says of a tensor: a dtype of `ITEM_BYTES`, and the shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many elements the shape has."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """How many bytes the elements take."""
        return self.elements * ITEM_BYTES[self.dtype]


def check_budget(tensors: Mapping[str, Described], limits: Limits, name: str) -> None:
    """Raise SuspectError unless the tensors of a header fit the limits; `name` is the file's, for errors."""
    if not tensors:
        raise SuspectError(f"{name}: holds no tensors")
    if len(tensors) > limits.tensors:
        raise SuspectError(f"{name}: holds {len(tensors):,} tensors; {limits.tensors:,} are read at most")
    elements = size = 0
    for key, described in tensors.items():
        check_shape(described, limits, f"{name}: tensor {one_line(key, 80)!r}")
        elements += described.elements
        size += described.size
    if elements > limits.elements or size > limits.tensor_bytes:
        raise SuspectError(
            f"{name}: asks for {_short(elements)} elements in {_short(size)} bytes; "
            f"{limits.elements:,} elements in {limits.tensor_bytes:,} bytes are read at most"
        )


def check_shape(described: Described, limits: Limits, what: str) -> None:
    """Raise SuspectError unless dtype, rank and every dimension are of a kind that is read."""
    if described.dtype not in ITEM_BYTES:
        raise SuspectError(f"{what} is of dtype {one_line(described.dtype, 40)!r}; read are {', '.join(ITEM_BYTES)}")
    if len(described.shape) > limits.rank:
        raise SuspectError(f"{what} has {len(described.shape):,} dimensions; {limits.rank} are read at most")
    if not all(type(size) is int and 0 <= size < 1 << 63 for size in described.shape):
        raise SuspectError(f"{what} has a dimension that is no size")


def _short(count: int) -> str:
    """Write a count that may have a thousand digits."""
    return f"{count:,}" if count < 10**15 else "more than 10^15"
