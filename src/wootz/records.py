"""The result for one suspect model, a cell of the evidence matrix, as JSON of schema 1."""

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
    """Robust accuracy under one evaluation at one budget.

    Attributes:
        eps: the budget.
        attack: the name of the evaluation.
        n: the number of images.
        accuracy: the fraction of the images that stay correct.
        norm: the norm of the ball.
        flags: reasons why the accuracy may be too high.
        fallen: the number of images that each attack was the first to change.
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
    """What one mark says of one suspect. `p` is a decimal string: it may be far below the smallest float."""

    mark: str
    p: str
    bits: float
    queries: int
    statistic: float
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyDrop:
    """The drop in accuracy, as fractions, from an attack's target to its result; `robust` only if evaluated alike."""

    clean: float
    robust: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """The result for one suspect; None means not measured. Accuracies are fractions, `seconds` is wall time.

    `also` holds robust accuracies by other evaluations. Three fields are for cells of a grid: `digest` is the digest of
    the config, `axes` is the position in the grid (axis -> name; the seed has its own field), and `error` is the
    message of a cell that failed.
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
    """Return the cell as plain JSON, without empty fields."""
    plain = dataclasses.asdict(cell)
    return {"schema": plain.pop("schema")} | {k: v for k, v in plain.items() if v is not None and v not in ((), {})}


def from_json(plain: dict[str, Any]) -> Cell:
    """Read a cell; `from_json(to_json(cell)) == cell`.

    Raises:
        StoreError: the record has another schema.
    """
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
    """Read a file of JSON lines.

    Args:
        path: the file.
        ended: whether to ignore a last line without its newline.

    Raises:
        StoreError: a line is not a record; the message names it.
    """
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
