"""HopSkipJump (Chen, Jordan, Wainwright, arXiv 1904.02144): along the boundary towards an image, from labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor

from wootz import checks
from wootz.attacks.evasion.answers import asking, labels_of, slope
from wootz.attacks.evasion.balls import BALLS, Ball
from wootz.types import Norm, Predict


@dataclass(frozen=True, slots=True, kw_only=True)
class HopSkipJump:
    """How to walk.

    Attributes:
        eps: radius of the ball, in pixels of [0, 1]; 0 gives the images back.
        norm: the ball's norm.
        queries: how often the target is asked about an image, at most; a round that might not fit is not begun.
        directions: questions for the first slope; round t asks sqrt(t) times as many.
        starts: noise images to try as a start, at most.
        stop: let an image leave as soon as a misclassified point lies in the ball.
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
    """Return the nearest misclassified images that were met.

    All images of a batch share noise and directions, so what is found for one does not depend on the others.

    Args:
        cfg: how to walk.
        predict: images in [0, 1] -> labels int64 [N], or scores [N, K]; a module is borrowed in eval mode.
        x: images float32 [N, C, H, W] in [0, 1].
        y: true labels int64 [N].
        generator: for noise and directions, on the device of `x`.

    Returns:
        Images [N, C, H, W] in [0, 1]; `x` itself where nothing was met within `eps`. They lie on the boundary
        to float precision: a target that rounds otherwise in another batch may take a few in a hundred back.
    """
    if cfg.eps == 0 or len(x) == 0:
        return x.clone()
    walk = _Walk(cfg, predict, x, y)
    with asking(predict):
        point, distance = walk.start(generator)
        nearest = point.clone()
        for number in count(1):
            size = int(cfg.directions * math.sqrt(number))
            going = distance.isfinite() & (distance > (cfg.eps if cfg.stop else 0))
            rows = (going & (walk.left >= size + 2 * walk.halvings)).nonzero().squeeze(1)
            if len(rows) == 0:
                break
            directions = torch.randn(size, *x.shape[1:], generator=generator, device=x.device)
            directions /= BALLS["L2"].length(directions).view(-1, 1, 1, 1)
            here = walk.jump(rows, point[rows], directions, 1 / math.sqrt(number))
            here = walk.approach(rows, here, walk.ball)
            reached = walk.ball.length(here - x[rows])
            nearer = reached < distance[rows]
            point[rows], nearest[rows[nearer]], distance[rows[nearer]] = here, here[nearer], reached[nearer]
    return torch.where((distance <= cfg.eps).view(-1, 1, 1, 1), nearest, x)


class _Walk:
    """The moves, and how often the target may still be asked about each image."""

    def __init__(self, cfg: HopSkipJump, predict: Predict, x: Tensor, y: Tensor) -> None:
        self.ball = BALLS[cfg.norm]
        self.left = torch.full_like(y, cfg.queries)
        finest = math.log2(x[0].numel()) * (2 if cfg.norm == "Linf" else 1.5)  # the paper's d^-2 and d^-1.5
        self.halvings = min(math.ceil(finest), 18)  # scores in float32 know no finer
        self._cfg, self._predict, self._x, self._y = cfg, predict, x, y

    def start(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return a misclassified point for each image and its distance: 0 for `x` itself, infinite for none."""
        x, point = self._x, self._x.clone()
        wrong = self._fooled(torch.arange(len(x), device=x.device), x)
        met = wrong.clone()
        for noise in torch.rand(self._cfg.starts, *x.shape[1:], generator=generator, device=x.device):
            rows = (~met & (self.left > self.halvings)).nonzero().squeeze(1)
            if len(rows) == 0:
                break
            rows = rows[self._fooled(rows, noise.expand(len(rows), -1, -1, -1))]
            point[rows], met[rows] = noise, True
        rows = (met & ~wrong).nonzero().squeeze(1)
        if len(rows) > 0:
            point[rows] = self.approach(rows, point[rows], BALLS["L2"])
        return point, self.ball.length(point - x).masked_fill(~met, math.inf)

    def jump(self, rows: Tensor, point: Tensor, directions: Tensor, pace: float) -> Tensor:
        """Step from the boundary to where the target is more surely wrong: `pace` distances, halved until it is."""

        def wrong(images: Tensor) -> Tensor:
            return self._fooled(rows.repeat_interleave(len(images) // len(rows)), images).float()

        distance = self.ball.length(point - self._x[rows])
        gradient = slope(wrong, point, directions, distance / self._x[0].numel())
        step = self.ball.step(torch.zeros_like(point), gradient, pace * distance.view(-1, 1, 1, 1))
        moved, pending = point.clone(), torch.arange(len(rows), device=rows.device)
        for _ in range(self.halvings):
            if len(pending) == 0:
                break
            candidate = (point[pending] + step[pending]).clamp_(0, 1)
            fooled = self._fooled(rows[pending], candidate)
            moved[pending[fooled]] = candidate[fooled]
            pending, step = pending[~fooled], step / 2
        return moved

    def approach(self, rows: Tensor, point: Tensor, ball: Ball) -> Tensor:
        """Draw misclassified points towards their images, into ever better balls, up to the boundary."""
        x = self._x[rows]
        low, high = torch.zeros_like(x[:, 0, 0, 0]), ball.length(point - x)
        for _ in range(self.halvings):
            middle = (low + high) / 2
            candidate = ball.project(point, x, middle)
            fooled = self._fooled(rows, candidate)
            point = torch.where(fooled.view(-1, 1, 1, 1), candidate, point)
            low, high = torch.where(fooled, low, middle), torch.where(fooled, middle, high)
        return point

    def _fooled(self, rows: Tensor, images: Tensor) -> Tensor:
        """Ask about images [M, C, H, W] that belong to `rows` [M], which may repeat; return which fool the target."""
        self.left -= torch.bincount(rows, minlength=len(self.left))
        return labels_of(self._predict(images)) != self._y[rows]
