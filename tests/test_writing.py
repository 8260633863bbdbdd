"""Files that are written line by line, and folders that one command writes at a time."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from commands import assert_usage_error, run_command
from wootz import store
from wootz.errors import ConfigError, StoreError
from wootz.journal import Journal, append_line, read_json_lines
from wootz.records import Result, append, read_lines
from wootz.serving.query_log import QueryLog
from wootz.store import lock_folder
from wootz.suspects.endpoints import Identity
from wootz.workflows.claim import mark_revealed
from wootz.workflows.guard_log import SEALS, read_seals


def failing(call: str, code: int, *, written: int = 0) -> Callable[..., Any]:
    """Return `os.CALL` on a disk with this error; a write leaves `written` bytes first."""
    real = getattr(os, call)

    def fail(*args: Any, **more: Any) -> None:
        if written:
            real(args[0], args[1][:written])
        raise OSError(code, os.strerror(code))

    return fail


class TestJournal:
    def test_lines_are_appended_and_read(self, tmp_path: Path) -> None:
        path = tmp_path / "new" / "j.jsonl"
        for number in range(3):
            append_line(path, f'{{"n": {number}}}')
        assert list(read_json_lines(path)) == [(1, {"n": 0}), (2, {"n": 1}), (3, {"n": 2})]

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EDQUOT])
    @pytest.mark.parametrize(("call", "written"), [("write", 0), ("write", 4), ("fsync", 0), ("ftruncate", 0)])
    def test_a_failed_write_leaves_the_file_as_it_was(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, written: int, code: int
    ) -> None:
        path = tmp_path / "j.jsonl"
        append_line(path, '{"n": 0}')
        before = path.read_bytes()
        with Journal(path) as journal:
            with monkeypatch.context() as patch:
                patch.setattr(store.os, call, failing(call, code, written=written))
                with pytest.raises(StoreError, match="cannot be written"):
                    journal.append(b'{"n": 1}', b'{"n": 2}')
            assert path.read_bytes() == before
            journal.append(b'{"n": 3}')
        assert [value for _, value in read_json_lines(path)] == [{"n": 0}, {"n": 3}]

    def test_a_short_write_is_a_failed_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write = os.write
        with monkeypatch.context() as patch:
            patch.setattr(store.os, "write", lambda file, data: write(file, data[:2]))
            with pytest.raises(StoreError, match="No space left"):
                append_line(tmp_path / "j.jsonl", "{}")
        assert (tmp_path / "j.jsonl").read_bytes() == b""

    @pytest.mark.parametrize("tail", [b"{", b'{"n": 1}', b"\0" * 4096, "\u00fc".encode()[:1]])
    def test_an_unfinished_last_line_is_dropped(self, tmp_path: Path, tail: bytes) -> None:
        path = tmp_path / "j.jsonl"
        path.write_bytes(b'{"n": 0}\n' + tail)
        assert list(read_json_lines(path)) == [(1, {"n": 0})]
        append_line(path, '{"n": 2}')
        assert path.read_bytes() == b'{"n": 0}\n{"n": 2}\n'

    @pytest.mark.parametrize("line", [b"{", b"\xff", b"[" * 100_000, b"{} {}"])
    def test_other_damage_is_refused_by_the_number_of_its_line(self, tmp_path: Path, line: bytes) -> None:
        path = tmp_path / "j.jsonl"
        path.write_bytes(b"{}\n\n" + line + b"\n{}\n")
        with pytest.raises(StoreError, match=r"j\.jsonl, line 3: is (not JSON|JSON nested too deeply)") as caught:
            list(read_json_lines(path))
        assert "\n" not in str(caught.value)

    def test_two_writers(self, tmp_path: Path) -> None:
        with Journal(tmp_path / "j"), pytest.raises(StoreError, match="another process writes it"):
            Journal(tmp_path / "j")
        with Journal(tmp_path / "j"):
            pass

    @pytest.mark.parametrize("kind", ["folder", "pipe", "device"])
    def test_only_plain_files(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / "j"
        if kind == "folder":
            path.mkdir()
        elif kind == "pipe":
            os.mkfifo(path)
        else:
            path = Path("/dev/null")
        with pytest.raises(StoreError):
            append_line(path, "{}")

    def test_every_file_of_lines_uses_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Half a line on a full disk: the records, the seals, and the log of queries go on where they stopped."""
        cells = tmp_path / "cells.jsonl"
        result = Result(data="d", suspect="s", kind="unknown")
        append(cells, result)
        (tmp_path / SEALS).parent.mkdir()
        (tmp_path / SEALS).write_bytes(b'{"head"')
        with QueryLog(tmp_path / "q.jsonl") as log:
            one = np.zeros((1, 1, 2, 2), np.float32)
            log.write("1", one, [1])
            with monkeypatch.context() as patch:
                patch.setattr(store.os, "write", failing("write", errno.ENOSPC, written=9))
                with pytest.raises(StoreError):
                    log.write("2", one, [2])
                with pytest.raises(StoreError):
                    append(cells, result)
            log.write("3", one, [3])
        append(cells, result)
        assert read_lines(cells) == [result, result]
        assert [line["id"] for _, line in read_json_lines(tmp_path / "q.jsonl")] == ["1", "3"]
        assert read_seals(tmp_path) == []
        (tmp_path / SEALS).write_bytes(b'{"head": 3}\n')
        with pytest.raises(StoreError, match=r"seals\.jsonl, line 1"):
            read_seals(tmp_path)


class TestRevealedParts:
    """`burnt.jsonl`, which says what part of a key was revealed about whom."""

    KEYS: Any = SimpleNamespace(registration={"marks": {"triggers": {"tranches": [0, 1]}}})

    def reveal(self, run: Path, digest: str) -> int:
        return mark_revealed(run, self.KEYS, Identity("suspect", digest))

    def test_a_full_disk_costs_no_claim(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.reveal(tmp_path, "aa") == 0
        with monkeypatch.context() as patch:
            patch.setattr(store.os, "write", failing("write", errno.ENOSPC, written=20))
            with pytest.raises(StoreError, match=r"burnt\.jsonl: cannot be written \(No space left"):
                self.reveal(tmp_path, "bb")
        assert (self.reveal(tmp_path, "bb"), self.reveal(tmp_path, "aa")) == (1, 0)
        with pytest.raises(ConfigError, match="all 2 tranches"):
            self.reveal(tmp_path, "cc")

    def test_a_claim_that_was_killed_while_it_wrote(self, tmp_path: Path) -> None:
        assert self.reveal(tmp_path, "aa") == 0
        with (tmp_path / "key/burnt.jsonl").open("a") as file:
            file.write('{"tranche": 1, "susp')
        assert self.reveal(tmp_path, "bb") == 1

    @pytest.mark.parametrize(
        "line", ["{", "[]", "7", '{"tranche": 0}', '{"tranche": 1, "suspect": "bb"}', '{"tranche": 0, "suspect": 1}']
    )
    def test_a_damaged_line_is_refused_by_its_number(self, tmp_path: Path, line: str) -> None:
        (tmp_path / "key").mkdir()
        (tmp_path / "key/burnt.jsonl").write_text(line + "\n")
        with pytest.raises(StoreError, match=r"burnt\.jsonl, line 1"):
            self.reveal(tmp_path, "cc")


HOLD = """
import sys
from pathlib import Path
from wootz.store import lock_folder
with lock_folder(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def refused(folder: Path, match: str) -> None:
    with pytest.raises(ConfigError, match=match), lock_folder(folder):
        pass


class TestLock:
    def test_the_second_writer_is_told_who_is_the_first(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever the command: the holder is another process, so this is what two people see."""
        run = tmp_path / "run"
        with subprocess.Popen(
            [sys.executable, "-c", HOLD, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            victim = tmp_path / "victim"
            victim.mkdir()
            data = ["--data", "mnist-5k"]
            for words in (
                ["protect", *data, "--out", run],
                ["protect", *data, "--out", run, "--resume"],
                ["protect", *data, "--out", run, "--marks", "none"],
                ["remove", victim, "--attack", "prune", "--out", run],
                ["remove", victim, "--attack", "quantize", "--out", run, "--resume"],
                ["steal", victim, "--attack", "jbda", "--out", run],
                ["demo", *data, "--out", run],
            ):
                said = run_command(capsys, monkeypatch, *words)
                assert_usage_error(said, f"process {holder.pid} on", "works there")
            holder.kill()
        with lock_folder(run):
            assert sorted(path.name for path in run.iterdir()) == [".lock"]

    def test_it_ends_with_its_block(self, tmp_path: Path) -> None:
        for _ in range(2):
            with lock_folder(tmp_path):
                refused(tmp_path, f"process {os.getpid()} on")

    def test_a_full_disk_takes_the_name_only(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(store.os, "pwrite", failing("pwrite", errno.ENOSPC))
        with lock_folder(tmp_path):
            refused(tmp_path, "another process works there")

    def test_a_folder_that_cannot_be(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(StoreError, match="cannot be created"), lock_folder(tmp_path / "file"):
            pass
