"""Fine-tuning on mixed images (mixup, Zhang et al., arXiv 1710.09412): between two classes no memory is of use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from scipy.special import betaincinv
from torch import Tensor, nn
from torch.nn import functional as F

from wootz import checks
from wootz.attacks.adversary import AttackContext
from wootz.attacks.evasion import predict_logits
from wootz.attacks.removal.tuning import Tuning, tune
from wootz.data import Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixup(Tuning):
    """How images are mixed.

    Attributes:
        alpha: shares are drawn from Beta(alpha, alpha); the source's for CIFAR-10 is 1, for ImageNet 0.2.
        partners: others that each image is mixed with, in turn; an epoch shows all of the mixtures. The source
            draws a new partner in every epoch: that is `epochs` = 1 here, with as many partners.
    """

    alpha: float = 1.0
    partners: int = 10
    epochs: int = 1

    def __post_init__(self) -> None:
        Tuning.__post_init__(self)
        checks.positive(alpha=self.alpha)
        checks.at_least(1, partners=self.partners)


class Mixed(NamedTuple):
    """Mixed images with the label of the larger part, and both labels' shares as targets [N, K]."""

    share: Split
    targets: Tensor


def mixup(cfg: Mixup, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a copy of `model`, trained on mixtures of the attacker's images."""
    classes = predict_logits(model, context.data.subset(slice(1)).images()).shape[1]
    mixed = mixtures(cfg, context.data, classes, context.generator("mixup"))
    return tune(cfg, model, context, share=mixed.share, targets=mixed.targets)


def mixtures(cfg: Mixup, share: Split, classes: int, generator: torch.Generator) -> Mixed:
    """Return every image mixed with each of its partners."""
    first = torch.arange(len(share)).repeat(cfg.partners)
    second = torch.cat([torch.randperm(len(share), generator=generator) for _ in range(cfg.partners)])
    uniform = torch.rand(len(first), generator=generator, dtype=torch.float64)
    part = torch.from_numpy(betaincinv(cfg.alpha, cfg.alpha, uniform.numpy())).float()[:, None]
    labels = F.one_hot(share.labels, classes).float()
    targets = part * labels[first] + (1 - part) * labels[second]
    part = part[..., None, None]
    pixels = (part * share.pixels[first] + (1 - part) * share.pixels[second]).round_().to(torch.uint8)
    return Mixed(Split(pixels, targets.argmax(1)), targets)
