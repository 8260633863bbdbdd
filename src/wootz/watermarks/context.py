"""What a mark may lean on before its key is drawn."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from wootz.data import Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkContext:
    """Everything that is public, or at least fixed, when a mark's material is made.

    Attributes:
        data: the owner's data set.
        panel: independent models, the robust one first.
        model: the network that will carry the marks, not trained yet.
        eps: training budget, in pixels of [0, 1].
        wm_eps: the triggers' budget.
    """

    data: Dataset
    panel: tuple[nn.Module, ...]
    model: nn.Module
    eps: float
    wm_eps: float
