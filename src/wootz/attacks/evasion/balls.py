"""Balls of the two norms: random initialization, gradient step, projection and length.

All tensors are images [N, C, H, W]; starting points and projections lie in the ball around `x` and in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from wootz.errors import ConfigError, DataError
from wootz.types import Norm

_ROUNDING = 1e-6


class Ball(NamedTuple):
    """The four functions of one norm.

    `project` takes one radius or radii [N], `step` one size or sizes [N, 1, 1, 1].
    """

    start: Callable[[Tensor, float, torch.Generator], Tensor]
    step: Callable[[Tensor, Tensor, float | Tensor], Tensor]
    project: Callable[[Tensor, Tensor, float | Tensor], Tensor]
    length: Callable[[Tensor], Tensor]


def _linf_start(x: Tensor, eps: float, generator: torch.Generator) -> Tensor:
    noise = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    return (x + noise.mul_(2 * eps).sub_(eps)).clamp_(0, 1)


def _linf_step(point: Tensor, gradient: Tensor, size: float | Tensor) -> Tensor:
    return gradient.sign().mul_(size).add_(point)


def _linf_project(point: Tensor, x: Tensor, eps: float | Tensor) -> Tensor:
    eps = eps.view(-1, 1, 1, 1) if isinstance(eps, Tensor) else eps
    return torch.minimum(torch.maximum(point, x - eps), x + eps).clamp_(0, 1)


def _linf_length(delta: Tensor) -> Tensor:
    return delta.flatten(1).abs().amax(1)


def _l2_start(x: Tensor, eps: float, generator: torch.Generator) -> Tensor:
    direction = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    radius = torch.rand(len(x), generator=generator, device=x.device, dtype=x.dtype)
    radius = eps * radius ** (1 / direction[0].numel())  # uniform in the volume of the ball
    return (x + _unit(direction) * radius.view(-1, 1, 1, 1)).clamp_(0, 1)


def _l2_step(point: Tensor, gradient: Tensor, size: float | Tensor) -> Tensor:
    return _unit(gradient).mul_(size).add_(point)


def _l2_project(point: Tensor, x: Tensor, eps: float | Tensor) -> Tensor:
    delta = point - x
    shrink = (eps / _l2_length(delta).clamp_min(1e-12)).clamp_max(1)
    return (x + delta * shrink.view(-1, 1, 1, 1)).clamp_(0, 1)


def _l2_length(delta: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(delta.flatten(1), dim=1)
    return length


def _unit(tensor: Tensor) -> Tensor:
    return tensor / _l2_length(tensor).clamp_min(1e-12).view(-1, 1, 1, 1)


BALLS: Mapping[Norm, Ball] = MappingProxyType(
    {
        "Linf": Ball(_linf_start, _linf_step, _linf_project, _linf_length),
        "L2": Ball(_l2_start, _l2_step, _l2_project, _l2_length),
    }
)


def check_images(x: Tensor) -> None:
    """Raise DataError unless these are images float [N, C, H, W], finite and in [0, 1] up to rounding.

    Points are clipped to [0, 1]: around other images attacks look weak.
    """
    if x.dim() != 4 or not x.is_floating_point():
        raise DataError(f"images must be float [N, C, H, W], these are {x.dtype} {list(x.shape)}")
    if len(x) and not (x.amin() >= -_ROUNDING and x.amax() <= 1 + _ROUNDING):  # false for NaN
        raise DataError(
            f"images from {x.amin().item():.3g} to {x.amax().item():.3g}: must be in [0, 1], with normalization inside "
            "the model"
        )


def check_ball(x: Tensor, eps: float, norm: Norm) -> None:
    """Raise unless these are images in [0, 1], see `check_images`, and the ball is not larger than that range.

    Raises:
        ConfigError: `eps` is negative, not finite, or beyond the distance of any two images.
        DataError: the images have other values.
    """
    check_images(x)
    largest = 1.0 if norm == "Linf" else math.sqrt(math.prod(x.shape[1:]))
    if not 0 <= eps <= largest + _ROUNDING:
        hint = f"; {eps:g}/255 is {eps / 255:.4g}" if 1 < eps <= 255 else ""
        raise ConfigError(f"eps = {eps:g}: must be from 0 to {largest:.4g}, in pixels of [0, 1]{hint}")


def to_pixels(points: Tensor, x: Tensor) -> Tensor:
    """Return `points` as uint8, each pixel rounded towards `x`, so that no point leaves the ball around `x`.

    Args:
        points: float32 [N, C, H, W] in [0, 1].
        x: the original images, in whole gray levels: multiples of 1 / 255.
    """
    change = points.sub(x).mul_(255)
    whole = (
        change.abs().add_(1e-4).floor_() * change.sign()
    )  # the tolerance keeps float rounding from losing a whole level
    return x.mul(255).add_(whole).round_().to(torch.uint8)
