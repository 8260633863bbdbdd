"""Residuals and ridge coefficients."""

from __future__ import annotations

import pytest
import torch

from wootz.statistics.regression import CLASS_PENALTY, class_score_residuals, residuals, ridge_coefficients
from wrong_classes import BASE, K, N, normal


def test_a_regression_by_hand() -> None:
    known, rest = normal(N, seed=1), normal(N, seed=2)
    rest -= known * float((known * rest).sum() / (known * known).sum())
    assert torch.allclose(residuals(3 * known + rest, known[:, None]), rest)
    assert torch.allclose(residuals(3 * known + rest, torch.stack([known, known], 1)), rest)
    assert torch.equal(residuals(rest, torch.empty(N, 0, dtype=rest.dtype)), rest)
    both = residuals(torch.stack([rest, 3 * known + rest], 1), known[:, None])
    assert torch.allclose(both, torch.stack([rest, rest], 1))


@pytest.mark.parametrize("members", [0, 1, 3])
def test_class_score_residuals_are_those_of_one_regression_with_indicators(members: int) -> None:
    counted = torch.arange(K) != BASE[:, None]
    shown, known = normal(N, K, seed=1) * counted, normal(N, K, members, seed=2) * counted[..., None]
    liked = torch.eye(K).double().expand(N, K, K) * counted[..., None]
    doubt = torch.tensor([1e-9] * members + [CLASS_PENALTY] * K, dtype=torch.float64)
    whole = residuals(shown.flatten(), torch.cat([known, liked], 2).flatten(0, 1), doubt).view(N, K)
    assert torch.allclose(class_score_residuals(shown, known, counted), whole, atol=1e-9)


def test_batched_regressions_are_those_one_by_one() -> None:
    known, shown = normal(3, N, 2, seed=1), normal(3, N, 4, seed=2)
    left = residuals(shown, known)
    weights = normal(3, N, seed=3).abs()
    for row in range(3):
        assert torch.allclose(left[row], residuals(shown[row], known[row]))
        alone = ridge_coefficients(left[row, :, 0], left[row, :, 1:], weights[row], 2.0)
        assert torch.allclose(ridge_coefficients(left[..., 0], left[..., 1:], weights, 2.0)[row], alone)


def test_coefficients_of_residuals_are_those_beside_the_regressors() -> None:
    known, features, shown = normal(N, 2, seed=1), normal(N, 3, seed=2), normal(N, seed=3)
    features += known[:, :1]
    whole = torch.linalg.lstsq(torch.cat([features, known], 1), shown[:, None]).solution[:3, 0]
    left, far = residuals(shown, known), residuals(features, known)
    assert torch.allclose(ridge_coefficients(left, far, torch.ones(N).double(), 0.0), whole, atol=1e-6)


def test_the_penalty_equals_rows_with_target_zero() -> None:
    far, left, weights = normal(N, 3, seed=2), normal(N, seed=3), torch.ones(N).double()
    more = torch.cat([far, 5**0.5 * torch.eye(3, dtype=far.dtype)])
    shown = torch.cat([left, torch.zeros(3, dtype=far.dtype)])
    found = ridge_coefficients(left, far, weights, 5.0)
    assert torch.allclose(found, torch.linalg.lstsq(more, shown[:, None]).solution[:, 0])
    assert torch.allclose(ridge_coefficients(left, far, weights, 1e9) * 1e9, far.T @ left, rtol=1e-5)


def test_weights_scale_the_rows() -> None:
    far, left = normal(N, 1, seed=2), normal(N, seed=3)
    half = ridge_coefficients(left, far, torch.full((N,), 0.5).double(), 1.0)
    told = float((far * far).sum())
    assert torch.allclose(half * (told / 2 + 1), far.T @ left)
