"""Read tensors from an untrusted PyTorch zip file without PyTorch's loader, zip reader or unpickler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from zipfile import ZipInfo

from wootz.errors import SuspectError
from wootz.suspects.files.limits import ITEM_BYTES, Limits, TensorSpec, check_limits
from wootz.suspects.files.sanitize import one_line
from wootz.suspects.files.state_pickle import Stored, read_state
from wootz.suspects.files.zip_members import check_members, content, directory

if TYPE_CHECKING:
    from torch import Tensor

_PICKLE_BYTES = 1 << 24
DTYPES = {
    "C128": "complex128",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
"""PyTorch's name of each dtype of `ITEM_BYTES`."""


def torch_zip_header(data: bytes, name: str, limits: Limits) -> dict[str, Stored]:
    """Return the location of every tensor of a state dict in the archive; error messages start with `name`.

    Raises:
        SuspectError: The archive or its pickle is not as `torch.save(model.state_dict(), ...)` writes it, a storage
            does not have the size that it claims, or the tensors exceed a limit.
    """
    infos = directory(data, name, limits)
    check_members(infos, data, name)
    members = {info.filename: info for info in infos}
    root = next((key.removesuffix("data.pkl") for key in members if key.partition("/")[2] == "data.pkl"), None)
    if root is None or not all(key.startswith(root) for key in members):
        raise SuspectError(f"{name}: is a zip file, but not that of a state dict")
    if members[root + "data.pkl"].file_size > _PICKLE_BYTES:
        raise SuspectError(f"{name}: has a pickle of more than {_PICKLE_BYTES:,} bytes, too large for a state dict's")
    order = members.get(root + "byteorder")
    if order is not None and content(data, order, name) != b"little":
        raise SuspectError(f"{name}: its numbers are not stored little endian")
    state = read_state(content(data, members[root + "data.pkl"], name), name)
    check_limits({key: stored.spec for key, stored in state.items()}, limits, name)
    for key, stored in state.items():
        _check_storage(stored, members.get(f"{root}data/{stored.storage.key}"), f"{name}: tensor {one_line(key, 80)!r}")
    return state


def tensor_specs(state: Mapping[str, Stored]) -> dict[str, TensorSpec]:
    """Return the dtype and the shape of every tensor."""
    return {key: stored.spec for key, stored in state.items()}


def torch_zip_tensors(data: bytes, name: str, state: Mapping[str, Stored], limits: Limits) -> dict[str, Tensor]:
    """Return the tensors at the locations of `torch_zip_header`, on the CPU; tensors of one storage share memory."""
    import torch

    members = {info.filename.partition("/")[2]: info for info in directory(data, name, limits)}
    keys = {stored.storage.key for stored in state.values()}
    storages = {key: bytearray(content(data, members[f"data/{key}"], name)) for key in keys}
    tensors = {}
    for key, (storage, offset, what) in state.items():
        flat = torch.frombuffer(storages[storage.key], dtype=getattr(torch, DTYPES[storage.dtype]))
        tensors[key] = flat[offset : offset + what.elements].reshape(what.shape)
    return tensors


def _check_storage(stored: Stored, info: ZipInfo | None, what: str) -> None:
    if not stored.spec.elements:
        raise SuspectError(f"{what} has no elements")
    size = stored.storage.elements * ITEM_BYTES[stored.storage.dtype]
    if info is None or info.file_size != size:
        size_text = "no bytes" if info is None else f"{info.file_size} bytes"
        raise SuspectError(f"{what} has {size_text} in the archive; its storage needs {size}")
