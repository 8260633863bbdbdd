"""A hash-chained record of the queries to an endpoint and of its answers.

JSON lines. Each line has the SHA-256 of the line before it and, if there is a key, an HMAC-SHA-256 of both, so that a
transcript written with another key is not continued. A query is on disk before it is sent, and its answer before it is
returned, so an interrupted run never sends an image twice. An image with a recorded query and no recorded answer is
missing: the query was spent, and the answer is unknown.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from wootz.errors import StoreError
from wootz.journal import Journal, whole_lines
from wootz.store import canonical, sha256, sync_folder
from wootz.suspects.endpoints.parsing import Answer, is_missing

VERSION = 2


class MissingReason(NamedTuple):
    """Why an image has no answer.

    Attributes:
        kind: `refused` (a final status other than 200), `unavailable` (all attempts used), `unusable` (a response
            with status 200 that cannot be parsed) or `unrecorded` (the run ended between query and answer).
        detail: a description for messages.
    """

    kind: str
    detail: str


_INTERRUPTED = MissingReason("unrecorded", "the run ended before the answer was recorded")


class Transcript:
    """The answers by image digest, and the file that records them; a context manager that closes the file.

    Args:
        path: the file; an existing one is read and continued. None keeps everything in memory.
        header: the endpoint and the settings, for the first line; an existing file must have the same ones.
        placeholder: the answer of an image without an answer.
        mac_key: the key that authenticates the lines; empty writes no authentication codes.

    Attributes:
        answers: the answers by image digest, with placeholders for missing ones.
        missing: the number of missing answers by reason.
        digest: SHA-256 of the last line; empty without one.

    Raises:
        StoreError: the file cannot be used, was changed, was written with another key, has another header, or is in
            use.
    """

    def __init__(self, path: Path | None, header: Mapping[str, Any], placeholder: Answer, mac_key: bytes = b"") -> None:
        self._path, self._placeholder, self._mac_key = path, placeholder, mac_key
        self._journal: Journal | None = None
        self._unanswered: dict[int, list[str]] = {}
        self.answers: dict[str, Answer] = {}
        self.missing: Counter[MissingReason] = Counter()
        self.digest = ""
        self._next_query = 0
        if path is not None:
            self._resume(path, {"kind": "about", "transcript": VERSION, **header})

    def __enter__(self) -> Transcript:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the answers remain readable."""
        if self._journal is not None:
            self._journal.close()

    def forget_missing(self) -> None:
        """Drop the images without an answer, so that they are sent again."""
        self.answers = {digest: answer for digest, answer in self.answers.items() if not is_missing(answer)}
        self.missing.clear()

    def record_query(self, request_id: str, digests: Sequence[str], bodies: Sequence[bytes]) -> int:
        """Record that images are about to be sent, in one of these request bodies; return the number of the query."""
        line = {"kind": "ask", "n": self._next_query, "id": request_id, "images": list(digests), "time": _now()}
        self._record({**line, "requests": [sha256(body) for body in bodies]})
        return self._next_query - 1

    def record_answers(
        self,
        query: int,
        answers: Sequence[Answer],
        missing: Counter[MissingReason],
        statuses: Sequence[int],
        body: bytes,
    ) -> None:
        """Record the response to a query.

        Args:
            query: the number of the query.
            answers: one answer per image.
            missing: the number of missing answers by reason.
            statuses: the HTTP status of every attempt.
            body: the response body.
        """
        scores = np.stack(answers) if answers[0].ndim else None
        self._record(
            {
                "kind": "answer",
                "n": query,
                "tries": list(statuses),
                "response": sha256(body),
                "labels": [_top_label(answer) for answer in answers],
                "scores": None if scores is None else base64.b64encode(scores.astype("<f4").tobytes()).decode(),
                "missing": [[*reason, count] for reason, count in sorted(missing.items())],
                "time": _now(),
            }
        )

    def _record(self, line: dict[str, Any]) -> None:
        data = self._encode_line(self.digest, line)
        if self._path is not None:
            self._append(data)
        self._apply(line)
        self.digest = sha256(data)

    def _append(self, data: bytes) -> None:
        """Write one line and fsync it. After a failure nothing more is written."""
        assert self._journal is not None
        try:
            self._journal.append(data)
        except StoreError as error:
            self.close()
            raise StoreError(f"{error}; no further query is sent") from error

    def _apply(self, line: Mapping[str, Any]) -> None:
        """Update the answers by one line that was written or read."""
        if line["kind"] == "ask":
            if line["n"] != self._next_query or not all(isinstance(digest, str) for digest in line["images"]):
                raise ValueError("is not the next query")
            self._next_query += 1
            self._unanswered[line["n"]] = line["images"]
            self.answers |= dict.fromkeys(line["images"], self._placeholder)
            return
        digests = self._unanswered.pop(line["n"])
        self.answers |= zip(digests, self._parse_answers(line, len(digests)), strict=True)
        reasons = {MissingReason(str(kind), str(detail)): int(count) for kind, detail, count in line["missing"]}
        self.missing.update(reasons)

    def _parse_answers(self, line: Mapping[str, Any], count: int) -> list[Answer]:
        if not self._placeholder.ndim:
            return [np.array(int(label)) for label in line["labels"]]
        scores = np.frombuffer(base64.b64decode(line["scores"], validate=True), "<f4").reshape(count, -1)
        if scores.shape[1] != len(self._placeholder):
            raise ValueError(f"has scores of {scores.shape[1]} classes")
        return list(scores.astype(np.float32))

    def _resume(self, path: Path, header: dict[str, Any]) -> None:
        """Lock the file, read its lines, and cut off the partial line of an interrupted write."""
        self._journal = Journal(path, mode=0o644)
        try:
            sync_folder(path.parent)
            data = self._journal.read()
            complete = whole_lines(data)
            for number, line in enumerate(complete.split(b"\n")[:-1], 1):
                self._replay(line, header, f"{path}, line {number}")
            if len(complete) < len(data):
                self._check_partial_line(data[len(complete) :])
                self._journal.cut()
        except OSError as error:
            self.close()
            raise StoreError(f"{path}: cannot be used ({error.strerror})") from error
        except StoreError:
            self.close()
            raise
        if not self.digest:
            first = self._encode_line("", header)
            self._append(first)
            self.digest = sha256(first)
        for digests in self._unanswered.values():
            self.missing[_INTERRUPTED] += len(digests)
        self._unanswered.clear()

    def _replay(self, data: bytes, header: dict[str, Any], where: str) -> None:
        """Check one line of the file and update the answers by it; the first line must have the expected header."""
        try:
            document = json.loads(data)
            line = document["line"]
            if document["after"] != self.digest or canonical(document) != data:
                raise StoreError(f"{where}: does not follow the line before it; the transcript was changed")
            if self._encode_line(self.digest, line) != data:
                raise StoreError(
                    f"{where}: was not written with this owner's secret ($WOOTZ_OWNER_KEY); move the file away"
                )
            if not self.digest:
                _check_header(line, header, where)
            else:
                self._apply(line)
        except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
            reason = " ".join(str(error).split())
            raise StoreError(f"{where}: is not a line of a transcript ({reason})") from error
        self.digest = sha256(data)

    def _encode_line(self, previous_digest: str, line: Mapping[str, Any]) -> bytes:
        document = {"after": previous_digest, "line": line}
        if self._mac_key:
            document["mac"] = hmac.new(self._mac_key, canonical(document), "sha256").hexdigest()
        return canonical(document)

    def _check_partial_line(self, tail: bytes) -> None:
        """Raise StoreError unless `tail` is the beginning of a next line; zeros may follow it."""
        start, tail = canonical({"after": self.digest})[:-1] + b',"line":', tail.rstrip(b"\0")
        if not (tail.startswith(start) or start.startswith(tail)):
            raise StoreError(f"{self._path}: ends in something that is not a line of it; the transcript was changed")


def _check_header(line: Mapping[str, Any], header: Mapping[str, Any], where: str) -> None:
    if line == header:
        return
    for key, value in header.items():
        if line.get(key) != value:
            raise StoreError(
                f"{where}: was recorded with {key} = {line.get(key)!r}, not {value!r}; use a new transcript file"
            )
    raise StoreError(f"{where}: has fields that this version does not know")


def _top_label(answer: Answer) -> int:
    """Return the label of an answer; -1 if it is missing."""
    if not answer.ndim:
        return int(answer)
    return -1 if is_missing(answer) else int(answer.argmax())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
