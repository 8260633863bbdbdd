"""Files of lines that grow while they are used: records, transcripts, logs."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from wootz.errors import StoreError
from wootz.store import parse_json, read_bytes


class Journal:
    """A file of lines with one writer at a time, to which whole lines are appended; a context manager that closes it.

    An unfinished last line, which an interrupted writer left, is cut off before the first line is appended.

    Args:
        path: the file; it is created if there is none.
        mode: the permissions of a new file.

    Raises:
        StoreError: the file cannot be opened, is no regular file, or another process writes it.
    """

    def __init__(self, path: Path, *, mode: int = 0o600) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK, mode)
        except OSError as error:
            raise StoreError(f"{path}: cannot be opened ({error.strerror})") from error
        try:
            if not stat.S_ISREG(os.fstat(self._file).st_mode):
                raise StoreError(f"{path}: is not a regular file")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._size = _complete_size(self._file)
        except BlockingIOError as error:
            self.close()
            raise StoreError(f"{path}: another process writes it") from error
        except OSError as error:
            self.close()
            raise StoreError(f"{path}: cannot be used ({error.strerror})") from error
        except StoreError:
            self.close()
            raise

    def read(self) -> bytes:
        """Return the content, with an unfinished last line."""
        return read_bytes(self.path)

    def cut(self) -> None:
        """Cut off an unfinished last line now."""
        try:
            os.ftruncate(self._file, self._size)
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be written ({error.strerror})") from error

    def append(self, *lines: bytes, sync: bool = True) -> None:
        """Append lines, given without their newlines: all of them, or none.

        Args:
            lines: the lines.
            sync: return when the disk has them; else when the operating system has them.

        Raises:
            StoreError: the lines cannot be written; the file is as it was.
        """
        data = b"".join(line + b"\n" for line in lines)
        if self._file < 0:
            raise StoreError(f"{self.path}: is closed")
        try:
            _append_whole(self._file, self._size, data, sync=sync)
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be written ({error.strerror})") from error
        self._size += len(data)

    def close(self) -> None:
        """Close the file and release its lock."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _append_whole(file: int, size: int, data: bytes, *, sync: bool) -> None:
    """Cut a file to `size` and append all of `data`; on error it is cut to `size` again."""
    try:
        os.ftruncate(file, size)
        if os.write(file, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if sync:
            os.fsync(file)
    except OSError:
        with suppress(OSError):
            os.ftruncate(file, size)
        raise


def _complete_size(file: int) -> int:
    """Return the size of a file up to the end of its last complete line."""
    if os.fstat(file).st_size == 0:
        return 0
    with mmap.mmap(file, 0, access=mmap.ACCESS_READ) as data:
        return data.rfind(b"\n") + 1


def append_line(path: Path, line: str, *, mode: int = 0o644) -> None:
    """Append one line to a `Journal`, and fsync it."""
    with Journal(path, mode=mode) as journal:
        journal.append(line.encode())


def append_rows(path: Path, data: bytes, row: int) -> None:
    """Append rows of `row` bytes each to a binary file: all of them, or none.

    An unfinished last row, which an interrupted writer left, is cut off first.

    Raises:
        StoreError: the rows cannot be written; the file has the rows that it had.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            _append_whole(file, os.fstat(file).st_size // row * row, data, sync=False)
        finally:
            os.close(file)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror})") from error


def read_json_lines(path: Path, *, complete: bool = True) -> Iterator[tuple[int, Any]]:
    """Yield the number, from 1, and the value of each line of a file of JSON lines; empty lines are left out.

    Args:
        path: the file.
        complete: leave out a last line without a newline: it is still being written, or was cut off.

    Raises:
        StoreError: the file cannot be read, or a line is not JSON; the message names the line.
    """
    data = read_bytes(path)
    for number, line in enumerate((whole_lines(data) if complete else data).split(b"\n"), 1):
        if line.strip():
            yield number, parse_json(line, f"{path}, line {number}")


def whole_lines(data: bytes) -> bytes:
    """Return the complete lines: a last line without its newline is still being written, or was cut off."""
    return data[: data.rfind(b"\n") + 1]
