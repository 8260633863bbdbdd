"""Presets: what a user gets who names a data set and nothing else."""

from __future__ import annotations

from dataclasses import make_dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wootz.checks import gray_levels
from wootz.data import Dataset, load
from wootz.keys import owner_secret, run_secret
from wootz.models.architectures import CWCNN, SmallCNN
from wootz.watermarks import Guard, RunnerUp, Triggers
from wootz.workflows.protection import PRESETS, Protection, preset

DATA = ("mnist", "mnist-5k", "fashion-mnist", "mine")
every_preset = pytest.mark.parametrize("name", PRESETS)
every_data_set = pytest.mark.parametrize("data", DATA)


def filled(name: str, data: str, *, eps: float | None = None, count: int = 29_000) -> Protection:
    return preset(name, data=data, eps=eps, wm_eps=None, seed=1, count=count)


@every_preset
@every_data_set
@given(eps=st.none() | st.floats(1 / 255, 0.9))
def test_triggers_have_room_outside_the_ball_for_any_budget(name: str, data: str, eps: float | None) -> None:
    found = filled(name, data, eps=eps)
    assert gray_levels(found.recipe.eps + found.triggers.alpha) < gray_levels(found.wm_eps) < 255


@every_preset
@every_data_set
def test_a_budget_of_the_user_s_changes_nothing_else_of_the_training(name: str, data: str) -> None:
    usual, own = filled(name, data), filled(name, data, eps=0.123)
    assert own.recipe == replace(usual.recipe, eps=0.123)


@every_preset
def test_presets_differ_by_data_set_only_in_what_is_tuned_for_it(name: str) -> None:
    """The founding paper's training is the same everywhere; digits are never mirrored."""
    recipes = [replace(filled(name, data).recipe, eps=0.1) for data in DATA]
    assert (len({str(recipe) for recipe in recipes}) == 1) == (name == "paper")
    assert not any(recipe.mirror for recipe in recipes)


def test_small_data_sets_train_for_as_many_steps_as_large_ones() -> None:
    images = [count * filled("fast", "mine", count=count).recipe.epochs for count in (8_000, 15_000, 29_000, 47_000)]
    assert max(images) < 1.1 * min(images)


@every_data_set
def test_strong_trains_another_network_on_more_images_with_a_stronger_attack(data: str, digits: Dataset) -> None:
    fast, strong = filled("fast", data), filled("strong", data)
    assert fast.spec(digits) != strong.spec(digits)
    assert fast.recipe.steps < strong.recipe.steps
    assert fast.recipe.epochs <= strong.recipe.epochs
    trained_on = [len(load("mnist-5k", set_aside=cfg.set_aside).train) for cfg in (fast, strong)]
    assert trained_on[0] < trained_on[1]


class TestIdentity:
    cfg = Protection(marks=("triggers",), seed=3)

    def test_covers_the_chosen_marks_the_chosen_network_and_what_they_share(self) -> None:
        changes: dict[str, Any] = {
            "triggers": Triggers(count=256),
            "small_cnn": SmallCNN(width=8),
            "model": "cw-cnn",
            "marks": ("triggers", "guard"),
            "wm_eps": 0.8,
            "seed": 4,
        }
        digests = {replace(self.cfg, **{name: value}).digest for name, value in changes.items()}
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
