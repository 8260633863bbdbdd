"""Run the command line in this process, and check its result."""

from __future__ import annotations

import json

import pytest

from wootz.cli.app import main

FAST = [
    argument
    for setting in (
        "recipe.loss=n-fgsm",
        "recipe.epochs=40",
        "recipe.lr=5e-3",
        "panel.robust_epochs=4",
        "panel.plain_epochs=6",
        "small_cnn.width=16",
        "triggers.count=96",
        "triggers.every=1",
    )
    for argument in ("--set", setting)
]
"""Settings of `wootz protect` for a short training run."""


class CommandResult:
    """The exit code and the captured output of a command."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> dict[str, object]:
        """Return standard output, parsed as a JSON object."""
        value: dict[str, object] = json.loads(self.out)
        return value


def run_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object
) -> CommandResult:
    """Run `wootz` with these arguments."""
    monkeypatch.setattr("sys.argv", ["wootz", *map(str, arguments)])
    monkeypatch.setattr("__main__.__package__", None)  # like an installed script, not like `python -m pytest`
    code: int | str | None = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    return CommandResult(int(code or 0), captured.out, captured.err)


def assert_usage_error(result: CommandResult, *parts: str) -> None:
    """Assert exit code 2 and one line on standard error that contains these parts."""
    assert result.code == 2, result.out + result.err
    assert result.out == ""
    line = result.err.strip()
    assert "\n" not in line
    for part in parts:
        assert part in line
