"""Numbers as people read them."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from wootz.records import decimal_p

_DECIMAL = re.compile(r"([0-9.]+)(?:e([+-]?[0-9]+))?", re.IGNORECASE)


class Decimal(NamedTuple):
    """A decimal number as mantissa and power of ten; `exponent` is None where it is written out."""

    mantissa: str
    exponent: int | None = None


def decimal(p: str) -> Decimal:
    """Return '2.5e-126' as mantissa and exponent; whatever is not such a number stays as it is."""
    match = _DECIMAL.fullmatch(p)
    if match is None or match[2] is None:
        return Decimal(p)
    return Decimal(match[1], int(match[2]))


def p_of(bits: float) -> str:
    """Return 2^-bits as a decimal string."""
    return decimal_p(-bits * math.log(2))


def percent(fraction: float) -> str:
    """Return 0.978 as '97.8%'."""
    return f"{fraction:.1%}"


def budget(eps: float) -> str:
    """Return a budget as a short decimal, or as a number of gray levels where that says it better ('8/255')."""
    levels = round(eps * 255)
    return f"{levels}/255" if eps != round(eps, 4) and abs(eps * 255 - levels) < 1e-3 else f"{eps:.4g}"


def duration(seconds: float) -> str:
    """Return 372.4 as '6 min 12 s'."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.0f} s"
