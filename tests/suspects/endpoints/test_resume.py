"""Killed, cut off, changed, shared: the transcript never lets an image be asked twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from suspects.endpoints import asker
from suspects.endpoints.asker import pictures
from suspects.endpoints.fault_server import FaultServer, at, scores, serving
from wootz.errors import BudgetError, StoreError
from wootz.suspects.endpoints import Client, open_endpoint


def truth(x: torch.Tensor) -> torch.Tensor:
    return torch.tensor([scores(image) for image in x.numpy()])


def ask(server: FaultServer, x: torch.Tensor, transcript: Path, **settings: object) -> torch.Tensor:
    cfg = Client(**{"budget": 12, **settings})  # type: ignore[arg-type]
    with open_endpoint(at(server), cfg, access="scores", transcript=transcript, sleep=lambda _: None) as endpoint:
        return endpoint(x)


def test_a_killed_run_costs_no_second_query(tmp_path: Path) -> None:
    transcript, children = tmp_path / "asked.jsonl", list[subprocess.Popen[bytes]]()

    def kill(count: int) -> None:
        children[-1].send_signal(signal.SIGKILL)
        children[-1].wait()

    with serving() as server:
        server.before = lambda count: kill(count) if count == 2 else None
        server.after = lambda count: kill(count) if count == 4 else None
        for _ in range(2):
            children.append(subprocess.Popen([sys.executable, asker.__file__, at(server), str(transcript)]))
            assert children[-1].wait() == -signal.SIGKILL
        before = len(server.bodies)
        x = pictures(12)
        answers = ask(server, x, transcript, batch=2)
        assert (before, len(server.bodies)) == (4, 6)
        assert server.again == []
        assert set(server.seen.values()) == {1}
        assert answers[2:4].isnan().all()  # asked, and killed before the answer
        known = [0, 1, 4, 5, 8, 9, 10, 11]  # 6 and 7: killed with or after the answer
        assert torch.equal(answers[known], truth(x)[known])
        assert answers[6:8].isnan().all() or torch.equal(answers[6:8], truth(x)[6:8])
        assert torch.equal(ask(server, x, transcript).nan_to_num(-1), answers.nan_to_num(-1))
        with pytest.raises(BudgetError, match="12 were sent"):
            ask(server, pictures(1, seed=9), transcript)
        assert len(server.bodies) == 6


def test_every_failing_write_stops_before_the_next_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, write = pictures(4), os.write
    with serving() as server:
        for point in range(2 * 4 + 2):
            transcript, calls = tmp_path / f"{point}.jsonl", 0

            def torn(descriptor: int, data: bytes, point: int = point) -> int:
                nonlocal calls
                if data.startswith(b'{"after"'):
                    calls += 1
                    if calls == point + 1:
                        write(descriptor, data[: len(data) // 2])
                        raise OSError(28, "No space left on device")
                return write(descriptor, data)

            server.seen.clear()
            server.answered.clear()
            monkeypatch.setattr(os, "write", torn)
            if point < 9:
                with pytest.raises(StoreError, match="No space left on device"):
                    ask(server, x, transcript)
            monkeypatch.setattr(os, "write", write)
            answers = ask(server, x, transcript)
            assert server.again == []
            lost = {point // 2 - 1} if point in (2, 4, 6, 8) else set()
            assert [row for row in range(4) if answers[row].isnan().any()] == sorted(lost)


def test_a_question_is_on_disk_before_it_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transcript, fsync, synced = tmp_path / "asked.jsonl", os.fsync, list[int]()
    sent: list[bool] = []

    def capture_inputs(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fsync", capture_inputs)
    with serving() as server:
        server.before = lambda count: sent.append(
            synced[-1] == transcript.stat().st_size and transcript.read_text().count('"kind":"ask"') == count
        )
        ask(server, pictures(3), transcript)
    assert sent == [True] * 3
    assert synced[-1] == transcript.stat().st_size


def test_a_torn_last_line_is_cut_off_wherever_it_was_torn(tmp_path: Path) -> None:
    x, whole = pictures(3), tmp_path / "whole.jsonl"
    with serving() as server:
        ask(server, x, whole)
        data = whole.read_bytes()
        last = data[:-1].rfind(b"\n") + 1
        for end in [*range(last + 1, len(data), 61), len(data) - 1]:
            for tail in (b"", b"\0" * 7):
                torn = tmp_path / "torn.jsonl"
                torn.write_bytes(data[:end] + tail)
                answers = ask(server, x, torn)
                assert torch.equal(answers[:2], truth(x)[:2])
                assert answers[2].isnan().all()
                assert torn.read_bytes() == data[:last]
    assert server.again == []


def test_a_changed_transcript_is_refused(tmp_path: Path) -> None:
    x, whole = pictures(3), tmp_path / "whole.jsonl"
    with serving() as server:
        ask(server, x, whole)
        lines = whole.read_bytes().splitlines(keepends=True)
        bad = [b"".join(lines[:row] + lines[row + 1 :]) for row in range(len(lines) - 1)]
        bad += [b"".join([*lines[:row], lines[row].replace(b'"n":', b'"n": '), *lines[row + 1 :]]) for row in (1, 2, 6)]
        bad += [lines[0] + lines[1] + lines[2].replace(b'"labels":[', b'"labels":[1') + b"".join(lines[3:])]
        bad += [b"".join(lines) + b"something else", b"".join(lines) + b"null\n", b"".join(lines) + lines[-1]]
        for data in bad:
            changed = tmp_path / "changed.jsonl"
            changed.write_bytes(data)
            with pytest.raises(StoreError, match=r"changed|no line of a transcript"):
                ask(server, x, changed)
            assert changed.read_bytes() == data
    assert len(server.bodies) == 3


def test_a_transcript_is_for_one_question_and_one_process(tmp_path: Path) -> None:
    x, transcript = pictures(2), tmp_path / "asked.jsonl"
    with serving() as server:
        ask(server, x, transcript)
        with pytest.raises(StoreError, match="its settings is"):
            ask(server, x, transcript, output="scores")
        with (
            pytest.raises(StoreError, match="its access is 'scores', now it is 'label'"),
            open_endpoint(at(server), Client(), access="label", transcript=transcript),
        ):
            pass
        server.classes = None
        with pytest.raises(StoreError, match="its metadata is"):
            ask(server, x, transcript)
        server.classes = [f"class {number}" for number in range(10)]
        with (
            open_endpoint(at(server), Client(), access="scores", transcript=transcript),
            pytest.raises(StoreError, match="another process"),
        ):
            ask(server, x, transcript)
        assert ask(server, x, transcript, batch=2, budget=2).equal(truth(x))


def test_a_transcript_says_everything_but_secrets(tmp_path: Path) -> None:
    transcript = tmp_path / "asked.jsonl"
    with (
        serving(lambda before, _: "503" if before == 0 else None) as server,
        open_endpoint(
            at(server), Client(), access="scores", transcript=transcript, token="hush", sleep=lambda _: None
        ) as endpoint,
    ):
        answer = endpoint(pictures(1))
        assert server.headers[0]["Authorization"] == "Bearer hush"
        assert server.bodies[0] == server.bodies[1]
        assert len({headers["Idempotency-Key"] for headers in server.headers}) == 1
    about, asked, answered = (json.loads(line)["line"] for line in transcript.read_text().splitlines())
    assert about["kind"] == "about"
    assert asked["id"] == server.headers[0]["Idempotency-Key"]
    assert answered["tries"] == [503, 200]
    assert answered["labels"] == answer.argmax(1).tolist()
    assert "hush" not in transcript.read_text()
    assert "hush" not in repr(vars(endpoint))
