"""Look a name up in one of the tables, with a helpful answer when it is not there."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import TypeVar

from wootz.errors import ConfigError

Row = TypeVar("Row")


def nearest(name: str, known: Collection[str]) -> str:
    """Say which known name is meant, as far as one can tell, and list them all."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    guess = f"did you mean {close[0]!r}? " if close else ""
    return f"{guess}known: {', '.join(known)}"


def lookup(table: Mapping[str, Row], name: str, what: str) -> Row:
    """Return the row called `name`; `what` says in the error what the table holds (an attack, a mark ...)."""
    if name not in table:
        raise ConfigError(f"unknown {what} {name!r}: {nearest(name, table)}")
    return table[name]
