"""What is left of a suspect's answers when what follows without the key is taken away."""

from __future__ import annotations

import torch
from torch import Tensor

CLASS_PENALTY = 4.0  # images' worth of doubt that a class is liked for itself
_DOUBT = 1e-9  # keeps what is known twice from having no solution


def unexplained(shown: Tensor, known: Tensor, doubt: Tensor | None = None) -> Tensor:
    """Return what was shown, float64 [..., n, d] or [n], less its regression on what is known, float64 [..., n, m].

    Args:
        shown: of a suspect.
        known: of each row, without the key: what independent models show, constants. A test stays exact whatever it is.
        doubt: for each column, as how many rows that speak against it [m]; hardly any by default.
    """
    doubt = torch.full((known.shape[-1],), _DOUBT, dtype=known.dtype) if doubt is None else doubt
    weights: Tensor = torch.linalg.solve(known.mT @ known + doubt.diag(), known.mT @ shown)
    return shown - known @ weights


def unexplained_scores(shown: Tensor, known: Tensor, counted: Tensor) -> Tensor:
    """Return scores of classes [n, K] less their regression on what is known, and on how much each class is liked.

    The same as `unexplained` of all scores that count, in one column, with a column of `CLASS_PENALTY` for each class
    beside what is known. The K columns of the classes are eliminated by hand, so that time and memory grow with K and
    not with its square.

    Args:
        shown: of a suspect, float64 [n, K].
        known: of each score, without the key, float64 [n, K, m].
        counted: which scores count, bool [n, K]; the others are taken as 0.
    """
    shown, known = shown * counted, known * counted[..., None]
    worth = counted.sum(0) + CLASS_PENALTY
    liked, shared = shown.sum(0), known.sum(0)  # [K], [K, m]
    flat = known.flatten(0, 1)
    told = flat.T @ flat + _DOUBT * torch.eye(flat.shape[1], dtype=flat.dtype)
    left = flat.T @ shown.flatten() - shared.T @ (liked / worth)
    weights: Tensor = torch.linalg.solve(told - shared.T @ (shared / worth[:, None]), left)
    return shown - known @ weights - counted * ((liked - shared @ weights) / worth)


def slope(left: Tensor, far: Tensor, weights: Tensor, doubt: float) -> Tensor:
    """Return the slopes [..., d] of a regression of what is left [..., n] on features [..., n, d].

    Both are without what is known.

    Slopes of both without what is known are those of a regression on features and all that is known (Frisch, Waugh
    1933). The doubt makes them the likeliest ones if slopes are normal (ridge regression): small where features vary
    little and chance decides, and true where much speaks for them.

    Args:
        left: of what a suspect showed.
        far: of the features.
        weights: how much each row tells of the slopes [..., n].
        doubt: as how many rows of weight 1 that show nothing.
    """
    told = far.mT @ (weights[..., None] * far) + doubt * torch.eye(far.shape[-1], dtype=far.dtype)
    found: Tensor = torch.linalg.solve(told, far.mT @ left[..., None])
    return found[..., 0]
