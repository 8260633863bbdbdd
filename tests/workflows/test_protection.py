"""Presets: what a user gets who names a data set and nothing else."""

from __future__ import annotations

import pytest

from wootz.workflows.protection import preset


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
