"""Filters before or after the model: attacks that leave the weights unchanged.

The filters themselves are in `wootz.models.filters`; three of them are fitted here to the attacker's own images.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wootz import checks
from wootz.attacks.context import AttackContext, AttackDataConfig
from wootz.attacks.evasion import predict_logits
from wootz.config import Dataclass
from wootz.data import epoch_batches
from wootz.image_features import class_statistics, fit_projection, project, standardize
from wootz.models import Filtered, with_filter
from wootz.models.filters.fitted import (
    Autoencoder,
    AutoencoderFilter,
    Detector,
    DetectorFilter,
    Regress,
    RegressFilter,
)
from wootz.models.filters.inputs import BitDepth, Blur, Jpeg, Median, Noise, Resize
from wootz.models.filters.outputs import Flatten, OutputNoise, Round, Temperature, TopK
from wootz.modes import eval_mode
from wootz.rng import derive, global_seed
from wootz.types import Attack

_BATCH = 1000
_RIDGE = 1.0  # the ridge penalty of the regression: bounds the coefficients of classes with a small number of images


def add_filter(cfg: Dataclass, model: nn.Module, context: AttackContext) -> Filtered:
    """Return a copy of `model` behind the filter of these settings, in eval mode; a fitted filter is not fitted yet."""
    image = context.data.subset(slice(1)).images()
    channels, height, width = image.shape[1:]
    classes = predict_logits(model, image).shape[1]
    with global_seed(context.seed, "filter"):
        filtered = with_filter(copy.deepcopy(model), cfg, (channels, height, width), classes)
    filtered.eval()
    return filtered


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoencoderAttack(AttackDataConfig):
    """Architecture and training of a denoising autoencoder (MagNet; Meng, Chen, arXiv 1705.09064).

    Attributes:
        width: the number of channels of its first level.
        code: the number of channels of its bottleneck.
        epochs: the number of passes over the data.
        batch_size: the number of images per step.
        lr: the learning rate of Adam.
        noise: the standard deviation of the noise that it is trained to remove, in pixels of [0, 1].
    """

    width: int = 16
    code: int = 8
    epochs: int = 20
    batch_size: int = 64
    lr: float = 5e-3
    noise: float = 0.1

    def __post_init__(self) -> None:
        AttackDataConfig.__post_init__(self)
        checks.at_least(1, width=self.width, code=self.code, epochs=self.epochs, batch_size=self.batch_size)
        checks.positive(lr=self.lr)
        checks.not_negative(noise=self.noise)


def add_autoencoder(cfg: AutoencoderAttack, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a copy of `model` behind an autoencoder trained on clean images; true labels are not used."""
    device = context.execution.accelerator
    filtered = add_filter(Autoencoder(width=cfg.width, code=cfg.code), model, context)
    autoencoder = filtered.filter
    assert isinstance(autoencoder, AutoencoderFilter)
    autoencoder.to(device)
    adam = torch.optim.Adam(autoencoder.parameters(), lr=cfg.lr)
    for epoch in range(cfg.epochs):
        context.progress("autoencoder", epoch / cfg.epochs)
        stream = context.generator("noise", epoch)
        for rows in epoch_batches(len(context.data), cfg.batch_size, seed=derive(context.seed, "rows"), epoch=epoch):
            x = context.data.subset(rows).images()
            noisy = (x + cfg.noise * torch.randn(x.shape, generator=stream)).clamp_(0, 1)
            loss = F.binary_cross_entropy(autoencoder.reconstruct(noisy.to(device)), x.to(device))
            adam.zero_grad()
            loss.backward()
            adam.step()
    autoencoder.zero_grad()
    return filtered.cpu()


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorAttack(AttackDataConfig):
    """Settings of a trigger detector and its false-positive rate.

    Attributes:
        scale: the size of the images in the comparison, as a fraction of height and width.
        answer: the answer to detected images: that of the resized image (`squeezed`), or a uniform one (`even`).
        alarms: the fraction of ordinary images that may be detected as triggers.
    """

    scale: float = 0.5
    answer: Literal["squeezed", "even"] = "squeezed"
    alarms: float = 0.05

    def __post_init__(self) -> None:
        AttackDataConfig.__post_init__(self)
        checks.inside(0, 1, scale=self.scale)
        checks.within(0, 1, alarms=self.alarms)


def add_detector(cfg: DetectorAttack, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a copy of `model` behind a detector with this false-positive rate; true labels are not used."""
    filtered = add_filter(Detector(scale=cfg.scale, answer=cfg.answer), model, context)
    detector = filtered.filter
    assert isinstance(detector, DetectorFilter)
    with eval_mode(filtered), torch.no_grad():
        batches = context.data.images().split(_BATCH)
        distances = torch.cat([detector.compare(filtered.inner, batch).distance for batch in batches])
    detector.limit.copy_(distances.quantile(1 - cfg.alarms))
    return filtered


@dataclass(frozen=True, slots=True, kw_only=True)
class RegressAttack(AttackDataConfig):
    """Regression of the wrong-class scores on image features.

    Attributes:
        features: the number of principal components of the pixels that are regressed out.
        amplitudes: the same of the amplitudes.
    """

    features: int = 30
    amplitudes: int = 20

    def __post_init__(self) -> None:
        AttackDataConfig.__post_init__(self)
        checks.at_least(1, features=self.features)
        checks.at_least(0, amplitudes=self.amplitudes)


def add_regression(cfg: RegressAttack, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a copy of `model` whose wrong-class scores are uncorrelated with every feature.

    True labels are not used.
    """
    filtered = add_filter(Regress(features=cfg.features, amplitudes=cfg.amplitudes), model, context)
    regression = filtered.filter
    assert isinstance(regression, RegressFilter)
    x = context.data.images()
    scores = predict_logits(model, x).log_softmax(1)
    top = scores.argmax(1)
    projection = fit_projection(x, cfg.features, cfg.amplitudes)
    regression.center.copy_(projection.center)
    regression.components.copy_(projection.components)
    z = project(x, projection)
    mean, scale = class_statistics(z, top, len(regression.mean))
    regression.mean.copy_(mean)
    regression.scale.copy_(scale)
    z = standardize(z, top, mean, scale).double()
    for k in top.unique().tolist():
        regression.slope[k] = _ridge_coefficients(z[top == k], scores[top == k].double(), k).float()
    return filtered


def _ridge_coefficients(z: Tensor, scores: Tensor, k: int) -> Tensor:
    """Return the coefficients [K, d] of class k's centered wrong-class scores on the features; row k is zero."""
    wrong = torch.arange(scores.shape[1]) != k
    centered = scores[:, wrong] - scores[:, wrong].mean(1, keepdim=True)
    z, centered = z - z.mean(0), centered - centered.mean(0)
    coefficients = torch.zeros(scores.shape[1], z.shape[1], dtype=z.dtype)
    penalty = _RIDGE * torch.eye(z.shape[1], dtype=z.dtype)
    coefficients[wrong] = torch.linalg.solve(z.T @ z + penalty, z.T @ centered).T
    return coefficients


FILTER_ATTACKS: Mapping[str, Attack] = MappingProxyType(
    {
        "input-jpeg": Attack(add_filter, Jpeg(), "arXiv 1608.00853", "weights", "none"),
        "input-blur": Attack(add_filter, Blur(), "a Gaussian", "weights", "none"),
        "input-median": Attack(add_filter, Median(), "arXiv 1704.01155", "weights", "none"),
        "input-quantize": Attack(add_filter, BitDepth(), "arXiv 1704.01155", "weights", "none"),
        "input-noise": Attack(add_filter, Noise(), "Gaussian, by the image's content", "weights", "none"),
        "input-squeeze": Attack(add_filter, Resize(), "down and up again, bilinear", "weights", "none"),
        "input-autoencoder": Attack(
            add_autoencoder, AutoencoderAttack(), "arXiv 1705.09064", "weights", "unlabeled data"
        ),
        "output-round": Attack(add_filter, Round(), "arXiv 1609.02943, 7", "weights", "none"),
        "output-top-k": Attack(add_filter, TopK(), "arXiv 1609.02943, 7", "weights", "none"),
        "output-temperature": Attack(add_filter, Temperature(), "arXiv 1610.05820, 7", "weights", "none"),
        "output-noise": Attack(add_filter, OutputNoise(), "Gaussian, by the image's content", "weights", "none"),
        "output-flatten": Attack(add_filter, Flatten(), "wrong classes made equal", "weights", "none"),
        "output-regress": Attack(
            add_regression, RegressAttack(), "ours, adaptive: against runner-up", "weights", "unlabeled data"
        ),
        "refuse": Attack(
            add_detector, DetectorAttack(), "ours, adaptive: against triggers", "weights", "unlabeled data"
        ),
    }
)
"""The attacks that add a filter, by name."""
