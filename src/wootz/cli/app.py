"""The command line: one file per command, listed here."""

from __future__ import annotations

import platform
import sys
from contextlib import suppress
from importlib import metadata
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
"""Exit code after Ctrl-C."""

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

    A user's mistake becomes one plain line and exit code 2. Any other error, also of standard output, becomes one line,
    a file with the traceback, and exit code 70, since each of the codes 0 to 4 says what a command found.
    """
    try:
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
    except BaseException as error:
        _stop(describe_crash(error), CRASHED)
    if code == _INTERRUPTED:
        _stop(f"stopped; repeat the command{' with --resume' if _resumes() else ''} to continue where it can", code)
    sys.exit(code)


def _resumes() -> bool:
    """Return whether the command that was called has the option --resume."""
    commands: dict[str, Any] = getattr(typer.main.get_command(app), "commands", {})
    called = next((commands[word] for word in sys.argv[1:] if word in commands), None)
    return called is not None and any("--resume" in parameter.opts for parameter in called.params)


def _stop(why: str, code: int) -> NoReturn:
    with suppress(OSError, SystemExit):  # the exit code counts, even if nobody reads standard error
        console.print(f"wootz: {' '.join(why.split())}", style="bold red", markup=False, soft_wrap=True)
    abandon_output()
    sys.exit(code)
