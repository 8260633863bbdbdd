"""Extraction by retraining, in every guise, against an undefended model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from helpers import context
from wootz.attacks.evasion import evaluate, predict_logits
from wootz.attacks.extraction import ATTACKS, BudgetedOracle
from wootz.attacks.extraction.retrain import Retrain, retrain, training_targets
from wootz.data import Dataset, Split
from wootz.errors import BudgetError
from wootz.models import ModelSpec
from wootz.suspects.files import predictor
from wootz.workflows.run import agreement

RETRAINED = [
    name
    for name, row in ATTACKS.items()
    if row.run is retrain and row.config.data == "thief" and name != "retrain-robust"
]


@pytest.mark.parametrize("name", RETRAINED)
def test_extraction_succeeds_against_an_undefended_model(
    name: str, plain: nn.Module, digits: Dataset, small_spec: ModelSpec
) -> None:
    row = ATTACKS[name]
    oracle = BudgetedOracle(predictor(plain), access=row.access, num_classes=10)
    stolen = row.run(replace(row.config, epochs=12, lr=5e-3), oracle, context(digits.train, small_spec))
    assert agreement(stolen, plain, digits) > 0.8
    assert oracle.queries == len(digits.train)


def test_a_thief_that_augments_answers_shifted_images_alike(
    plain: nn.Module, digits: Dataset, small_spec: ModelSpec
) -> None:
    cfg, x = replace(ATTACKS["retrain-soft"].config, epochs=12, lr=5e-3), digits.test.images()[:300]

    def alike(augment_shift: int) -> float:
        oracle = BudgetedOracle(predictor(plain), access="scores", num_classes=10)
        stolen = retrain(replace(cfg, augment_shift=augment_shift), oracle, context(digits.train, small_spec))
        labels = [predict_logits(stolen, images).argmax(1) for images in (x, x.roll((2, 2), (2, 3)))]
        return (labels[0] == labels[1]).float().mean().item()

    assert alike(3) > alike(0) + 0.2


@pytest.mark.parametrize("name", ["knockoff-random", "copycat"])
def test_foreign_images_serve_as_well(
    name: str, plain: nn.Module, digits: Dataset, small_spec: ModelSpec, foreign: Split
) -> None:
    row = ATTACKS[name]
    oracle = BudgetedOracle(predictor(plain), access=row.access, num_classes=10)
    stolen = row.run(replace(row.config, epochs=6, lr=5e-3), oracle, context(foreign, small_spec))
    assert agreement(stolen, plain, digits) > 0.8  # not one digit was seen
    assert oracle.queries == len(foreign)


@pytest.mark.long
def test_an_adversarially_trained_thief_is_robust(plain: nn.Module, digits: Dataset, small_spec: ModelSpec) -> None:
    row = ATTACKS["retrain-robust"]
    oracle = BudgetedOracle(predictor(plain), access=row.access, num_classes=10)
    stolen = row.run(replace(row.config, epochs=12, lr=5e-3), oracle, context(digits.train, small_spec))
    assert agreement(stolen, plain, digits) > 0.8
    x, y = digits.test.images()[:200], digits.test.labels[:200]
    assert evaluate(stolen, x, y, eps=0.1).accuracy > evaluate(plain, x, y, eps=0.1).accuracy + 0.3


def test_answers_are_taken_as_the_settings_say() -> None:
    p = torch.tensor([[0.7, 0.2, 0.1]])
    assert torch.allclose(training_targets(Retrain(), p), p)
    assert training_targets(Retrain(labels="hard"), p).tolist() == [[1, 0, 0]]
    assert torch.allclose(training_targets(Retrain(labels="flat"), p), torch.tensor([[0.7, 0.15, 0.15]]))
    warm = p.sqrt() / p.sqrt().sum()
    assert torch.allclose(training_targets(Retrain(temperature=2.0), p), warm)


def test_soft_labels_need_scores(plain: nn.Module, digits: Dataset, small_spec: ModelSpec) -> None:
    oracle = BudgetedOracle(predictor(plain), access="label", num_classes=10)
    with pytest.raises(BudgetError, match="needs scores, but the victim returns labels only"):
        retrain(Retrain(), oracle, context(digits.train, small_spec))
    assert oracle.queries == 0


def test_an_attempt_goes_on_without_asking_again(
    plain: nn.Module, digits: Dataset, small_spec: ModelSpec, tmp_path: Path
) -> None:
    cfg, victim = Retrain(epochs=1), predictor(plain)
    whole = retrain(cfg, BudgetedOracle(victim, access="scores", num_classes=10), context(digits.train, small_spec))
    asked = 0

    def tiring(x: torch.Tensor) -> torch.Tensor:
        nonlocal asked
        asked += len(x)
        if asked == 2000:
            raise KeyboardInterrupt
        return victim(x)

    resumed, log = context(digits.train, small_spec, folder=tmp_path), tmp_path / "queries.log"
    for _ in range(2):
        oracle = BudgetedOracle(tiring, access="scores", num_classes=10, budget=2000, log=log)
        try:
            stolen = retrain(cfg, oracle, resumed)
        except KeyboardInterrupt:
            assert oracle.queries == 1000
    assert oracle.queries == 2000
    assert all(torch.equal(one, two) for one, two in zip(stolen.parameters(), whole.parameters(), strict=True))
