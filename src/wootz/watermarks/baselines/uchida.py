"""Baseline mark `uchida`: a message in the weights of one convolution (Uchida et al., arXiv 1701.04082).

Keyed Gaussian directions X project the layer's filters, averaged over the filters; a regularizer pulls the signs of
these projections towards the message. In the paper the owner chooses the message, and the test is the bit error rate.
Here the message is derived from the key, which adds an exact test. The test needs access to the weights, and models
extracted through answers do not carry the message.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wootz import checks
from wootz.data import Dataset
from wootz.errors import ConfigError
from wootz.keys import Key, RegisteredMaterial, WeightKey
from wootz.registry import nearest
from wootz.training import Forward, Hook
from wootz.watermarks.interface import MarkContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Uchida:
    """Length, place and strength of the message.

    Attributes:
        bits: length of the message; 256 in the paper.
        layer: module name of the convolution; empty for the first one whose filters have more weights than the message
            has bits (a message of as many bits or more could not be embedded completely).
        weight: weight of the regularizer; 0.01 in the paper.
    """

    bits: int = 256
    layer: str = ""
    weight: float = 0.01

    def __post_init__(self) -> None:
        checks.at_least(1, bits=self.bits)
        checks.positive(weight=self.weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingLoss:
    """The embedding regularizer: binary cross-entropy, summed over bits, of sigmoid(X w) against the message."""

    key: WeightKey
    weight: float

    def __call__(self, model: nn.Module, forward: Forward, *, batch_images: Tensor, step: int, done: float) -> Tensor:
        """Return the weighted loss of the layer's current weights; it does not depend on images."""
        projected = self.key.projected(model.get_parameter(self.key.weight))
        message = self.key.message.to(projected)
        return self.weight * F.binary_cross_entropy_with_logits(projected, message, reduction="sum")


def prepare(cfg: Uchida, context: MarkContext, generator: torch.Generator) -> RegisteredMaterial:
    """Choose the weight tensor of the model that will hold the message; the values of the weights are not used.

    Raises:
        ConfigError: the named layer is not a convolution, or no convolution has enough weights for the message.
    """
    shapes = {name: m.weight.shape for name, m in context.model.named_modules() if isinstance(m, nn.Conv2d)}
    name = cfg.layer or next((n for n, shape in shapes.items() if shape[1:].numel() > cfg.bits), "")
    if not name:
        most = max((shape[1:].numel() for shape in shapes.values()), default=0)
        raise ConfigError(f"uchida.bits = {cfg.bits}: the model's widest filters have {most} weights; use fewer bits")
    if name not in shapes:
        raise ConfigError(f"uchida.layer = {name!r}: is no convolution of the model; {nearest(name, shapes)}")
    size = shapes[name][1:].numel()
    if size <= cfg.bits:
        raise ConfigError(f"uchida.bits = {cfg.bits}: the filters of {name!r} have {size} weights; use fewer bits")
    return RegisteredMaterial(
        "weights", {}, {"weight": f"{name}.weight", "shape": list(shapes[name]), "bits": cfg.bits}
    )


def train_hook(cfg: Uchida, key: Key, data: Dataset, *, seed: int) -> Hook:
    """Return the loss that embeds the message during training."""
    assert isinstance(key, WeightKey)
    return Hook(extra=(EmbeddingLoss(key=key, weight=cfg.weight),))
