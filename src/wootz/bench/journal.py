"""What a grid's folder remembers: every cell ever made there, a line each, the newest of a digest last."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wootz.errors import ConfigError, StoreError
from wootz.records import Result, append, read_lines
from wootz.store import read_bytes, whole_lines, write_bytes

JOURNAL = "journal.jsonl"


def read_journal(folder: Path) -> dict[str, Result]:
    """Return the cells by digest. A last line without its end, being written or cut off, is left out.

    Raises:
        StoreError: another line is broken; names it.
    """
    path = folder / JOURNAL
    if not path.is_file():
        return {}
    cells: dict[str, Result] = {}
    for number, cell in enumerate(read_lines(path, ended=True), 1):
        if cell.digest is None:
            raise StoreError(f"{path}, line {number}: names no digest; it is not a grid's")
        cells[cell.digest] = cell
    return cells


def mend(folder: Path) -> None:
    """Take away a last line that was cut off; only who holds the folder may."""
    path = folder / JOURNAL
    if path.is_file():
        data = read_bytes(path)
        whole = whole_lines(data)
        if whole != data:
            write_bytes(path, whole)


def note(folder: Path, cell: Result) -> None:
    """Add a cell."""
    append(folder / JOURNAL, cell)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a grid's folder, so that no second `wootz bench` writes there.

    Raises:
        ConfigError: another one does.
        StoreError: the folder can not be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StoreError(f"{folder}: can not be made ({error.strerror})") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise ConfigError(f"{folder}: another wootz bench works there; wait for it, or choose another --out") from error
    finally:
        os.close(descriptor)
