"""Theft of robustness by uncertain examples."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from helpers import context
from wootz.attacks.evasion import evaluate, predict_logits
from wootz.attacks.extraction import BudgetedOracle
from wootz.attacks.extraction.retrain import Retrain, retrain
from wootz.attacks.extraction.uncertain import Uncertain, entropy, extract_robustness, uncertain_examples
from wootz.data import Dataset
from wootz.errors import BudgetError
from wootz.models import ModelSpec
from wootz.suspects.files import predictor
from wootz.workflows.run import agreement

CFG = Uncertain(rounds=3, steps=5, epochs=2, final_epochs=6, lr=5e-3)


@pytest.mark.long
def test_it_succeeds_against_an_undefended_model(plain: nn.Module, digits: Dataset, small_spec: ModelSpec) -> None:
    oracle = BudgetedOracle(predictor(plain), access="label", num_classes=10, budget=8000)
    stolen = extract_robustness(CFG, oracle, context(digits.train, small_spec))
    assert agreement(stolen, plain, digits) > 0.8
    assert oracle.queries == 8000


@pytest.mark.slow
def test_it_takes_robustness_that_plain_retraining_does_not(
    robust: nn.Module, digits: Dataset, small_spec: ModelSpec
) -> None:
    x, y = digits.test.images()[:200], digits.test.labels[:200]
    oracle = BudgetedOracle(predictor(robust), access="label", num_classes=10)
    stolen = extract_robustness(CFG, oracle, context(digits.train, small_spec))
    naive = retrain(Retrain(labels="hard", epochs=12, lr=5e-3), oracle, context(digits.train, small_spec))
    assert evaluate(stolen, x, y, eps=0.1).accuracy > evaluate(naive, x, y, eps=0.1).accuracy + 0.15


def test_the_whole_need_is_known_at_once(plain: nn.Module, digits: Dataset, small_spec: ModelSpec) -> None:
    oracle = BudgetedOracle(predictor(plain), access="label", num_classes=10, budget=7999)
    with pytest.raises(BudgetError, match="fits a budget of 8000"):
        extract_robustness(CFG, oracle, context(digits.train, small_spec))
    assert oracle.queries == 0


def test_uncertain_examples_are_near_and_uncertain(plain: nn.Module, digits: Dataset) -> None:
    pixels = digits.train.pixels[:100]
    moved = uncertain_examples(plain, pixels, eps=0.1, steps=10, generator=torch.Generator().manual_seed(0))
    assert (moved.int() - pixels.int()).abs().max() <= 26  # 25.5 levels, rounded
    before, after = (predict_logits(plain, p.float() / 255) for p in (pixels, moved))
    nobody = torch.zeros(100, dtype=torch.long)
    assert entropy(after, nobody).mean() > entropy(before, nobody).mean() + 0.5
    assert torch.allclose(entropy(torch.zeros(1, 10), nobody[:1]), torch.tensor([math.log(10)]))
