"""Losses worked out by hand, on one pixel or one row of logits."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from losses import recipe, value
from wootz.training import Batch
from wootz.training.inner_maximization import kl_divergence
from wootz.training.losses import boosted_cross_entropy
from wootz.training.recipe import CERTIFIED


class One(nn.Module):
    """One pixel, two classes, logits (-2x, 2x)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([-2 * x.flatten(), 2 * x.flatten()], 1)


class TestByHand:
    """p = (1/4, 3/4) is what logits (0, ln 3) say."""

    LOGITS = torch.tensor([[0.0, math.log(3)]])

    def test_divergence(self) -> None:
        # 1/4 ln(1/2) + 3/4 ln(3/2), and the other way 1/2 ln 2 + 1/2 ln(2/3)
        assert kl_divergence(self.LOGITS, torch.zeros(1, 2)).item() == pytest.approx(0.130812, abs=1e-6)
        assert kl_divergence(torch.zeros(1, 2), self.LOGITS).item() == pytest.approx(0.143841, abs=1e-6)
        assert kl_divergence(self.LOGITS, self.LOGITS + 5).item() == pytest.approx(0, abs=1e-6)

    @pytest.mark.parametrize(
        ("targets", "expect"),
        [
            ([0.0, 1.0], 0.575364),  # -2 ln(3/4)
            ([1.0, 0.0], 2.772589),  # -2 ln(1/4)
            ([0.25, 0.75], 1.124670),
        ],
    )
    def test_boosted_cross_entropy_of_two_classes(self, targets: list[float], expect: float) -> None:
        assert boosted_cross_entropy(self.LOGITS, torch.tensor([targets])).item() == pytest.approx(expect, abs=1e-6)

    @pytest.mark.parametrize(
        ("label", "expect"),
        [
            (0, 1.049822),  # -ln(0.5) - ln(1 - 0.3)
            (1, 1.897120),  # -ln(0.3) - ln(1 - 0.5)
            (2, 2.302585),  # -ln(0.2) - ln(1 - 0.5)
        ],
    )
    def test_boosted_cross_entropy_of_three_classes(self, label: int, expect: float) -> None:
        logits = torch.tensor([[0.5, 0.3, 0.2]]).log() + 7
        targets = F.one_hot(torch.tensor([label]), 3).float()
        assert boosted_cross_entropy(logits, targets).item() == pytest.approx(expect, abs=1e-6)

    def test_whole_losses(self) -> None:
        """At x = 0.5, eps 0.1, label 1: p_1 = 0.880797 there, 0.832018 at 0.4, 0.916827 at 0.6."""
        point = Batch(torch.tensor([[[[0.5]]]]), torch.tensor([1]), torch.tensor([[0.0, 1.0]]))
        hand = {"step_size": 1.0, "steps": 3}
        # 0.126928 = -ln(0.880797); the divergence is 0.009292 downwards and 0.007589 upwards, as the noise falls
        ends = {round(value("trades", One(), point, cfg=recipe("trades", **hand), seed=s).item(), 6) for s in range(8)}
        assert sorted(ends) == pytest.approx([0.126928 + 6 * 0.007589, 0.126928 + 6 * 0.009292], abs=1e-5)
        lighter = value("trades", One(), point, cfg=recipe("trades", robust_weight=0.0, **hand))
        assert lighter.item() == pytest.approx(0.126928, abs=1e-6)
        # 0.367802 = -2 ln(0.832018), and 5 * 0.009292 * (1 - 0.880797)
        found = value("mart", One(), point, cfg=recipe("mart", **hand))
        assert found.item() == pytest.approx(0.367802 + 5 * 0.009292 * 0.119203, abs=1e-5)

    def test_bounds_of_one_pixel(self) -> None:
        """Logits (-2x, 2x) at 0.5, eps 0.1: the worst margin is -1.6, so the worst case ln(1 + e^-1.6)."""
        model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
        model.load_state_dict({"1.weight": torch.tensor([[-2.0], [2.0]]), "1.bias": torch.zeros(2)})
        point = Batch(torch.tensor([[[[0.5]]]]), torch.tensor([1]), torch.tensor([[0.0, 1.0]]))
        for name in CERTIFIED:
            # kappa 0.5 at the full eps: half of 0.126928 and half of 0.183901
            assert value(name, model, point).item() == pytest.approx(0.155414, abs=1e-5)
            # at half of it kappa is 0.75, and the worst case ln(1 + e^-1.8) = 0.152986
            assert value(name, model, point, eps=0.05).item() == pytest.approx(0.133442, abs=1e-5)
