"""Square attack (Andriushchenko et al., arXiv 1912.00049): score-based random search with square-shaped updates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from wootz import checks
from wootz.attacks.evasion.balls import BALLS, check_ball
from wootz.attacks.evasion.black_box import margins_of, query_mode
from wootz.types import Norm, Predict

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""The queries, of 10,000, after which the authors' code halves the fraction of pixels; other budgets are rescaled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Square:
    """Budget and schedule of the search.

    Attributes:
        eps: the radius of the ball, in pixels of [0, 1]; 0 returns the images unchanged.
        norm: the norm of the ball.
        queries: the largest number of queries per image.
        p_init: the fraction of the pixels that the first squares cover, 0 to 1.
        stop: whether the search for an image stops once it is misclassified.
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
    """Return images in the ball around `x` with the largest margin found.

    All images of a batch try the same squares, so the result for one image does not depend on the others.

    Args:
        cfg: the budget and the schedule.
        predict: images in [0, 1] -> scores [N, K]; a module is used in eval mode and restored.
        x: images float32 [N, C, H, W] in [0, 1].
        y: true labels int64 [N].
        generator: the generator of positions and signs, on the device of `x`.

    Returns:
        Images [N, C, H, W] in [0, 1], none farther than `eps` from `x` (up to float rounding).

    Raises:
        ModelError: `predict` returns labels.
    """
    check_ball(x, cfg.eps, cfg.norm)
    if cfg.eps == 0 or len(x) == 0:
        return x.clone()
    updates = UPDATES[cfg.norm]
    points = updates.start(x, cfg.eps, generator)
    positions = torch.rand(cfg.queries - 1, 5, generator=generator, device=x.device).tolist()
    with query_mode(predict, len(x)) as ask:
        value = margins_of(ask(points), y)
        for query, position in enumerate(positions, 1):
            square = RandomSquare(side_length(cfg, query, x), position, random_signs((x.shape[1], 1, 1), generator))
            rows = ((value <= 0) | (not cfg.stop)).nonzero().squeeze(1)
            if len(rows) == 0:
                break
            candidate = updates.change(points[rows], x[rows], cfg.eps, square)
            new_value = margins_of(ask(candidate, rows), y[rows])
            better = new_value > value[rows]
            points[rows[better]], value[rows[better]] = candidate[better], new_value[better]
    return points


def side_length(cfg: Square, query: int, x: Tensor) -> int:
    """Return the side of the square of a query, counted from 0, in pixels."""
    fraction = cfg.p_init / 2 ** sum(query * 10_000 > count * cfg.queries for count in _HALVINGS)
    height, width = x.shape[2:]
    return min(max(round(math.sqrt(fraction * height * width)), UPDATES[cfg.norm].smallest), height, width)


class RandomSquare(NamedTuple):
    """One square: its side in pixels, five uniform numbers in [0, 1) and a sign per channel [C, 1, 1]."""

    side: int
    position: list[float]
    signs: Tensor


class SquareUpdates(NamedTuple):
    """The initialization and the update of one norm, and the side of the smallest square.

    Images are [N, C, H, W]; random numbers are shared by all of them.
    """

    start: Callable[[Tensor, float, torch.Generator], Tensor]
    change: Callable[[Tensor, Tensor, float, RandomSquare], Tensor]
    smallest: int


def random_signs(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return -1 or 1 with equal probability, float32, on the generator's device."""
    return torch.randint(0, 2, shape, generator=generator, device=generator.device) * 2.0 - 1


def _linf_start(x: Tensor, eps: float, generator: torch.Generator) -> Tensor:
    """Return vertical stripes one pixel wide, at +-eps in each channel."""
    return (x + eps * random_signs((x.shape[1], 1, x.shape[3]), generator)).clamp_(0, 1)


def _linf_change(points: Tensor, x: Tensor, eps: float, square: RandomSquare) -> Tensor:
    """Set a square to +-eps in each channel; if that changes nothing, to the opposite (the authors sample again)."""
    window = _window(x, square.side, square.position[:2])
    painted, opposite = ((x[window] + eps * signs).clamp_(0, 1) for signs in (square.signs, -square.signs))
    idle = (painted - points[window]).flatten(1).abs().amax(1) < 1e-7
    candidate = points.clone()
    candidate[window] = torch.where(idle.view(-1, 1, 1, 1), opposite, painted)
    return candidate


def _l2_start(x: Tensor, eps: float, generator: torch.Generator) -> Tensor:
    """Return five by five tiles of the profile, randomly transposed and signed, at length eps."""
    channels, height, width = x.shape[1:]
    side = max(min(height, width) // 5, 1)
    grid = (channels, -(-height // side), -(-width // side))
    signs, profile = random_signs(grid, generator), _profile(side, x)
    transposed = torch.kron(random_signs(grid, generator), torch.ones_like(profile)[None]) > 0
    pattern = torch.where(transposed, torch.kron(signs, profile.T.contiguous()[None]), torch.kron(signs, profile[None]))
    return BALLS["L2"].step(x, pattern[:, :height, :width].expand_as(x), eps).clamp_(0, 1)


def _l2_change(points: Tensor, x: Tensor, eps: float, square: RandomSquare) -> Tensor:
    """Move one square towards the profile, with its own norm, another square's, and what the ball leaves unused."""
    delta = points - x
    gain, loss = _window(x, square.side, square.position[:2]), _window(x, square.side, square.position[2:4])
    both = torch.zeros_like(x[:1, :1])
    both[gain] = both[loss] = 1
    unused = (eps**2 - delta.square().sum((1, 2, 3), keepdim=True)).clamp_min_(0) / x.shape[1]
    available = ((delta.square() * both).sum((2, 3), keepdim=True) + unused).sqrt_()
    profile = _profile(square.side, x)
    direction = square.signs * (profile if square.position[4] < 0.5 else profile.T) + _unit(delta[gain])
    delta[loss] = 0
    delta[gain] = available * _unit(direction)
    return (x + delta).clamp_(0, 1)


def _window(x: Tensor, side: int, position: list[float]) -> tuple[slice, slice, slice, slice]:
    top, left = (int(fraction * (length - side + 1)) for fraction, length in zip(position, x.shape[2:], strict=True))
    return slice(None), slice(None), slice(top, top + side), slice(left, left + side)


def _profile(side: int, x: Tensor) -> Tensor:
    """Return two pyramids of opposite sign side by side, [side, side] of L2 norm 1 (the paper's eta)."""
    left = side // 2
    pyramids = torch.cat([_pyramid(side, left), -_pyramid(side, side - left)], 1)
    return F.normalize(pyramids.flatten(), dim=0).view(side, side).to(x)


def _pyramid(height: int, width: int) -> Tensor:
    """Return a pyramid whose height is a sum of inverse squares: from 1 / (n + 1)^2 at the base to 1 / 1^2."""
    top = height // 2
    rows, columns = (torch.arange(height) - top).abs(), (torch.arange(width) - width // 2).abs()
    heights: Tensor = torch.arange(top + 1, 0, -1).double().pow(-2).cumsum(0)
    return heights[top - torch.maximum(rows[:, None], columns)]


def _unit(square: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(square, dim=(2, 3), keepdim=True)
    return square / length.clamp_min(1e-12)


UPDATES: Mapping[Norm, SquareUpdates] = MappingProxyType(
    {
        "Linf": SquareUpdates(_linf_start, _linf_change, 1),
        "L2": SquareUpdates(_l2_start, _l2_change, 3),
    }
)
