"""Results of grids as plain JSON of schema 1, written by hand."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

from wootz.records import decimal_p
from wootz.report import write_reports


def robust(accuracy: float, attack: str = "pgd-25", eps: float = 0.25) -> dict[str, Any]:
    return {"eps": eps, "attack": attack, "n": 1000, "accuracy": accuracy, "norm": "Linf", "flags": [], "fallen": {}}


def evidence(mark: str, bits: float, **details: Any) -> dict[str, Any]:
    p = decimal_p(-bits * math.log(2))
    return {"mark": mark, "p": p, "bits": bits, "queries": 256, "statistic": 0.25, "details": details}


def cell(theft: str, kind: str, seed: int, *, mark: str = "wootz", data: str = "mnist", **more: Any) -> dict[str, Any]:
    """Return a result with figures; `bits` gives the evidence of each mark."""
    axes = {"data": data, "model": "small-cnn", "loss": "pgd-at", "mark": mark, "theft": theft, "access": "scores"}
    axes |= more.pop("axes", {})
    bits: dict[str, float] = more.pop("bits", {})
    record: dict[str, Any] = {
        "schema": 1,
        "data": data,
        "suspect": f"{theft}-{seed}",
        "kind": kind,
        "theft": theft,
        "access": "scores",
        "clean": 0.9,
        "robust": robust(0.8),
        "seconds": 2.0,
        "seed": seed,
        "axes": axes,
        "digest": f"sha256:{data}-{axes['loss']}-{mark}-{theft}-{seed}",
    }
    if bits:
        total = sum(bits.values())
        record["evidence"] = [evidence(name, value) for name, value in bits.items()]
        record |= {"bits": total, "bar": 40.0, "verdict": "KEY-DEPENDENT" if total >= 40 else "NOT SHOWN"}
    return record | more


def failed(theft: str, kind: str, seed: int, error: str, **more: Any) -> dict[str, Any]:
    plain = cell(theft, kind, seed, **more)
    return {name: value for name, value in plain.items() if name not in ("clean", "robust")} | {"error": error}


def small() -> list[dict[str, Any]]:
    """Return two defences: owners, a theft that some seeds survive, one that failed, independent models."""
    owners = [
        cell("none", "protected", 1, clean=0.90, robust=robust(0.80), bits={"triggers": 100.0, "runner-up": 50.0}),
        cell("none", "protected", 2, clean=0.92, robust=robust(0.86), bits={"triggers": 130.0, "runner-up": 20.0}),
        cell("none", "independent", 1, mark="none", clean=0.95, robust=robust(0.88)),
        cell("none", "independent", 2, mark="none", clean=0.95, robust=robust(0.88)),
    ]
    thefts = [
        cell("retrain", "stolen", 1, bits={"triggers": 0.0, "runner-up": 70.0}, also=[robust(0.5, "autoattack")]),
        cell("retrain", "stolen", 2, bits={"triggers": 2.0, "runner-up": 28.0}, also=[robust(0.6, "autoattack")]),
        failed("prune-50", "removed", 1, "TrainingError: the loss is not finite"),
        cell("prune-50", "removed", 2, bits={"triggers": 10.0, "runner-up": 11.0}),
    ]
    controls = [
        cell("independent", "independent", 1, suspect=f"independent-{i}", bits={"triggers": i / 2, "runner-up": 1.0})
        for i in range(4)
    ]
    return [*owners, *thefts, *controls]


def write(folder: Path, cells: list[dict[str, Any]]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "cells.jsonl").write_text("".join(json.dumps(plain) + "\n" for plain in cells))
    return folder


def texts(folder: Path) -> dict[str, str]:
    """Write the reports of a grid; return each one's text by its ending."""
    return {ending: path.read_text("utf-8") for ending, path in write_reports(folder).items()}


def lines_of(text: str) -> list[dict[str, str]]:
    """Return the rows of a CSV report."""
    return list(csv.DictReader(io.StringIO(text)))
