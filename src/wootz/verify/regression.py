"""What is left of a suspect's answers when what follows without the key is taken away."""

from __future__ import annotations

import torch
from torch import Tensor

CLASS_PENALTY = 4.0  # images' worth of doubt that a class is liked for itself
_DOUBT = 1e-9  # keeps what is known twice from having no solution


def unexplained(shown: Tensor, known: Tensor, doubt: Tensor | None = None) -> Tensor:
    """Return what was shown, float64 [n] or [n, d], less its regression on what is known, float64 [n, m].

    Args:
        shown: of a suspect.
        known: of each row, without the key: what independent models show, constants. A test stays exact whatever it is.
        doubt: for each column, as how many rows that speak against it [m]; hardly any by default.
    """
    doubt = torch.full((known.shape[1],), _DOUBT, dtype=known.dtype) if doubt is None else doubt
    weights: Tensor = torch.linalg.solve(known.T @ known + doubt.diag(), known.T @ shown)
    return shown - known @ weights


def slope(left: Tensor, far: Tensor, weights: Tensor, doubt: float) -> Tensor:
    """Return the slopes [d] of a regression of what is left [n] on features [n, d], both without what is known.

    Slopes of both without what is known are those of a regression on features and all that is known (Frisch, Waugh
    1933). The doubt makes them the likeliest ones if slopes are normal (ridge regression): small where features vary
    little and chance decides, and true where much speaks for them.

    Args:
        left: of what a suspect showed.
        far: of the features.
        weights: how much each row tells of the slopes [n].
        doubt: as how many rows of weight 1 that show nothing.
    """
    told = far.T @ (weights[:, None] * far) + doubt * torch.eye(far.shape[1], dtype=far.dtype)
    found: Tensor = torch.linalg.solve(told, far.T @ left)
    return found
