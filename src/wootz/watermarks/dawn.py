"""Baseline mark `dawn` (Szyller et al., arXiv 1906.00830): answers are changed for a keyed share of the exact queries.

The mark `guard` descends from it. Here nothing is preferred and nothing is near: whether a query's answer is changed,
and to which of the wrong classes, follows from a keyed function of its pixels. Of the paper we leave out the learned
embedding that gives similar queries one fate, and two scores are swapped where the paper shuffles them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch

from wootz import checks
from wootz.errors import ConfigError
from wootz.keys import RegisteredMaterial
from wootz.watermarks.context import MarkContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Dawn:
    """Share of all answers that are changed; the paper changes less than 0.5%."""

    share: float = 0.005

    def __post_init__(self) -> None:
        checks.inside(0, 0.5, share=self.share)


def prepare(cfg: Dawn, context: MarkContext, generator: torch.Generator) -> RegisteredMaterial:
    """Fix what is public: the share of all answers, and that queries are told apart by every pixel.

    Raises:
        ConfigError: two classes leave no choice of what to change an answer to.
    """
    if len(context.data.classes) == 2:
        raise ConfigError("dawn: needs at least three classes; with two, whoever is wrong is wrong in the same way")
    return RegisteredMaterial("answers", {}, {"share": str(Fraction(str(cfg.share))), "digest": "exact"})
