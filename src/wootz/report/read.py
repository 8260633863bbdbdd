"""What a folder of records holds, checked, so that nothing after this can stumble over a broken file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from wootz.errors import StoreError
from wootz.records import SCHEMA, Result, from_json
from wootz.report.bench import AXES
from wootz.report.fields import array, integer, lines, mapping, number, parsed, pixels, text
from wootz.report.runs import record_digest
from wootz.store import read_json

Source: TypeAlias = Literal["demo", "grid", "run"]


class Curve(NamedTuple):
    """Accuracy (fractions) at each budget."""

    eps: tuple[float, ...]
    accuracy: tuple[float, ...]


class Epoch(NamedTuple):
    """Figures of one epoch, counted from 0; accuracies are fractions of the validation images."""

    epoch: int
    loss: float
    clean: float
    robust: float


class Trigger(NamedTuple):
    """A trigger and the image it was made from, uint8 [C, H, W]; true class, keyed label, the model's answer."""

    base: NDArray[np.uint8]
    trigger: NDArray[np.uint8]
    true: int
    label: int
    answer: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Everything a page is made of."""

    source: Source
    cells: tuple[Result, ...]
    seconds: float
    curves: dict[str, Curve]
    training: tuple[Epoch, ...]
    triggers: tuple[Trigger, ...]


def read_findings(folder: Path) -> Findings:
    """Read a demo's `summary.json`, else a grid's `cells.jsonl`, else a run's `record.json`, and what goes with it.

    Raises:
        StoreError: none of them is there, or a file is broken.
    """
    source, cells, seconds = _records(folder)
    curves, training, triggers = _details(folder / "details.json")
    if source == "run":
        curve, metrics = folder / "curve.json", folder / "metrics.jsonl"
        if curve.is_file():
            curves |= {cells[0].suspect: _curve(read_json(curve), str(curve))}
        if metrics.is_file():
            training = _epochs(lines(metrics), str(metrics))
    return Findings(source=source, cells=cells, seconds=seconds, curves=curves, training=training, triggers=triggers)


def read_runs(folders: Sequence[Path]) -> list[tuple[Result, ...]]:
    """Return the cells of several runs of one grid.

    Raises:
        StoreError: a folder holds no grid, a broken one, one on other axes than the first, or cells of another run.
    """
    found = [read_findings(folder) for folder in folders]
    axes = sorted(found[0].cells[0].axes)
    counted: set[str] = set()
    for folder, findings in zip(folders, found, strict=True):
        if findings.source != "grid" or not axes or sorted(findings.cells[0].axes) != axes:
            raise StoreError(f"{folder}: holds no run of the grid in {folders[0]}; runs of one grid count together")
        measured = {record_digest(cell) for cell in findings.cells}
        if twice := len(counted & measured):
            raise StoreError(f"{folder}: {twice} of its cells are those of another run; a measurement counts once")
        counted |= measured
    return [findings.cells for findings in found]


def _records(folder: Path) -> tuple[Source, tuple[Result, ...], float]:
    """Return what kind of folder it is, its cells, and how many seconds they took in all."""
    summary, grid, run = folder / "summary.json", folder / "cells.jsonl", folder / "record.json"
    if summary.is_file():
        plain = mapping(read_json(summary), str(summary))
        if plain.get("schema") != SCHEMA:
            raise StoreError(f"{summary}: schema {plain.get('schema')!r}; this version reads schema {SCHEMA}")
        items = array(plain.get("cells"), f"{summary}: cells")
        cells = tuple(_cell(item, f"{summary}, cell {place}") for place, item in enumerate(items, 1))
        return "demo", _some(cells, summary), number(plain.get("seconds"), f"{summary}: seconds")
    if grid.is_file():
        places = ((line, f"{grid}, line {place}") for place, line in enumerate(lines(grid), 1))
        cells = _some(tuple(_cell(parsed(line, where), where) for line, where in places), grid)
        _axes(cells, grid)
        return "grid", cells, sum(cell.seconds for cell in cells)
    if run.is_file():
        cell = _cell(read_json(run), str(run))
        return "run", (cell,), cell.seconds
    raise StoreError(
        f"{folder}: nothing to report: there is neither summary.json (a demo), cells.jsonl (a grid) "
        "nor record.json (a run) in it"
    )


def _cell(plain: Any, where: str) -> Result:
    """Return a cell whose every field is of the kind that it should be."""
    try:
        cell = from_json(mapping(plain, where))
    except (AttributeError, TypeError, ValueError) as error:
        raise StoreError(f"{where}: is not a record ({error})") from error
    _fields(cell, where, numbers=("seconds", "seed"), texts=("data", "suspect", "kind"))
    known = [name for name in ("clean", "bits", "bar", "queries", "agreement") if getattr(cell, name) is not None]
    named = [name for name in ("theft", "access", "verdict", "digest", "error") if getattr(cell, name) is not None]
    _fields(cell, where, numbers=known, texts=named)
    for record in (*([] if cell.robust is None else [cell.robust]), *cell.also):
        _fields(record, f"{where}: robust", numbers=("eps", "n", "accuracy"), texts=("attack", "norm"))
    if cell.price is not None:
        priced = [name for name in ("clean", "robust") if getattr(cell.price, name) is not None]
        _fields(cell.price, f"{where}: price", numbers=priced, texts=())
    for item in cell.evidence:
        _fields(item, f"{where}: evidence", numbers=("bits", "queries", "statistic"), texts=("mark", "p"))
    for axis, name in mapping(cell.axes, f"{where}: axes").items():
        text(name, f"{where}: axes: {axis}")
    return cell


def _axes(cells: tuple[Result, ...], path: Path) -> None:
    """Refuse a grid of whose cells some say where they stand and others do not, or not on the same axes."""
    known = set().union(*(cell.axes for cell in cells))
    if not known:
        return
    wanted = sorted(known.union(AXES))
    for place, cell in enumerate(cells, 1):
        if sorted(cell.axes) != wanted:
            missing = ", ".join(axis for axis in wanted if axis not in cell.axes)
            raise StoreError(f"{path}, cell {place}: axes lack {missing}; every cell of a grid has {', '.join(wanted)}")


def _fields(record: object, where: str, *, numbers: Iterable[str], texts: Iterable[str]) -> None:
    for name in numbers:
        number(getattr(record, name), f"{where}: {name}")
    for name in texts:
        text(getattr(record, name), f"{where}: {name}")


def _details(path: Path) -> tuple[dict[str, Curve], tuple[Epoch, ...], tuple[Trigger, ...]]:
    """Return curves, training and triggers; a demo writes them, other folders have none."""
    if not path.is_file():
        return {}, (), ()
    plain = mapping(read_json(path), str(path))
    curves = mapping(plain.get("curves", {}), f"{path}: curves")
    epochs = array(plain.get("training", []), f"{path}: training")
    triggers = array(plain.get("triggers", []), f"{path}: triggers")
    return (
        {name: _curve(value, f"{path}: curve of {name}") for name, value in curves.items()},
        _epochs([text(line, f"{path}: training") for line in epochs], f"{path}: training"),
        tuple(_trigger(value, f"{path}: trigger {place}") for place, value in enumerate(triggers, 1)),
    )


def _curve(plain: Any, where: str) -> Curve:
    values = mapping(plain, where)
    eps, accuracy = (
        tuple(number(item, f"{where}: {name}") for item in array(values.get(name), f"{where}: {name}"))
        for name in Curve._fields
    )
    if not eps or len(eps) != len(accuracy):
        raise StoreError(f"{where}: {len(eps)} values of eps and {len(accuracy)} of accuracy; should be as many")
    return Curve(eps, accuracy)


def _epochs(texts: Iterable[str], where: str) -> tuple[Epoch, ...]:
    epochs = []
    for count, line in enumerate(texts, 1):
        place = f"{where}, line {count}"
        values = mapping(parsed(line, place), place)
        figures = (number(values.get(name), f"{place}: {name}") for name in ("loss", "clean", "robust"))
        epochs.append(Epoch(integer(values.get("epoch"), f"{place}: epoch"), *figures))
    return tuple(epochs)


def _trigger(plain: Any, where: str) -> Trigger:
    values = mapping(plain, where)
    base, trigger = (pixels(values.get(name), f"{where}: {name}") for name in ("base", "trigger"))
    if base.shape != trigger.shape:
        raise StoreError(f"{where}: base is {base.shape} and trigger {trigger.shape}; should be alike")
    classes = (integer(values.get(name), f"{where}: {name}") for name in ("true", "label", "answer"))
    return Trigger(base, trigger, *classes)


def _some(cells: tuple[Result, ...], path: Path) -> tuple[Result, ...]:
    if not cells:
        raise StoreError(f"{path}: holds no records yet")
    return cells
