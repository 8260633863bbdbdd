"""The command line as a person calls it."""

from __future__ import annotations

import json

import pytest

from wootz.cli.app import main

FAST = [
    word
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
    for word in ("--set", setting)
]


class Said:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> dict[str, object]:
        value: dict[str, object] = json.loads(self.out)
        return value


def say(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: object) -> Said:
    monkeypatch.setattr("sys.argv", ["wootz", *map(str, words)])
    monkeypatch.setattr("__main__.__package__", None)  # not `python -m pytest`: a script, whatever runs the tests
    code: int | str | None = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    return Said(int(code or 0), captured.out, captured.err)


def refused(said: Said, *parts: str) -> None:
    """Assert that a mistake was answered in one line on standard error that holds these parts, with exit code 2."""
    assert said.code == 2, said.out + said.err
    assert said.out == ""
    line = said.err.strip()
    assert "\n" not in line
    for part in parts:
        assert part in line
