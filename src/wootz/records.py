"""One finished cell of the evidence matrix, as JSON of schema 1."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wootz.errors import StoreError
from wootz.store import append_line, read_bytes, whole_lines
from wootz.types import Kind, Norm

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RobustRecord:
    """Robust accuracy (fraction of `n` images) under one named evaluation at one budget.

    `flags` say why it may be too high; `fallen` says how many images each attack was the first to fell.
    """

    eps: float
    attack: str
    n: int
    accuracy: float
    norm: Norm = "Linf"
    flags: tuple[str, ...] = ()
    fallen: dict[str, int] = field(default_factory=dict)


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
    """What an attack lost against its victim, as fractions; robust only where both were attacked alike."""

    clean: float
    robust: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One suspect, as far as it is known. Accuracies are fractions, `seconds` wall time.

    `also` holds robust accuracies by other evaluations. A grid's cells have three fields more: `digest` names the
    config that made them, `axes` says where in the grid they stand (axis -> name; the seed has its own field), and
    `error` is the one line of a cell that failed.
    """

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
    notes: tuple[str, ...] = ()
    digest: str | None = None
    axes: dict[str, str] = field(default_factory=dict)
    error: str | None = None
    schema: int = SCHEMA


def to_json(cell: Cell) -> dict[str, Any]:
    """Return the cell as plain JSON; what is not known is left out."""
    plain = dataclasses.asdict(cell)
    return {"schema": plain.pop("schema")} | {k: v for k, v in plain.items() if v is not None and v not in ((), {})}


def from_json(plain: dict[str, Any]) -> Cell:
    """Read a cell back; `from_json(to_json(cell)) == cell`. Another schema is a StoreError."""
    if plain.get("schema") != SCHEMA:
        raise StoreError(f"record of schema {plain.get('schema')!r}: this version reads schema {SCHEMA}")
    values = dict(plain)
    if values.get("robust"):
        values["robust"] = _robust(values["robust"])
    values["also"] = tuple(_robust(item) for item in values.get("also", ()))
    if values.get("price"):
        values["price"] = AccuracyDrop(**values["price"])
    values["evidence"] = tuple(EvidenceRecord(**item) for item in values.get("evidence", ()))
    values["notes"] = tuple(values.get("notes", ()))
    return Cell(**values)


def append(path: Path, cell: Cell) -> None:
    """Append the cell to a file of JSON lines."""
    append_line(path, json.dumps(to_json(cell)))


def read_lines(path: Path, *, ended: bool = False) -> list[Cell]:
    """Read a file of JSON lines, or only those that have `ended`; a broken line is a StoreError that names it."""
    data, cells = read_bytes(path), []
    data = whole_lines(data) if ended else data
    for number, line in enumerate(filter(str.strip, data.decode().splitlines()), 1):
        try:
            cells.append(from_json(json.loads(line)))
        except (AttributeError, StoreError, TypeError, ValueError) as error:
            raise StoreError(f"{path}, line {number}: is not a record ({error})") from error
    return cells


def decimal_p(log_p: float) -> str:
    """Return exp(log_p) as a decimal string such as '2.5e-126', also far below the smallest float."""
    if log_p > math.log(1e-4):
        return f"{math.exp(log_p):.4g}"
    exponent = math.floor(log_p / math.log(10))
    mantissa = math.exp(log_p - exponent * math.log(10))
    if f"{mantissa:.1f}" == "10.0":
        mantissa, exponent = 1.0, exponent + 1
    return f"{mantissa:.1f}e{exponent}"


def _robust(plain: dict[str, Any]) -> RobustRecord:
    return RobustRecord(**plain | {"flags": tuple(plain.get("flags", ()))})
