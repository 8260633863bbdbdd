"""Straight-through gradients: a value where it counts, a smooth neighbor's slope where one is asked for."""

from __future__ import annotations

from torch import Tensor


def through(value: Tensor, smooth: Tensor) -> Tensor:
    """Return `value` exactly, with the gradient of `smooth` (BPDA; Athalye et al., arXiv 1802.00420).

    So an attack that follows gradients is not stopped by a step that has none: robustness is not masked.
    """
    return value.detach() + (smooth - smooth.detach())
