"""Filters that thieves put before or after a stolen model, by name: `(cfg, shape, num_classes) -> module`.

A filter is a module `(inner, x) -> logits`. Where it is flat it lets gradients straight through, so that robustness
measured behind it is not masked. Its name and settings stand in `model.json`, its tensors beside the model's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from wootz.config import Dataclass, from_mapping
from wootz.models.filters import inputs, outputs
from wootz.models.filters.autoencoder import Autoencoder, autoencoder
from wootz.models.filters.filtered import Filtered, filters_of
from wootz.models.filters.refuse import Refuse, refuse
from wootz.models.filters.regress import Regress, Residual, regress
from wootz.registry import lookup

__all__ = ["FILTERS", "Filtered", "filters_of", "same_answers", "with_filter", "with_filters"]


def _before(change: Callable[..., Tensor], cfg: Any, shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    return inputs.Before(change, cfg)


def _after(change: Callable[..., Tensor], cfg: Any, shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    return outputs.After(change, cfg)


FILTERS: Mapping[str, tuple[Callable[..., nn.Module], type[Any]]] = MappingProxyType(
    {
        "jpeg": (partial(_before, inputs.jpeg), inputs.Jpeg),
        "blur": (partial(_before, inputs.blur), inputs.Blur),
        "median": (partial(_before, inputs.median), inputs.Median),
        "grain": (partial(_before, inputs.grain), inputs.Grain),
        "noise": (partial(_before, inputs.noise), inputs.Noise),
        "squeeze": (partial(_before, inputs.squeeze), inputs.Squeeze),
        "autoencoder": (autoencoder, Autoencoder),
        "round": (partial(_after, outputs.round_scores), outputs.Round),
        "top-k": (partial(_after, outputs.top_k), outputs.TopK),
        "temperature": (partial(_after, outputs.temper), outputs.Temperature),
        "output-noise": (partial(_after, outputs.output_noise), outputs.OutputNoise),
        "flatten": (partial(_after, outputs.flatten), outputs.Flatten),
        "refuse": (refuse, Refuse),
        "regress": (regress, Regress),
    }
)


def with_filter(model: nn.Module, cfg: Dataclass, shape: tuple[int, int, int], num_classes: int) -> Filtered:
    """Return `model` behind the filter that these settings belong to; what a filter must learn, it has yet to."""
    name = next(name for name, (_, kind) in FILTERS.items() if kind is type(cfg))
    return Filtered(model, FILTERS[name][0](cfg, shape, num_classes), name, cfg)


def same_answers(model: nn.Module) -> nn.Module:
    """Return the model without the outer filters that keep every top class: it has the same top-1 everywhere.

    Attacks should be aimed at it: behind such a filter the loss they climb is another one, and they look weaker.
    """
    while isinstance(model, Filtered) and isinstance(model.filter, (outputs.After, Residual)):
        model = model.inner
    return model


def with_filters(
    model: nn.Module, described: Sequence[Mapping[str, Any]], shape: tuple[int, int, int], num_classes: int
) -> nn.Module:
    """Return `model` behind the filters that `filters_of` described."""
    for one in described:
        settings = {key: value for key, value in one.items() if key != "name"}
        _, kind = lookup(FILTERS, one["name"], "filter")
        model = with_filter(model, from_mapping(kind, settings, one["name"]), shape, num_classes)
    return model
