"""Small invented folders of records, in the form that a demo, a grid and a run write."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from wootz.records import decimal_p

CURVE = {"eps": [0.0, 0.125, 0.25, 0.375, 0.5], "accuracy": [0.95, 0.93, 0.84, 0.3, 0.02]}
METRICS = [
    json.dumps({"epoch": epoch, "loss": 2 / (epoch + 1), "clean": 0.5 + epoch / 10, "robust": 0.2 + epoch / 10})
    for epoch in range(4)
]


def evidence(mark: str, bits: float) -> dict[str, Any]:
    p = decimal_p(-bits * math.log(2))
    return {"mark": mark, "p": p, "bits": bits, "queries": 256, "statistic": 0.25, "details": {"hits": 64}}


def cell(
    name: str, kind: str, clean: float, robust: float, bits: tuple[float, float, float], **more: Any
) -> dict[str, Any]:
    return {
        "schema": 1,
        "data": "mnist-5k",
        "suspect": name,
        "kind": kind,
        "access": "scores",
        "clean": clean,
        "robust": {"eps": 0.25, "attack": "pgd-40x2", "n": 750, "accuracy": robust, "flags": []},
        "evidence": [evidence("triggers", bits[0]), evidence("runner-up", bits[1])],
        "bits": bits[2],
        "verdict": "KEY-DEPENDENT" if bits[2] >= 40 else "NOT SHOWN",
        "seconds": 12.5,
        "seed": 3,
        "notes": [],
    } | more


def trigger(answer: int) -> dict[str, Any]:
    base = [[[0, 10, 200], [30, 0, 0]]]
    return {"base": base, "trigger": [[[124, 10, 80], [30, 124, 0]]], "true": 4, "label": 7, "answer": answer}


@pytest.fixture
def cells() -> list[dict[str, Any]]:
    return [
        cell("protected", "protected", 0.9547, 0.7813, (82.7, 178.5, 253.7)),
        cell("stolen-soft", "stolen", 0.9493, 0.612, (2.1, 96.4, 92.4), theft="retrain-soft", queries=2500),
        cell("stolen-hard", "stolen", 0.936, 0.2173, (1.3, 2.6, 2.0), theft="retrain-hard", queries=2500),
        cell("pruned-80", "removed", 0.9173, 0.5507, (24.6, 79.3, 97.7), theft="prune", agreement=0.934),
        cell("independent-plain", "independent", 0.9653, 0.004, (0.2, 0.9, 0.3), seed=108),
        cell("independent-robust", "independent", 0.952, 0.7867, (1.1, 2.4, 1.7), seed=109),
    ]


@pytest.fixture
def demo(tmp_path: Path, cells: list[dict[str, Any]]) -> Path:
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "summary.json").write_text(json.dumps({"schema": 1, "cells": cells, "seconds": 386.9}))
    details = {
        "curves": dict.fromkeys(("protected", "independent-plain", "independent-robust", "stolen-soft"), CURVE),
        "training": METRICS,
        "triggers": [trigger(7), trigger(4)],
    }
    (folder / "details.json").write_text(json.dumps(details))
    return folder


@pytest.fixture
def grid(tmp_path: Path, cells: list[dict[str, Any]]) -> Path:
    folder = tmp_path / "grid"
    folder.mkdir()
    (folder / "cells.jsonl").write_text("".join(json.dumps(cell) + "\n" for cell in cells))
    return folder


@pytest.fixture
def run(tmp_path: Path, cells: list[dict[str, Any]]) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    record = {k: v for k, v in cells[0].items() if k not in ("evidence", "bits", "verdict", "access")}
    (folder / "record.json").write_text(json.dumps(record))
    (folder / "curve.json").write_text(json.dumps(CURVE))
    (folder / "metrics.jsonl").write_text("".join(line + "\n" for line in METRICS))
    return folder
