"""Checks of settings, given by keyword so that the message can name them, and budgets in whole gray levels."""

from __future__ import annotations

import math
import os
from collections.abc import Collection

from wootz.errors import ConfigError
from wootz.registry import nearest

MAX_GRAY = 255
"""The largest gray level of an 8-bit image."""


def gray_levels(eps: float) -> int:
    """Return the number of whole gray levels within a budget `eps` in [0, 1]."""
    return math.floor(round(eps * MAX_GRAY, 6))


def total_memory() -> int:
    """Return the bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def positive(**values: float) -> None:
    """Raise ConfigError unless every value is finite and above zero."""
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{name} = {value!r}: must be above 0")


def not_negative(**values: float) -> None:
    """Raise ConfigError unless every value is finite and at least zero."""
    for name, value in values.items():
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"{name} = {value!r}: must be 0 or above")


def inside(low: float, high: float, /, **values: float) -> None:
    """Raise ConfigError unless every value lies in the open interval (low, high)."""
    for name, value in values.items():
        if not (math.isfinite(value) and low < value < high):
            raise ConfigError(f"{name} = {value!r}: must be between {low:g} and {high:g}, both excluded")


def within(low: float, high: float, /, **values: float) -> None:
    """Raise ConfigError unless every value lies in the closed interval [low, high]."""
    for name, value in values.items():
        if not (math.isfinite(value) and low <= value <= high):
            raise ConfigError(f"{name} = {value!r}: must be from {low:g} to {high:g}")


def at_least(low: int, /, **values: int) -> None:
    """Raise ConfigError unless every value is at least `low`."""
    for name, value in values.items():
        if value < low:
            raise ConfigError(f"{name} = {value!r}: must be at least {low}")


def one_of(choices: Collection[str], /, **values: str) -> None:
    """Raise ConfigError, which suggests the nearest choice, unless every value is one of the choices."""
    for name, value in values.items():
        if value not in choices:
            raise ConfigError(f"{name} = {value!r}: {nearest(value, choices)}")
