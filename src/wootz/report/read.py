"""Read a folder of records and check every value, so that a broken file is a StoreError and nothing later fails."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from wootz.errors import StoreError
from wootz.records import AXES, GRID_METADATA_FILE, RESULTS_FILE, SCHEMA, Result, from_json, to_json
from wootz.store import canonical, parse_json, read_bytes, read_json, sha256

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
    """The records of a folder.

    Attributes:
        source: What wrote the folder: a demo, a grid, or a single run.
        results: The results in the order of the file; at least one.
        seconds: The wall time of everything.
        curves: Robust accuracy against eps, by suspect.
        training: Figures per epoch of the protected model's training.
        triggers: Triggers that a demo shows.
    """

    source: Source
    results: tuple[Result, ...]
    seconds: float
    curves: dict[str, Curve]
    training: tuple[Epoch, ...]
    triggers: tuple[Trigger, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GridMetadata:
    """How a grid was run; None is what is not known.

    Attributes:
        name: The name of the grid.
        command: The command that ran it.
        date: The date of the run.
        seconds: Wall time.
        job_seconds: The sum of the wall times of its jobs.
        hardware: The hardware, by name.
        versions: Versions of packages, by name.
    """

    name: str | None = None
    command: str | None = None
    date: str | None = None
    seconds: float | None = None
    job_seconds: float | None = None
    hardware: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


def read_findings(folder: Path) -> Findings:
    """Read the records of a folder.

    Results come from a demo's `summary.json`, else from a grid's `cells.jsonl`, else from a run's `record.json`.

    Raises:
        StoreError: None of these files exists, or a file is broken.
    """
    source, results, seconds = _records(folder)
    curves, training, triggers = _details(folder / "details.json")
    if source == "run":
        curve, metrics = folder / "curve.json", folder / "metrics.jsonl"
        if curve.is_file():
            curves |= {results[0].suspect: _curve(read_json(curve), str(curve))}
        if metrics.is_file():
            training = _epochs(_lines(metrics), str(metrics))
    return Findings(
        source=source, results=results, seconds=seconds, curves=curves, training=training, triggers=triggers
    )


def read_runs(folders: Sequence[Path]) -> list[tuple[Result, ...]]:
    """Return the results of several runs of one grid.

    Raises:
        StoreError: A folder holds no grid, a broken one, one with other axes than the first, or results of another run.
    """
    runs = [read_findings(folder) for folder in folders]
    axes = sorted(runs[0].results[0].axes)
    counted: set[str] = set()
    for folder, findings in zip(folders, runs, strict=True):
        if findings.source != "grid" or not axes or sorted(findings.results[0].axes) != axes:
            raise StoreError(f"{folder}: holds no run of the grid in {folders[0]}; runs of one grid count together")
        measured = {record_digest(result) for result in findings.results}
        if repeated := len(counted & measured):
            raise StoreError(f"{folder}: {repeated} of its cells are those of another run; a measurement counts once")
        counted |= measured
    return [findings.results for findings in runs]


def record_digest(result: Result) -> str:
    """Return the digest of a whole result; a repeated measurement has another digest."""
    return sha256(canonical(to_json(result)))


def read_grid_metadata(folder: Path) -> GridMetadata:
    """Read `bench.json`; without the file, nothing is known.

    Raises:
        StoreError: The file is broken.
    """
    path = folder / GRID_METADATA_FILE
    if not path.is_file():
        return GridMetadata()
    plain = _object(read_json(path), str(path))
    if plain.get("schema") != SCHEMA:
        raise StoreError(f"{path}: schema {plain.get('schema')!r}; this version reads schema {SCHEMA}")
    name, command, date = (
        None if plain.get(key) is None else _text(plain[key], f"{path}: {key}") for key in ("name", "command", "date")
    )
    seconds, job_seconds = (
        None if plain.get(key) is None else _number(plain[key], f"{path}: {key}") for key in ("seconds", "work")
    )
    hardware, versions = (_texts(plain.get(key, {}), f"{path}: {key}") for key in ("hardware", "versions"))
    return GridMetadata(
        name=name,
        command=command,
        date=date,
        seconds=seconds,
        job_seconds=job_seconds,
        hardware=hardware,
        versions=versions,
    )


def _texts(value: Any, where: str) -> dict[str, str]:
    return {name: _text(item, f"{where}: {name}") for name, item in _object(value, where).items()}


def _records(folder: Path) -> tuple[Source, tuple[Result, ...], float]:
    """Return what wrote the folder, its results, and the seconds that they took in total."""
    summary, grid, run = folder / "summary.json", folder / RESULTS_FILE, folder / "record.json"
    if summary.is_file():
        plain = _object(read_json(summary), str(summary))
        if plain.get("schema") != SCHEMA:
            raise StoreError(f"{summary}: schema {plain.get('schema')!r}; this version reads schema {SCHEMA}")
        items = _array(plain.get("cells"), f"{summary}: cells")
        results = tuple(from_json(item, f"{summary}, cell {number}") for number, item in enumerate(items, 1))
        return "demo", _not_empty(results, summary), _number(plain.get("seconds"), f"{summary}: seconds")
    if grid.is_file():
        located = ((line, f"{grid}, line {number}") for number, line in enumerate(_lines(grid), 1))
        results = _not_empty(tuple(from_json(parse_json(line, where), where) for line, where in located), grid)
        _check_axes(results, grid)
        return "grid", results, sum(result.seconds for result in results)
    if run.is_file():
        result = from_json(read_json(run), str(run))
        return "run", (result,), result.seconds
    raise StoreError(
        f"{folder}: nothing to report: there is neither summary.json (a demo), cells.jsonl (a grid) "
        "nor record.json (a run) in it"
    )


def _check_axes(results: tuple[Result, ...], path: Path) -> None:
    """Raise StoreError unless all results name the same axes, or none names any."""
    named = set().union(*(result.axes for result in results))
    if not named:
        return
    wanted = sorted(named.union(AXES))
    for number, result in enumerate(results, 1):
        if sorted(result.axes) != wanted:
            missing = ", ".join(axis for axis in wanted if axis not in result.axes)
            raise StoreError(
                f"{path}, cell {number}: axes lack {missing}; every cell of a grid has {', '.join(wanted)}"
            )


def _details(path: Path) -> tuple[dict[str, Curve], tuple[Epoch, ...], tuple[Trigger, ...]]:
    """Return the curves, the training and the triggers that a demo wrote; other folders have none."""
    if not path.is_file():
        return {}, (), ()
    plain = _object(read_json(path), str(path))
    curves = _object(plain.get("curves", {}), f"{path}: curves")
    epochs = _array(plain.get("training", []), f"{path}: training")
    triggers = _array(plain.get("triggers", []), f"{path}: triggers")
    return (
        {name: _curve(value, f"{path}: curve of {name}") for name, value in curves.items()},
        _epochs([_text(line, f"{path}: training") for line in epochs], f"{path}: training"),
        tuple(_trigger(value, f"{path}: trigger {number}") for number, value in enumerate(triggers, 1)),
    )


def _curve(plain: Any, where: str) -> Curve:
    values = _object(plain, where)
    eps, accuracy = (
        tuple(_number(item, f"{where}: {name}") for item in _array(values.get(name), f"{where}: {name}"))
        for name in Curve._fields
    )
    if not eps or len(eps) != len(accuracy):
        raise StoreError(
            f"{where}: {len(eps)} values of eps and {len(accuracy)} of accuracy; the numbers should be equal"
        )
    return Curve(eps, accuracy)


def _epochs(texts: Iterable[str], where: str) -> tuple[Epoch, ...]:
    epochs = []
    for number, line in enumerate(texts, 1):
        at = f"{where}, line {number}"
        values = _object(parse_json(line, at), at)
        figures = (_number(values.get(name), f"{at}: {name}") for name in ("loss", "clean", "robust"))
        epochs.append(Epoch(_integer(values.get("epoch"), f"{at}: epoch"), *figures))
    return tuple(epochs)


def _trigger(plain: Any, where: str) -> Trigger:
    values = _object(plain, where)
    base, trigger = (_pixels(values.get(name), f"{where}: {name}") for name in ("base", "trigger"))
    if base.shape != trigger.shape:
        raise StoreError(f"{where}: base is {base.shape} and trigger {trigger.shape}; should have equal shapes")
    classes = (_integer(values.get(name), f"{where}: {name}") for name in ("true", "label", "answer"))
    return Trigger(base, trigger, *classes)


def _not_empty(results: tuple[Result, ...], path: Path) -> tuple[Result, ...]:
    if not results:
        raise StoreError(f"{path}: holds no records yet")
    return results


def _object(value: Any, where: str) -> dict[str, Any]:
    """Return a JSON object."""
    if not isinstance(value, dict):
        raise StoreError(f"{where}: should be a JSON object")
    return value


def _array(value: Any, where: str) -> list[Any]:
    """Return a JSON array."""
    if not isinstance(value, list):
        raise StoreError(f"{where}: should be a JSON array")
    return value


def _number(value: Any, where: str) -> float:
    """Return a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise StoreError(f"{where} = {value!r} should be a number")
    return value


def _integer(value: Any, where: str) -> int:
    """Return a whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise StoreError(f"{where} = {value!r} should be a whole number")
    return value


def _text(value: Any, where: str) -> str:
    """Return a string."""
    if not isinstance(value, str):
        raise StoreError(f"{where} = {value!r} should be text")
    return value


def _pixels(value: Any, where: str) -> NDArray[np.uint8]:
    """Return an image [C, H, W] of whole gray levels."""
    try:
        image = np.asarray(value)
    except ValueError as error:
        raise StoreError(f"{where}: is not an image ({error})") from error
    whole = image.ndim == 3 and image.size > 0 and image.dtype.kind in "iu"
    if not whole or image.min() < 0 or image.max() > 255:
        raise StoreError(f"{where}: is not an image of whole numbers 0 to 255 in [C][H][W]")
    return image.astype(np.uint8)


def _lines(path: Path) -> list[str]:
    """Return the lines of a text file that are not empty."""
    try:
        return [line for line in read_bytes(path).decode().splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise StoreError(f"{path}: is not text ({error})") from error
