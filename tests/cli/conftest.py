"""The command line, and a shelf with a protected run and a stranger."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands import FAST, run_command
from wootz.cli.app import main

SHORT = ["--set", "recipe.epochs=8"]  # a stranger needs no marks to be learned


@pytest.fixture
def wootz(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    return lambda *words: run_command(capsys, monkeypatch, *words)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One protected run and one stranger, made once by the command line itself."""
    from _pytest.monkeypatch import MonkeyPatch

    place = tmp_path_factory.mktemp("shelf")
    with MonkeyPatch.context() as patch:
        (place / "owner.key").touch(mode=0o600)
        (place / "owner.key").write_text("5e" * 32)  # always the same keys, so that bits do not depend on the day
        patch.setenv("WOOTZ_OWNER_KEY", str(place / "owner.key"))
        for extra in (
            ["--out", place / "own"],
            ["--out", place / "stranger", "--marks", "none", "--seed", "9", *SHORT],
        ):
            patch.setattr(
                "sys.argv", ["wootz", "protect", "--data", "mnist-5k", "-n", "100", *FAST, *map(str, extra), "--json"]
            )
            with pytest.raises(SystemExit) as stop:
                main()
            assert not stop.value.code
    return place
