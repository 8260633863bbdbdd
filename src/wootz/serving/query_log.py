"""An append-only log of queries and answers, without the clients, as JSON lines.

    {"time": "2026-11-23T10:11:12.345678+00:00", "id": "42", "image": "sha256:...", "label": 7}

`image` is `store.tensor_digest` of the image, float32 [C, H, W]; the transcript of a client has the same digest.
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
    """A log file with one writer at a time; a context manager that closes the file.

    An existing file is continued after its last complete line.

    Raises:
        StoreError: the file cannot be written, or another process writes it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise StoreError(f"{path}: cannot be opened ({error.strerror})") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._size = _complete_size(self._file)
            os.ftruncate(self._file, self._size)
        except OSError as error:
            os.close(self._file)
            raise StoreError(
                f"{path}: another service writes it, or it is not a regular file ({error.strerror})"
            ) from error

    def write(self, request_id: str | None, images: NDArray[np.float32], labels: Sequence[int]) -> None:
        """Append one line per image; the operating system has the data when the call returns.

        Args:
            request_id: the ID that the client gave the request.
            images: float32 [N, C, H, W].
            labels: the N labels that were answered.

        Raises:
            StoreError: the lines cannot be written; the log is unchanged.
        """
        time = datetime.now(UTC).isoformat()
        data = "".join(
            json.dumps({"time": time, "id": request_id, "image": tensor_digest(image), "label": int(label)}) + "\n"
            for image, label in zip(torch.from_numpy(images), labels, strict=True)
        ).encode()
        try:
            if os.write(self._file, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise StoreError(
                f"{self._path}: cannot be written ({error.strerror}); the request is not answered"
            ) from error
        self._size += len(data)

    def __enter__(self) -> QueryLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the file to disk and close it."""
        os.fsync(self._file)
        os.close(self._file)


def _complete_size(file: int) -> int:
    """Return the size of a file up to the end of its last complete line."""
    if os.fstat(file).st_size == 0:
        return 0
    with mmap.mmap(file, 0, access=mmap.ACCESS_READ) as data:
        return data.rfind(b"\n") + 1
