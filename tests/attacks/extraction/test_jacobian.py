"""Jacobian-based augmentation: what it costs, where its images lie, that it goes on, and that it steals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from helpers import Linear, context
from wootz.attacks.evasion import evaluate
from wootz.attacks.extraction import ATTACKS, BudgetedOracle
from wootz.attacks.extraction.jacobian import Jacobian, extract_by_jacobian, jacobian_augment
from wootz.data import Dataset
from wootz.errors import BudgetError, ConfigError
from wootz.models import ModelSpec
from wootz.suspects.files import predictor
from wootz.workflows.run import agreement


@pytest.fixture(scope="session")
def thief_spec(digits: Dataset) -> ModelSpec:
    return ModelSpec(architecture="paper-thief", settings={}, shape=digits.shape, classes=digits.classes)


def label_only(plain: nn.Module, budget: int | None = None) -> BudgetedOracle:
    return BudgetedOracle(predictor(plain), access="label", num_classes=10, budget=budget)


def test_the_paper_needs_51_200_queries_and_is_refused_one_less(
    plain: nn.Module, digits: Dataset, thief_spec: ModelSpec
) -> None:
    assert ATTACKS["jbda"].config.queries == ATTACKS["jbda-grey"].config.queries == 51_200
    oracle = label_only(plain, budget=51_199)
    with pytest.raises(BudgetError, match="needs 51200 more; it fits a budget of 51200"):
        extract_by_jacobian(Jacobian(), oracle, context(digits.train, thief_spec))
    assert oracle.queries == 0


@pytest.mark.long
def test_it_succeeds_against_an_undefended_model(plain: nn.Module, digits: Dataset, thief_spec: ModelSpec) -> None:
    cfg = Jacobian(seeds=100, doublings=4, epochs=8)
    oracle = label_only(plain, budget=cfg.queries)
    stolen = extract_by_jacobian(cfg, oracle, context(digits.train, thief_spec))
    assert oracle.queries == 1600
    assert agreement(stolen, plain, digits) > 0.75  # from a hundred images


def test_the_grey_box_thief_is_robust(plain: nn.Module, digits: Dataset, small_spec: ModelSpec) -> None:
    cfg = replace(ATTACKS["jbda-grey"].config, seeds=100, doublings=3, epochs=8, lr=0.02)
    stolen = extract_by_jacobian(cfg, label_only(plain), context(digits.train, small_spec))
    assert agreement(stolen, plain, digits) > 0.7
    x, y = digits.test.images()[:200], digits.test.labels[:200]
    assert evaluate(stolen, x, y, eps=0.1).accuracy > evaluate(plain, x, y, eps=0.1).accuracy + 0.1


def test_new_images_follow_the_sign_of_the_slope_and_stay_in_range() -> None:
    model = Linear(torch.tensor([[[1.0, -2.0, 0.0]]]))
    pixels = torch.tensor([[[[0, 255, 7]]], [[[100, 100, 100]]]], dtype=torch.uint8)
    moved = jacobian_augment(model, pixels, torch.tensor([1, 0]), lam=0.1)
    assert moved.tolist() == [[[[26, 230, 7]]], [[[74, 126, 100]]]]
    noise = torch.randint(0, 256, (50, 1, 1, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    far = jacobian_augment(model, noise, torch.ones(50, dtype=torch.long), lam=1.0)
    assert (far[..., 0] == 255).all()
    assert (far[..., 1] == 0).all()


def test_what_the_victim_is_asked_are_images(plain: nn.Module, digits: Dataset, thief_spec: ModelSpec) -> None:
    def victim(x: torch.Tensor) -> torch.Tensor:
        assert 0 <= x.min() <= x.max() <= 1
        return predictor(plain)(x)

    cfg = Jacobian(seeds=40, doublings=3, epochs=1, lam=0.9)
    oracle = BudgetedOracle(victim, access="label", num_classes=10)
    extract_by_jacobian(cfg, oracle, context(digits.train, thief_spec))
    assert oracle.queries == 320


def test_a_stopped_attempt_ends_as_if_it_had_not_been(
    plain: nn.Module, digits: Dataset, thief_spec: ModelSpec, tmp_path: Path
) -> None:
    cfg = Jacobian(seeds=60, doublings=3, epochs=2)
    whole = extract_by_jacobian(cfg, label_only(plain), context(digits.train, thief_spec))
    calls = 0

    def victim(x: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return predictor(plain)(x)

    again, log = context(digits.train, thief_spec, folder=tmp_path), tmp_path / "queries.log"
    with pytest.raises(KeyboardInterrupt):
        extract_by_jacobian(cfg, BudgetedOracle(victim, access="label", num_classes=10, budget=480, log=log), again)
    oracle = BudgetedOracle(victim, access="label", num_classes=10, budget=480, log=log)
    stolen = extract_by_jacobian(cfg, oracle, again)
    assert oracle.queries == 480
    assert all(torch.equal(one, two) for one, two in zip(stolen.parameters(), whole.parameters(), strict=True))


def test_more_seeds_than_images_are_refused(plain: nn.Module, digits: Dataset, thief_spec: ModelSpec) -> None:
    with pytest.raises(ConfigError, match="seeds = 200: the attacker has 100 images"):
        extract_by_jacobian(Jacobian(), label_only(plain), context(digits.train.subset(slice(100)), thief_spec))
