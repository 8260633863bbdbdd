"""The filter that forgets scores: what is linear in an image leaves the order of its wrong classes.

Made against the mark `runner-up`, whose trace is linear in the leading principal components of the image, class by
class. It knows the method, not the key: it takes out the whole linear part, the model's own with the owner's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wootz import checks
from wootz.models.filters.outputs import keep_top


@dataclass(frozen=True, slots=True, kw_only=True)
class Regress:
    """How many principal components are taken out: `features`."""

    features: int = 30

    def __post_init__(self) -> None:
        checks.at_least(1, features=self.features)


class Residual(nn.Module):
    """Asks the model and subtracts, for the class that it answers, a linear map of the image's features."""

    center: Tensor  # [pixels]
    components: Tensor  # [pixels, d]
    mean: Tensor  # [K, d], of the features of images answered alike
    scale: Tensor  # [K, d]
    slope: Tensor  # [K, K, d]: class answered, class changed, feature

    def __init__(self, features: int, pixels: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(pixels))
        self.register_buffer("components", torch.zeros(pixels, features))
        self.register_buffer("mean", torch.zeros(classes, features))
        self.register_buffer("scale", torch.ones(classes, features))
        self.register_buffer("slope", torch.zeros(classes, classes, features))

    def features(self, x: Tensor, answered: Tensor) -> Tensor:
        """Images and the classes they are answered with -> features [N, d], whitened in the class, within +-3."""
        z = (x.flatten(1) - self.center) @ self.components
        return ((z - self.mean[answered]) / self.scale[answered]).clamp(-3, 3)

    def forward(self, inner: nn.Module, x: Tensor) -> Tensor:
        """Images -> log-probabilities [N, K]; the top class stays the top class."""
        scores = inner(x).float().log_softmax(1)
        top = scores.argmax(1)
        linear = torch.einsum("nkd,nd->nk", self.slope[top], self.features(x, top))
        return keep_top(scores - linear, scores).log_softmax(1)


def regress(cfg: Regress, shape: tuple[int, int, int], num_classes: int) -> Residual:
    """Return the filter before it is fitted: it changes nothing."""
    channels, height, width = shape
    pixels = channels * height * width
    return Residual(min(cfg.features, pixels), pixels, num_classes)
