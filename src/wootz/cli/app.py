"""The command line: one file a command, listed here."""

from __future__ import annotations

import sys

import typer

from wootz.cli import bench, claim, data, demo, evaluate, judge, protect, register, remove, report, serve, steal, verify
from wootz.cli.options import console
from wootz.errors import Error

app = typer.Typer(
    name="wootz",
    help="Train image classifiers that resist evasion and prove whose they are; then attack and verify them.",
    no_args_is_help=True,
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
app.command("bench")(bench.command)
app.command("report")(report.command)
app.add_typer(data.app, name="data")


def main() -> None:
    """Run the command line; an error that a user can mend becomes one plain line and exit code 2."""
    try:
        app()
    except Error as error:
        console.print(f"wootz: {' '.join(str(error).split())}", style="bold red", markup=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        console.print("wootz: stopped; repeat the command with --resume to continue where it can", markup=False)
        sys.exit(130)
