"""Marks `guard` and `dawn`: keyed answers of a served model. The model is trained without them.

The answers are changed by `wootz.watermarks.answer_filter` when the model is served, so that a model extracted from
them learns the choices of the key, even from labels alone.

`guard`: if the model is uncertain, the key decides between its two most likely classes. The idea is that of DAWN. It
differs in three points. The keyed answers are those of which the model is uncertain; an extracted model learns them far
more readily, and since they are often wrong anyway, many of them cost little accuracy. Each is decided by a fair coin,
so that answers that stay the same are as much evidence as those that change. The test is exact.

`dawn`: baseline (Szyller et al., arXiv 1906.00830). Answers are changed for a keyed fraction of the queries; whether
the answer to a query is changed, and to which wrong class, is a keyed function of all its pixels, so that nearby images
are unrelated. Two differences from the paper: the learned embedding that maps similar queries to one decision is left
out, and two scores are swapped where the paper shuffles all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch

from wootz import checks
from wootz.data import Dataset
from wootz.errors import ConfigError
from wootz.keys import Key, RegisteredMaterial
from wootz.training import Hook
from wootz.watermarks.interface import MarkContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """The accuracy that may be spent on keyed answers, and the resolution of image digests.

    Attributes:
        cost: largest loss of clean accuracy, measured on probe images. The answers with the smallest gap between the
            two highest scores are keyed, as many as this allows.
        most: largest fraction of all answers that are keyed.
        grid: an image is summed over grid x grid cells per channel.
        projections: number of sums with keyed signs that make up a digest.
        step: quantization width of a sum, in gray levels times the square root of the number of values in an image. A
            wider step keeps a digest under more noise, and gives more images the same digest.
        margin: gray levels next to black and to white that are merged, so that noise there changes nothing.
    """

    cost: float = 0.005
    most: float = 0.2
    grid: int = 7
    projections: int = 64
    step: int = 1200
    margin: int = 16

    def __post_init__(self) -> None:
        checks.inside(0, 0.5, cost=self.cost)
        checks.inside(0, 1, most=self.most)
        checks.at_least(1, grid=self.grid, projections=self.projections, step=self.step)
        checks.within(0, 100, margin=self.margin)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dawn:
    """The fraction of answers that are changed.

    Attributes:
        share: fraction of all answers; the paper changes less than 0.5%.
    """

    share: float = 0.005

    def __post_init__(self) -> None:
        checks.inside(0, 0.5, share=self.share)


def prepare_guard(cfg: Guard, context: MarkContext, generator: torch.Generator) -> RegisteredMaterial:
    """Return the public parameters of the guard; they depend on neither images nor models."""
    params = {
        "rule": "order",
        "cost": str(Fraction(str(cfg.cost))),
        "most": str(Fraction(str(cfg.most))),
        "grid": cfg.grid,
        "projections": cfg.projections,
        "step": cfg.step,
        "margin": cfg.margin,
    }
    return RegisteredMaterial("answers", {}, params)


def prepare_dawn(cfg: Dawn, context: MarkContext, generator: torch.Generator) -> RegisteredMaterial:
    """Return the public parameters: the fraction of changed answers, and that digests cover every pixel.

    Raises:
        ConfigError: the data set has two classes, which leave no choice of the class to change an answer to.
    """
    if len(context.data.classes) == 2:
        raise ConfigError("mark 'dawn': needs at least three classes; with two, every wrong answer is the same class")
    return RegisteredMaterial("answers", {}, {"share": str(Fraction(str(cfg.share))), "digest": "exact"})


def train_hook(cfg: Guard | Dawn, key: Key, data: Dataset, *, seed: int) -> Hook:
    """Return an empty hook: these marks are in the served answers, not in the weights."""
    return Hook()
