"""An append-only log of queries and answers, without the clients, as JSON lines.

    {"time": "2026-11-23T10:11:12.345678+00:00", "id": "42", "image": "sha256:...", "label": 7}

`image` is `store.tensor_digest` of the image, float32 [C, H, W]; the transcript of a client has the same digest.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wootz.errors import StoreError
from wootz.journal import Journal
from wootz.store import tensor_digest


class QueryLog:
    """A log file with one writer at a time; a context manager that closes the file.

    An existing file is continued after its last complete line.

    Raises:
        StoreError: the file cannot be written, or another process writes it.
    """

    def __init__(self, path: Path) -> None:
        self._journal = Journal(path)
        self._journal.cut()

    def write(self, request_id: str | None, images: NDArray[np.float32], labels: Sequence[int]) -> None:
        """Append one line per image; the operating system has the data when the call returns.

        Args:
            request_id: the ID that the client gave the request.
            images: float32 [N, C, H, W].
            labels: the N labels that were answered.

        Raises:
            StoreError: the lines cannot be written; the log is unchanged, and the request is not answered.
        """
        time = datetime.now(UTC).isoformat()
        lines = (
            {"time": time, "id": request_id, "image": tensor_digest(image), "label": int(label)}
            for image, label in zip(torch.from_numpy(images), labels, strict=True)
        )
        try:
            self._journal.append(*(json.dumps(line).encode() for line in lines), sync=False)
        except StoreError as error:
            raise StoreError(f"{error}; the request is not answered") from error

    def __enter__(self) -> QueryLog:
        return self

    def __exit__(self, *_: object) -> None:
        """Write the file to disk and close it."""
        self._journal.append()
        self._journal.close()
