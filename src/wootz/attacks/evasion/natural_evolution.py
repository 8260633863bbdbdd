"""Natural evolution strategies (Ilyas et al., arXiv 1804.08598): PGD with gradients estimated from scores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wootz import checks
from wootz.attacks.evasion.balls import BALLS, check_ball
from wootz.attacks.evasion.black_box import QueryCounter, estimate_gradient, margins_of, query_mode
from wootz.types import Norm, Predict


@dataclass(frozen=True, slots=True, kw_only=True)
class NES:
    """Budget and step sizes.

    Attributes:
        eps: the radius of the ball, in pixels of [0, 1]; 0 returns the images unchanged.
        norm: the norm of the ball.
        queries: the largest number of queries per image; a step costs one more than `samples`.
        samples: the number of queries per gradient estimate; half of them mirror the other half.
        sigma: the standard deviation of the samples, in pixels of [0, 1].
        step_size: the length of a step; None means eps / 5, the paper's 0.01 for its eps of 0.05.
        stop: whether the search for an image stops once it is misclassified.
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
    """Return images in the ball around `x` with the largest margin found.

    The objective is the margin of the scores, which is equal for logits and log-probabilities, rather than the paper's
    probability of a class. All images of a batch use the same directions, so the result for one image does not depend
    on the others.

    Args:
        cfg: the budget and the step sizes.
        predict: images in [0, 1] -> scores [N, K]; a module is used in eval mode and restored.
        x: images float32 [N, C, H, W] in [0, 1].
        y: true labels int64 [N].
        generator: the generator of the samples, on the device of `x`.

    Returns:
        Images [N, C, H, W] in [0, 1], none farther than `eps` from `x` (up to float rounding).

    Raises:
        ModelError: `predict` returns labels.
    """
    check_ball(x, cfg.eps, cfg.norm)
    if cfg.eps == 0 or len(x) == 0:
        return x.clone()
    ball, size = BALLS[cfg.norm], cfg.step_size or cfg.eps / 5
    point, best, pairs = x.clone(), x.clone(), cfg.samples // 2
    with query_mode(predict, len(x)) as ask:
        value = margins_of(ask(x), y)
        for _ in range((cfg.queries - 1) // (2 * pairs + 1)):
            noise = torch.randn(pairs, *x.shape[1:], generator=generator, device=x.device)
            rows = ((value <= 0) | (not cfg.stop)).nonzero().squeeze(1)
            if len(rows) == 0:
                break
            directions = cfg.sigma * torch.cat([noise, -noise])
            gradient = _margin_gradient(ask, rows, point[rows], y[rows], directions)
            candidate = ball.project(ball.step(point[rows], gradient, size), x[rows], cfg.eps)
            new_value = margins_of(ask(candidate, rows), y[rows])
            better = new_value > value[rows]
            point[rows], best[rows[better]], value[rows[better]] = candidate, candidate[better], new_value[better]
    return best


def _margin_gradient(ask: QueryCounter, rows: Tensor, point: Tensor, y: Tensor, directions: Tensor) -> Tensor:
    def value(images: Tensor) -> Tensor:
        count = len(images) // len(y)
        return margins_of(ask(images, rows.repeat_interleave(count)), y.repeat_interleave(count))

    return estimate_gradient(value, point, directions, torch.ones_like(point[:, 0, 0, 0]))
