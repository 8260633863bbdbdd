"""What an attacker brings along: data, networks, compute, a folder, and no key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from wootz import checks
from wootz.data import Split
from wootz.rng import generator
from wootz.training import Execution
from wootz.types import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackDataConfig:
    """Which data the attacker has; the settings of attacks that use data build on it.

    Attributes:
        data: images of the same kind that the owner never used (`thief`), the owner's training images (`owner`),
            or another data set of the same shape (`other`).
        images: how many of them; None means all.
    """

    data: Literal["thief", "owner", "other"] = "thief"
    images: int | None = None

    def __post_init__(self) -> None:
        if self.images is not None:
            checks.at_least(20, images=self.images)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackContext:
    """All an attack may use beside its target.

    Attributes:
        data: the attacker's images with their true labels (which extraction ignores unless it says otherwise).
        fresh: name -> a new network of the attacker's architecture, initialized by that name; equal names, equal nets.
        eps: the budget that robustness is customarily reported at for these data, in pixels of [0, 1]; public.
        seed: of all the attack's randomness.
        execution: device, precision.
        folder: where a long attempt keeps its checkpoints; None keeps none.
        progress: told what is going on.
    """

    data: Split
    fresh: Callable[[str], nn.Module]
    eps: float
    seed: int = 0
    execution: Execution = field(default_factory=Execution)
    folder: Path | None = None
    progress: Progress = lambda *_: None

    def generator(self, *path: str | int, device: torch.device | str = "cpu") -> torch.Generator:
        """Return this attempt's generator for a path on `device`: a pure function of seed and path."""
        return generator(self.seed, *path, device=device)
