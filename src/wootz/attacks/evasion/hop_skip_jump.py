"""HopSkipJump (Chen, Jordan, Wainwright, arXiv 1904.02144): a decision-based attack that follows the boundary."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor

from wootz import checks
from wootz.attacks.evasion.balls import BALLS, Ball, check_images
from wootz.attacks.evasion.black_box import QueryCounter, estimate_gradient, misclassified, query_mode
from wootz.types import Norm, Predict


@dataclass(frozen=True, slots=True, kw_only=True)
class HopSkipJump:
    """Settings of the attack.

    Attributes:
        eps: the radius of the ball, in pixels of [0, 1]; 0 returns the images unchanged.
        norm: the norm of the ball.
        queries: the largest number of queries per image; an iteration that might exceed it is not started.
        directions: the number of queries of the first gradient estimate; iteration t uses sqrt(t) times as many.
        starts: the largest number of noise images to try as a start.
        stop: whether an image stops once a misclassified point lies in the ball.
    """

    eps: float
    norm: Norm = "Linf"
    queries: int = 5000
    directions: int = 100
    starts: int = 100
    stop: bool = True

    def __post_init__(self) -> None:
        checks.not_negative(eps=self.eps)
        checks.one_of(("Linf", "L2"), norm=self.norm)
        checks.at_least(1, queries=self.queries, directions=self.directions, starts=self.starts)


def hop_skip_jump(cfg: HopSkipJump, predict: Predict, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
    """Return the nearest misclassified points found.

    All images of a batch share noise and directions, so the result for one image does not depend on the others.

    Args:
        cfg: the settings.
        predict: images in [0, 1] -> labels int64 [N], or scores [N, K]; a module is used in eval mode and restored.
        x: images float32 [N, C, H, W] in [0, 1].
        y: true labels int64 [N].
        generator: the generator of noise and directions, on the device of `x`.

    Returns:
        Images [N, C, H, W] in [0, 1]; `x` itself if no misclassified point was found within `eps`. Points lie on the
        boundary up to float precision: if the target rounds differently in another batch, a few in a hundred may be
        classified correctly there.
    """
    check_images(x)
    if cfg.eps == 0 or len(x) == 0:
        return x.clone()
    with query_mode(predict, len(x)) as ask:
        search = _Search(cfg, ask, x, y)
        point, distance = search.start(generator)
        nearest = point.clone()
        for number in count(1):
            size = int(cfg.directions * math.sqrt(number))
            active = distance.isfinite() & (distance > (cfg.eps if cfg.stop else 0))
            rows = (active & (search.queries_left >= size + 2 * search.halvings)).nonzero().squeeze(1)
            if len(rows) == 0:
                break
            directions = torch.randn(size, *x.shape[1:], generator=generator, device=x.device)
            directions /= BALLS["L2"].length(directions).view(-1, 1, 1, 1)
            candidate = search.jump(rows, point[rows], directions, 1 / math.sqrt(number))
            candidate = search.bisect(rows, candidate, search.ball)
            length = search.ball.length(candidate - x[rows])
            nearer = length < distance[rows]
            point[rows], nearest[rows[nearer]], distance[rows[nearer]] = candidate, candidate[nearer], length[nearer]
    return torch.where((distance <= cfg.eps).view(-1, 1, 1, 1), nearest, x)


class _Search:
    """The moves along the boundary, within the number of queries of each image."""

    def __init__(self, cfg: HopSkipJump, ask: QueryCounter, x: Tensor, y: Tensor) -> None:
        self.ball = BALLS[cfg.norm]
        finest = math.log2(x[0].numel()) * (2 if cfg.norm == "Linf" else 1.5)  # the paper's d^-2 and d^-1.5
        self.halvings = min(math.ceil(finest), 18)  # the precision of float32
        self._cfg, self._ask, self._x, self._y = cfg, ask, x, y

    @property
    def queries_left(self) -> Tensor:
        """The number of queries left for each image."""
        return (self._cfg.queries - self._ask.spent).to(self._y.device)

    def start(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return a misclassified point per image and its distance: 0 for `x` itself, infinite if none was found."""
        x, point = self._x, self._x.clone()
        wrong = self._misclassified(torch.arange(len(x), device=x.device), x)
        started = wrong.clone()
        for noise in torch.rand(self._cfg.starts, *x.shape[1:], generator=generator, device=x.device):
            rows = (~started & (self.queries_left > self.halvings)).nonzero().squeeze(1)
            if len(rows) == 0:
                break
            rows = rows[self._misclassified(rows, noise.expand(len(rows), -1, -1, -1))]
            point[rows], started[rows] = noise, True
        rows = (started & ~wrong).nonzero().squeeze(1)
        if len(rows) > 0:
            point[rows] = self.bisect(rows, point[rows], BALLS["L2"])
        return point, self.ball.length(point - x).masked_fill(~started, math.inf)

    def jump(self, rows: Tensor, point: Tensor, directions: Tensor, scale: float) -> Tensor:
        """Step from the boundary along the estimated gradient.

        The first step is `scale` times the distance to the image; it is halved until the point is misclassified.
        """

        def wrong(images: Tensor) -> Tensor:
            return self._misclassified(rows.repeat_interleave(len(images) // len(rows)), images).float()

        distance = self.ball.length(point - self._x[rows])
        gradient = estimate_gradient(wrong, point, directions, distance / self._x[0].numel())
        step = self.ball.step(torch.zeros_like(point), gradient, scale * distance.view(-1, 1, 1, 1))
        moved, pending = point.clone(), torch.arange(len(rows), device=rows.device)
        for _ in range(self.halvings):
            if len(pending) == 0:
                break
            candidate = (point[pending] + step[pending]).clamp_(0, 1)
            misclassified = self._misclassified(rows[pending], candidate)
            moved[pending[misclassified]] = candidate[misclassified]
            pending, step = pending[~misclassified], step / 2
        return moved

    def bisect(self, rows: Tensor, point: Tensor, ball: Ball) -> Tensor:
        """Return points on the boundary, by bisection of the radius between images and misclassified points."""
        x = self._x[rows]
        low, high = torch.zeros_like(x[:, 0, 0, 0]), ball.length(point - x)
        for _ in range(self.halvings):
            middle = (low + high) / 2
            candidate = ball.project(point, x, middle)
            misclassified = self._misclassified(rows, candidate)
            point = torch.where(misclassified.view(-1, 1, 1, 1), candidate, point)
            low, high = torch.where(misclassified, low, middle), torch.where(misclassified, middle, high)
        return point

    def _misclassified(self, rows: Tensor, images: Tensor) -> Tensor:
        """Query images [M, C, H, W] that belong to `rows` [M], which may repeat; return which are misclassified."""
        return misclassified(self._ask(images, rows), self._y[rows])
