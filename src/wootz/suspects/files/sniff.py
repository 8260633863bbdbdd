"""Determine the format of a model file from its content alone; formats that can run code are refused with a reason.

No pickle is loaded: a scanner can warn about a pickle but cannot prove that it is harmless.
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, TypeAlias

from wootz.errors import SuspectError
from wootz.suspects.files.limits import Limits
from wootz.suspects.files.zip_members import check_members, directory

Kind: TypeAlias = Literal["safetensors", "onnx", "torch-zip"]

WHY_CODE = "files of this kind can run code when they are loaded; save the weights as safetensors"
_PACKED = "what it packs may run code; unpack it, or save the weights as safetensors"

_MAGIC: Mapping[bytes, str] = MappingProxyType(
    {
        b"\x89HDF\r\n\x1a\n": f"is an HDF5 file (Keras): {WHY_CODE}",
        b"\x93NUMPY": "is a NumPy array, which may hold a pickle; save the weights as safetensors",
        b"\x1f\x8b": f"is compressed (gzip; joblib does so): {_PACKED}",
        b"BZh": f"is compressed (bzip2; joblib does so): {_PACKED}",
        b"\xfd7zXZ\x00": f"is compressed (xz; joblib does so): {_PACKED}",
        b"\x5d\x00\x00": f"is compressed (lzma; joblib does so): {_PACKED}",
        b"\x04\x22\x4d\x18": f"is compressed (lz4; joblib does so): {_PACKED}",
        b"\x28\xb5\x2f\xfd": f"is compressed (zstandard): {_PACKED}",
        b"\x78\x01": f"is compressed (zlib; joblib does so): {_PACKED}",
        b"\x78\x5e": f"is compressed (zlib; joblib does so): {_PACKED}",
        b"\x78\x9c": f"is compressed (zlib; joblib does so): {_PACKED}",
        b"\x78\xda": f"is compressed (zlib; joblib does so): {_PACKED}",
    }
)

_PROTOCOLS = frozenset(bytes([number]) for number in range(1, 6))
_LENGTH = 2  # protobuf's wire type of strings, bytes and messages
_MODEL_PROTO: Mapping[int, int] = MappingProxyType(
    {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
)
"""ONNX's ModelProto: field number -> wire type; field 7 is the graph."""


def sniff(data: bytes, name: str, limits: Limits, *, allow_torch_zip: bool = False) -> Kind:
    """Return the format of `data`; error messages start with `name`.

    Raises:
        SuspectError: The format is refused (pickle, TorchScript, `.pt2`, `torch.package`, Keras, NumPy, compressed
            files, and PyTorch zip files unless they are allowed) or unknown.
    """
    if not data:
        raise SuspectError(f"{name}: is empty")
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= max(limits.header_bytes, len(data)):
        return "safetensors"
    if data[:2] == b"PK":
        return _zip_kind(data, name, limits, allow_torch_zip=allow_torch_zip)
    for magic, reason in _MAGIC.items():
        if data.startswith(magic):
            raise SuspectError(f"{name}: {reason}")
    if data[:1] == b"\x80" and data[1:2] in _PROTOCOLS:
        raise SuspectError(f"{name}: is a pickle (protocol {data[1]}): {WHY_CODE}")
    if _is_model_proto(data):
        return "onnx"
    if data[257:262] == b"ustar":
        raise SuspectError(f"{name}: is a tar file (as old PyTorch wrote): {_PACKED}")
    if _is_old_pickle(data[:4096]):
        raise SuspectError(f"{name}: is a pickle (protocol 0 or 1): {WHY_CODE}")
    raise SuspectError(f"{name}: is neither safetensors nor ONNX, the supported formats")


def _zip_kind(data: bytes, name: str, limits: Limits, *, allow_torch_zip: bool) -> Kind:
    infos = directory(data, name, limits)
    reason = _zip_reason([info.filename for info in infos])
    if reason is not None:
        raise SuspectError(f"{name}: is {reason}: {WHY_CODE}")
    check_members(infos, data, name)
    if not any(info.filename.partition("/")[2] == "data.pkl" for info in infos):
        raise SuspectError(f"{name}: is a zip file of an unsupported kind; save the weights as safetensors")
    if not allow_torch_zip:
        raise SuspectError(
            f"{name}: is a PyTorch zip file, which can run code when PyTorch loads it; "
            "save the weights as safetensors, or allow plain tensors in it with --allow-torch-zip"
        )
    return "torch-zip"


def _zip_reason(names: Sequence[str]) -> str | None:
    """Return the name of the code-bearing format that has members of these names, or None."""
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        return "TorchScript"
    if "archive_format" in inner or any("serialized_exported_program" in name for name in names):
        return "a .pt2 archive (torch.export)"
    if ".data/extern_modules" in inner or ".data/python_version" in inner:
        return "a torch.package"
    if any(name.endswith(".h5") for name in names) or {"config.json", "metadata.json"} <= set(names):
        return "a Keras model"
    if any(name.endswith("saved_model.pb") for name in names):
        return "a TensorFlow SavedModel"
    if any(name.endswith(".npy") for name in names):
        return "a NumPy archive, which may hold pickles"
    return None


def _is_model_proto(data: bytes) -> bool:
    """Return whether the whole file is a sequence of fields of ONNX ModelProto, including a graph."""
    position, seen = 0, set()
    for _ in range(4096):
        if position == len(data):
            return 7 in seen
        key, position = _varint(data, position)
        number, wire = key >> 3, key & 7
        if position < 0 or _MODEL_PROTO.get(number) != wire:
            return False
        value, position = _varint(data, position)
        if position < 0:
            return False
        position += value if wire == _LENGTH else 0
        if position > len(data):
            return False
        seen.add(number)
    return False


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Return a number in protobuf's base 128 and the position after it, or -1 if there is none."""
    value = 0
    for step, byte in enumerate(data[position : position + 10]):
        value |= (byte & 0x7F) << (7 * step)
        if byte < 0x80:
            return value, position + step + 1
    return 0, -1


def _is_old_pickle(start: bytes) -> bool:
    """Return whether `start` parses as pickle opcodes up to STOP, or for eight opcodes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in random bytes
            for count, (opcode, _, _) in enumerate(pickletools.genops(start)):
                if opcode.name == "STOP" or count == 8:
                    return True
    except (ValueError, IndexError, UnicodeDecodeError, OverflowError):
        return False
    return False
