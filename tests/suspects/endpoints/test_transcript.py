"""Interrupted, partial, changed and shared transcripts: no image is ever sent twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from suspects.endpoints import client_process
from suspects.endpoints.client_process import random_images
from suspects.endpoints.fault_server import FaultServer, run_fault_server, scores, url_of
from wootz.errors import BudgetError, StoreError
from wootz.suspects.endpoints import Client, open_endpoint


def expected_scores(x: torch.Tensor) -> torch.Tensor:
    return torch.tensor([scores(image) for image in x.numpy()])


def query(server: FaultServer, x: torch.Tensor, transcript: Path, **settings: object) -> torch.Tensor:
    cfg = Client(**{"budget": 12, **settings})  # type: ignore[arg-type]
    with open_endpoint(url_of(server), cfg, access="scores", transcript=transcript, sleep=lambda _: None) as endpoint:
        return endpoint(x)


def test_a_killed_run_costs_no_second_query(tmp_path: Path) -> None:
    transcript, children = tmp_path / "transcript.jsonl", list[subprocess.Popen[bytes]]()

    def kill(count: int) -> None:
        children[-1].send_signal(signal.SIGKILL)
        children[-1].wait()

    with run_fault_server() as server:
        server.before = lambda count: kill(count) if count == 2 else None
        server.after = lambda count: kill(count) if count == 4 else None
        for _ in range(2):
            children.append(
                subprocess.Popen([sys.executable, client_process.__file__, url_of(server), str(transcript)])
            )
            assert children[-1].wait() == -signal.SIGKILL
        before = len(server.bodies)
        x = random_images(12)
        answers = query(server, x, transcript, batch=2)
        assert (before, len(server.bodies)) == (4, 6)
        assert server.repeated == []
        assert set(server.seen.values()) == {1}
        assert answers[2:4].isnan().all()  # sent, and killed before the answer
        answered = [0, 1, 4, 5, 8, 9, 10, 11]  # 6 and 7: killed with or after the answer
        assert torch.equal(answers[answered], expected_scores(x)[answered])
        assert answers[6:8].isnan().all() or torch.equal(answers[6:8], expected_scores(x)[6:8])
        assert torch.equal(query(server, x, transcript).nan_to_num(-1), answers.nan_to_num(-1))
        with pytest.raises(BudgetError, match="12 were sent"):
            query(server, random_images(1, seed=9), transcript)
        assert len(server.bodies) == 6


def test_every_failing_write_stops_before_the_next_query(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, write = random_images(4), os.write
    with run_fault_server() as server:
        for point in range(2 * 4 + 2):
            transcript, calls = tmp_path / f"{point}.jsonl", 0

            def failing_write(descriptor: int, data: bytes, point: int = point) -> int:
                nonlocal calls
                if data.startswith(b'{"after"'):
                    calls += 1
                    if calls == point + 1:
                        write(descriptor, data[: len(data) // 2])
                        raise OSError(28, "No space left on device")
                return write(descriptor, data)

            server.seen.clear()
            server.answered.clear()
            monkeypatch.setattr(os, "write", failing_write)
            if point < 9:
                with pytest.raises(StoreError, match="No space left on device"):
                    query(server, x, transcript)
            monkeypatch.setattr(os, "write", write)
            answers = query(server, x, transcript)
            assert server.repeated == []
            missing = {point // 2 - 1} if point in (2, 4, 6, 8) else set()
            assert [row for row in range(4) if answers[row].isnan().any()] == sorted(missing)


def test_a_query_is_on_disk_before_it_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transcript, fsync, synced = tmp_path / "transcript.jsonl", os.fsync, list[int]()
    sent: list[bool] = []

    def recording_fsync(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    with run_fault_server() as server:
        server.before = lambda count: sent.append(
            synced[-1] == transcript.stat().st_size and transcript.read_text().count('"kind":"ask"') == count
        )
        query(server, random_images(3), transcript)
    assert sent == [True] * 3
    assert synced[-1] == transcript.stat().st_size


def test_a_partial_last_line_is_cut_off(tmp_path: Path) -> None:
    x, complete = random_images(3), tmp_path / "complete.jsonl"
    with run_fault_server() as server:
        query(server, x, complete)
        data = complete.read_bytes()
        last = data[:-1].rfind(b"\n") + 1
        for end in [*range(last + 1, len(data), 61), len(data) - 1]:
            for tail in (b"", b"\0" * 7):
                partial = tmp_path / "partial.jsonl"
                partial.write_bytes(data[:end] + tail)
                answers = query(server, x, partial)
                assert torch.equal(answers[:2], expected_scores(x)[:2])
                assert answers[2].isnan().all()
                assert partial.read_bytes() == data[:last]
    assert server.repeated == []


def test_a_changed_transcript_is_rejected(tmp_path: Path) -> None:
    x, complete = random_images(3), tmp_path / "complete.jsonl"
    with run_fault_server() as server:
        query(server, x, complete)
        lines = complete.read_bytes().splitlines(keepends=True)
        bad = [b"".join(lines[:row] + lines[row + 1 :]) for row in range(len(lines) - 1)]
        bad += [b"".join([*lines[:row], lines[row].replace(b'"n":', b'"n": '), *lines[row + 1 :]]) for row in (1, 2, 6)]
        bad += [lines[0] + lines[1] + lines[2].replace(b'"labels":[', b'"labels":[1') + b"".join(lines[3:])]
        bad += [b"".join(lines) + b"something else", b"".join(lines) + b"null\n", b"".join(lines) + lines[-1]]
        for data in bad:
            changed = tmp_path / "changed.jsonl"
            changed.write_bytes(data)
            with pytest.raises(StoreError, match=r"changed|not a line of a transcript"):
                query(server, x, changed)
            assert changed.read_bytes() == data
    assert len(server.bodies) == 3


def test_a_transcript_is_for_the_same_settings_and_one_process(tmp_path: Path) -> None:
    x, transcript = random_images(2), tmp_path / "transcript.jsonl"
    with run_fault_server() as server:
        query(server, x, transcript)
        with pytest.raises(StoreError, match="was recorded with settings = "):
            query(server, x, transcript, output="scores")
        with (
            pytest.raises(StoreError, match="was recorded with access = 'scores', not 'label'"),
            open_endpoint(url_of(server), Client(), access="label", transcript=transcript),
        ):
            pass
        server.classes = None
        with pytest.raises(StoreError, match="was recorded with metadata = "):
            query(server, x, transcript)
        server.classes = [f"class {number}" for number in range(10)]
        with (
            open_endpoint(url_of(server), Client(), access="scores", transcript=transcript),
            pytest.raises(StoreError, match="another process"),
        ):
            query(server, x, transcript)
        assert query(server, x, transcript, batch=2, budget=2).equal(expected_scores(x))


def test_a_transcript_has_everything_but_the_token(tmp_path: Path) -> None:
    transcript = tmp_path / "transcript.jsonl"
    with (
        run_fault_server(lambda before, _: "503" if before == 0 else None) as server,
        open_endpoint(
            url_of(server), Client(), access="scores", transcript=transcript, token="hush", sleep=lambda _: None
        ) as endpoint,
    ):
        answer = endpoint(random_images(1))
        assert server.headers[0]["Authorization"] == "Bearer hush"
        assert server.bodies[0] == server.bodies[1]
        assert len({headers["Idempotency-Key"] for headers in server.headers}) == 1
    header, query_line, answer_line = (json.loads(line)["line"] for line in transcript.read_text().splitlines())
    assert header["kind"] == "about"
    assert query_line["id"] == server.headers[0]["Idempotency-Key"]
    assert answer_line["tries"] == [503, 200]
    assert answer_line["labels"] == answer.argmax(1).tolist()
    assert "hush" not in transcript.read_text()
    assert "hush" not in repr(vars(endpoint))
