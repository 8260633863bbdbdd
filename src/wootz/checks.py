"""Checks of settings. Values come by keyword, so that the message names them for free."""

from __future__ import annotations

import math
from collections.abc import Collection

from wootz.errors import ConfigError
from wootz.registry import nearest

LEVELS = 255


def levels(budget: float) -> int:
    """Return how many whole gray levels a budget in [0, 1] allows."""
    return math.floor(round(budget * LEVELS, 6))


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
    """Raise ConfigError unless every value is a whole number of at least `low`."""
    for name, value in values.items():
        if value < low:
            raise ConfigError(f"{name} = {value!r}: must be at least {low}")


def one_of(choices: Collection[str], /, **values: str) -> None:
    """Raise ConfigError, with the nearest choice, unless every value is among the choices."""
    for name, value in values.items():
        if value not in choices:
            raise ConfigError(f"{name} = {value!r}: {nearest(value, choices)}")
