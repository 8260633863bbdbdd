"""Filters with tensors that are fitted to images: an autoencoder, a trigger detector, and a regression of the scores.

Each filter has a config, a module, and a constructor that returns the module before it is fitted; fitting is in
`wootz.attacks.removal.filters`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from wootz import checks
from wootz.image_features import Projection, amplitude_count, pixel_count, project, standardize
from wootz.models.filters.common import straight_through
from wootz.models.filters.inputs import Resize, resize
from wootz.models.filters.outputs import keep_top


@dataclass(frozen=True, slots=True, kw_only=True)
class Autoencoder:
    """The channels of a small autoencoder.

    Attributes:
        width: the channels of the first level, at half of height and width.
        code: the channels of the bottleneck, at a quarter of height and width.
    """

    width: int = 16
    code: int = 8

    def __post_init__(self) -> None:
        checks.at_least(1, width=self.width, code=self.code)


class AutoencoderFilter(nn.Module):
    """Passes images through an autoencoder before the model (MagNet; Meng, Chen, arXiv 1705.09064).

    The autoencoder reconstructs only features of the images that it was trained on.
    """

    def __init__(self, cfg: Autoencoder, channels: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, cfg.width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(cfg.width, cfg.code, 3, stride=2, padding=1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(cfg.code, 4 * cfg.width, 3, padding=1),
            nn.ReLU(),
            nn.PixelShuffle(2),
            nn.Conv2d(cfg.width, 4 * channels, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def reconstruct(self, x: Tensor) -> Tensor:
        """Images [N, C, H, W] in [0, 1] -> reconstructed images of the same shape."""
        output: Tensor = self.decoder(self.encoder(x))
        return output[..., : x.shape[2], : x.shape[3]].sigmoid()

    def forward(self, inner: nn.Module, x: Tensor) -> Tensor:
        """Images -> logits [N, K]."""
        logits: Tensor = inner(self.reconstruct(x))
        return logits


def autoencoder_filter(cfg: Autoencoder, shape: tuple[int, int, int], num_classes: int) -> AutoencoderFilter:
    """Return an untrained autoencoder, with weights from the global random state."""
    return AutoencoderFilter(cfg, shape[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """Detection of triggers by feature squeezing (Xu et al., arXiv 1704.01155).

    The detector compares the answers to an image and to its resized version. Answers to triggers depend on fine detail,
    so they differ more than those to ordinary images.

    Attributes:
        scale: the size of the resized image, as a fraction of height and width.
        answer: the answer to detected images: that of the resized image (`squeezed`), which is often correct, so that
            false positives cost little accuracy; or a uniform one (`even`), wrong for every false positive and visible
            to the client.
    """

    scale: float = 0.5
    answer: Literal["squeezed", "even"] = "squeezed"

    def __post_init__(self) -> None:
        checks.inside(0, 1, scale=self.scale)


class Comparison(NamedTuple):
    """Log-probabilities of images and of their resized versions, both [N, K], and their L1 distances [N]."""

    original: Tensor
    resized: Tensor
    distance: Tensor


class DetectorFilter(nn.Module):
    """Replaces the answers to images whose distance exceeds `limit`, in L1 distance of probabilities (0 to 2)."""

    limit: Tensor

    def __init__(self, cfg: Detector) -> None:
        super().__init__()
        self.cfg = cfg
        self.register_buffer("limit", torch.tensor(2.0))  # the largest possible distance: detects nothing

    def compare(self, inner: nn.Module, x: Tensor) -> Comparison:
        """Return the answers of `inner` to the images and to their resized versions, and their distances."""
        original = inner(x).float().log_softmax(1)
        resized = inner(resize(Resize(scale=self.cfg.scale), x)).float().log_softmax(1)
        return Comparison(original, resized, (original.exp() - resized.exp()).abs().sum(1))

    def forward(self, inner: nn.Module, x: Tensor) -> Tensor:
        """Images -> log-probabilities [N, K]; uniform answers have straight-through gradients."""
        original, resized, distance = self.compare(inner, x)
        if self.cfg.answer == "squeezed":
            replacement = resized
        else:
            replacement = straight_through(torch.zeros_like(original), original).log_softmax(1)
        return torch.where((distance > self.limit)[:, None], replacement, original)


def detector_filter(cfg: Detector, shape: tuple[int, int, int], num_classes: int) -> DetectorFilter:
    """Return a detector whose limit is not fitted: it detects nothing."""
    return DetectorFilter(cfg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Regress:
    """Regression of the wrong-class scores on image features, against the mark `runner-up`.

    Attributes:
        features: the number of principal components of the pixels that are regressed out.
        amplitudes: the same of the amplitudes.
    """

    features: int = 30
    amplitudes: int = 0

    def __post_init__(self) -> None:
        checks.at_least(1, features=self.features)
        checks.at_least(0, amplitudes=self.amplitudes)


class RegressFilter(nn.Module):
    """Subtracts from the scores a linear map of image features, one map per top-1 class.

    The trace of the mark `runner-up` is linear in public features of the image, within each class. The filter removes
    the whole linear part, which contains both the model's own dependence and the owner's.
    """

    center: Tensor  # [M], of the pixels and the amplitudes
    components: Tensor  # [M, d]
    mean: Tensor  # [K, d], of the features of images with the same top-1 class
    scale: Tensor  # [K, d], their standard deviation
    slope: Tensor  # the coefficients [K, K, d]: top-1 class, class whose score changes, feature

    def __init__(self, features: int, values: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(values))
        self.register_buffer("components", torch.zeros(values, features))
        self.register_buffer("mean", torch.zeros(classes, features))
        self.register_buffer("scale", torch.ones(classes, features))
        self.register_buffer("slope", torch.zeros(classes, classes, features))

    def features(self, x: Tensor, top: Tensor) -> Tensor:
        """Images and their top-1 classes -> features [N, d], standardized within the class, clipped to [-3, 3]."""
        return standardize(project(x, Projection(self.center, self.components)), top, self.mean, self.scale)

    def forward(self, inner: nn.Module, x: Tensor) -> Tensor:
        """Images -> log-probabilities [N, K] with the same top-1 class as those of `inner`."""
        scores = inner(x).float().log_softmax(1)
        top = scores.argmax(1)
        linear = torch.einsum("nkd,nd->nk", self.slope[top], self.features(x, top))
        return keep_top(scores - linear, scores).log_softmax(1)


def regress_filter(cfg: Regress, shape: tuple[int, int, int], num_classes: int) -> RegressFilter:
    """Return a regression that is not fitted: it changes nothing."""
    pixels, amplitudes = pixel_count(shape), amplitude_count(shape) if cfg.amplitudes else 0
    features = min(cfg.features, pixels) + min(cfg.amplitudes, amplitudes)
    return RegressFilter(features, pixels + amplitudes, num_classes)
