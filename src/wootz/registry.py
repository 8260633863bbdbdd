"""Look up names in tables of components; errors suggest the nearest name."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import TypeVar

from wootz.errors import ConfigError

Row = TypeVar("Row")


def nearest(name: str, names: Collection[str]) -> str:
    """Return a hint for an error message: the most similar of the valid names, if any is close, and all of them."""
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    guess = f"did you mean {close[0]!r}? " if close else ""
    return f"{guess}known: {', '.join(names)}"


def lookup(table: Mapping[str, Row], name: str, what: str) -> Row:
    """Return the row `name` of a table.

    Args:
        table: the table.
        name: the name of the row.
        what: the kind of the rows for the error message, such as "attack" or "mark".

    Raises:
        ConfigError: the table has no such row.
    """
    if name not in table:
        raise ConfigError(f"unknown {what} {name!r}: {nearest(name, table)}")
    return table[name]
