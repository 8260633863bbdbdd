"""Features of images: principal components of pixels and of amplitudes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wootz.data import Dataset
from wootz.image_features import (
    amplitude_count,
    amplitudes,
    class_statistics,
    fit_projection,
    project,
    standardize,
)


class TestAmplitudes:
    @pytest.mark.parametrize("shape", [(1, 28, 28), (3, 8, 5), (2, 1, 3), (1, 11, 12)])
    def test_shifts_around_the_border_and_mirror_images_keep_them(self, shape: tuple[int, int, int]) -> None:
        x = torch.rand(4, *shape, generator=torch.Generator().manual_seed(0))
        found = amplitudes(x)
        assert found.shape == (4, amplitude_count(shape))
        assert found.std() > 0.01
        for other in (x.roll((1, 2), (2, 3)), x.flip(3), x.flip(2), x.flip(3).roll(-1, 3)):
            assert torch.allclose(amplitudes(other), found, atol=1e-3)

    def test_by_the_definition(self) -> None:
        x = torch.rand(1, 1, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        rows, columns = torch.arange(6).double(), torch.arange(8).double()

        def amplitude(k: int, m: int) -> Tensor:
            phase = 2 * torch.pi * (k * rows[:, None] / 6 + m * columns / 8)
            return torch.complex((x * phase.cos()).sum(), (x * -phase.sin()).sum()).abs() / 48**0.5

        expected = [
            ((amplitude(k, m) ** 2 + amplitude(-k, m) ** 2) / 2).sqrt().sqrt() for k in range(4) for m in range(5)
        ]
        assert torch.allclose(amplitudes(x).flatten(), torch.stack(expected))


class TestProjection:
    def test_components_are_those_of_a_singular_value_decomposition(self, digits: Dataset) -> None:
        x = digits.thief.images()
        z = project(x, fit_projection(x, 5, 3))
        for values, found in ((x.flatten(1), z[:, :5]), (amplitudes(x), z[:, 5:])):
            u, s, _ = torch.linalg.svd(values - values.mean(0), full_matrices=False)
            count = found.shape[1]
            cosine = torch.nn.functional.cosine_similarity(found, u[:, :count] * s[:count], dim=0).abs()
            assert cosine.min() > 0.99

    def test_without_amplitudes_only_pixels_are_covered(self, digits: Dataset) -> None:
        projection = fit_projection(digits.thief.images(), 4, 0)
        assert projection.center.shape == (784,)
        assert projection.components.shape == (784, 4)

    def test_components_beyond_the_rank_are_zero(self) -> None:
        x = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(2))
        z = project(x, fit_projection(x, 7, 2))
        assert z.shape == (3, 9)
        assert (z[:, 3:7] == 0).all()

    def test_standardized_within_each_class(self) -> None:
        z = torch.randn(600, 3, generator=torch.Generator().manual_seed(3)) * 5 + 2
        y = torch.arange(600) % 3
        found = standardize(z, y, *class_statistics(z, y, 4))
        assert found.abs().max() <= 3
        for k in range(3):
            assert found[y == k].mean(0).abs().max() < 0.05
            assert (found[y == k].std(0) - 1).abs().max() < 0.05
