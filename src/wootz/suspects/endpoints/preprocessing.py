"""Preprocessing of images for an endpoint: pixel range, layout, size and channels, as arrays or as PNG files."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from wootz import checks
from wootz.errors import ConfigError

Pixels: TypeAlias = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How images float32 [N, C, H, W] in [0, 1] are converted; a PNG ignores `scale` and `layout`.

    Attributes:
        scale: `0-1` leaves the values, `0-255` multiplies by 255, `mean/std` normalizes by `mean` and `std`.
        mean: one number, or one per channel.
        std: one number, or one per channel.
        layout: the order of the axes.
        size: (H, W) to resize to, bilinear with antialiasing; empty leaves the size.
        channels: the number of channels that a single channel is repeated to; None leaves it.
        order: the order of three color channels.
    """

    scale: Literal["0-1", "0-255", "mean/std"] = "0-1"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    size: tuple[int, ...] = ()
    channels: int | None = None
    order: Literal["RGB", "BGR"] = "RGB"

    def __post_init__(self) -> None:
        if len(self.size) not in (0, 2) or any(side < 1 for side in self.size):
            raise ConfigError(f"presentation.size = {self.size}: must be height and width, for example 32,32")
        if self.channels not in (None, 1, 3):
            raise ConfigError(f"presentation.channels = {self.channels}: must be 1 or 3")
        if not self.mean or not self.std:
            raise ConfigError("presentation: mean and std need at least one number each")
        for std in self.std:
            checks.positive(std=std)


def preprocess(x: Tensor, cfg: Preprocessing) -> Pixels:
    """Convert images [N, C, H, W] in [0, 1] to float32 in the range, layout, size and channels of `cfg`.

    Raises:
        ConfigError: `cfg` does not fit the number of channels.
    """
    x = _resize(x, cfg)
    if cfg.scale == "0-255":
        x = x * 255
    elif cfg.scale == "mean/std":
        x = (x - _per_channel("mean", cfg.mean, x)) / _per_channel("std", cfg.std, x)
    return np.ascontiguousarray((x if cfg.layout == "NCHW" else x.permute(0, 2, 3, 1)).numpy())


def encode_png(x: Tensor, cfg: Preprocessing) -> list[bytes]:
    """Encode each of the images [N, C, H, W] in [0, 1] as a PNG file, gray or RGB, with 8 bits per channel.

    Raises:
        ConfigError: the images have neither 1 nor 3 channels, or `cfg` does not fit their number.
    """
    x = _resize(x, cfg)
    if x.shape[1] not in (1, 3):
        raise ConfigError(f"a PNG has 1 or 3 channels, not {x.shape[1]}; set presentation.channels")
    levels = x.mul(255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).squeeze(3).numpy()
    files = []
    for image in levels:
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG")
        files.append(buffer.getvalue())
    return files


def _resize(x: Tensor, cfg: Preprocessing) -> Tensor:
    """Return [N, C, H, W] with the channels, the size and the channel order of `cfg`."""
    if cfg.channels is not None and cfg.channels != x.shape[1]:
        if x.shape[1] != 1:
            raise ConfigError(f"presentation.channels = {cfg.channels}: the images have {x.shape[1]}")
        x = x.expand(-1, cfg.channels, -1, -1)
    if cfg.size and tuple(x.shape[2:]) != cfg.size:
        x = F.interpolate(x, size=cfg.size, mode="bilinear", align_corners=False, antialias=True)
    return x.flip(1) if cfg.order == "BGR" else x


def _per_channel(name: str, values: tuple[float, ...], x: Tensor) -> Tensor:
    if len(values) not in (1, x.shape[1]):
        raise ConfigError(f"presentation.{name} = {values}: must be one number or {x.shape[1]}, one per channel")
    return torch.tensor(values, dtype=x.dtype).view(1, -1, 1, 1)
