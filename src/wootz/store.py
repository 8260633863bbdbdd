"""Reading and writing of files: atomic writes, digests, safetensors and JSON."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wootz.errors import StoreError

if TYPE_CHECKING:
    from torch import Tensor


def write_bytes(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write `data` to `path` atomically: temporary file, fsync, rename, fsync of the folder.

    Raises:
        StoreError: the disk is full, or the folder cannot be written; an existing file at `path` is unchanged.
    """
    with _temporary_file(path, data, mode) as temporary:
        os.replace(temporary, path)


def create_bytes(path: Path, data: bytes, *, mode: int = 0o644) -> bool:
    """Write `data` to `path` atomically, unless there is a file; return whether it was written.

    Of several processes that do so at once, exactly one writes its data.

    Raises:
        StoreError: the disk is full, or the folder cannot be written.
    """
    with _temporary_file(path, data, mode) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
    return True


@contextmanager
def _temporary_file(path: Path, data: bytes, mode: int) -> Iterator[Path]:
    """Write and fsync a temporary file beside `path`; remove what is left of it, and fsync the folder, at exit."""
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror}); an existing file is unchanged") from error


def append_line(path: Path, line: str) -> None:
    """Append one line and fsync it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror})") from error


def whole_lines(data: bytes) -> bytes:
    """Return the complete lines: a last line without its newline is still being written, or was cut off."""
    return data[: data.rfind(b"\n") + 1]


def read_bytes(path: Path) -> bytes:
    """Read a file.

    Raises:
        StoreError: the file is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror})") from error


def canonical(value: Any) -> bytes:
    """Return `value` as canonical JSON: sorted keys, no spaces, UTF-8.

    Equal to RFC 8785 for the values that we sign: objects with ASCII keys, strings, booleans and integers (other
    numbers are written as decimal strings, never as floats).
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def write_json(path: Path, value: Any, *, mode: int = 0o644) -> None:
    """Write `value` as readable JSON, atomically."""
    write_bytes(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode(), mode=mode)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        StoreError: the file cannot be read, or is not JSON; the message names the file and the position.
    """
    try:
        return json.loads(read_bytes(path))
    except ValueError as error:
        raise StoreError(f"{path}: is not JSON ({error})") from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor], *, mode: int = 0o644) -> None:
    """Write tensors as safetensors, atomically; equal tensors give equal bytes."""
    write_bytes(path, tensor_bytes(tensors), mode=mode)


def tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Return tensors as the bytes of a safetensors file; equal tensors give equal bytes."""
    from safetensors.torch import save

    return save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        StoreError: the file cannot be read, or is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(read_bytes(path))
    except (SafetensorError, ValueError, KeyError) as error:
        raise StoreError(f"{path}: is not a complete safetensors file ({error})") from error


def sha256(data: bytes) -> str:
    """Return the SHA-256 digest with the algorithm's name, such as `sha256:ab12...`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def file_digest(path: Path) -> str:
    """Return the digest of a file's bytes."""
    return sha256(read_bytes(path))


def tensor_digest(*tensors: Tensor) -> str:
    """Return one digest over the shapes, dtypes and bytes of tensors, in order."""
    hasher = hashlib.sha256()
    for tensor in tensors:
        flat = tensor.detach().cpu().contiguous()
        hasher.update(f"{list(flat.shape)} {flat.dtype};".encode())
        hasher.update(flat.numpy().tobytes())
    return "sha256:" + hasher.hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
