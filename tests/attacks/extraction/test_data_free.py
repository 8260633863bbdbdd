"""Theft without data: the estimated slope, what is asked, that it goes on, and how far it comes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from helpers import context
from wootz.attacks.extraction import ATTACKS, BudgetedOracle
from wootz.attacks.extraction.data_free import (
    DataFree,
    extract_without_data,
    forward_difference_gradient,
    kl_divergence,
    logit_distance,
)
from wootz.data import Dataset
from wootz.errors import BudgetError, ConfigError
from wootz.models import ModelSpec
from wootz.suspects.files import predictor
from wootz.workflows.run import agreement


@pytest.mark.parametrize("name", [pytest.param("dfme", marks=pytest.mark.slow), "maze"])
@pytest.mark.long
def test_it_succeeds_against_an_undefended_model(
    name: str, plain: nn.Module, digits: Dataset, small_spec: ModelSpec
) -> None:
    cfg = replace(ATTACKS[name].config, queries=40_000, batch_size=64, clone_lr=5e-3)
    oracle = BudgetedOracle(predictor(plain), access="scores", num_classes=10, budget=40_000)
    stolen = extract_without_data(cfg, oracle, context(digits.thief, small_spec))
    assert agreement(stolen, plain, digits) > 0.75  # not one digit was seen
    assert oracle.queries == cfg.iterations * cfg.iteration <= 40_000


def test_nothing_is_spent_where_the_budget_does_not_hold(
    plain: nn.Module, digits: Dataset, small_spec: ModelSpec
) -> None:
    cfg = DataFree(queries=1800)
    assert (cfg.iteration, cfg.iterations) == (1792, 1)
    oracle = BudgetedOracle(predictor(plain), access="scores", num_classes=10, budget=1791)
    with pytest.raises(BudgetError, match="fits a budget of 1792"):
        extract_without_data(cfg, oracle, context(digits.thief, small_spec))
    label = BudgetedOracle(predictor(plain), access="label", num_classes=10)
    with pytest.raises(BudgetError, match="data-free extraction: needs scores"):
        extract_without_data(cfg, label, context(digits.thief, small_spec))
    assert oracle.queries == label.queries == 0
    with pytest.raises(ConfigError, match="queries = 1791: must be at least 1792"):
        DataFree(queries=1791)


@pytest.mark.parametrize("name", ["dfme", "maze"])
@pytest.mark.long
def test_a_stopped_attempt_ends_as_if_it_had_not_been(
    name: str, plain: nn.Module, digits: Dataset, small_spec: ModelSpec, tmp_path: Path
) -> None:
    cfg = replace(ATTACKS[name].config, batch_size=8)
    cfg = replace(cfg, queries=50 * cfg.iteration)
    scores = predictor(plain)
    asked = 0

    def victim(x: Tensor) -> Tensor:
        nonlocal asked
        assert 0 <= x.min() <= x.max() <= 1
        asked += len(x)
        if asked == 25 * cfg.iteration:
            raise KeyboardInterrupt
        return scores(x)

    whole = extract_without_data(
        cfg, BudgetedOracle(scores, access="scores", num_classes=10), context(digits.thief, small_spec)
    )
    again = context(digits.thief, small_spec, folder=tmp_path)
    oracle = BudgetedOracle(victim, access="scores", num_classes=10)
    with pytest.raises(KeyboardInterrupt):
        extract_without_data(cfg, oracle, again)
    stolen = extract_without_data(cfg, oracle, again)
    assert all(torch.equal(a, b) for a, b in zip(stolen.parameters(), whole.parameters(), strict=True))


def test_the_slope_is_the_gradient_on_average() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(2, 3, 4, generator=generator)
    raw = torch.zeros(5, 2, 3, 4)
    found = forward_difference_gradient(lambda x: (x * weight).flatten(1).sum(1), raw, 4000, 0.1, generator)
    assert found.shape == raw.shape
    assert torch.allclose(found, weight.expand_as(raw), atol=0.35)
    assert torch.allclose(found.mean(0), weight, atol=0.16)


def test_disagreements_are_zero_for_equals_and_right_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0, 1.0]])
    for distance in (logit_distance, kl_divergence):
        assert distance((logits + 5).softmax(1), logits).abs().item() < 1e-6
    other = torch.tensor([[0.0, 0.0, 3.0]])  # both sum to 3, so centering moves them alike
    assert logit_distance(logits.softmax(1), other).item() == pytest.approx(4 / 3, abs=1e-5)
    p, q = logits.softmax(1), other.softmax(1)
    assert kl_divergence(p, other).item() == pytest.approx((p * (p / q).log()).sum().item(), abs=1e-5)
