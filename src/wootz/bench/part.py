"""A part of a grid: its cells at some names along its axes."""

from __future__ import annotations

from collections.abc import Sequence

from wootz.bench.plan import Place
from wootz.errors import ConfigError
from wootz.registry import lookup


def part_of(places: Sequence[Place], only: Sequence[str]) -> tuple[Place, ...]:
    """Return those cells of a grid that stand at all the names given, in the grid's order.

    Args:
        places: of the grid.
        only: `axis=name` or `axis=name,name` each, of the grid's own axes and names.

    Raises:
        ConfigError: no such axis, no such name along it, or no cell at all of them together.
    """
    kept = tuple(places)
    for words in only:
        axis, _, names = words.partition("=")
        lookup(places[0].names, axis, "axis in `only`")
        wanted, known = names.split(","), dict.fromkeys(place.names[axis] for place in places)
        for name in wanted:
            lookup(known, name, f"{axis} in `only`")
        kept = tuple(place for place in kept if place.names[axis] in wanted)
    if not kept:
        raise ConfigError(f"`only` {' '.join(only)}: the grid has no cell there; leave one of them out")
    return kept
