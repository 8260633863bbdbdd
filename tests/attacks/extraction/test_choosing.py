"""Thieves who choose what to ask: Knockoff's bandit and ActiveThief."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from helpers import context
from wootz.attacks.extraction import BudgetedOracle
from wootz.attacks.extraction.activethief import ActiveThief, extract_actively, k_center, most_uncertain
from wootz.attacks.extraction.knockoff import Knockoff, extract_by_bandit, preference_update, rewards, sample_images
from wootz.data import Dataset, Split
from wootz.errors import BudgetError, ConfigError
from wootz.models import ModelSpec
from wootz.suspects.files import predictor
from wootz.workflows.run import agreement


def scores(plain: nn.Module, budget: int | None = None) -> BudgetedOracle:
    return BudgetedOracle(predictor(plain), access="scores", num_classes=10, budget=budget)


class TestKnockoff:
    def test_succeeds_against_an_undefended_model(
        self, plain: nn.Module, digits: Dataset, small_spec: ModelSpec, foreign: Split
    ) -> None:
        oracle = scores(plain, budget=4000)
        cfg = Knockoff(queries=4000, rounds=5, epochs=8, lr=5e-3)
        stolen = extract_by_bandit(cfg, oracle, context(foreign, small_spec))
        assert agreement(stolen, plain, digits) > 0.8
        assert oracle.queries == 4000

    def test_the_whole_need_is_known_at_once(self, plain: nn.Module, small_spec: ModelSpec, foreign: Split) -> None:
        oracle = scores(plain, budget=3999)
        with pytest.raises(BudgetError, match="fits a budget of 4000"):
            extract_by_bandit(Knockoff(queries=4000), oracle, context(foreign, small_spec))
        assert oracle.queries == 0
        with pytest.raises(ConfigError, match="queries = 10000: the attacker has 6000 images"):
            extract_by_bandit(Knockoff(), oracle, context(foreign, small_spec))

    def test_rewards_are_the_mean_of_three_scaled_parts(self) -> None:
        answers = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
        guess = torch.tensor([[1.0, 1e-30, 1e-30], [0.5, 0.5, 1e-30], [1.0, 0.0, 0.0]]).log()
        reward = rewards(answers, torch.tensor([0.5, 0.0, 0.0]), guess)
        # certainty 1, 0, 1; diversity .5, .5, 1; loss 0, 0, 100 for an impossible answer
        assert torch.allclose(reward, torch.tensor([1 / 3, 0.0, 1.0]), atol=1e-5)

    def test_better_arms_gain_and_preferences_keep_their_sum(self) -> None:
        policy, arms = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0, 0, 1, 2])
        gain = preference_update(policy, arms, torch.tensor([0.9, 0.7, 0.1, 0.1]), torch.tensor([2, 1, 1]))
        # by hand: steps .225, .125, -.35, -.35; their sum -.35 is taken back along the policy
        assert torch.allclose(gain, torch.tensor([0.35 + 0.175, -0.35 + 0.105, -0.35 + 0.07]))
        assert abs(gain.sum()) < 1e-6

    def test_draws_follow_the_policy_and_never_repeat(self) -> None:
        arms = torch.arange(3000) % 3
        generator = torch.Generator().manual_seed(0)
        chosen = torch.arange(0, 3000, 30)
        rows = sample_images(torch.tensor([0.7, 0.3, 0.0]), arms, chosen, 500, generator)
        counts = torch.bincount(arms[rows], minlength=3)
        assert counts[2] == 0
        assert 310 < counts[0] < 390
        everything = sample_images(torch.tensor([1.0, 0.0, 0.0]), arms, chosen, 2900, generator)
        assert torch.cat([everything, chosen]).sort().values.equal(torch.arange(3000))


class TestActiveThief:
    @pytest.mark.parametrize("strategy", ["uncertainty", "k-center", "both"])
    def test_succeeds_against_an_undefended_model(
        self, strategy: str, plain: nn.Module, digits: Dataset, small_spec: ModelSpec
    ) -> None:
        oracle = scores(plain, budget=1200)
        cfg = replace(ActiveThief(queries=1200, rounds=3, epochs=12, lr=5e-3), strategy=strategy)
        stolen = extract_actively(cfg, oracle, context(digits.train, small_spec))
        assert agreement(stolen, plain, digits) > 0.8
        assert oracle.queries == 1200

    def test_the_whole_need_is_known_at_once(self, plain: nn.Module, digits: Dataset, small_spec: ModelSpec) -> None:
        oracle = scores(plain, budget=1199)
        with pytest.raises(BudgetError, match="fits a budget of 1200"):
            extract_actively(ActiveThief(queries=1200), oracle, context(digits.train, small_spec))
        with pytest.raises(ConfigError, match="queries = 5000: the attacker has 2000 images"):
            extract_actively(ActiveThief(), oracle, context(digits.train, small_spec))
        assert oracle.queries == 0

    def test_the_most_uncertain_have_the_highest_entropy(self) -> None:
        guess = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.9, 0.1], [0.6, 0.4]])
        assert most_uncertain(guess, 2).tolist() == [1, 3]
        assert most_uncertain(guess, 9).tolist() == [1, 3, 2, 0]

    def test_the_farthest_are_what_a_naive_search_finds(self) -> None:
        generator = torch.Generator().manual_seed(0)
        guess, known = (F.softmax(2 * torch.randn(n, 4, generator=generator), 1) for n in (30, 5))
        rows = k_center(guess, known, 6).tolist()
        centers = [known[i] for i in range(5)]
        for row in rows:
            gaps = [min((point - center).norm().item() for center in centers) for point in guess]
            assert gaps[row] == pytest.approx(max(gaps))
            centers.append(guess[row])
        assert len(set(rows)) == 6
