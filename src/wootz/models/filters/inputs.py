"""Filters of the inputs: images float32 [N, C, H, W] in [0, 1] -> images of the same shape."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from wootz import checks
from wootz.models.filters.common import content_noise, straight_through


class InputFilter(nn.Module):
    """Passes images through `change(cfg, x) -> x` before the model."""

    def __init__(self, change: Callable[..., Tensor], cfg: object) -> None:
        super().__init__()
        self.change, self.cfg = change, cfg

    def forward(self, inner: nn.Module, x: Tensor) -> Tensor:
        """Images -> logits [N, K]."""
        logits: Tensor = inner(self.change(self.cfg, x))
        return logits


@dataclass(frozen=True, slots=True, kw_only=True)
class Jpeg:
    """JPEG compression by Pillow.

    Attributes:
        quality: the quality, from 1 to 95.
    """

    quality: int = 75

    def __post_init__(self) -> None:
        checks.within(1, 95, quality=self.quality)


def jpeg(cfg: Jpeg, x: Tensor) -> Tensor:
    """Return the images after compression and decompression, with straight-through gradients.

    Three channels are compressed as one color image, any other number as separate gray images.
    """
    colors = x.shape[1] == 3
    levels = x.detach().clamp(0, 1).mul(255).round().byte().cpu()
    pictures = levels.permute(0, 2, 3, 1) if colors else levels.flatten(0, 1)
    decoded = torch.from_numpy(np.stack([_compress(picture, cfg.quality) for picture in pictures.numpy()]))
    images = decoded.permute(0, 3, 1, 2) if colors else decoded.view(x.shape)
    return straight_through(images.to(x.device).float().div_(255), x)


def _compress(picture: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))


@dataclass(frozen=True, slots=True, kw_only=True)
class Blur:
    """Gaussian blur, truncated at three standard deviations.

    Attributes:
        sigma: the standard deviation, in pixels.
    """

    sigma: float = 0.8

    def __post_init__(self) -> None:
        checks.positive(sigma=self.sigma)


def blur(cfg: Blur, x: Tensor) -> Tensor:
    """Return the blurred images; the border is mirrored."""
    radius = min(max(1, round(3 * cfg.sigma)), min(x.shape[2:]) - 1)
    offsets = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    weights = (-offsets.square() / (2 * cfg.sigma**2)).softmax(0)
    rows = x.reshape(-1, 1, *x.shape[2:])
    padded = F.pad(rows, (radius,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1)).view(x.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Median:
    """A median filter.

    Attributes:
        size: the height and width of its window: 3, 5 or 7 pixels.
    """

    size: int = 3

    def __post_init__(self) -> None:
        checks.one_of(("3", "5", "7"), size=str(self.size))


def median(cfg: Median, x: Tensor) -> Tensor:
    """Return the median of each pixel's window (feature squeezing, arXiv 1704.01155); the border is mirrored."""
    padded = F.pad(x, (cfg.size // 2,) * 4, mode="reflect")
    windows = padded.unfold(2, cfg.size, 1).unfold(3, cfg.size, 1)
    return windows.flatten(4).median(4).values


@dataclass(frozen=True, slots=True, kw_only=True)
class BitDepth:
    """Reduction of the bit depth (feature squeezing, arXiv 1704.01155).

    Attributes:
        levels: the number of gray levels that remain, from 2 to 256.
    """

    levels: int = 8

    def __post_init__(self) -> None:
        checks.within(2, 256, levels=self.levels)


def reduce_bit_depth(cfg: BitDepth, x: Tensor) -> Tensor:
    """Return the images rounded to the nearest levels, with straight-through gradients."""
    return straight_through(x.mul(cfg.levels - 1).round() / (cfg.levels - 1), x)


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """Gaussian noise that is a function of the image.

    Attributes:
        sigma: the standard deviation, in pixels of [0, 1].
    """

    sigma: float = 0.1

    def __post_init__(self) -> None:
        checks.positive(sigma=self.sigma)


def noise(cfg: Noise, x: Tensor) -> Tensor:
    """Return the images with noise, clipped to [0, 1]; equal images get equal noise, so that answers are repeatable."""
    return (x + cfg.sigma * content_noise(x, x[0].numel()).view(x.shape)).clamp(0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize:
    """Downscaling, then upscaling to the original size.

    Attributes:
        scale: the smaller size, as a fraction of height and width.
    """

    scale: float = 0.5

    def __post_init__(self) -> None:
        checks.inside(0, 1, scale=self.scale)


def resize(cfg: Resize, x: Tensor) -> Tensor:
    """Return the images after bilinear downscaling, with antialiasing, and bilinear upscaling."""
    small = [max(1, round(side * cfg.scale)) for side in x.shape[2:]]
    smaller = F.interpolate(x, size=small, mode="bilinear", antialias=True)
    return F.interpolate(smaller, size=x.shape[2:], mode="bilinear").clamp(0, 1)
