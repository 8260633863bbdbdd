"""What is left without what is known, and the slopes of that."""

from __future__ import annotations

import pytest
import torch

from wootz.statistics.regression import CLASS_PENALTY, slope, unexplained, unexplained_scores
from wrong_classes import BASE, K, N, draw


def test_a_regression_by_hand() -> None:
    known, rest = draw(N, seed=1), draw(N, seed=2)
    rest -= known * float((known * rest).sum() / (known * known).sum())
    assert torch.allclose(unexplained(3 * known + rest, known[:, None]), rest)
    assert torch.allclose(unexplained(3 * known + rest, torch.stack([known, known], 1)), rest)
    assert torch.equal(unexplained(rest, torch.empty(N, 0, dtype=rest.dtype)), rest)
    both = unexplained(torch.stack([rest, 3 * known + rest], 1), known[:, None])
    assert torch.allclose(both, torch.stack([rest, rest], 1))


@pytest.mark.parametrize("members", [0, 1, 3])
def test_scores_without_what_is_known_and_liked_are_those_of_one_regression_on_all(members: int) -> None:
    counted = torch.arange(K) != BASE[:, None]
    shown, known = draw(N, K, seed=1) * counted, draw(N, K, members, seed=2) * counted[..., None]
    liked = torch.eye(K).double().expand(N, K, K) * counted[..., None]
    doubt = torch.tensor([1e-9] * members + [CLASS_PENALTY] * K, dtype=torch.float64)
    whole = unexplained(shown.flatten(), torch.cat([known, liked], 2).flatten(0, 1), doubt).view(N, K)
    assert torch.allclose(unexplained_scores(shown, known, counted), whole, atol=1e-9)


def test_regressions_side_by_side_are_those_one_by_one() -> None:
    known, shown = draw(3, N, 2, seed=1), draw(3, N, 4, seed=2)
    left = unexplained(shown, known)
    weights = draw(3, N, seed=3).abs()
    for row in range(3):
        assert torch.allclose(left[row], unexplained(shown[row], known[row]))
        alone = slope(left[row, :, 0], left[row, :, 1:], weights[row], 2.0)
        assert torch.allclose(slope(left[..., 0], left[..., 1:], weights, 2.0)[row], alone)


def test_slopes_without_what_is_known_are_those_beside_it() -> None:
    known, features, shown = draw(N, 2, seed=1), draw(N, 3, seed=2), draw(N, seed=3)
    features += known[:, :1]
    whole = torch.linalg.lstsq(torch.cat([features, known], 1), shown[:, None]).solution[:3, 0]
    left, far = unexplained(shown, known), unexplained(features, known)
    assert torch.allclose(slope(left, far, torch.ones(N).double(), 0.0), whole, atol=1e-6)


def test_doubt_is_rows_that_show_nothing() -> None:
    far, left, weights = draw(N, 3, seed=2), draw(N, seed=3), torch.ones(N).double()
    more = torch.cat([far, 5**0.5 * torch.eye(3, dtype=far.dtype)])
    shown = torch.cat([left, torch.zeros(3, dtype=far.dtype)])
    found = slope(left, far, weights, 5.0)
    assert torch.allclose(found, torch.linalg.lstsq(more, shown[:, None]).solution[:, 0])
    assert torch.allclose(slope(left, far, weights, 1e9) * 1e9, far.T @ left, rtol=1e-5)


def test_a_row_that_tells_little_doubts_the_others_less() -> None:
    far, left = draw(N, 1, seed=2), draw(N, seed=3)
    half = slope(left, far, torch.full((N,), 0.5).double(), 1.0)
    told = float((far * far).sum())
    assert torch.allclose(half * (told / 2 + 1), far.T @ left)
