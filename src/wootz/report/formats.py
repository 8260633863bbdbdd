"""Values as people read them: numbers as text, and bits of evidence as colors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb

from wootz.records import decimal_p

SATURATION_BITS = 120.0
"""Bits from which the color no longer changes."""

_DECIMAL = re.compile(r"([0-9.]+)(?:e([+-]?[0-9]+))?", re.IGNORECASE)

_LIGHT = ("#f1f4f4", "#dbe8e9", "#b4d5d8", "#7fb8c4", "#4793ab", "#236d8e", "#124a6c", "#0b2f4d")
_DARK = ("#232c34", "#24404c", "#235766", "#23707d", "#318c93", "#55aba6", "#86cbb9", "#c2ead0")

_SCALES: Mapping[str, LinearSegmentedColormap] = MappingProxyType(
    {
        "light": LinearSegmentedColormap.from_list("light", _LIGHT),
        "dark": LinearSegmentedColormap.from_list("dark", _DARK),
    }
)
"""Color scales of the light and the dark page. One hue with monotonic lightness, so that color-blind readers see it."""


class Decimal(NamedTuple):
    """A decimal number as mantissa and power of ten; `exponent` is None if the number is written out."""

    mantissa: str
    exponent: int | None = None


def decimal(p: str) -> Decimal:
    """Return '2.5e-126' as mantissa and exponent; text that is no such number becomes the mantissa."""
    match = _DECIMAL.fullmatch(p)
    if match is None or match[2] is None:
        return Decimal(p)
    return Decimal(match[1], int(match[2]))


def p_from_bits(bits: float) -> str:
    """Return 2^-bits as a decimal string."""
    return decimal_p(-bits * math.log(2))


def percent(fraction: float) -> str:
    """Return 0.978 as '97.8%'."""
    return f"{fraction:.1%}"


def format_eps(eps: float) -> str:
    """Return eps as a short decimal, or as a number of gray levels where that is exact ('8/255')."""
    levels = round(eps * 255)
    return f"{levels}/255" if eps != round(eps, 4) and abs(eps * 255 - levels) < 1e-3 else f"{eps:.4g}"


def duration(seconds: float) -> str:
    """Return 372.4 as '6 min 12 s'."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.0f} s"


def colors(bits: float, page: str) -> tuple[str, str]:
    """Return background and text color for a number of bits; their contrast is at least 4.5 to 1.

    Args:
        bits: The bits of evidence.
        page: `light` or `dark`.
    """
    background = to_hex(_SCALES[page](min(max(bits / SATURATION_BITS, 0.0), 1.0)))
    return background, max(("#000000", "#ffffff"), key=lambda ink: contrast(ink, background))


def css_colors(bits: float) -> str:
    """Return the colors for a number of bits as CSS variables, for both pages."""
    (back, ink), (back_dark, ink_dark) = colors(bits, "light"), colors(bits, "dark")
    return f"--back:{back};--ink:{ink};--back-dark:{back_dark};--ink-dark:{ink_dark}"


def contrast(first: str, second: str) -> float:
    """Return the contrast ratio of two colors, 1 to 21 (WCAG 2.2)."""
    low, high = sorted((_luminance(first), _luminance(second)))
    return (high + 0.05) / (low + 0.05)


def _luminance(color: str) -> float:
    linear = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color))
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
