"""What the settings of every theft share: the thief's data and the thief's network."""

from __future__ import annotations

from dataclasses import dataclass

from wootz.attacks.adversary import AttackDataConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Thief(AttackDataConfig):
    """Who steals.

    Attributes:
        model: the thief's architecture: the `same` as the victim's, an `other` one, or a name of `MODELS`.
    """

    model: str = "same"
