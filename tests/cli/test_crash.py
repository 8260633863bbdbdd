"""Whatever goes wrong in a command, its exit code never says what only a verdict may say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from wootz.cli import app
from wootz.errors import ConfigError, InconclusiveError


def raising(error: BaseException) -> Any:
    def command(**_: object) -> None:
        raise error

    return command


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RecursionError("maximum recursion depth exceeded"),
        BrokenPipeError(32, "Broken pipe"),
        OSError(28, "No space left on device"),
        ValueError("two\nlines, and \x1b[2J"),
        RuntimeError("x" * 9999),
        SystemExit(1),  # Typer and Rich, where a pipe is closed
        SystemExit(0),
        BaseExceptionGroup("", [KeyboardInterrupt()]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_unforeseen_error_is_one_line_and_a_file(
    wootz, owner: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr(app, "app", raising(error))
    said = wootz("verify", "run", "suspect")
    assert said.code == 70
    assert said.out == ""
    line = said.err.strip()
    assert line.startswith(f"wootz: stopped by an unforeseen error: {type(error).__name__}")
    assert line.isprintable()
    assert len(line) < 700
    (saved,) = (owner.with_name("state") / "wootz" / "crashes").iterdir()
    assert line.endswith(f"the traceback is in {saved}")
    assert "wootz verify run suspect" in saved.read_text()
    assert "Traceback" in saved.read_text()
    assert saved.stat().st_mode & 0o777 == 0o600


def test_foreseen_errors_keep_their_codes(wootz, monkeypatch: pytest.MonkeyPatch) -> None:
    for error, code in ((ConfigError("a"), 2), (InconclusiveError("b"), 3), (KeyboardInterrupt(), 130)):
        monkeypatch.setattr(app, "app", raising(error))
        said = wootz("verify")
        assert (said.code, said.out) == (code, "")
        assert len(said.err.strip().splitlines()) == 1


@pytest.mark.parametrize(("command", "hint"), [("steal", "the command with --resume"), ("verify", "the command to")])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_stop_a_command_in_good_order(
    wootz, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, command: str, hint: str
) -> None:
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {each: signal.signal(each, handler) for each, handler in handlers.items()}  # may be ignored here
    try:
        monkeypatch.setattr(app, "app", lambda **_: os.kill(os.getpid(), number))
        said = wootz(command)
        assert {each: signal.getsignal(each) for each in handlers} == handlers
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert (said.code, said.out) == (128 + number, "")
    (line,) = said.err.strip().splitlines()
    assert line.startswith(f"wootz: stopped; repeat {hint}")


def test_system_errors_that_name_a_file_are_the_user_s(wootz, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "app", raising(OSError(28, "No space left on device", "a/b")))
    said = wootz("verify")
    assert (said.code, said.err.strip()) == (2, "wootz: a/b: No space left on device")


def test_a_traceback_that_cannot_be_saved(wootz, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "app", raising(MemoryError()))
    monkeypatch.setattr("tempfile.mkstemp", raising(OSError()))
    said = wootz("verify")
    assert said.code == 70
    assert "could not be saved" in said.err


def exit_code_and_errors(shell: str) -> tuple[int, str]:
    """Run a command line in bash, with `wootz` as the command."""
    shell = f'wootz() {{ {sys.executable} -m wootz "$@"; }}; {shell}'
    done = subprocess.run(["bash", "-c", shell], stderr=subprocess.PIPE, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "shell",
    [
        "wootz data list --json >/dev/full",
        "wootz --version >/dev/full",
        "wootz data list | true; exit ${PIPESTATUS[0]}",
    ],
)
def test_output_that_cannot_be_written(shell: str, owner: Path) -> None:
    code, errors = exit_code_and_errors(shell)
    assert code == 70
    assert errors.count("\n") == 1
    assert "unforeseen error" in errors


def test_nobody_reads_anything(owner: Path) -> None:
    assert exit_code_and_errors("wootz --version >/dev/full 2>/dev/full") == (70, "")
