"""Reading and writing of whole files: atomic writes, digests, safetensors and JSON; and the lock of a folder."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import secrets
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from wootz.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from torch import Tensor

T = TypeVar("T")

_ABANDONED_S = 60.0
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")
"""Names of temporary files, each locked by its writer."""

_MOST_JSON, _DEEPEST_JSON, _LONGEST_FIELD = 1 << 26, 32, 80


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


def move_file(source: Path, target: Path) -> None:
    """Move a file within a file system, over an existing one.

    Raises:
        StoreError: it cannot be moved; both files are unchanged.
    """
    try:
        os.replace(source, target)
    except OSError as error:
        raise StoreError(f"{source}: cannot be moved to {target} ({error.strerror})") from error


@contextmanager
def _temporary_file(path: Path, data: bytes, mode: int) -> Iterator[Path]:
    """Write and fsync a temporary file beside `path`; remove what is left of it, and fsync the folder, at exit.

    Temporary files in the folder whose writers were killed are removed first.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path.parent)
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "wb") as file:
                with suppress(OSError):  # a file system without locks
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                yield temporary
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror}); an existing file is unchanged") from error
    try:
        sync_folder(path.parent)
    except OSError as error:
        raise StoreError(
            f"{path}: was written, but its folder was not ({error.strerror}); a loss of power may undo it"
        ) from error


def _remove_abandoned(folder: Path) -> None:
    """Remove the temporary files of writers that were killed: those that nobody locks, some time after they were made.

    A writer locks its file just after making it.
    """
    for name in filter(_TEMPORARY.fullmatch, os.listdir(folder)):
        with suppress(OSError):
            descriptor = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if abs(time.time() - os.fstat(descriptor).st_mtime) > _ABANDONED_S:
                    (folder / name).unlink()
            finally:
                os.close(descriptor)


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Create a folder, and hold its lock: of the commands that write it, one runs at a time.

    The lock, on the file `.lock`, ends with the process that holds it, however it ends. A folder that was created here
    and holds nothing else is removed at the end.

    Raises:
        ConfigError: another process holds the lock; the message names it.
        StoreError: the folder cannot be created or locked.
    """
    path, fresh = folder / ".lock", not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be created or written ({error.strerror})") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 500, 0).decode(errors="replace").strip() or "another process"
            raise ConfigError(f"{folder}: {holder} works there; wait for it, or choose another folder") from error
        except OSError as error:
            raise StoreError(f"{folder}: cannot be locked ({error.strerror})") from error
        command = " ".join(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]).split())
        with suppress(OSError):  # on a full disk the lock holds without a name
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()} ({command})".encode(errors="replace"), 0)
        yield
    finally:
        with suppress(OSError):
            if fresh and os.listdir(folder) == [path.name]:  # the command wrote nothing
                path.unlink()
                folder.rmdir()
        os.close(descriptor)


def read_bytes(path: Path) -> bytes:
    """Read a file.

    Raises:
        StoreError: the file is missing, is not a plain file, or cannot be read.
    """
    try:
        if not path.is_file() and path.exists():  # reading a pipe would never end
            raise StoreError(f"{path}: is not a plain file")
        return path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror})") from error


def canonical(value: Any) -> bytes:
    """Return `value` as canonical JSON: sorted keys, no spaces, UTF-8.

    Equal to RFC 8785 for the values that we sign: objects with ASCII keys, strings, booleans and integers (other
    numbers are written as decimal strings, never as floats).

    Raises:
        StoreError: a name is not Unicode, for example of a file whose name is not UTF-8.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise StoreError(f"{text[max(error.start - 40, 0) : error.end]!a}: is not UTF-8; rename the file") from error


def write_json(path: Path, value: Any, *, mode: int = 0o644) -> None:
    """Write `value` as readable JSON, atomically.

    A byte of a file name that is not UTF-8, a lone surrogate in Python, is written as its JSON escape.
    """
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    write_bytes(path, text.encode(errors="backslashreplace"), mode=mode)


def read_json(path: Path) -> Any:
    """Read a JSON file; see `parse_json`."""
    return parse_json(read_bytes(path), str(path))


def parse_json(data: bytes | str, where: str) -> Any:
    """Parse JSON of bounded size and depth.

    Raises:
        StoreError: the data is not JSON, too large or nested too deeply; the message begins with `where`.
    """
    if len(data) > _MOST_JSON:
        raise StoreError(f"{where}: has {len(data):,} bytes of JSON; {_MOST_JSON:,} are read at most")
    try:
        value = json.loads(data)
    except ValueError as error:
        raise StoreError(f"{where}: is not JSON ({error})") from error
    except RecursionError as error:
        raise StoreError(f"{where}: is JSON nested too deeply") from error
    level, depth = [value], 0
    while level := [item for outer in level for item in _items(outer)]:
        depth += 1
        if depth > _DEEPEST_JSON:
            raise StoreError(f"{where}: is JSON nested too deeply")
    return value


def _items(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []


def validate(kind: type[T], plain: Any, where: str) -> T:
    """Return plain JSON values as a `kind`, a dataclass or a pydantic model, whose fields have exactly these types.

    Raises:
        StoreError: a field is missing, of another type, or out of range; the message begins with `where` and names it.
    """
    from pydantic import ValidationError

    try:
        adapter = _adapter(kind)  # type: ignore[arg-type]  # a class is hashable
        value: T = adapter.validate_json(json.dumps(plain), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))[:_LONGEST_FIELD]
        raise StoreError(
            f"{where}: {field + ': ' if field else ''}{first['msg'].removeprefix('Value error, ')}"
        ) from error
    return value


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], *, mode: int = 0o644) -> None:
    """Write tensors as safetensors, atomically; equal tensors give equal bytes."""
    write_bytes(path, tensor_bytes(tensors), mode=mode)


def tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Return tensors as the bytes of a safetensors file; equal tensors give equal bytes.

    Tensors that share memory, such as tied weights, are written once per name.
    """
    from safetensors.torch import save

    return save(_separate(tensors))


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors on the CPU of which no two share memory."""
    plain, seen = {}, set[int]()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        plain[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return plain


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        StoreError: the file cannot be read, or is damaged.
    """
    return _tensors_in(read_bytes(path), path)


def _tensors_in(data: bytes, path: Path) -> dict[str, Tensor]:
    """Return the tensors in the bytes of a safetensors file; `path` is for error messages."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise StoreError(f"{path}: is not a complete safetensors file ({error})") from error


def write_state(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write the state of an interruptible loop: a safetensors file whose metadata hold the digest of its tensors."""
    from safetensors.torch import save

    plain = _separate(tensors)
    write_bytes(path, save(plain, metadata={"digest": sha256(save(plain))}))


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the state of a loop that was interrupted.

    Raises:
        StoreError: the file is damaged, was changed since it was written, or is of another version.
    """
    data = read_bytes(path)
    tensors = _tensors_in(data, path)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    if header.get("__metadata__", {}).get("digest") != sha256(tensor_bytes(tensors)):
        raise StoreError(
            f"{path}: was changed since it was written, or is of another version of wootz; remove it to begin anew"
        )
    return tensors


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


def sync_folder(folder: Path) -> None:
    """Write the directory entries of new files to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
