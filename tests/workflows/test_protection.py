"""Presets: what a user gets who names a data set and nothing else."""

from __future__ import annotations

from dataclasses import make_dataclass, replace

import pytest

from wootz.keys import owner_secret, run_secret
from wootz.models.architectures import CWCNN, SmallCNN
from wootz.watermarks import Guard, RunnerUp, Triggers
from wootz.workflows.protection import Protection, preset


@pytest.mark.parametrize(
    ("data", "eps", "wm_eps", "steps"),
    [
        ("mnist", 0.25, 0.7, 5),
        ("mnist-5k", 0.25, 0.7, 3),
        ("fashion-mnist", 0.1, 0.25, 3),
        ("mine", 8 / 255, 0.078431, 3),
    ],
)
def test_budgets_and_steps_follow_the_data(data: str, eps: float, wm_eps: float, steps: int) -> None:
    found = preset("fast", data=data, eps=None, wm_eps=None, seed=1, count=29_000)
    assert (found.recipe.eps, found.wm_eps, found.recipe.steps, found.recipe.epochs) == (eps, wm_eps, steps, 16)


def test_steps_stay_where_only_the_budget_is_another() -> None:
    assert preset("fast", data="mnist", eps=0.1, wm_eps=None, seed=1, count=29_000).recipe.steps == 5


@pytest.mark.parametrize(
    ("data", "weight", "net", "epochs", "shift"),
    [("mnist", 1.5, "cw-cnn", 16, 1), ("fashion-mnist", None, "small-cnn", 32, 0), ("mine", None, "small-cnn", 32, 0)],
)
def test_strong_has_a_loss_and_a_net_of_its_own_and_trains_on_most_images(
    data: str, weight: float | None, net: str, epochs: int, shift: int
) -> None:
    found = preset("strong", data=data, eps=None, wm_eps=None, seed=1, count=29_000)
    recipe = found.recipe
    assert (recipe.loss, recipe.steps, recipe.epochs, recipe.robust_weight) == ("trades", 10, epochs, weight)
    assert (found.model, found.set_aside) == (net, 0.25)
    assert (recipe.shift, recipe.mirror) == (shift, False)


class TestIdentity:
    cfg = Protection(marks=("triggers",), seed=3)

    def test_covers_the_chosen_marks_the_chosen_network_and_what_they_share(self) -> None:
        changes = {
            "triggers": Triggers(count=256),
            "small_cnn": SmallCNN(width=8),
            "model": "cw-cnn",
            "marks": ("triggers", "guard"),
            "wm_eps": 0.8,
            "seed": 4,
        }
        digests = {replace(self.cfg, **{name: value}).digest for name, value in changes.items()}  # type: ignore[arg-type]
        assert len(digests | {self.cfg.digest}) == len(changes) + 1

    def test_leaves_out_marks_and_networks_that_are_not_chosen(self) -> None:
        for other in ({"guard": Guard(cost=0.1)}, {"runner_up": RunnerUp(lam=0.1)}, {"cw_cnn": CWCNN(dropout=0.1)}):
            assert replace(self.cfg, **other).digest == self.cfg.digest  # type: ignore[arg-type]

    def test_a_new_setting_of_an_unused_mark_changes_no_digest_and_no_key(self) -> None:
        wider = make_dataclass("WiderGuard", [("tau", float, 1.5)], bases=(Guard,), frozen=True, kw_only=True)
        cfg = replace(self.cfg, guard=wider())
        assert cfg.digest == self.cfg.digest
        assert run_secret(owner_secret(), cfg.digest) == run_secret(owner_secret(), self.cfg.digest)
        used = replace(self.cfg, marks=("triggers", "guard"))
        assert replace(used, guard=wider()).digest != used.digest
