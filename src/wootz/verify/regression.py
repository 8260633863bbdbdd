"""What is left of a suspect's answers when what follows without the key is taken away."""

from __future__ import annotations

import torch
from torch import Tensor

_DOUBT = 1e-9  # keeps what is known twice from having no solution


def unexplained(shown: Tensor, known: Tensor, doubt: Tensor | None = None) -> Tensor:
    """Return what was shown, float64 [n], less its regression on what is known, float64 [n, m].

    Args:
        shown: of a suspect.
        known: of each row, without the key: what independent models show, constants. A test stays exact whatever it is.
        doubt: for each column, as how many rows that speak against it [m]; hardly any by default.
    """
    doubt = torch.full((known.shape[1],), _DOUBT, dtype=known.dtype) if doubt is None else doubt
    weights: Tensor = torch.linalg.solve(known.T @ known + doubt.diag(), known.T @ shown)
    return shown - known @ weights
