"""The command line: one file per command, listed here."""

from __future__ import annotations

import os
import platform
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from inspect import signature
from io import TextIOWrapper
from typing import Annotated, Any, NoReturn

import typer

from wootz import __version__
from wootz.cli import (
    bench,
    claim,
    data,
    demo,
    evaluate,
    export,
    judge,
    mark,
    protect,
    register,
    remove,
    report,
    serve,
    steal,
    verify,
)
from wootz.cli.crash import CRASHED, abandon_output, describe_crash
from wootz.cli.options import console
from wootz.errors import Error, InconclusiveError

_INTERRUPTED = 130
"""What Typer returns after a KeyboardInterrupt; the exit code after Ctrl-C."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Signals that stop a command in good order; its exit code is then 128 and the number of the signal."""

_Misuse: Any = typer.BadParameter.__base__
"""What Typer raises for unknown or missing commands and options, and for invalid values."""

app = typer.Typer(
    name="wootz",
    help="Train image classifiers that resist evasion and prove whose they are; then attack and verify them.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("demo")(demo.command)
app.command("protect")(protect.command)
app.command("mark")(mark.command)
app.command("evaluate")(evaluate.command)
app.command("steal")(steal.command)
app.command("remove")(remove.command)
app.command("verify")(verify.command)
app.command("register")(register.command)
app.command("claim")(claim.command)
app.command("judge")(judge.command)
app.command("serve")(serve.command)
app.command("export")(export.command)
app.command("bench")(bench.command)
app.command("report")(report.command)
app.add_typer(data.app, name="data")

_RESUMABLE = {
    command.name
    for command in app.registered_commands
    if command.callback and "resume" in signature(command.callback).parameters
}
"""Commands with the option --resume."""


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"wootz {__version__}, torch {metadata.version('torch')}, python {platform.python_version()}")
        raise typer.Exit


@app.callback()
def options(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Handle options before the command; without a command, show the help."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
        raise typer.Exit(2)


def main() -> None:
    """Run the command line, and exit with the code of the command.

    A user's mistake, and what the system refuses to do with a file, becomes one plain line and exit code 2. Any other
    error, also of standard output, becomes one line, a file with the traceback, and exit code 70, since each of the
    codes 0 to 4 says what a command found. Ctrl-C and SIGTERM end with one line and exit code 130 or 143.
    """
    received: list[int] = []
    if isinstance(sys.stdout, TextIOWrapper):  # names of files need not be UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with _stoppable(received):
            code = app(standalone_mode=False)
            if sys.stdout is not None:
                sys.stdout.flush()
    except InconclusiveError as error:
        _stop(f"INCONCLUSIVE: {error}", 3)
    except Error as error:
        _stop(str(error), 2)
    except _Misuse as error:
        where = error.ctx.command_path if error.ctx else app.info.name
        _stop(f"{error.format_message().rstrip('.')}; see {where} --help", 2)
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except OSError as error:
        if error.filename is None:  # no file: a stream, a socket, or a mistake of ours
            _stop(describe_crash(error), CRASHED)
        _stop(f"{os.fsdecode(error.filename)}: {error.strerror}", 2)
    except BaseException as error:
        _stop(describe_crash(error), CRASHED)
    if code == _INTERRUPTED:
        option = " with --resume" if _RESUMABLE.intersection(sys.argv[1:2]) else ""
        _stop(f"stopped; repeat the command{option} to continue where it can", 128 + received[0] if received else code)
    sys.exit(code)


@contextmanager
def _stoppable(received: list[int]) -> Iterator[None]:
    """Raise KeyboardInterrupt at the first signal, and note the signal; a second one ends the process at once.

    A signal that the process ignores, as a shell's background jobs do with Ctrl-C, stays ignored.
    """

    def stop(number: int, _: object) -> None:
        received.append(number)
        for each in handlers:
            signal.signal(each, signal.SIG_DFL)
        raise KeyboardInterrupt

    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    handlers = {number: handler for number, handler in handlers.items() if handler != signal.SIG_IGN}
    try:
        for number in handlers:
            signal.signal(number, stop)
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _stop(why: str, code: int) -> NoReturn:
    with suppress(OSError, SystemExit):  # the exit code counts, even if nobody reads standard error
        line = " ".join(why.split()).encode(errors="backslashreplace").decode()
        console.print(f"wootz: {line}", style="bold red", markup=False, soft_wrap=True)
    abandon_output()
    sys.exit(code)
