"""Filters before the model: images float32 [N, C, H, W] in [0, 1] -> images of the same shape."""

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
from wootz.models.filters.content_noise import content_noise
from wootz.models.filters.through import through


class Before(nn.Module):
    """Changes the images, then asks the model: `change(cfg, x) -> x`."""

    def __init__(self, change: Callable[..., Tensor], cfg: object) -> None:
        super().__init__()
        self.change, self.cfg = change, cfg

    def forward(self, inner: nn.Module, x: Tensor) -> Tensor:
        """Images -> logits [N, K]."""
        logits: Tensor = inner(self.change(self.cfg, x))
        return logits


@dataclass(frozen=True, slots=True, kw_only=True)
class Jpeg:
    """JPEG by Pillow, at a `quality` from 1 to 95."""

    quality: int = 75

    def __post_init__(self) -> None:
        checks.within(1, 95, quality=self.quality)


def jpeg(cfg: Jpeg, x: Tensor) -> Tensor:
    """Compress every image and read it again; three channels are colors, others gray pictures. Straight through."""
    colors = x.shape[1] == 3
    levels = x.detach().clamp(0, 1).mul(255).round().byte().cpu()
    pictures = levels.permute(0, 2, 3, 1) if colors else levels.flatten(0, 1)
    read = torch.from_numpy(np.stack([_compressed(picture, cfg.quality) for picture in pictures.numpy()]))
    images = read.permute(0, 3, 1, 2) if colors else read.view(x.shape)
    return through(images.to(x.device).float().div_(255), x)


def _compressed(picture: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))


@dataclass(frozen=True, slots=True, kw_only=True)
class Blur:
    """A Gaussian of standard deviation `sigma`, in pixels, cut off at three of them."""

    sigma: float = 0.8

    def __post_init__(self) -> None:
        checks.positive(sigma=self.sigma)


def blur(cfg: Blur, x: Tensor) -> Tensor:
    """Average every pixel with its neighbors; the border is mirrored."""
    reach = min(max(1, round(3 * cfg.sigma)), min(x.shape[2:]) - 1)
    places = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    weights = (-places.square() / (2 * cfg.sigma**2)).softmax(0)
    rows = x.reshape(-1, 1, *x.shape[2:])
    padded = F.pad(rows, (reach,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1)).view(x.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Median:
    """A window of `size` x `size` pixels, an odd number."""

    size: int = 3

    def __post_init__(self) -> None:
        checks.one_of(("3", "5", "7"), size=str(self.size))


def median(cfg: Median, x: Tensor) -> Tensor:
    """Replace every pixel by the median of its window (feature squeezing, arXiv 1704.01155); the border is mirrored."""
    padded = F.pad(x, (cfg.size // 2,) * 4, mode="reflect")
    windows = padded.unfold(2, cfg.size, 1).unfold(3, cfg.size, 1)
    return windows.flatten(4).median(4).values


@dataclass(frozen=True, slots=True, kw_only=True)
class Grain:
    """How many gray `levels` are left, from 2 to 256 (feature squeezing, arXiv 1704.01155)."""

    levels: int = 8

    def __post_init__(self) -> None:
        checks.within(2, 256, levels=self.levels)


def grain(cfg: Grain, x: Tensor) -> Tensor:
    """Round every pixel to the nearest level. Straight through."""
    return through(x.mul(cfg.levels - 1).round() / (cfg.levels - 1), x)


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """Gaussian noise of standard deviation `sigma`, in pixels of [0, 1], drawn from the image's own content."""

    sigma: float = 0.1

    def __post_init__(self) -> None:
        checks.positive(sigma=self.sigma)


def noise(cfg: Noise, x: Tensor) -> Tensor:
    """Add noise that is always the same for the same image, so that answers can be repeated."""
    return (x + cfg.sigma * content_noise(x, x[0].numel()).view(x.shape)).clamp(0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Squeeze:
    """How small images become on the way, as a share of height and width."""

    scale: float = 0.5

    def __post_init__(self) -> None:
        checks.inside(0, 1, scale=self.scale)


def squeeze(cfg: Squeeze, x: Tensor) -> Tensor:
    """Scale down, then up again; both bilinear, the first one antialiased."""
    small = [max(1, round(side * cfg.scale)) for side in x.shape[2:]]
    less = F.interpolate(x, size=small, mode="bilinear", antialias=True)
    return F.interpolate(less, size=x.shape[2:], mode="bilinear").clamp(0, 1)
