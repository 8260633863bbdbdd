"""Read an untrusted file once, so that the hashed bytes are the used ones: a plain file, no link, no pipe."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from wootz.errors import StoreError, SuspectError
from wootz.models import is_other_code
from wootz.suspects.files.limits import Limits
from wootz.suspects.files.sanitize import one_line, strict_json
from wootz.suspects.files.sniff import WHY_CODE, Kind, sniff


class Untrusted(NamedTuple):
    """The bytes of a suspect.

    Attributes:
        name: The name in error messages, one printable line.
        kind: The file format.
        data: The content of the model file.
        description: The content of `model.json`; None for ONNX files, which need none, and for plain weights.
    """

    name: str
    kind: Kind
    data: bytes
    description: bytes | None


def read_untrusted(
    path: Path, limits: Limits, *, allow_torch_zip: bool = False, network_known: bool = False
) -> Untrusted:
    """Read the suspect at `path`, a run folder or a file, and determine its format.

    The description lies beside a file under the file's own name with `.json`, or as `model.json`. Of a run folder whose
    network wootz does not define, `model.onnx` is read, unless the network is known otherwise.

    Args:
        path: The run folder, or the file.
        limits: The limits on its size.
        allow_torch_zip: Also read zip files of `torch.save`.
        network_known: Whether the verifier names the network, so that no description is needed.

    Raises:
        SuspectError: The file is not a plain one, is too large, or has a format that is refused.
        StoreError: There is no such file, or it cannot be read.
    """
    name, is_folder = one_line(path), path.is_dir()
    with _folder(path if is_folder else path.parent) as folder:
        if is_folder and _exists(folder, "saved_model.pb"):
            raise SuspectError(f"{name}: is a TensorFlow SavedModel: {WHY_CODE}")
        if is_folder and not _exists(folder, "model.safetensors"):
            raise StoreError(f"{name}: is not a run folder: it holds no model.safetensors")
        file = _file_of_run(folder, name, limits, network_known) if is_folder else path.name
        where = f"{name}/{file}" if is_folder else name
        data = _read(folder, file, limits.file_bytes, where)
        kind = sniff(data, where, limits, allow_torch_zip=allow_torch_zip)
        if kind == "onnx":
            return Untrusted(where, kind, data, None)
        own = f"{path.stem}.json"
        beside = own if not is_folder and _exists(folder, own) else "model.json"
        if not _exists(folder, beside):
            if network_known:
                return Untrusted(where, kind, data, None)
            raise StoreError(
                f"{name}: there is no model.json beside it that describes the network; name the network: --architecture"
            )
        return Untrusted(where, kind, data, _read(folder, beside, limits.description_bytes, f"{name} ({beside})"))


def _file_of_run(folder: int, name: str, limits: Limits, network_known: bool) -> str:
    """Return the file of a run folder that is examined."""
    if network_known or not (_exists(folder, "model.onnx") and _exists(folder, "model.json")):
        return "model.safetensors"
    where = f"{name} (model.json)"
    description = strict_json(_read(folder, "model.json", limits.description_bytes, where), where)
    architecture = description.get("architecture") if isinstance(description, dict) else None
    other_code = isinstance(architecture, str) and is_other_code(architecture)
    return "model.onnx" if other_code else "model.safetensors"


@contextmanager
def _folder(path: Path) -> Iterator[int]:
    """Open a folder and yield its descriptor, so that all files are looked up in the same folder."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StoreError(f"{one_line(path)}: cannot be read ({error.strerror})") from error
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
    """Read a file of the folder; its type is checked first, since opening a device can have effects."""
    try:
        _check_plain(os.stat(file, dir_fd=folder, follow_symlinks=False), most, name)
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        with os.fdopen(descriptor, "rb") as file_object:
            size = _check_plain(os.fstat(descriptor), most, name)
            data = file_object.read(size + 1)
    except (OSError, ValueError) as error:  # a name with a zero byte raises ValueError
        raise StoreError(f"{name}: cannot be read ({getattr(error, 'strerror', error)})") from error
    if len(data) != size:
        raise StoreError(f"{name}: changed while it was read")
    return data


def _check_plain(status: os.stat_result, most: int, name: str) -> int:
    """Return the size of a plain file without further hard links, or raise SuspectError."""
    if not stat.S_ISREG(status.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "a pipe, device or folder"
        raise SuspectError(f"{name}: is {what}; only plain files are supported")
    if status.st_nlink != 1:
        raise SuspectError(
            f"{name}: has {status.st_nlink} names (hard links); copy it, so that nothing else changes it"
        )
    if status.st_size > most:
        raise SuspectError(f"{name}: has {status.st_size:,} bytes; {most:,} are read at most")
    return status.st_size
