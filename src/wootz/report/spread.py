"""Values over seeds: mean and range, and how many of them reach a bar."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Spread(NamedTuple):
    """Mean, least and most of `n` values, `reaching` of which reach the bar (none where there is no bar)."""

    mean: float
    least: float
    most: float
    n: int
    reaching: int = 0


def spread(values: Sequence[float], bar: float | None = None) -> Spread | None:
    """Return the spread of values, None of none; the mean does not depend on their order."""
    if not values:
        return None
    reaching = 0 if bar is None else sum(value >= bar for value in values)
    return Spread(math.fsum(values) / len(values), min(values), max(values), len(values), reaching)
