"""Points beyond every training ball: PGD with a larger budget, checked in whole gray levels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from wootz.attacks.evasion import PGD, pgd
from wootz.checks import MAX_GRAY, gray_levels
from wootz.errors import ConfigError
from wootz.watermarks.context import MarkContext

_PROBE_PIXELS = 48  # enough to tell almost every pair of images apart before all pixels are compared


def check_budget(eps: float, alpha: float, wm_eps: float) -> None:
    """Raise ConfigError, with the smallest that holds, unless some level lies in (eps + alpha, wm_eps]."""
    least = (gray_levels(eps + alpha) + 1) / MAX_GRAY
    if not 0 < wm_eps < 1:
        raise ConfigError(f"wm_eps = {wm_eps!r}: must be between 0 and 1, both excluded")
    if least >= 1:
        raise ConfigError(f"eps = {eps:g} with alpha = {alpha:g} leaves no room for triggers below 1")
    if gray_levels(wm_eps) <= gray_levels(eps + alpha):
        smallest = math.ceil(least * 1e4) / 1e4
        raise ConfigError(
            f"wm_eps = {wm_eps:g}: triggers must lie further out than eps + alpha = {eps + alpha:g}, "
            f"in whole gray levels; the smallest wm_eps that holds is {smallest:g}"
        )


def beyond_the_ball(
    context: MarkContext,
    count: int,
    *,
    alpha: float,
    steps: int,
    exact: bool = False,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Return `count` images uint8 that fool the first panel model, and the training images' rows they are made from.

    Each lies at `eps + alpha < L-inf <= wm_eps` from its base image and further than `eps + alpha` from
    every other training image, in whole gray levels. Candidates that do not are replaced by others. With `exact` each
    lies at L-inf `wm_eps` itself, rounded down to a gray level.

    Raises:
        ConfigError: fewer than `count` training images give such a point.
    """
    training, reference = context.data.train, context.panel[0]
    low, high = gray_levels(context.eps + alpha), gray_levels(context.wm_eps)
    attack = PGD(eps=high / MAX_GRAY, steps=steps, random_start=False)
    order = torch.randperm(len(training), generator=generator)
    kept_pixels: list[Tensor] = []
    kept_rows: list[Tensor] = []
    have = 0
    for rows in order.split(max(64, count // 2)):
        base = training.subset(rows)
        points = pgd(attack, reference, base.images(), base.labels, generator=generator)
        pixels = points.mul(MAX_GRAY).round_().to(torch.uint8)
        far = (pixels.int() - base.pixels.int()).abs().flatten(1).amax(1)
        good = (far >= high if exact else far > low) & (far <= high) & ~_near_any(pixels, training.pixels, low)
        kept_pixels.append(pixels[good])
        kept_rows.append(rows[good])
        have += int(good.sum())
        if have >= count:
            return torch.cat(kept_pixels)[:count], torch.cat(kept_rows)[:count]
    raise ConfigError(
        f"only {have} of {count} triggers fit beyond eps + alpha = {context.eps + alpha:g}; ask for fewer"
    )


def _near_any(points: Tensor, images: Tensor, distance: int) -> Tensor:
    """Return which points [n] lie within L-inf `distance` of any of `images`, all uint8."""
    flat, others = points.flatten(1).short(), images.flatten(1)
    spread = others[:2000].float().var(0)
    probe = spread.topk(min(_PROBE_PIXELS, others.shape[1])).indices
    sample = others[:, probe].short()
    near = torch.zeros(len(points), dtype=torch.bool)
    for number, point in enumerate(flat):
        close = ((sample - point[probe]).abs().amax(1) <= distance).nonzero().squeeze(1)
        near[number] = bool(((others[close].short() - point).abs().amax(1) <= distance).any()) if len(close) else False
    return near
