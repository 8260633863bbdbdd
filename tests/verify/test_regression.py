"""What is left without what is known, and the slopes of that."""

from __future__ import annotations

import torch

from wootz.verify.regression import slope, unexplained
from wrong_classes import N, draw


def test_a_regression_by_hand() -> None:
    known, rest = draw(N, seed=1), draw(N, seed=2)
    rest -= known * float((known * rest).sum() / (known * known).sum())
    assert torch.allclose(unexplained(3 * known + rest, known[:, None]), rest)
    assert torch.allclose(unexplained(3 * known + rest, torch.stack([known, known], 1)), rest)
    assert torch.equal(unexplained(rest, torch.empty(N, 0, dtype=rest.dtype)), rest)
    both = unexplained(torch.stack([rest, 3 * known + rest], 1), known[:, None])
    assert torch.allclose(both, torch.stack([rest, rest], 1))


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
