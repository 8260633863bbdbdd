"""What `wootz bench` says of a grid as a whole: `bench.json` beside the cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wootz.errors import StoreError
from wootz.records import SCHEMA
from wootz.report.fields import mapping, number, text
from wootz.store import read_json

AXES = ("data", "model", "loss", "mark", "theft", "access")
"""Axes that every cell of a grid has; a grid may have more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """How a grid was run, as far as it is known: `seconds` of wall time, `work` the sum over its cells."""

    name: str | None = None
    command: str | None = None
    date: str | None = None
    seconds: float | None = None
    work: float | None = None
    hardware: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


def read_bench(folder: Path) -> Bench:
    """Read `bench.json`; a folder without one says nothing.

    Raises:
        StoreError: the file is broken.
    """
    path = folder / "bench.json"
    if not path.is_file():
        return Bench()
    plain = mapping(read_json(path), str(path))
    if plain.get("schema") != SCHEMA:
        raise StoreError(f"{path}: schema {plain.get('schema')!r}; this version reads schema {SCHEMA}")
    name, command, date = (
        None if plain.get(key) is None else text(plain[key], f"{path}: {key}") for key in ("name", "command", "date")
    )
    seconds, work = (
        None if plain.get(key) is None else number(plain[key], f"{path}: {key}") for key in ("seconds", "work")
    )
    hardware, versions = (_texts(plain.get(key, {}), f"{path}: {key}") for key in ("hardware", "versions"))
    return Bench(
        name=name, command=command, date=date, seconds=seconds, work=work, hardware=hardware, versions=versions
    )


def _texts(value: Any, where: str) -> dict[str, str]:
    return {name: text(item, f"{where}: {name}") for name, item in mapping(value, where).items()}
