"""What a norm means to the Square attack (arXiv 1912.00049): a start, and a change inside one square.

Images are [N, C, H, W]; whatever is drawn is drawn once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from wootz.attacks.evasion.balls import BALLS
from wootz.types import Norm


class Draw(NamedTuple):
    """One square: its side in pixels, five numbers uniform in [0, 1) and a sign for each channel [C, 1, 1]."""

    side: int
    place: list[float]
    signs: Tensor


class Squares(NamedTuple):
    """The two functions of one norm, and the side of the smallest square."""

    start: Callable[[Tensor, float, torch.Generator], Tensor]
    change: Callable[[Tensor, Tensor, float, Draw], Tensor]
    smallest: int


def random_signs(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return -1 or 1 with equal chance, float32, on the generator's device."""
    return torch.randint(0, 2, shape, generator=generator, device=generator.device) * 2.0 - 1


def _linf_start(x: Tensor, eps: float, generator: torch.Generator) -> Tensor:
    """Return vertical stripes one pixel wide, at +-eps in each channel."""
    return (x + eps * random_signs((x.shape[1], 1, x.shape[3]), generator)).clamp_(0, 1)


def _linf_change(points: Tensor, x: Tensor, eps: float, draw: Draw) -> Tensor:
    """Set a square to +-eps in each channel; where that changes nothing, to the opposite (the authors draw again)."""
    window = _window(x, draw.side, draw.place[:2])
    painted, opposite = ((x[window] + eps * signs).clamp_(0, 1) for signs in (draw.signs, -draw.signs))
    idle = (painted - points[window]).flatten(1).abs().amax(1) < 1e-7
    candidate = points.clone()
    candidate[window] = torch.where(idle.view(-1, 1, 1, 1), opposite, painted)
    return candidate


def _l2_start(x: Tensor, eps: float, generator: torch.Generator) -> Tensor:
    """Return five by five tiles that carry the profile, turned and signed at random, at length eps."""
    channels, height, width = x.shape[1:]
    side = max(min(height, width) // 5, 1)
    grid = (channels, -(-height // side), -(-width // side))
    signs, profile = random_signs(grid, generator), _profile(side, x)
    turned = torch.kron(random_signs(grid, generator), torch.ones_like(profile)[None]) > 0
    pattern = torch.where(turned, torch.kron(signs, profile.T.contiguous()[None]), torch.kron(signs, profile[None]))
    return BALLS["L2"].step(x, pattern[:, :height, :width].expand_as(x), eps).clamp_(0, 1)


def _l2_change(points: Tensor, x: Tensor, eps: float, draw: Draw) -> Tensor:
    """Turn one square towards the profile, with its own mass, another square's, and what the ball leaves unused."""
    delta = points - x
    gain, loss = _window(x, draw.side, draw.place[:2]), _window(x, draw.side, draw.place[2:4])
    both = torch.zeros_like(x[:1, :1])
    both[gain] = both[loss] = 1
    unused = (eps**2 - delta.square().sum((1, 2, 3), keepdim=True)).clamp_min_(0) / x.shape[1]
    available = ((delta.square() * both).sum((2, 3), keepdim=True) + unused).sqrt_()
    profile = _profile(draw.side, x)
    turned = draw.signs * (profile if draw.place[4] < 0.5 else profile.T) + _unit(delta[gain])
    delta[loss] = 0
    delta[gain] = available * _unit(turned)
    return (x + delta).clamp_(0, 1)


def _window(x: Tensor, side: int, place: list[float]) -> tuple[slice, slice, slice, slice]:
    top, left = (int(share * (length - side + 1)) for share, length in zip(place, x.shape[2:], strict=True))
    return slice(None), slice(None), slice(top, top + side), slice(left, left + side)


def _profile(side: int, x: Tensor) -> Tensor:
    """Return two hills of opposite sign side by side, [side, side] of length 1 (the paper's eta)."""
    left = side // 2
    hills = torch.cat([_hill(side, left), -_hill(side, side - left)], 1)
    return F.normalize(hills.flatten(), dim=0).view(side, side).to(x)


def _hill(height: int, width: int) -> Tensor:
    """Return a pyramid whose height is a sum of inverse squares: 1 / (n + 1)^2 at the foot, up to 1 / 1^2."""
    top = height // 2
    rows, columns = (torch.arange(height) - top).abs(), (torch.arange(width) - width // 2).abs()
    heights: Tensor = torch.arange(top + 1, 0, -1).double().pow(-2).cumsum(0)
    return heights[top - torch.maximum(rows[:, None], columns)]


def _unit(square: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(square, dim=(2, 3), keepdim=True)
    return square / length.clamp_min(1e-12)


SQUARES: Mapping[Norm, Squares] = MappingProxyType(
    {
        "Linf": Squares(_linf_start, _linf_change, 1),
        "L2": Squares(_l2_start, _l2_change, 3),
    }
)
