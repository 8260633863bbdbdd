"""What was asked and what was answered, not who asked: append-only JSON lines.

    {"time": "2026-11-23T10:11:12.345678+00:00", "id": "42", "image": "sha256:...", "label": 7}

`image` is the digest that a client's transcript has for the same image (`store.tensor_digest` of float32 [C, H, W]).
"""

from __future__ import annotations

import errno
import fcntl
import json
import mmap
import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray

from wootz.errors import StoreError
from wootz.store import tensor_digest


class QueryLog:
    """A log that one process at a time writes; one that is there already is continued, less a line cut short.

    Raises:
        StoreError: it can not be written, or another process writes it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise StoreError(f"{path}: can not be opened ({error.strerror})") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._size = _whole(self._file)
            os.ftruncate(self._file, self._size)
        except OSError as error:
            os.close(self._file)
            raise StoreError(f"{path}: another service writes it, or it is no plain file ({error.strerror})") from error

    def write(self, ident: str | None, images: NDArray[np.float32], labels: Sequence[int]) -> None:
        """Append a line for each of images [N, C, H, W]; it has left this process when the call returns.

        Raises:
            StoreError: it can not be written; the log is as it was.
        """
        time = datetime.now(UTC).isoformat()
        data = "".join(
            json.dumps({"time": time, "id": ident, "image": tensor_digest(image), "label": int(label)}) + "\n"
            for image, label in zip(torch.from_numpy(images), labels, strict=True)
        ).encode()
        try:
            if os.write(self._file, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise StoreError(f"{self._path}: can not be written ({error.strerror}); nothing was answered") from error
        self._size += len(data)

    def __enter__(self) -> QueryLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Have all of it on the disk, and let go of the file."""
        os.fsync(self._file)
        os.close(self._file)


def _whole(file: int) -> int:
    """Return the size of a file up to the end of its last whole line."""
    if os.fstat(file).st_size == 0:
        return 0
    with mmap.mmap(file, 0, access=mmap.ACCESS_READ) as data:
        return data.rfind(b"\n") + 1
