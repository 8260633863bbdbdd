"""Noise that an image brings along: the same for the same pixels, in any batch, order and process, on any device."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15, the step of SplitMix64
_MIX = ((30, -4658895280553007687), (27, -7723592293110705685))  # its shifts and odd factors, as signed numbers
_SQRT2 = math.sqrt(2)


def content_noise(x: Tensor, count: int) -> Tensor:
    """Return standard normal numbers float32 [N, count]; each row follows from its image, read as 8-bit pixels.

    SplitMix64 (Steele, Lea, Flood 2014) over whole numbers, where no order of adding changes a sum.
    """
    pixels = x.detach().flatten(1).mul(255).round().long()
    places = torch.arange(1, pixels.shape[1] + 1, device=x.device)
    seeds = _mixed(pixels + (places << 8)).sum(1)
    words = _mixed(_mixed(seeds)[:, None] + torch.arange(1, count + 1, device=x.device) * _GOLDEN)
    uniform = (_shifted(words, 11).double() + 0.5) / 2**53
    return (torch.erfinv(2 * uniform - 1) * _SQRT2).float()


def _mixed(words: Tensor) -> Tensor:
    """Scatter 64-bit words over all 64-bit words, one to one."""
    for shift, factor in _MIX:
        words = (words ^ _shifted(words, shift)) * factor
    return words ^ _shifted(words, 31)


def _shifted(words: Tensor, shift: int) -> Tensor:
    """Shift right and fill with zeros; PyTorch's own shift repeats the sign."""
    return (words >> shift) & ((1 << (64 - shift)) - 1)
