"""A disk that fails at a chosen call: what below a folder is opened for writing, written, synced, linked or renamed."""

from __future__ import annotations

import base64
import builtins
import errno
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ERRORS = (errno.EIO, errno.ENOSPC, errno.EACCES)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_VARIABLE = {"seconds", "written", "time", "signatures", "queries"}


class FailingDisk:
    """Counts the calls that change files below a folder, and fails one of them.

    Attributes:
        calls: name and path of every call since `fail_at`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._fail, self._error = str(folder), -1, 0
        self.calls: list[tuple[str, str]] = []

    def fail_at(self, number: int, error: int = errno.EIO) -> None:
        """Let the call with this number, from 0, fail; -1 lets none fail."""
        self._fail, self._error, self.calls = number, error, []

    def fails(self, name: str, path: Any) -> bool:
        """Note a call; return whether it must fail."""
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        if not os.path.abspath(os.fsdecode(path)).startswith(self._folder):
            return False
        self.calls.append((name, os.fsdecode(path)))
        return len(self.calls) == self._fail + 1

    def check(self, name: str, path: Any) -> None:
        """Note a call; raise an error, as the system call does, if it must fail."""
        if self.fails(name, path):
            raise self.error(path if isinstance(path, str | os.PathLike) else None)

    def error(self, path: Any = None) -> OSError:
        return OSError(self._error, os.strerror(self._error), *([] if path is None else [os.fspath(path)]))


@contextmanager
def failing_disk(folder: Path) -> Iterator[FailingDisk]:
    """Replace the functions by which Python changes files, meanwhile."""
    disk = FailingDisk(folder)

    def checked(name: str, function: Any) -> Any:
        def call(path: Any, *rest: Any, **options: Any) -> Any:
            disk.check(name, path)
            return function(path, *rest, **options)

        return call

    def os_open(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if flags & _WRITING:
            disk.check("open", path)
        return opened(path, flags, *rest, **options)

    def os_write(descriptor: int, data: Any) -> int:
        if disk.fails("write", descriptor):
            written(descriptor, bytes(data)[: len(data) // 2])
            raise disk.error()
        return written(descriptor, data)

    def file_open(file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        writing = any(letter in mode for letter in "wax+")
        if writing and not isinstance(file, int):
            disk.check("open", file)
        stream = file_opened(file, mode, *rest, **options)
        return _Stream(stream, disk) if writing and "b" in mode else stream

    opened, written, file_opened = os.open, os.write, io.open
    with pytest.MonkeyPatch.context() as patch:
        for name in ("pwrite", "ftruncate", "fsync", "replace", "rename", "link"):
            patch.setattr(os, name, checked(name, getattr(os, name)))
        patch.setattr(os, "open", os_open)
        patch.setattr(os, "write", os_write)
        patch.setattr(io, "open", file_open)
        patch.setattr(builtins, "open", file_open)
        yield disk


class _Stream:
    """A binary stream whose writes may fail half-way."""

    def __init__(self, stream: Any, disk: FailingDisk) -> None:
        self._stream, self._disk = stream, disk

    def write(self, data: Any) -> int:
        if self._disk.fails("write", self._stream.fileno()):
            self._stream.write(bytes(data)[: len(data) // 2])
            self._stream.flush()
            raise self._disk.error()
        return int(self._stream.write(data))

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def contents(folder: Path) -> dict[str, Any]:
    """Return the content of every file below a folder: JSON without times and counts of queries, pages as present."""
    return {
        str(path.relative_to(folder)): _content(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".lock") and path.name != "queries.log"
    }


def _content(path: Path) -> Any:
    if path.suffix == ".json":
        return _timeless(json.loads(path.read_bytes()))
    if path.suffix == ".jsonl":
        return [_timeless(json.loads(line)) for line in path.read_bytes().splitlines()]
    return b"" if path.suffix == ".html" else path.read_bytes()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        if "payload" in value:  # the envelope of a signed statement
            value = value | {"payload": json.loads(base64.b64decode(value["payload"]))}
        return {name: _timeless(item) for name, item in value.items() if name not in _VARIABLE}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def spread(count: int, most: int) -> list[int]:
    """Return at most `most` of the numbers below `count`, evenly spread, with the first and the last."""
    if count <= most:
        return [*range(count)]
    return sorted({round(step * (count - 1) / (most - 1)) for step in range(most)})
