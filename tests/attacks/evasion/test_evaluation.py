"""The worst case over several attacks: agreement with the reference, resuming, flags, and planted examples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from helpers import Linear
from wootz.attacks.evasion import (
    APGD,
    PGD,
    BinarizationConfig,
    apgd,
    attack_ensemble,
    binarization_test,
    evaluate,
    margin,
    pgd,
    predict_logits,
    reliability,
)
from wootz.attacks.evasion.ensemble import EvaluationTarget
from wootz.attacks.evasion.evaluation import EVALUATIONS
from wootz.data import Dataset
from wootz.rng import generator

X = torch.rand(60, 1, 5, 5, generator=generator(0, "x"))


class Coarse(nn.Module):
    """Masks its gradient: it looks at rounded pixels."""

    def __init__(self, inner: nn.Module, levels: int = 4) -> None:
        super().__init__()
        self.inner, self.levels = inner, levels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner((x * self.levels).round() / self.levels)


class TestEnsemble:
    @pytest.mark.long
    def test_it_agrees_with_the_reference_and_is_repeatable(self, robust: nn.Module, digits: Dataset) -> None:
        x, y = digits.test.images()[:10], digits.test.labels[:10]
        weaker = evaluate(robust, x, y, eps=0.1, attack="pgd-50x10")
        stream = torch.random.get_rng_state()
        ours, again = (evaluate(robust, x, y, eps=0.1, attack="ensemble", seed=3) for _ in range(2))
        reference = evaluate(robust, x, y, eps=0.1, attack="autoattack", seed=3)
        assert torch.equal(torch.random.get_rng_state(), stream)
        assert (ours.robust != reference.robust).sum() <= 1
        assert 0 <= weaker.robust.sum() - reference.robust.sum() <= 3
        assert torch.equal(ours.robust, again.robust)
        assert sum(ours.first_success.values()) == ours.correct.sum() - ours.robust.sum()
        assert ours.flags == reference.flags == ()

    def test_is_never_kinder_than_its_first_attack(self, robust: nn.Module, digits: Dataset) -> None:
        x, y = digits.test.images()[:60], digits.test.labels[:60]
        whole = evaluate(robust, x, y, eps=0.12, attack="ensemble")
        successes = list(whole.first_success.values())
        assert successes[0] > 0
        assert sum(successes[1:]) > 0  # what comes later finds more
        right = predict_logits(robust, x).argmax(1) == y
        first, *_ = attack_ensemble(
            EVALUATIONS["ensemble"][:1], EvaluationTarget(model=robust, x=x, y=y, eps=0.12), right, lambda _: None
        )
        assert not (whole.robust & ~first).any()

    @pytest.mark.long
    def test_goes_on_where_it_was_stopped(self, robust: nn.Module, digits: Dataset, tmp_path: Path) -> None:
        x, y = digits.test.images()[:30], digits.test.labels[:30]
        straight = evaluate(robust, x, y, eps=0.1, attack="ensemble", batch_size=10)
        ticks: list[float] = []

        def stop_midway(done: float) -> None:
            ticks.append(done)
            if done > 0.3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            evaluate(robust, x, y, eps=0.1, attack="ensemble", batch_size=10, folder=tmp_path, progress=stop_midway)
        assert len(list(tmp_path.glob("evaluation-*.safetensors"))) == 1
        later: list[float] = []
        resumed = evaluate(
            robust, x, y, eps=0.1, attack="ensemble", batch_size=10, folder=tmp_path, progress=later.append
        )
        assert later[0] > 0.2
        assert torch.equal(resumed.robust, straight.robust)
        assert resumed.first_success == straight.first_success
        assert list(tmp_path.iterdir()) == []

    def test_another_budget_is_another_evaluation(self, robust: nn.Module, digits: Dataset, tmp_path: Path) -> None:
        x, y = digits.test.images()[:20], digits.test.labels[:20]
        steps = EVALUATIONS["ensemble"]
        one = EvaluationTarget(model=robust, x=x, y=y, eps=0.1, folder=tmp_path).state_file(steps)
        assert one != EvaluationTarget(model=robust, x=x, y=y, eps=0.2, folder=tmp_path).state_file(steps)
        assert one != EvaluationTarget(model=robust, x=x, y=y, eps=0.1, folder=tmp_path).state_file(steps[:2])
        assert one == EvaluationTarget(model=robust, x=x, y=y, eps=0.1, folder=tmp_path).state_file(steps)

    @pytest.mark.parametrize("count", [0, 1])
    def test_nothing_and_hardly_anything(self, count: int, robust: nn.Module, digits: Dataset) -> None:
        x = digits.test.images()[:5]
        y = predict_logits(robust, x).argmax(1)
        y[count:] = (y[count:] + 1) % 10
        assert evaluate(robust, x, y, eps=0.3, attack="ensemble").correct.sum() == count


class TestFlags:
    def test_an_honest_model_raises_none(self, plain: nn.Module, robust: nn.Module, digits: Dataset) -> None:
        x = digits.test.images()[:100]
        for model in (plain, robust):
            y = predict_logits(model, x).argmax(1)
            assert reliability(model, x, y) == ()
            assert reliability(model, x, y, norm="L2") == ()

    @pytest.mark.parametrize(
        ("spoil", "flag"),
        [
            (lambda m: nn.Sequential(m, nn.Softmax(1)), "probabilities"),
            (lambda m: Coarse(m), "zero-gradient"),
            (lambda m: Coarse(m), "no-collapse"),
            (lambda m: Noisy(m), "randomized"),
        ],
    )
    def test_masked_gradients_are_noticed(
        self, spoil: Callable[[nn.Module], nn.Module], flag: str, plain: nn.Module, digits: Dataset
    ) -> None:
        spoiled = spoil(plain)
        x = digits.test.images()[:40]
        assert flag in reliability(spoiled, x, predict_logits(spoiled, x).argmax(1))

    def test_a_black_box_sees_through_a_mask(self, plain: nn.Module, digits: Dataset) -> None:
        masked = Coarse(plain, levels=8)
        x, y = digits.test.images()[:60], digits.test.labels[:60]
        found = evaluate(masked, x, y, eps=0.2, attack="ensemble")
        assert found.first_success["square"] > 0
        assert {"black-box-better", "zero-gradient", "no-collapse"} <= set(found.flags)


class Noisy(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.inner(x + 0.1 * torch.randn_like(x))
        return logits


def best_of_three(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """What an evaluation tries with gradients: the first point that is misclassified."""
    stream, point = generator(1, "attack"), x
    for run, cfg in (
        (pgd, PGD(eps=0.1, steps=40, restarts=2, stop=True)),
        (apgd, APGD(eps=0.1)),
        (apgd, APGD(eps=0.1, loss="targeted-dlr", restarts=2)),
    ):
        point = run(cfg, model, x, y, generator=stream)  # type: ignore[operator]
        if (predict_logits(model, point).argmax(1) != y).all():
            break
    return point


class TestBinarization:
    """The binarization test of Zimmermann et al. (NeurIPS 2022)."""

    def test_planted_examples_are_found(self, robust: nn.Module, digits: Dataset) -> None:
        x = digits.test.images()[:60]
        planted = binarization_test(
            BinarizationConfig(eps=0.1), best_of_three, robust, x, generator=generator(0, "plant")
        )
        assert planted.problems >= 50
        assert planted.by_attack >= 0.95
        assert planted.by_chance < 0.1

    def test_a_weak_attack_and_a_masked_model_are_caught(self, robust: nn.Module, digits: Dataset) -> None:
        x = digits.test.images()[:10]

        def weak(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            cfg = PGD(eps=0.1, steps=2, step_size=0.01, random_start=False, stop=True)
            return pgd(cfg, model, x, y, generator=generator(0, "weak"))

        assert (
            binarization_test(BinarizationConfig(eps=0.1), weak, robust, x, generator=generator(0, "p")).by_attack < 0.5
        )
        assert (
            binarization_test(
                BinarizationConfig(eps=0.1), best_of_three, Coarse(robust), x, generator=generator(0, "p")
            ).by_attack
            < 0.5
        )

    def test_points_outside_the_ball_do_not_count(self, robust: nn.Module, digits: Dataset) -> None:
        def cheat(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return pgd(PGD(eps=0.9, steps=40, stop=True), model, x, y, generator=generator(0, "cheat"))

        x = digits.test.images()[:10]
        assert (
            binarization_test(BinarizationConfig(eps=0.1), cheat, robust, x, generator=generator(0, "p")).by_attack
            < 0.5
        )


@pytest.mark.parametrize("loss", ["ce", "dlr", "targeted-dlr"])
def test_two_classes_have_no_ratio_and_still_fall(loss: str) -> None:
    model = Linear(torch.randn(1, 5, 5, generator=generator(4, "w")))
    y = model(X).argmax(1)
    points = apgd(APGD(eps=0.9, loss=loss), model, X, y, generator=generator(0, "a"))  # type: ignore[arg-type]
    assert (model(points).argmax(1) != y).all()


def test_restarts_and_targets_keep_the_worst_point_of_an_image(robust: nn.Module, digits: Dataset) -> None:
    x, y = digits.test.images()[:20], digits.test.labels[:20]
    reached = []
    for restarts in (1, 4):
        cfg = APGD(eps=0.08, steps=10, restarts=restarts, stop=False, loss="dlr")
        points = apgd(cfg, robust, x, y, generator=generator(0, "a"))
        reached.append(margin(predict_logits(robust, points), y).mean())
    assert reached[1] > reached[0]
    few = APGD(eps=0.1, loss="targeted-dlr", lanes=30)
    many = APGD(eps=0.1, loss="targeted-dlr", lanes=1000)
    falls = [
        (predict_logits(robust, apgd(c, robust, x, y, generator=generator(0, "a"))).argmax(1) != y).sum()
        for c in (few, many)
    ]
    assert abs(falls[0] - falls[1]) <= 1
