"""Read the directory of an untrusted zip file: few members, uncompressed, with unique names."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Sequence

from wootz.errors import SuspectError
from wootz.suspects.files.limits import Limits
from wootz.suspects.files.sanitize import one_line

_END, _LOCATOR, _END64 = b"PK\x05\x06", b"PK\x06\x07", b"PK\x06\x06"
_DAMAGES = (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, OverflowError, struct.error)
_ENTRY = 1024  # maximal average size of a directory entry, in bytes


def directory(data: bytes, name: str, limits: Limits) -> list[zipfile.ZipInfo]:
    """Return the entries in the directory of a zip file; error messages start with `name`.

    Raises:
        SuspectError: The directory is damaged or too large.
    """
    count, size = _announced(data, name)
    if count > limits.tensors or size > limits.tensors * _ENTRY:
        raise SuspectError(f"{name}: is a zip file of {count:,} members; {limits.tensors:,} are read at most")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
    except _DAMAGES as error:
        raise SuspectError(f"{name}: is a damaged zip file ({one_line(error, 120)})") from error
    if len(infos) != count:
        raise SuspectError(f"{name}: is a damaged zip file (it announces {count:,} members and lists {len(infos):,})")
    return infos


def check_members(infos: Sequence[zipfile.ZipInfo], data: bytes, name: str) -> None:
    """Raise SuspectError unless all members are uncompressed, have plain unique names, and fit into the file."""
    for info in infos:
        _check(info, name)
    if len({info.filename.casefold() for info in infos}) != len(infos):
        raise SuspectError(f"{name}: is a zip file in which two members have the same name")
    if sum(info.file_size for info in infos) > len(data):
        raise SuspectError(f"{name}: is a zip file whose members claim more bytes than it has")


def content(data: bytes, info: zipfile.ZipInfo, name: str) -> bytes:
    """Return the bytes of a stored member, after checking its checksum."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return archive.read(info)
    except _DAMAGES as error:
        raise SuspectError(f"{name}: its member {one_line(info.filename, 80)!r} is damaged") from error


def _announced(data: bytes, name: str) -> tuple[int, int]:
    """Return the number of members and the size of the directory that the end of the file states."""
    if len(data) < 22 or data[-22:-18] != _END or data[-2:] != b"\0\0":
        raise SuspectError(f"{name}: is a damaged zip file (its last bytes are not the end of a directory)")
    count, size = struct.unpack("<HI", data[-12:-10] + data[-10:-6])
    if data[-42:-38] == _LOCATOR:
        start = int.from_bytes(data[-34:-26], "little")
        record = data[start : start + 56]
        if len(record) < 56 or record[:4] != _END64:
            raise SuspectError(f"{name}: is a damaged zip file (no zip64 record at the stated offset)")
        count, size = struct.unpack("<QQ", record[32:48])
    return count, size


def _check(info: zipfile.ZipInfo, name: str) -> None:
    shown = f"{name}: its member {one_line(info.filename, 80)!r}"
    parts = info.filename.split("/")
    if "" in parts or ".." in parts or "." in parts or "\\" in info.filename or ":" in info.filename:
        raise SuspectError(f"{shown} has a name that leads out of the archive")
    if not info.filename.isprintable() or info.orig_filename != info.filename:
        raise SuspectError(f"{shown} has an unprintable name")
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise SuspectError(f"{shown} is compressed; only uncompressed members are supported")
    if info.flag_bits & 0x1:
        raise SuspectError(f"{shown} is encrypted")
