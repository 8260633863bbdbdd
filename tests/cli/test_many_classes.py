"""Three hundred classes through the command line: protected, verified, claimed and judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands import FAST
from many_classes import write_many_classes

SHORT = [
    word
    for setting in ("recipe.epochs=12", "panel.robust_epochs=3", "panel.plain_epochs=4")
    for word in ("--set", setting)
]


@pytest.mark.slow
def test_a_run_of_three_hundred_classes(wootz, tmp_path: Path) -> None:
    data, run = write_many_classes(tmp_path / "many.npz"), tmp_path / "r"
    words = ["--marks", "triggers,runner-up,guard", "--preset", "fast", "-n", "50", *FAST, *SHORT]
    made = wootz("protect", "--data", data, "--out", run, *words)
    assert made.code == 0, made.err
    found = wootz("verify", run, run, "--json")
    assert found.json["verdict"] == "KEY-DEPENDENT"
    evidence = {item["mark"]: item for item in found.json["evidence"]}  # type: ignore[attr-defined]
    assert evidence["triggers"]["bits"] > 100
    assert len(evidence["triggers"]["details"]["places"]) == 299
    assert evidence["runner-up"]["details"]["dimensions"] == 100 * 98 * 30  # of the most frequent classes
    assert wootz("verify", run, run, "--access", "label", "--boundary-queries", "400").code == 0
    assert wootz("register", run).code == 0
    assert wootz("claim", run, run, "--out", tmp_path / "c.json").code == 0
    judged = wootz("judge", tmp_path / "c.json", run, "--json")
    assert (judged.code, judged.json["verdict"]) == (0, "KEY-DEPENDENT")


def test_a_run_of_two_classes_has_no_runner_up(wootz, tmp_path: Path) -> None:
    data = write_many_classes(tmp_path / "two.npz", 2, each=150, test=30)
    words = ["--marks", "runner-up", *FAST, "--set", "panel.robust_epochs=1", "--set", "panel.plain_epochs=1"]
    said = wootz("protect", "--data", data, "--out", tmp_path / "r", *words)
    assert (said.code, said.out) == (2, "")
    assert "at least three classes" in said.err
    assert "Traceback" not in said.err
    assert len(said.err.strip().splitlines()) == 1
