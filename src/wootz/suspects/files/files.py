"""Read a stranger's file once: a plain file with one name, no link, no pipe; the same bytes are hashed and used."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from wootz.errors import StoreError, SuspectError
from wootz.suspects.files.budget import Limits
from wootz.suspects.files.sniff import WHY_CODE, Kind, sniff
from wootz.suspects.files.words import one_line


class Untrusted(NamedTuple):
    """A suspect as bytes.

    Attributes:
        name: for errors, one printable line.
        kind: what the bytes are.
        data: the model's file.
        description: `model.json`; None beside ONNX files, which describe themselves.
    """

    name: str
    kind: Kind
    data: bytes
    description: bytes | None


def read_untrusted(path: Path, limits: Limits, *, allow_torch_zip: bool = False) -> Untrusted:
    """Read the suspect at `path`, a run folder or a file, and say what its content is.

    The description stands beside a file under the file's own name with `.json`, or as `model.json`.

    Raises:
        SuspectError: not a plain file, too large, or of a kind that is refused.
        StoreError: there is no such file, or it can not be read.
    """
    name, is_folder = one_line(path), path.is_dir()
    with _folder(path if is_folder else path.parent) as folder:
        if is_folder and _exists(folder, "saved_model.pb"):
            raise SuspectError(f"{name}: is a TensorFlow SavedModel: {WHY_CODE}")
        if is_folder and not _exists(folder, "model.safetensors"):
            raise StoreError(f"{name}: is not a run folder: it holds no model.safetensors")
        file = "model.safetensors" if is_folder else path.name
        where = f"{name}/{file}" if is_folder else name
        data = _read(folder, file, limits.file_bytes, where)
        kind = sniff(data, where, limits, allow_torch_zip=allow_torch_zip)
        if kind == "onnx":
            return Untrusted(where, kind, data, None)
        own = f"{path.stem}.json"
        beside = own if not is_folder and _exists(folder, own) else "model.json"
        if not _exists(folder, beside):
            raise StoreError(f"{name}: no model.json beside it says how to build the network")
        return Untrusted(where, kind, data, _read(folder, beside, limits.description_bytes, f"{name} ({beside})"))


@contextmanager
def _folder(path: Path) -> Iterator[int]:
    """Open a folder, so that all its files are looked up in the same one."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StoreError(f"{one_line(path)}: can not be read ({error.strerror})") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _exists(folder: int, file: str) -> bool:
    try:
        os.stat(file, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    return True


def _read(folder: int, file: str, most: int, name: str) -> bytes:
    """Read a file of the folder; it is looked at first, since opening a device may already do something."""
    try:
        _check_plain(os.stat(file, dir_fd=folder, follow_symlinks=False), most, name)
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        with os.fdopen(descriptor, "rb") as opened:
            size = _check_plain(os.fstat(descriptor), most, name)
            data = opened.read(size + 1)
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        raise StoreError(f"{name}: can not be read ({getattr(error, 'strerror', error)})") from error
    if len(data) != size:
        raise StoreError(f"{name}: changed while it was read")
    return data


def _check_plain(found: os.stat_result, most: int, name: str) -> int:
    """Return the size of a plain file with one name."""
    if not stat.S_ISREG(found.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "a pipe, device or folder"
        raise SuspectError(f"{name}: is {what}; only plain files are read")
    if found.st_nlink != 1:
        raise SuspectError(f"{name}: has {found.st_nlink} names (hard links); copy it, so that nothing else changes it")
    if found.st_size > most:
        raise SuspectError(f"{name}: has {found.st_size:,} bytes; {most:,} are read at most")
    return found.st_size
