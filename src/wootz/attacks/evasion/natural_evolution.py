"""Natural evolution strategies (Ilyas et al., arXiv 1804.08598): PGD on a slope estimated from scores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wootz import checks
from wootz.attacks.evasion.answers import asking, scores_of, slope
from wootz.attacks.evasion.balls import BALLS
from wootz.attacks.evasion.objectives import margin
from wootz.types import Norm, Predict


@dataclass(frozen=True, slots=True, kw_only=True)
class NES:
    """How to climb.

    Attributes:
        eps: radius of the ball, in pixels of [0, 1]; 0 gives the images back.
        norm: the ball's norm.
        queries: how often the target is asked about an image, at most: one more than `samples` a step.
        samples: questions for one slope; half of them mirror the others.
        sigma: standard deviation of the samples, in pixels of [0, 1].
        step_size: length of a step; None means eps / 5, the paper's 0.01 for its eps of 0.05.
        stop: let an image leave as soon as it is misclassified.
    """

    eps: float
    norm: Norm = "Linf"
    queries: int = 10_000
    samples: int = 50
    sigma: float = 0.001
    step_size: float | None = None
    stop: bool = True

    def __post_init__(self) -> None:
        checks.not_negative(eps=self.eps)
        checks.one_of(("Linf", "L2"), norm=self.norm)
        checks.at_least(2, samples=self.samples)
        checks.at_least(self.samples + 2, queries=self.queries)
        checks.positive(sigma=self.sigma)
        if self.step_size is not None:
            checks.positive(step_size=self.step_size)


def nes(cfg: NES, predict: Predict, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
    """Return images in the ball around `x` with the highest margin that was met on the way.

    It climbs the margin of the scores, which logits and log-probabilities share, rather than the paper's
    probability of a class. All images of a batch look in the same directions, so what is found for one does
    not depend on the others.

    Args:
        cfg: how to climb.
        predict: images in [0, 1] -> scores [N, K]; a module is borrowed in eval mode.
        x: images float32 [N, C, H, W] in [0, 1].
        y: true labels int64 [N].
        generator: for the samples, on the device of `x`.

    Returns:
        Images [N, C, H, W] in [0, 1], none further than `eps` from `x` (up to float rounding).
    """
    if cfg.eps == 0 or len(x) == 0:
        return x.clone()
    ball, size = BALLS[cfg.norm], cfg.step_size or cfg.eps / 5
    point, best, pairs = x.clone(), x.clone(), cfg.samples // 2
    with asking(predict):
        value = margin(scores_of(predict(x)), y)
        for _ in range((cfg.queries - 1) // (2 * pairs + 1)):
            noise = torch.randn(pairs, *x.shape[1:], generator=generator, device=x.device)
            rows = ((value <= 0) | (not cfg.stop)).nonzero().squeeze(1)
            if len(rows) == 0:
                break
            gradient = _slope(predict, point[rows], y[rows], cfg.sigma * torch.cat([noise, -noise]))
            here = ball.project(ball.step(point[rows], gradient, size), x[rows], cfg.eps)
            reached = margin(scores_of(predict(here)), y[rows])
            better = reached > value[rows]
            point[rows], best[rows[better]], value[rows[better]] = here, here[better], reached[better]
    return best


def _slope(predict: Predict, point: Tensor, y: Tensor, directions: Tensor) -> Tensor:
    def value(images: Tensor) -> Tensor:
        return margin(scores_of(predict(images)), y.repeat_interleave(len(images) // len(y)))

    return slope(value, point, directions, torch.ones_like(point[:, 0, 0, 0]))
