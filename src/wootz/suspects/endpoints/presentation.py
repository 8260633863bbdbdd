"""Show images the way an endpoint wants to see them: range, layout, size, channels; and as PNG."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from wootz import checks
from wootz.errors import ConfigError

Pixels: TypeAlias = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Presentation:
    """How images float32 [N, C, H, W] in [0, 1] are shown; a PNG always carries gray levels in its own layout.

    Attributes:
        scale: `0-1` as they are, `0-255` gray levels, `mean/std` normalized by `mean` and `std`.
        mean: one number, or one a channel.
        std: one number, or one a channel.
        layout: order of the axes.
        size: (H, W) to resize to, bilinear with antialiasing; empty leaves the size.
        channels: a single channel is repeated up to this number; None leaves it.
        order: of three color channels.
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
            raise ConfigError("presentation: mean and std hold at least one number each")
        for std in self.std:
            checks.positive(std=std)


def present(x: Tensor, cfg: Presentation) -> Pixels:
    """Return images [N, C, H, W] in [0, 1] as float32, in the range and layout that `cfg` asks for."""
    x = _arranged(x, cfg)
    if cfg.scale == "0-255":
        x = x * 255
    elif cfg.scale == "mean/std":
        x = (x - _a_channel("mean", cfg.mean, x)) / _a_channel("std", cfg.std, x)
    return _contiguous(x if cfg.layout == "NCHW" else x.permute(0, 2, 3, 1))


def pngs(x: Tensor, cfg: Presentation) -> list[bytes]:
    """Return each image as a PNG of 8 bits a channel: the same bytes on every computer, so nothing is compressed."""
    levels = _contiguous(_arranged(x, cfg).mul(255).round().clamp(0, 255).byte().permute(0, 2, 3, 1))
    return [_png(image) for image in levels]


def _arranged(x: Tensor, cfg: Presentation) -> Tensor:
    """Return [N, C, H, W] with the channels, the size and the order that `cfg` asks for."""
    if cfg.channels is not None and cfg.channels != x.shape[1]:
        if x.shape[1] != 1:
            raise ConfigError(f"presentation.channels = {cfg.channels}: the images have {x.shape[1]}")
        x = x.expand(-1, cfg.channels, -1, -1)
    if cfg.size and tuple(x.shape[2:]) != cfg.size:
        x = F.interpolate(x, size=cfg.size, mode="bilinear", align_corners=False, antialias=True)
    return x.flip(1) if cfg.order == "BGR" else x


def _a_channel(name: str, values: tuple[float, ...], x: Tensor) -> Tensor:
    if len(values) not in (1, x.shape[1]):
        raise ConfigError(f"presentation.{name} = {values}: must be one number or {x.shape[1]}, one a channel")
    return torch.tensor(values, dtype=x.dtype).view(1, -1, 1, 1)


def _contiguous(x: Tensor) -> Pixels:
    return np.ascontiguousarray(x.numpy())


def _png(image: Pixels) -> bytes:
    """Write uint8 [H, W, C] by the PNG specification (third edition): gray or RGB, no filter, stored blocks."""
    height, width, channels = image.shape
    if channels not in (1, 3):
        raise ConfigError(f"a PNG holds 1 or 3 channels, not {channels}; set presentation.channels")
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in image)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", _stored(rows)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _stored(data: bytes) -> bytes:
    """Wrap `data` as a zlib stream without compression (RFC 1950, RFC 1951): libraries differ in how they compress."""
    starts = range(0, len(data), 0xFFFF)
    blocks = b"".join(
        struct.pack("<BHH", start + 0xFFFF >= len(data), len(block), len(block) ^ 0xFFFF) + block
        for start in starts
        for block in (data[start : start + 0xFFFF],)
    )
    return b"\x78\x01" + blocks + struct.pack(">I", zlib.adler32(data))
