"""The filter that distrusts: an answer that a squeezed image does not bear out is not believed.

Made against marks that ask about odd images (triggers): their answers hang on fine detail. The detector is feature
squeezing's (Xu et al., arXiv 1704.01155): how far the probabilities move when the image is scaled down and up again.
It knows that there are triggers, not which.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from wootz import checks
from wootz.models.filters.inputs import Squeeze, squeeze
from wootz.models.filters.through import through


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """How to look, and what to say.

    Attributes:
        scale: how small the image becomes on the way, as a share of height and width.
        answer: to suspicious images: the `squeezed` image's, often the right one, so that ordinary images that raise a
            false alarm lose little; or `even`, all classes alike, which costs every false alarm and tells more.
    """

    scale: float = 0.5
    answer: Literal["squeezed", "even"] = "squeezed"

    def __post_init__(self) -> None:
        checks.inside(0, 1, scale=self.scale)


class Distrust(nn.Module):
    """Asks about the image and its squeezed self, and does not believe the former where the two differ too much."""

    limit: Tensor

    def __init__(self, cfg: Refuse) -> None:
        super().__init__()
        self.cfg = cfg
        self.register_buffer("limit", torch.tensor(2.0))  # of an l1 distance of probabilities: nothing is above it

    def both(self, inner: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return log-probabilities of the images and of their squeezed selves [N, K], and their distances [N]."""
        plain = inner(x).float().log_softmax(1)
        squeezed = inner(squeeze(Squeeze(scale=self.cfg.scale), x)).float().log_softmax(1)
        return plain, squeezed, (plain.exp() - squeezed.exp()).abs().sum(1)

    def forward(self, inner: nn.Module, x: Tensor) -> Tensor:
        """Images -> log-probabilities [N, K]; gradients go straight through even answers."""
        plain, squeezed, distance = self.both(inner, x)
        other = squeezed if self.cfg.answer == "squeezed" else through(torch.zeros_like(plain), plain).log_softmax(1)
        return torch.where((distance > self.limit)[:, None], other, plain)


def refuse(cfg: Refuse, shape: tuple[int, int, int], num_classes: int) -> Distrust:
    """Return the filter before its limit is known: it believes every image."""
    return Distrust(cfg)
