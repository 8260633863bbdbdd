"""What was asked and what came back, on disk before anything else happens.

JSON lines, each with the SHA-256 of the line before it and, where there is a key, a code over both (HMAC-SHA-256), so
that a transcript which was written elsewhere is not continued. A question is on disk before it is sent, and its answer
before anybody sees it; so a run that was killed never asks twice. An image that was asked for and has no recorded
answer is missing: it was spent, and nobody knows what was said.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import hmac
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from wootz.errors import StoreError
from wootz.store import canonical, sha256, whole_lines
from wootz.suspects.endpoints.answers import Row

VERSION = 2


class Missing(NamedTuple):
    """Why an image has no answer.

    Attributes:
        kind: `refused` (a status that is final), `unavailable` (all tries spent), `unusable` (a 200 that says
            nothing) or `unrecorded` (the run ended between question and answer).
        detail: what exactly, for people.
    """

    kind: str
    detail: str


UNRECORDED = Missing("unrecorded", "the run that asked ended before the answer was written down")


class Transcript:
    """Answers by image, and the file behind them; also a context that closes the file.

    Args:
        path: the file; a file that is there already is read and continued. None keeps everything in memory.
        about: whom and how is asked; the first line.
        nothing: the row of an image without an answer.
        seal: the key that lines are authenticated with; empty leaves them without a code.

    Raises:
        StoreError: the file can not be used, was changed, was written with another key, is about something else, or is
            in use.
    """

    def __init__(self, path: Path | None, about: Mapping[str, Any], nothing: Row, seal: bytes = b"") -> None:
        self._path, self._nothing, self._seal = path, nothing, seal
        self._file: int | None = None
        self._open: dict[int, list[str]] = {}
        self.rows: dict[str, Row] = {}
        self.missing: Counter[Missing] = Counter()
        self.digest = ""
        self._number = 0
        if path is not None:
            self._resume(path, {"kind": "about", "transcript": VERSION, **about})

    def __enter__(self) -> Transcript:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what was recorded stays readable here."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def ask(self, ident: str, images: Sequence[str], requests: Sequence[bytes]) -> int:
        """Record that these images are about to be sent, in one of these bodies; return the question's number."""
        line = {"kind": "ask", "n": self._number, "id": ident, "images": list(images), "time": _now()}
        self._record({**line, "requests": [sha256(body) for body in requests]})
        return self._number - 1

    def answer(
        self, number: int, rows: Sequence[Row], missing: Counter[Missing], tries: Sequence[int], body: bytes
    ) -> None:
        """Record what came back for question `number`: one row an image, and why some are missing."""
        scores = np.stack(rows) if rows[0].ndim else None
        self._record(
            {
                "kind": "answer",
                "n": number,
                "tries": list(tries),
                "response": sha256(body),
                "labels": [_label(row) for row in rows],
                "scores": None if scores is None else base64.b64encode(scores.astype("<f4").tobytes()).decode(),
                "missing": [[*why, count] for why, count in sorted(missing.items())],
                "time": _now(),
            }
        )

    def _record(self, line: dict[str, Any]) -> None:
        data = self._chained(self.digest, line)
        if self._path is not None:
            self._append(data)
        self._apply(line)
        self.digest = sha256(data)

    def _append(self, data: bytes) -> None:
        """Write one line and fsync it. After a failure nothing more is written: the torn line stays the last one."""
        if self._file is None:
            raise StoreError(f"{self._path}: is closed; nothing more is asked")
        try:
            rest = data + b"\n"
            while rest:
                rest = rest[os.write(self._file, rest) :]
            os.fsync(self._file)
        except OSError as error:
            self.close()
            raise StoreError(f"{self._path}: can not be written ({error.strerror}); nothing more is asked") from error

    def _apply(self, line: Mapping[str, Any]) -> None:
        """Take in one line, just written or read back."""
        if line["kind"] == "ask":
            if line["n"] != self._number or not all(isinstance(image, str) for image in line["images"]):
                raise ValueError("is not the next question")
            self._number += 1
            self._open[line["n"]] = line["images"]
            self.rows |= dict.fromkeys(line["images"], self._nothing)
            return
        images = self._open.pop(line["n"])
        self.rows |= zip(images, self._rows(line, len(images)), strict=True)
        self.missing.update({Missing(str(kind), str(detail)): int(count) for kind, detail, count in line["missing"]})

    def _rows(self, line: Mapping[str, Any], count: int) -> list[Row]:
        if not self._nothing.ndim:
            return [np.array(int(label)) for label in line["labels"]]
        scores = np.frombuffer(base64.b64decode(line["scores"], validate=True), "<f4").reshape(count, -1)
        if scores.shape[1] != len(self._nothing):
            raise ValueError(f"scores {scores.shape[1]} classes")
        return list(scores.astype(np.float32))

    def _resume(self, path: Path, about: dict[str, Any]) -> None:
        """Read what is there, cut off what an append that was killed left behind, and lock the file."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _sync(path.parent)
            data = path.read_bytes()
            whole = whole_lines(data)
            for number, line in enumerate(whole.split(b"\n")[:-1], 1):
                self._replay(line, about, f"{path}, line {number}")
            if len(whole) < len(data):
                self._check_torn(data[len(whole) :])
                os.ftruncate(self._file, len(whole))
                os.fsync(self._file)
        except BlockingIOError as error:
            self.close()
            raise StoreError(f"{path}: another process is asking by this transcript") from error
        except OSError as error:
            self.close()
            raise StoreError(f"{path}: can not be used ({error.strerror})") from error
        except StoreError:
            self.close()
            raise
        if not self.digest:
            self._append(self._chained("", about))
            self.digest = sha256(self._chained("", about))
        for images in self._open.values():
            self.missing[UNRECORDED] += len(images)
        self._open.clear()

    def _replay(self, data: bytes, about: dict[str, Any], where: str) -> None:
        try:
            told = json.loads(data)
            line = told["line"]
            if told["after"] != self.digest or canonical(told) != data:
                raise StoreError(f"{where}: does not follow the line before it; the transcript was changed")
            if self._chained(self.digest, line) != data:
                raise StoreError(
                    f"{where}: was not written with this owner's secret ($WOOTZ_OWNER_KEY); move the file away"
                )
            if not self.digest:
                _check_about(line, about, where)
            else:
                self._apply(line)
        except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
            reason = " ".join(str(error).split())
            raise StoreError(f"{where}: is no line of a transcript ({reason})") from error
        self.digest = sha256(data)

    def _chained(self, after: str, line: Mapping[str, Any]) -> bytes:
        content = {"after": after, "line": line}
        if self._seal:
            content["mac"] = hmac.new(self._seal, canonical(content), "sha256").hexdigest()
        return canonical(content)

    def _check_torn(self, tail: bytes) -> None:
        """Raise StoreError unless `tail` is the beginning of the line that comes next; zeros may follow it."""
        start, tail = canonical({"after": self.digest})[:-1] + b',"line":', tail.rstrip(b"\0")
        if not (tail.startswith(start) or start.startswith(tail)):
            raise StoreError(f"{self._path}: ends in something that is no line of it; the transcript was changed")


def _check_about(line: Mapping[str, Any], about: Mapping[str, Any], where: str) -> None:
    if line == about:
        return
    for key, value in about.items():
        if line.get(key) != value:
            raise StoreError(
                f"{where}: its {key} is {line.get(key)!r}, now it is {value!r}; take another file for another question"
            )
    raise StoreError(f"{where}: says more than this version knows")


def _label(row: Row) -> int:
    if not row.ndim:
        return int(row)
    return -1 if np.isnan(row).any() else int(row.argmax())


def _sync(folder: Path) -> None:
    """Make sure that the file's name survives, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
