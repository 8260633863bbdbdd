"""Marking of a trained model: what it learns, what it leaves as it was, and when it stops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wootz.data import Dataset, Split
from wootz.errors import ModelError, TrainingError
from wootz.training import Marking, Recipe, embed

NATURAL = Recipe(loss="natural", eps=0.1)


class Shift:
    """A loss that wants class 3 for a black image."""

    calls = 0

    def __call__(self, model: nn.Module, forward: nn.Module, *, batch_images: Tensor, step: int, done: float) -> Tensor:
        self.calls += 1
        return F.cross_entropy(model(torch.zeros(1, 1, 28, 28)), torch.tensor([3]))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, stride=3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(256, 10)
    ).eval()


def own_answers(model: nn.Module):
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def targets(x: Tensor, _: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.func.functional_call(model, start, (x,)).softmax(1)

    return targets


def run(model: nn.Module, data: Dataset, cfg: Marking, lacking, losses=None, targets=None) -> int:
    images: Split = data.train.subset(slice(200))
    return embed(
        cfg,
        NATURAL,
        model,
        images,
        targets or own_answers(model),
        losses or {"own": (Shift(),)},
        seed=0,
        lacking=lacking,
        progress=lambda _: None,
    )


def test_marks_are_learned_and_batch_statistics_stay(model: nn.Module, digits: Dataset) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    steps = run(model, digits, Marking(steps=60, settle_steps=0, lr=1e-2), lambda _: frozenset({"own"}))
    assert steps == 60
    assert model(torch.zeros(1, 1, 28, 28)).argmax() == 3
    for name in ("1.running_mean", "1.running_var", "1.num_batches_tracked"):
        assert torch.equal(model.state_dict()[name], before[name])
    assert not model.training


def test_it_stops_when_no_mark_lacks_anything_and_settles(model: nn.Module, digits: Dataset) -> None:
    asked: list[int] = []

    def lacking(step: int) -> frozenset[str]:
        asked.append(step)
        return frozenset({"own"}) if step < 30 else frozenset()

    assert run(model, digits, Marking(steps=500, check_every=10, settle_steps=15), lacking) == 45
    assert asked == [10, 20, 30, 40]


def test_a_mark_that_is_strong_enough_adds_no_loss(model: nn.Module, digits: Dataset) -> None:
    strong, weak = Shift(), Shift()
    run(
        model,
        digits,
        Marking(steps=30, check_every=10, settle_steps=0),
        lambda _: frozenset({"weak"}),
        {"strong": (strong,), "weak": (weak,)},
    )
    assert (strong.calls, weak.calls) == (10, 30)


def test_the_order_of_wrong_classes_is_learned_where_their_probability_is_tiny(
    model: nn.Module, digits: Dataset
) -> None:
    """Targets give the answer nearly all, and 9 parts in 10 of the rest to the class after it."""

    def targets(x: Tensor, y: Tensor) -> Tensor:
        wrong = torch.full((len(y), 10), 1e-4 / 80).scatter(1, ((y + 1) % 10)[:, None], 9e-5)
        return wrong.scatter(1, y[:, None], 1 - 1e-4)

    def share(cfg: Marking) -> float:
        torch.manual_seed(0)
        for layer in model:
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
        run(model, digits, cfg, lambda _: frozenset({"own"}), {"own": ()}, targets)
        part = digits.train.subset(slice(200))
        rest = model(part.images()).scatter(1, part.labels[:, None], -torch.inf)
        return (rest.argmax(1) == (part.labels + 1) % 10).float().mean().item()

    length = {"steps": 150, "lr": 1e-2, "settle_steps": 0}
    assert share(Marking(wrong_weight=0.5, **length)) > 0.8
    assert share(Marking(wrong_weight=0.0, **length)) < 0.7


def test_a_loss_that_is_not_finite_is_refused(model: nn.Module, digits: Dataset) -> None:
    class Infinite(Shift):
        def __call__(self, model: nn.Module, *_: object, **__: object) -> Tensor:
            return model(torch.zeros(1, 1, 28, 28)).sum() * torch.inf

    with pytest.raises(TrainingError, match="in step 0 of marking; try an lr below"):
        run(model, digits, Marking(steps=3), lambda _: frozenset({"own"}), {"own": (Infinite(),)})


def test_the_last_layer_alone_learns_when_asked(model: nn.Module, digits: Dataset) -> None:
    model[0].weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    run(model, digits, Marking(steps=20, lr=1e-2, layers="last"), lambda _: frozenset({"own"}))
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"5.weight", "5.bias"}
    required = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert required == {"0.bias", "1.weight", "1.bias", "5.weight", "5.bias"}  # as before


def test_a_network_without_a_linear_layer_has_no_last_one(digits: Dataset) -> None:
    network = nn.Sequential(nn.Conv2d(1, 10, 28), nn.Flatten())
    with pytest.raises(ModelError, match="has no linear layer"):
        run(network, digits, Marking(steps=3, layers="last"), lambda _: frozenset({"own"}))
