"""What the settings of every theft share: the thief's data and the thief's network."""

from __future__ import annotations

from dataclasses import dataclass

from wootz.adversary import Outfit


@dataclass(frozen=True, slots=True, kw_only=True)
class Thief(Outfit):
    """Who steals.

    Attributes:
        model: the thief's architecture: the `same` as the victim's, an `other` one, or a name of `MODELS`.
    """

    model: str = "same"
