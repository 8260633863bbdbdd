"""A model that is asked through a filter, as thieves serve what they stole. Filters nest."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from wootz.config import Dataclass, to_mapping


class Filtered(nn.Module):
    """`inner`, asked through `filter`, a module `(inner, x) -> logits`; `name` and `config` say how to build it."""

    def __init__(self, inner: nn.Module, filter: nn.Module, name: str, config: Dataclass) -> None:
        super().__init__()
        self.inner, self.filter = inner, filter
        self.name, self.config = name, config

    def forward(self, x: Tensor) -> Tensor:
        """Images float32 [N, C, H, W] in [0, 1] -> logits [N, K]."""
        logits: Tensor = self.filter(self.inner, x)
        return logits


def filters_of(model: nn.Module) -> list[dict[str, Any]]:
    """Return names and settings of the filters around a model as plain values, the innermost first."""
    if not isinstance(model, Filtered):
        return []
    return [*filters_of(model.inner), {"name": model.name} | to_mapping(model.config)]
