"""A model behind a filter, and the filters by name: `(cfg, shape, num_classes) -> module`.

A filter is a module `(inner, x) -> logits`. Where it is piecewise constant it has straight-through gradients, so that
robustness measured behind it is not masked. Filters nest. A saved model's `model.json` holds the name and settings of
each filter, and its tensors are stored with the model's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from wootz.config import Dataclass, from_mapping, to_mapping
from wootz.models.filters import inputs, outputs
from wootz.models.filters.fitted import (
    Autoencoder,
    Detector,
    Regress,
    RegressFilter,
    autoencoder_filter,
    detector_filter,
    regress_filter,
)
from wootz.registry import lookup


class Filtered(nn.Module):
    """The model `inner` behind `filter`, a module `(inner, x) -> logits`, built from `name` and `config`."""

    def __init__(self, inner: nn.Module, filter: nn.Module, name: str, config: Dataclass) -> None:
        super().__init__()
        self.inner, self.filter = inner, filter
        self.name, self.config = name, config

    def forward(self, x: Tensor) -> Tensor:
        """Images float32 [N, C, H, W] in [0, 1] -> logits [N, K]."""
        logits: Tensor = self.filter(self.inner, x)
        return logits


def _input_filter(change: Callable[..., Tensor], cfg: Any, shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    return inputs.InputFilter(change, cfg)


def _output_filter(change: Callable[..., Tensor], cfg: Any, shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    return outputs.OutputFilter(change, cfg)


FILTERS: Mapping[str, tuple[Callable[..., nn.Module], type[Any]]] = MappingProxyType(
    {
        "jpeg": (partial(_input_filter, inputs.jpeg), inputs.Jpeg),
        "blur": (partial(_input_filter, inputs.blur), inputs.Blur),
        "median": (partial(_input_filter, inputs.median), inputs.Median),
        "grain": (partial(_input_filter, inputs.reduce_bit_depth), inputs.BitDepth),
        "noise": (partial(_input_filter, inputs.noise), inputs.Noise),
        "squeeze": (partial(_input_filter, inputs.resize), inputs.Resize),
        "autoencoder": (autoencoder_filter, Autoencoder),
        "round": (partial(_output_filter, outputs.round_scores), outputs.Round),
        "top-k": (partial(_output_filter, outputs.top_k), outputs.TopK),
        "temperature": (partial(_output_filter, outputs.apply_temperature), outputs.Temperature),
        "output-noise": (partial(_output_filter, outputs.output_noise), outputs.OutputNoise),
        "flatten": (partial(_output_filter, outputs.flatten), outputs.Flatten),
        "refuse": (detector_filter, Detector),
        "regress": (regress_filter, Regress),
    }
)
"""Filter name -> its constructor and the class of its settings."""


def filters_of(model: nn.Module) -> list[dict[str, Any]]:
    """Return names and settings of the filters around a model as plain values, the innermost first."""
    if not isinstance(model, Filtered):
        return []
    return [*filters_of(model.inner), {"name": model.name} | to_mapping(model.config)]


def with_filter(model: nn.Module, cfg: Dataclass, shape: tuple[int, int, int], num_classes: int) -> Filtered:
    """Return `model` behind the filter that these settings belong to; a fitted filter is not fitted yet.

    Args:
        model: images in [0, 1] -> logits.
        cfg: the settings of one of `FILTERS`.
        shape: channels, height and width of an image.
        num_classes: the number of classes.
    """
    name = next(name for name, (_, kind) in FILTERS.items() if kind is type(cfg))
    return Filtered(model, FILTERS[name][0](cfg, shape, num_classes), name, cfg)


def with_filters(
    model: nn.Module, descriptions: Sequence[Mapping[str, Any]], shape: tuple[int, int, int], num_classes: int
) -> nn.Module:
    """Return `model` behind the filters that `filters_of` described.

    Raises:
        ConfigError: a description names no filter, or has unknown settings or settings of a wrong type.
    """
    for description in descriptions:
        name = description["name"]
        settings = {key: value for key, value in description.items() if key != "name"}
        _, kind = lookup(FILTERS, name, "filter")
        model = with_filter(model, from_mapping(kind, settings, name), shape, num_classes)
    return model


def same_answers(model: nn.Module) -> nn.Module:
    """Return the model without the outer filters that never change the top-1 class.

    Attacks should target it: such a filter changes the loss that they maximize, which makes them weaker.
    """
    while isinstance(model, Filtered) and isinstance(model.filter, (outputs.OutputFilter, RegressFilter)):
        model = model.inner
    return model
