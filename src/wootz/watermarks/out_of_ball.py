"""Adversarial examples outside every training ball: PGD with a larger budget, checked in whole gray levels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from wootz.attacks.evasion import PGD, pgd
from wootz.checks import MAX_GRAY, gray_levels
from wootz.errors import ConfigError
from wootz.logs import warn_once
from wootz.watermarks.interface import MarkContext

_PROBE_PIXELS = 48  # compared first: enough to distinguish almost every pair of images
_RANKED_PIXELS = 4096  # at most, of which those with the largest variance are taken


def check_wm_eps(eps: float, alpha: float, wm_eps: float) -> None:
    """Check that some gray level lies in (eps + alpha, wm_eps].

    Raises:
        ConfigError: none does; names the smallest valid `wm_eps`.
    """
    least = (gray_levels(eps + alpha) + 1) / MAX_GRAY
    if not 0 < wm_eps < 1:
        raise ConfigError(f"wm_eps = {wm_eps!r}: must be between 0 and 1, both excluded")
    if least >= 1:
        raise ConfigError(f"eps = {eps:g} with alpha = {alpha:g} leaves no gray level for triggers below 1")
    if gray_levels(wm_eps) <= gray_levels(eps + alpha):
        smallest = math.ceil(least * 1e4) / 1e4
        raise ConfigError(
            f"wm_eps = {wm_eps:g}: triggers must lie farther out than eps + alpha = {eps + alpha:g}, "
            f"in whole gray levels; the smallest valid wm_eps is {smallest:g}"
        )


def out_of_ball_examples(
    context: MarkContext,
    count: int,
    *,
    alpha: float,
    steps: int,
    least: int | None = None,
    parts: int = 1,
    exact: bool = False,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Return adversarial examples for the first panel model, and the rows of the training images they are made from.

    Each lies at `eps + alpha < L-inf <= wm_eps` from its base image and farther than `eps + alpha` from every other
    training image, in whole gray levels. Candidates that do not are discarded.

    Args:
        context: training images, panel and budgets.
        count: number of examples wanted.
        alpha: margin around the training balls, in pixels of [0, 1].
        steps: number of PGD steps.
        least: number of examples that suffice if there are not as many as wanted; None is `count`. Fewer are logged.
        parts: the number n of examples is a multiple of this.
        exact: keep only examples at L-inf exactly `wm_eps`, rounded down to a gray level.
        generator: determines the order in which training images are tried.

    Returns:
        Images uint8 [n, C, H, W] and row numbers int64 [n].

    Raises:
        ConfigError: fewer than `least` training images give such an example.
    """
    training, reference = context.data.train, context.panel[0]
    low, high = gray_levels(context.eps + alpha), gray_levels(context.wm_eps)
    attack = PGD(eps=high / MAX_GRAY, steps=steps, random_start=False)
    order = torch.randperm(len(training), generator=generator)
    pixel_parts: list[Tensor] = []
    row_parts: list[Tensor] = []
    total = 0
    for rows in order.split(max(64, count // 2)):
        base = training.subset(rows)
        points = pgd(attack, reference, base.images(), base.labels, generator=generator)
        pixels = points.mul(MAX_GRAY).round_().to(torch.uint8)
        distance = (pixels.int() - base.pixels.int()).abs().flatten(1).amax(1)
        valid = (distance >= high if exact else distance > low) & (distance <= high)
        valid &= ~near_any(pixels, training.pixels, low)
        pixel_parts.append(pixels[valid])
        row_parts.append(rows[valid])
        total += int(valid.sum())
        if total >= count:
            return torch.cat(pixel_parts)[:count], torch.cat(row_parts)[:count]
    fitting, least = total // parts * parts, count if least is None else least
    found = f"{total} of {count} triggers fit between eps + alpha = {context.eps + alpha:g} and {context.wm_eps:g}"
    if fitting < least:
        raise ConfigError(f"only {found}, and {least} are needed; lower eps (--eps) or raise wm_eps (--wm-eps)")
    warn_once(f"only {found}; {fitting} are used, so that the marks give fewer bits")
    return torch.cat(pixel_parts)[:fitting], torch.cat(row_parts)[:fitting]


def near_any(points: Tensor, images: Tensor, distance: int) -> Tensor:
    """Return which points lie within L-inf `distance` gray levels of any image.

    Args:
        points: uint8 [n, C, H, W].
        images: uint8 [N, C, H, W].
        distance: in gray levels.

    Returns:
        bool [n].
    """
    flat_points, flat_images = points.flatten(1), images.flatten(1)
    step = math.ceil(flat_images.shape[1] / _RANKED_PIXELS)
    variance = flat_images[:2000, ::step].float().var(0)
    probe = step * variance.topk(min(_PROBE_PIXELS, len(variance))).indices
    sample = flat_images[:, probe].short()
    near = torch.zeros(len(points), dtype=torch.bool)
    for number, point in enumerate(flat_points):
        rows = ((sample - point[probe].short()).abs().amax(1) <= distance).nonzero().squeeze(1)
        if len(rows):
            near[number] = bool(((flat_images[rows].short() - point.short()).abs().amax(1) <= distance).any())
    return near
