"""The examples as a user runs them, in a small form."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wootz.data import Dataset

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.long
def test_an_ordinary_network_is_trained_and_marked(digits: Dataset, tmp_path: Path) -> None:
    """Digits in three colours, so that the network gets images with three channels."""
    pixels = digits.train.pixels[:900].repeat(1, 3, 1, 1).numpy()
    tint = np.random.default_rng(0).uniform(0.5, 1, (900, 3, 1, 1))
    np.savez(tmp_path / "colour.npz", x_train=(pixels * tint).astype(np.uint8), y_train=digits.train.labels[:900])
    run(EXAMPLES / "train.py", tmp_path / "colour.npz", tmp_path / "w.pt", "--size", 32, "--epochs", 8, "--width", 8)
    settings = ("marking.steps=150", "marking.even_steps=0", "panel.robust_epochs=2", "panel.plain_epochs=2")
    out = run(
        *("-m", "wootz", "mark", f"{EXAMPLES / 'resnet.py'}:make", "--init", tmp_path / "w.pt", "--allow-torch-zip"),
        *("--data", tmp_path / "colour.npz", "--size", 32, "--out", tmp_path / "r", "--bits", 60, "--json"),
        *("--set", "model.width=8", "--set", "triggers.count=64", "--set", "marking.lr=1e-3"),
        *(word for setting in settings for word in ("--set", setting)),
    )
    record = json.loads(out)
    assert record["before"]["bits"] < 20 <= 40 < record["bits"]
    verdict = json.loads(run("-m", "wootz", "verify", tmp_path / "r", tmp_path / "r", "--json"))
    assert verdict["verdict"] == "KEY-DEPENDENT"


def run(*words: object) -> str:
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
