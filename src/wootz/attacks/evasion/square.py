"""Square attack (Andriushchenko et al., arXiv 1912.00049): random search with squares, from scores."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from wootz import checks
from wootz.attacks.evasion.answers import asking, scores_of
from wootz.attacks.evasion.objectives import margin
from wootz.attacks.evasion.squares import SQUARES, Draw, random_signs
from wootz.types import Norm, Predict

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""After which of 10,000 queries the authors' code halves the share of pixels; other budgets are scaled to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Square:
    """How to search.

    Attributes:
        eps: radius of the ball, in pixels of [0, 1]; 0 gives the images back.
        norm: the ball's norm.
        queries: how often the target is asked about an image, at most.
        p_init: share of the pixels that the first squares cover, 0 to 1.
        stop: let an image leave as soon as it is misclassified.
    """

    eps: float
    norm: Norm = "Linf"
    queries: int = 5000
    p_init: float = 0.8
    stop: bool = True

    def __post_init__(self) -> None:
        checks.not_negative(eps=self.eps)
        checks.one_of(("Linf", "L2"), norm=self.norm)
        checks.at_least(1, queries=self.queries)
        checks.within(0, 1, p_init=self.p_init)


def square(cfg: Square, predict: Predict, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
    """Return images in the ball around `x` with the highest margin that was met.

    All images of a batch try the same squares, so what is found for one does not depend on the others.

    Args:
        cfg: how to search.
        predict: images in [0, 1] -> scores [N, K]; a module is borrowed in eval mode.
        x: images float32 [N, C, H, W] in [0, 1].
        y: true labels int64 [N].
        generator: for places and signs, on the device of `x`.

    Returns:
        Images [N, C, H, W] in [0, 1], none further than `eps` from `x` (up to float rounding).
    """
    if cfg.eps == 0 or len(x) == 0:
        return x.clone()
    norm = SQUARES[cfg.norm]
    points = norm.start(x, cfg.eps, generator)
    places = torch.rand(cfg.queries - 1, 5, generator=generator, device=x.device).tolist()
    with asking(predict):
        value = margin(scores_of(predict(points)), y)
        for query, place in enumerate(places, 1):
            draw = Draw(side(cfg, query, x), place, random_signs((x.shape[1], 1, 1), generator))
            rows = ((value <= 0) | (not cfg.stop)).nonzero().squeeze(1)
            if len(rows) == 0:
                break
            candidate = norm.change(points[rows], x[rows], cfg.eps, draw)
            reached = margin(scores_of(predict(candidate)), y[rows])
            better = reached > value[rows]
            points[rows[better]], value[rows[better]] = candidate[better], reached[better]
    return points


def side(cfg: Square, query: int, x: Tensor) -> int:
    """Return the side of the square to try at a query, counted from 0, in pixels."""
    share = cfg.p_init / 2 ** sum(query * 10_000 > count * cfg.queries for count in _HALVINGS)
    height, width = x.shape[2:]
    return min(max(round(math.sqrt(share * height * width)), SQUARES[cfg.norm].smallest), height, width)
