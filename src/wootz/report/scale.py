"""The color of a number of bits: one scale for a light page and one for a dark page, both readable."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb

SATURATION = 120.0
"""Bits from which all cells look alike."""

_LIGHT = ("#f1f4f4", "#dbe8e9", "#b4d5d8", "#7fb8c4", "#4793ab", "#236d8e", "#124a6c", "#0b2f4d")
_DARK = ("#232c34", "#24404c", "#235766", "#23707d", "#318c93", "#55aba6", "#86cbb9", "#c2ead0")

_SCALES: Mapping[str, LinearSegmentedColormap] = MappingProxyType(
    {
        "light": LinearSegmentedColormap.from_list("light", _LIGHT),
        "dark": LinearSegmentedColormap.from_list("dark", _DARK),
    }
)
"""One hue, lightness falling (light page) or rising (dark page) all the way: safe for every kind of color vision."""


def colors(bits: float, page: str) -> tuple[str, str]:
    """Return background and text color for a cell; the text has a contrast of at least 4.5 to 1."""
    back = to_hex(_SCALES[page](min(max(bits / SATURATION, 0.0), 1.0)))
    return back, max(("#000000", "#ffffff"), key=lambda ink: contrast(ink, back))


def style(bits: float) -> str:
    """Return the colors of a cell as CSS variables, for both pages."""
    (back, ink), (back_dark, ink_dark) = colors(bits, "light"), colors(bits, "dark")
    return f"--back:{back};--ink:{ink};--back-dark:{back_dark};--ink-dark:{ink_dark}"


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colors, 1 to 21 (WCAG 2.2)."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(color: str) -> float:
    linear = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color))
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
