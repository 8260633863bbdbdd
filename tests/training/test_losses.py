"""What every loss of the table owes, weight perturbation, the attack's mode, and what is learned."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn import functional as F

from helpers import CPU
from losses import EPS, recipe, value
from wootz.attacks.evasion import PGD, evaluate, margins, pgd
from wootz.data import Dataset
from wootz.errors import ConfigError
from wootz.models import ModelSpec, build
from wootz.rng import generator
from wootz.training import LOSSES, Batch, Execution, Recipe, train
from wootz.training.certified import worst_cross_entropy
from wootz.training.hooks import plain_targets
from wootz.training.inner_maximization import perturbation
from wootz.training.losses import boosted_cross_entropy
from wootz.training.recipe import BOUNDED

PERTURBED = ("pgd-at", "trades", "mart")

LENGTHY = ("mart", "crown-ibp")

every_loss = pytest.mark.parametrize("name", LOSSES)


@pytest.fixture
def batch(digits: Dataset) -> Batch:
    few = digits.train.subset(slice(32))
    return Batch(few.images(), few.labels, F.one_hot(few.labels, 10).float())


@pytest.fixture
def deep(digits: Dataset) -> nn.Module:
    """Return a net with batch normalization and dropout."""
    settings = {"width": 4, "hidden": 16}
    spec = ModelSpec(architecture="paper-cnn", settings=settings, shape=digits.shape, classes=digits.classes)
    return build(spec, 0).train()


class TestEveryLoss:
    @every_loss
    def test_a_scalar_with_a_slope_everywhere_and_no_trace(self, name: str, deep: nn.Module, batch: Batch) -> None:
        deep[1].eval()
        modes = [module.training for module in deep.modules()]
        weights = [p.detach().clone() for p in deep.parameters()]
        before, stream = [t.clone() for t in batch], torch.random.get_rng_state()
        for eps in (0.0, 0.5 * EPS, EPS):
            loss = value(name, deep, batch, eps=eps)
            assert loss.shape == ()
            assert loss.isfinite()
            assert all(p.grad is None and p.requires_grad for p in deep.parameters())
            loss.backward()
            assert all(p.grad is not None and p.grad.isfinite().all() for p in deep.parameters())
            deep.zero_grad(set_to_none=True)
        assert [module.training for module in deep.modules()] == modes
        assert all(torch.equal(p, w) for p, w in zip(deep.parameters(), weights, strict=True))
        assert all(torch.equal(t, was) for t, was in zip(batch, before, strict=True))
        assert torch.equal(torch.random.get_rng_state(), stream)

    @every_loss
    def test_no_budget_is_natural_training(self, name: str, small_spec: ModelSpec, batch: Batch) -> None:
        model = build(small_spec, 0)
        if name == "mart":  # of which the boosted term remains
            expect = boosted_cross_entropy(model(batch.x), batch.targets).mean()
        else:
            expect = value("natural", model, batch)
        assert torch.equal(value(name, model, batch, eps=0.0), expect)

    @every_loss
    def test_soft_targets_are_a_mean_over_labels(self, name: str, small_spec: ModelSpec, batch: Batch) -> None:
        model = build(small_spec, 0)
        few = Batch(*(t[:8] for t in batch))
        soft = torch.rand(10, generator=generator(0, "soft")).softmax(0)
        hard = [few._replace(targets=row.expand(8, 10)) for row in torch.eye(10)]
        mean = sum(share * value(name, model, one, eps=0.05).detach() for share, one in zip(soft, hard, strict=True))
        assert value(name, model, few._replace(targets=soft.expand(8, 10)), eps=0.05).item() == pytest.approx(
            float(mean), rel=1e-5
        )

    @every_loss
    def test_the_same_stream_gives_the_same_value(self, name: str, deep: nn.Module, batch: Batch) -> None:
        values = [value(name, copy.deepcopy(deep), batch, eps=0.05, seed=seed).item() for seed in (1, 1, 2)]
        assert values[0] == values[1] != values[2]

    @pytest.mark.parametrize(
        "name",
        [pytest.param(name, marks=pytest.mark.slow if name in LENGTHY else ()) for name in LOSSES if name != "natural"],
    )
    @pytest.mark.long
    def test_robustness_is_learned(self, name: str, small_spec: ModelSpec, digits: Dataset, plain: nn.Module) -> None:
        slow = name in BOUNDED  # bounds are loose at first: with a short ramp such nets collapse to a constant
        few = digits.train.subset(slice(1500 if slow else None))
        cfg = recipe(name, epochs=6, lr=5e-3, ramp=0.5 if slow else 0.2, batch_size=64 if slow else 128)
        model = train(cfg, build(small_spec, 2), few, digits.validation, seed=2, execution=CPU).model
        x, y = digits.test.images()[:300], digits.test.labels[:300]
        reached = [evaluate(net, x, y, eps=EPS).accuracy for net in (model, plain)]
        assert reached[0] > reached[1] + 0.25
        assert reached[0] > 0.35


def test_mtl_ibp_lies_between_an_attack_and_the_bounds(robust: nn.Module, batch: Batch) -> None:
    def at(alpha: float) -> float:
        return value("mtl-ibp", robust, batch, eps=0.02, cfg=recipe("mtl-ibp", alpha=alpha)).item()

    bound = worst_cross_entropy(margins(robust, batch.x, 0.02), batch.targets).item()
    assert at(0) == value("pgd-at", robust, batch, eps=0.02).item() < at(0.25) < at(1)
    assert at(1) == pytest.approx(bound)
    assert at(0.25) == pytest.approx(0.75 * at(0) + 0.25 * bound)


def test_the_worst_case_by_bounds_is_no_better_than_any_attacks(robust: nn.Module, batch: Batch) -> None:
    points = pgd(PGD(eps=0.02, steps=20), robust, batch.x, batch.y, generator=generator(0, "a"))
    for targets in (batch.targets, batch.targets * 0.7 + 0.03):
        bound = worst_cross_entropy(margins(robust, batch.x, 0.02), targets)
        assert bound > F.cross_entropy(robust(points), targets)
        at_once = worst_cross_entropy(margins(robust, batch.x, 0.0), targets)
        assert at_once.item() == pytest.approx(F.cross_entropy(robust(batch.x), targets).item(), rel=1e-4)


class TestWeightPerturbation:
    @pytest.mark.parametrize("name", PERTURBED)
    def test_weights_stay_to_the_bit_and_the_slope_is_that_of_moved_ones(
        self, name: str, small_spec: ModelSpec, batch: Batch
    ) -> None:
        model, cfg = build(small_spec, 0), recipe(name, awp_gamma=0.01, robust_weight=1.0)
        state = copy.deepcopy(model.state_dict())
        loss = value(name, model, batch, cfg=cfg)
        loss.backward()
        assert all(torch.equal(t, state[key]) for key, t in model.state_dict().items())
        assert loss > value(name, model, batch, cfg=replace(cfg, awp_gamma=0.0))

        points = pgd(PGD(eps=EPS, steps=2, keep="last"), model, batch.x, batch.y, generator=generator(0, "a"))
        if name == "pgd-at":
            moved = copy.deepcopy(model)
            moves = perturbation(model, lambda net: F.cross_entropy(net(points), batch.targets), 0.01)
            with torch.no_grad():
                for weight, twin in zip(model.parameters(), moved.parameters(), strict=True):
                    twin += moves.get(weight, 0.0)
            moved.zero_grad()
            F.cross_entropy(moved(points), batch.targets).backward()
            for weight, twin in zip(model.parameters(), moved.parameters(), strict=True):
                assert torch.allclose(weight.grad, twin.grad, atol=1e-7)

    def test_each_layer_moves_by_its_share_and_biases_and_statistics_do_not(
        self, deep: nn.Module, batch: Batch
    ) -> None:
        state = copy.deepcopy(deep.state_dict())
        moves = perturbation(deep, lambda net: F.cross_entropy(net(batch.x), batch.targets), 0.005)
        assert {id(weight) for weight in moves} == {id(p) for p in deep.parameters() if p.ndim > 1}
        for weight, move in moves.items():
            assert (move.norm() / weight.norm()).item() == pytest.approx(0.005, rel=1e-5)
        assert all(torch.equal(t, state[key]) for key, t in deep.state_dict().items())
        assert all(p.grad is None for p in deep.parameters())

    def test_nothing_moves_before_the_warm_up_ends(self, small_spec: ModelSpec, digits: Dataset) -> None:
        few, check = digits.train.subset(slice(128)), digits.validation.subset(slice(50))
        cfg = recipe("pgd-at", epochs=2, ramp=0.0, steps=1)

        def course(**changes: Any) -> list[dict[str, float]]:
            return train(replace(cfg, **changes), build(small_spec, 0), few, check, seed=1, execution=CPU).history

        off, waiting, on = course(), course(awp_gamma=0.01, awp_warmup=2), course(awp_gamma=0.01, awp_warmup=1)
        assert off == waiting
        assert off[0] == on[0]
        assert off[1] != on[1]

    def test_other_losses_refuse_it(self) -> None:
        for name in sorted(set(LOSSES) - set(PERTURBED)):
            with pytest.raises(ConfigError, match=r"awp_gamma = 0\.005: applies to pgd-at, trades, mart, not"):
                recipe(name, awp_gamma=0.005)


class TestModeOfTheAttack:
    @pytest.mark.parametrize("name", ["pgd-at", "mart"])
    @pytest.mark.parametrize(("mode", "attack_passes"), [("eval", 0), ("train", 2)])
    def test_batch_statistics_follow_every_attack_step_in_train_mode(
        self, name: str, mode: str, attack_passes: int, deep: nn.Module, batch: Batch
    ) -> None:
        value(name, deep, batch, cfg=recipe(name, attack_mode=mode))
        outer = 2 if name == "mart" else 1
        assert deep[4].num_batches_tracked == attack_passes + outer
        assert all(p.requires_grad for p in deep.parameters())

    def test_dropout_is_on_in_train_mode(self, deep: nn.Module, batch: Batch) -> None:
        deep.eval()
        deep[5].train()
        found = [
            value("pgd-at", deep, batch, cfg=recipe("pgd-at", attack_mode=mode)).item() for mode in ("eval", "train")
        ]
        assert found[0] != found[1]


class TestSettings:
    def test_label_smoothing_tames_certainty(self, small_spec: ModelSpec, digits: Dataset) -> None:
        expect = [[0.025, 0.925, 0.025, 0.025]]
        assert plain_targets(torch.tensor([1]), 4, 0.1).tolist() == [pytest.approx(row) for row in expect]
        few = digits.train.subset(slice(256))
        sure = []
        for smoothing in (0.0, 0.3):
            cfg = recipe("pgd-at", eps=0.05, label_smoothing=smoothing, epochs=12, lr=5e-3, steps=1, batch_size=32)
            model = train(cfg, build(small_spec, 0), few, few.subset(slice(50)), seed=1, execution=CPU).model
            sure.append(model(few.images()).softmax(1).amax(1).mean().item())
        assert sure[1] < sure[0] - 0.15

    @pytest.mark.parametrize(
        ("changes", "match"),
        [
            ({"loss": "ibp", "norm": "L2"}, "norm = 'L2': the loss 'ibp' uses bounds, which exist for Linf only"),
            ({"attack_mode": "trian"}, "attack_mode = 'trian': did you mean 'train'"),
            ({"robust_weight": -1.0}, "robust_weight = -1.0: must be 0 or above"),
            ({"awp_warmup": -1}, "awp_warmup = -1: must be at least 0"),
            ({"kappa": 1.5}, "kappa = 1.5: must be from 0 to 1"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, changes: dict[str, Any], match: str) -> None:
        with pytest.raises(ConfigError, match=match):
            Recipe(**changes)


def step_together(fabric: Fabric, spec: ModelSpec) -> None:
    """Take steps with every loss on other images in each process, and see that all processes hold the same weights."""
    for name in LOSSES:
        model = build(spec, 0).train()
        cfg = recipe(name, awp_gamma=0.01 if name in PERTURBED else 0.0)
        forward, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), 0.1))
        for step in range(2):
            stream = generator(fabric.global_rank, name, step)
            y = torch.randint(0, 10, (8,), generator=stream)
            own = Batch(torch.rand(8, *spec.shape, generator=stream), y, F.one_hot(y, 10).float())
            loss = LOSSES[name](cfg, model, forward, own, eps=0.05, generator=stream)
            optimizer.zero_grad()
            fabric.backward(loss)
            optimizer.step()
        weights = fabric.all_gather(torch.cat([p.detach().flatten() for p in model.parameters()]))
        if not torch.equal(weights[0], weights[1]):
            raise RuntimeError(f"{name}: the processes fell apart")


@pytest.mark.long
def test_two_processes_stay_together(small_spec: ModelSpec) -> None:
    execution = Execution(device="cpu", precision="32", processes=2)
    execution.launch(partial(step_together, spec=small_spec))
