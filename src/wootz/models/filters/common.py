"""What several filters use: straight-through gradients, and noise that is a function of the image."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15, the increment of SplitMix64
_MIX = ((30, -4658895280553007687), (27, -7723592293110705685))  # its shifts and odd factors, as signed numbers
_SQRT2 = math.sqrt(2)


def straight_through(value: Tensor, smooth: Tensor) -> Tensor:
    """Return `value` exactly, with the gradient of `smooth` (BPDA; Athalye et al., arXiv 1802.00420).

    An operation without a useful gradient then does not stop gradient-based attacks, so robustness is not masked.
    """
    return value.detach() + (smooth - smooth.detach())


def content_noise(x: Tensor, count: int) -> Tensor:
    """Return standard normal numbers float32 [N, count]; each row is a function of its image, read as 8-bit pixels.

    The noise is the same in any batch, order and process and on any device: SplitMix64 (Steele, Lea, Flood 2014) over
    integers, whose sums do not depend on the order of addition.
    """
    pixels = x.detach().flatten(1).mul(255).round().long()
    positions = torch.arange(1, pixels.shape[1] + 1, device=x.device)
    seeds = _mix(pixels + (positions << 8)).sum(1)
    words = _mix(_mix(seeds)[:, None] + torch.arange(1, count + 1, device=x.device) * _GOLDEN)
    uniform = (_shift_right(words, 11).double() + 0.5) / 2**53
    return (torch.erfinv(2 * uniform - 1) * _SQRT2).float()


def _mix(words: Tensor) -> Tensor:
    """Apply SplitMix64's bijection of 64-bit words."""
    for shift, factor in _MIX:
        words = (words ^ _shift_right(words, shift)) * factor
    return words ^ _shift_right(words, 31)


def _shift_right(words: Tensor, shift: int) -> Tensor:
    """Shift right and fill with zeros; PyTorch's own shift repeats the sign."""
    return (words >> shift) & ((1 << (64 - shift)) - 1)
