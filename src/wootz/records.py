"""What was measured of one suspect model, as JSON of schema 1."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from wootz.errors import StoreError
from wootz.journal import append_line, read_json_lines
from wootz.store import validate
from wootz.types import Kind, Norm

if TYPE_CHECKING:
    from pydantic import ConfigDict

SCHEMA = 1

RESULTS_FILE = "cells.jsonl"
"""Name of the file in a grid's folder that holds its results, one per line, in the order of the grid."""

GRID_METADATA_FILE = "bench.json"
"""Name of the file in a grid's folder that says how it was run."""

AXES = ("data", "model", "loss", "mark", "theft", "access")
"""Axes that every result of a grid names in `axes`; a grid may have more. The seed has a field of its own."""

OWNER_MODEL, INDEPENDENT = "none", "independent"
"""Names along the axis `theft` that are no attack: the owner's own model, and independent models as controls."""

UNMARKED = "none"
"""Name along the axis `mark` of a model without watermarks."""


_EXACT: ConfigDict = {"extra": "forbid", "strict": True, "allow_inf_nan": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryRecord:
    """The queries of an evaluation without gradients.

    Attributes:
        total: the images that the model was asked about: those of the attacks, the test images themselves, and those
            for calibration and checks.
        mean: the attacks' queries per attacked image, on average.
        median: their median.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _EXACT

    total: int
    mean: float
    median: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RobustRecord:
    """Robust accuracy under one evaluation at one budget.

    Attributes:
        eps: the budget.
        attack: the name of the evaluation.
        n: the number of images.
        accuracy: the fraction of the images that stay correct.
        norm: the norm of the ball.
        flags: reasons why the accuracy may be too high.
        fallen: the number of images that each attack was the first to change.
        queries: the number of queries; None for attacks by gradients.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _EXACT

    eps: float
    attack: str
    n: int
    accuracy: float
    norm: Norm = "Linf"
    flags: tuple[str, ...] = ()
    fallen: dict[str, int] = field(default_factory=dict)
    queries: QueryRecord | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceRecord:
    """The evidence of one mark about one suspect.

    Attributes:
        mark: The name of the mark.
        p: The p-value as a decimal string, since it may be far below the smallest float.
        bits: -log2 p.
        queries: The number of queries spent.
        statistic: The reported statistic, see `measure`.
        details: The counts of the test.
        null: The null distribution of the test; empty in records of older versions.
        measure: What `statistic` is; empty in records of older versions.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _EXACT

    mark: str
    p: str
    bits: float
    queries: int
    statistic: float
    details: dict[str, Any] = field(default_factory=dict)
    null: str = ""
    measure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyDrop:
    """Accuracy lost against the attacked model, as fractions; `robust` only where both faced the same evaluation."""

    __pydantic_config__: ClassVar[ConfigDict] = _EXACT

    clean: float
    robust: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """What was measured of a model before marks were written into it, and the steps that this took."""

    __pydantic_config__: ClassVar[ConfigDict] = _EXACT

    steps: int
    clean: float | None = None
    robust: RobustRecord | None = None
    bits: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What was measured of one suspect; None is what was not measured.

    Accuracies are fractions, `seconds` is wall time, `bar` the required bits. `also` holds robust accuracies under
    further evaluations, `before` what a marked model was before. Results of a grid
    have three fields more: `digest` names the config that decides them, `axes`
    holds the name of their grid cell along each axis (the seed has its own field), and `error` is the one line of a
    result that failed.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _EXACT

    data: str
    suspect: str
    kind: Kind
    theft: str | None = None
    access: str | None = None
    clean: float | None = None
    robust: RobustRecord | None = None
    also: tuple[RobustRecord, ...] = ()
    evidence: tuple[EvidenceRecord, ...] = ()
    bits: float | None = None
    bar: float | None = None
    verdict: str | None = None
    seconds: float = 0.0
    seed: int = 0
    queries: int | None = None
    agreement: float | None = None
    price: AccuracyDrop | None = None
    before: Before | None = None
    notes: tuple[str, ...] = ()
    digest: str | None = None
    axes: dict[str, str] = field(default_factory=dict)
    error: str | None = None
    schema: int = SCHEMA


def with_evidence(result: Result, tested: Result) -> Result:
    """Return a suspect's own result with the access, evidence, verdict and notes of its test."""
    return dataclasses.replace(
        result,
        access=tested.access,
        evidence=tested.evidence,
        bits=tested.bits,
        bar=tested.bar,
        verdict=tested.verdict,
        notes=(*result.notes, *tested.notes),
    )


def to_json(result: Result) -> dict[str, Any]:
    """Return the result as plain JSON; what was not measured is left out."""
    plain = dataclasses.asdict(result)
    for robust in (plain["robust"], *plain["also"]):
        if robust is not None and robust["queries"] is None:
            del robust["queries"]
    for item in plain["evidence"]:
        for name in ("null", "measure"):
            if not item[name]:
                del item[name]
    return {"schema": plain.pop("schema")} | {k: v for k, v in plain.items() if v is not None and v not in ((), {})}


def from_json(plain: Any, where: str = "record") -> Result:
    """Read a result back; `from_json(to_json(result)) == result`.

    Raises:
        StoreError: a field is unknown, missing or of another type, or the schema is another one.
    """
    if not isinstance(plain, dict):
        raise StoreError(f"{where}: is not a record (it should be a JSON object)")
    if plain.get("schema") != SCHEMA:
        raise StoreError(f"{where}: is of schema {plain.get('schema')!r}; this version reads schema {SCHEMA}")
    return validate(Result, plain, f"{where}: is not a record")


def append(path: Path, result: Result) -> None:
    """Append the result to a file of JSON lines."""
    append_line(path, json.dumps(to_json(result)))


def read_lines(path: Path, *, ended: bool = False) -> list[Result]:
    """Read a file of JSON lines, or only those that have `ended`; a broken line is a StoreError that names it."""
    lines = read_json_lines(path, complete=ended)
    return [from_json(plain, f"{path}, line {number}") for number, plain in lines]


def decimal_p(log_p: float) -> str:
    """Return exp(log_p) as a decimal string such as '2.5e-126', also far below the smallest float."""
    if log_p > math.log(1e-4):
        return f"{math.exp(log_p):.4g}"
    exponent = math.floor(log_p / math.log(10))
    mantissa = math.exp(log_p - exponent * math.log(10))
    if f"{mantissa:.1f}" == "10.0":
        mantissa, exponent = 1.0, exponent + 1
    return f"{mantissa:.1f}e{exponent}"
