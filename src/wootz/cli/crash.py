"""What the command line leaves of an unforeseen error: a file with the traceback, and an exit code of its own."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import tempfile
import traceback
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import platformdirs

from wootz import __version__

CRASHED = 70
"""Exit code after an unforeseen error (EX_SOFTWARE of sysexits.h); 0 to 4 are results of commands."""


def describe_crash(error: BaseException) -> str:
    """Save the traceback of an error, and return one line that names the error and the file."""
    if isinstance(error, SystemExit) and error.__context__ is not None:
        error = error.__context__  # Typer and Rich exit with code 1 where a pipe is closed
    text = "".join(letter for letter in " ".join(str(error).split())[:300] if letter.isprintable())
    saved = _save_traceback(error)
    where = f"the traceback is in {saved}" if saved else "the traceback could not be saved"
    return f"stopped by an unforeseen error: {type(error).__name__}{text and f': {text}'}; {where}"


def abandon_output() -> None:
    """Flush standard output and standard error; what cannot be written is dropped.

    Without this, Python writes the rest when it ends, and replaces the exit code where that fails.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        except AttributeError:  # the stream was closed before Python started
            pass


def _save_traceback(error: BaseException) -> Path | None:
    """Write the traceback, the command and the versions to the user's state folder, else to that for temporary files.

    Returns:
        The file; None if neither folder can be written.
    """
    report = "\n".join(
        [
            f"wootz {__version__}, torch {metadata.version('torch')}, python {platform.python_version()}",
            f"{platform.platform()}, {datetime.now(UTC).isoformat(timespec='seconds')}",
            shlex.join(["wootz", *sys.argv[1:]]),
            "",
            *(line.rstrip("\n") for line in traceback.format_exception(error)),
            "",
        ]
    )
    for folder in (Path(platformdirs.user_state_dir("wootz")) / "crashes", Path(tempfile.gettempdir())):
        with suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(
                prefix=f"wootz-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-", suffix=".txt", dir=folder
            )
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(report)
            return Path(name)
    return None
