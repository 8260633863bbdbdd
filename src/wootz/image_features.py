"""Public features of images, which marks weigh by a secret direction and which adaptive attacks regress out.

A feature is a principal component of the pixels, or of the amplitudes of low spatial frequencies. Amplitudes stay the
same when an image is shifted circularly or mirrored, so models that learn from shifted and mirrored copies learn them.
Both are taken of images of at most 32 pixels a side, so that their number does not grow with the resolution.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from wootz.rng import global_seed

_OVERSAMPLED = 10  # components that the randomized decomposition finds in addition, for accuracy
_LARGEST_SIDE = 32  # in pixels
_FREQUENCIES = 6  # of each axis, from 0
_MAX_DEVIATIONS = 3.0
_MIN_SCALE = 1e-3


class Projection(NamedTuple):
    """Principal components, those of the pixels first.

    Attributes:
        center: the means [M] of the pixels, or of the pixels and the amplitudes.
        components: the directions [M, d].
    """

    center: Tensor
    components: Tensor


def reduced(x: Tensor) -> Tensor:
    """Return images float32 [N, C, H, W] with sides of at most 32 pixels, each the mean of what it covers."""
    height, width = _sides(x.shape)
    return x if (height, width) == tuple(x.shape[-2:]) else F.adaptive_avg_pool2d(x, (height, width))


def pixel_count(shape: tuple[int, ...]) -> int:
    """Return how many values `reduced` images of `shape` [C, H, W] have."""
    height, width = _sides(shape)
    return shape[-3] * height * width


def _sides(shape: tuple[int, ...]) -> tuple[int, int]:
    height, width = shape[-2:]
    return min(height, _LARGEST_SIDE), min(width, _LARGEST_SIDE)


def amplitudes(x: Tensor) -> Tensor:
    """Images float32 [N, C, H, W], `reduced` -> square roots of the amplitudes of their low frequencies [N, A].

    The amplitude of a frequency is the root mean square of those of the frequency and of its mirror image.
    """
    rows, columns = _frequencies(x.shape)
    spectrum = torch.fft.rfft2(x, norm="ortho").abs()[..., :columns]
    mirrored = spectrum.roll(-1, -2).flip(-2)  # row k holds the frequency -k
    squares: Tensor = (spectrum**2 + mirrored**2) / 2
    return squares[..., :rows, :].flatten(1) ** 0.25


def amplitude_count(shape: tuple[int, ...]) -> int:
    """Return how many amplitudes are taken of images of `shape` [C, H, W]."""
    rows, columns = _frequencies(shape)
    return shape[-3] * rows * columns


def _frequencies(shape: tuple[int, ...]) -> tuple[int, int]:
    height, width = _sides(shape)
    return min(_FREQUENCIES, height // 2 + 1), min(_FREQUENCIES, width // 2 + 1)


def fit_projection(x: Tensor, pixel_components: int, amplitude_components: int) -> Projection:
    """Return the leading principal components of the pixels and of the amplitudes of images float32 [N, C, H, W].

    There are at most as many as values; components beyond the rank of the data are 0. Without amplitudes, `center` and
    `components` cover the pixels only.
    """
    x = reduced(x)
    blocks = [_leading(x.flatten(1), pixel_components)]
    if amplitude_components:
        blocks.append(_leading(amplitudes(x), amplitude_components))
    return Projection(
        torch.cat([block.center for block in blocks]), torch.block_diag(*(block.components for block in blocks))
    )


def _leading(values: Tensor, count: int) -> Projection:
    center, count = values.mean(0), min(count, values.shape[1])
    components = values.new_zeros(values.shape[1], count)
    rank = min(count, len(values))
    sampled = min(count + _OVERSAMPLED, *values.shape)
    with global_seed(0, "components"):
        components[:, :rank] = torch.pca_lowrank(values - center, q=sampled, center=False, niter=4)[2][:, :rank]
    return Projection(center, components)


def project(x: Tensor, projection: Projection) -> Tensor:
    """Images float32 [N, C, H, W] -> components [N, d]."""
    x = reduced(x)
    values = x.flatten(1)
    if len(projection.center) > values.shape[1]:
        values = torch.cat([values, amplitudes(x)], 1)
    return (values - projection.center) @ projection.components


def class_statistics(z: Tensor, y: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return the means and the standard deviations [K, d] of components z [N, d] within each class y [N].

    A class without images has those of all images.
    """
    members = [z[y == k] if (y == k).any() else z for k in range(num_classes)]
    scales = [m.std(0, correction=0).clamp_min(_MIN_SCALE) for m in members]
    return torch.stack([m.mean(0) for m in members]), torch.stack(scales)


def standardize(z: Tensor, y: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Return components z [N, d], standardized within the classes y [N] and clipped to [-3, 3]."""
    return ((z - mean[y]) / scale[y]).clamp(-_MAX_DEVIATIONS, _MAX_DEVIATIONS)
