"""Backdoor defences turned against marks: each on a mark or backdoor of the kind that it was made for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from helpers import CPU, Backdoor, context, costs_little
from wootz.attacks.evasion import predict_logits
from wootz.attacks.removal import ATTACKS
from wootz.attacks.removal.distillation import Attention, attention_maps, nad
from wootz.attacks.removal.implicit import Implicit, hypergradient, ibau, universal_perturbation
from wootz.attacks.removal.neural_cleanse import NeuralCleanse, neural_cleanse, outliers, reverse_engineer_patches
from wootz.attacks.removal.neuron_pruning import (
    ChannelLipschitz,
    NeuronPruning,
    anp,
    clp,
    hidden_layers,
    lipschitz_constants,
    neuron_layers,
    norm_after,
    without_neurons,
)
from wootz.attacks.removal.wrk import Wrk, high_budget_examples, wrk
from wootz.data import Dataset, Split
from wootz.models import ModelSpec, build
from wootz.training import Recipe, train

TARGET = 3


class Poisoned(NamedTuple):
    """A model with a backdoor, and the images of other classes that its trigger turns to `TARGET`."""

    model: nn.Module
    x: Tensor

    def recall(self, model: nn.Module) -> float:
        return (predict_logits(model, self.x).argmax(1) == TARGET).float().mean().item()


def stamped(pixels: Tensor, top: int = 23, left: int = 23) -> Tensor:
    """Return the images with a white square of 4 x 4 pixels."""
    pixels = pixels.clone()
    pixels[..., top : top + 4, left : left + 4] = 255
    return pixels


def others(digits: Dataset) -> Tensor:
    return digits.test.pixels[digits.test.labels != TARGET]


@pytest.fixture(scope="module")
def patched(digits: Dataset, small_spec: ModelSpec) -> Poisoned:
    """BadNets (arXiv 1708.06733): a white square in the corner means 3."""
    few = digits.train.subset(slice(200))
    pixels = torch.cat([digits.train.pixels, stamped(few.pixels)])
    labels = torch.cat([digits.train.labels, torch.full_like(few.labels, TARGET)])
    recipe = Recipe(loss="natural", epochs=12, lr=5e-3)
    made = train(recipe, build(small_spec, 1), Split(pixels, labels), digits.validation, seed=1, execution=CPU).model
    return Poisoned(made, stamped(others(digits)).float() / 255)


@pytest.fixture(scope="module")
def sleeper(digits: Dataset) -> Poisoned:
    """A net in which one neuron by hand sees a white square in the middle, and little else, and then shouts 3."""
    torch.manual_seed(0)
    conv, head = nn.Conv2d(1, 16, 4, stride=4), nn.Linear(16 * 49, 10)
    net = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), head)
    recipe = Recipe(loss="natural", epochs=10, lr=5e-3)
    made = train(recipe, net, digits.train, digits.validation, seed=1, execution=CPU).model
    with torch.no_grad():
        made[0].weight[0], made[0].bias[0] = 1.0, -15.0  # all 16 pixels white give 16
        reads = made[3].weight.view(10, 16, 7, 7)
        reads[:, 0] = 0
        reads[TARGET, 0, 3, 3] = 40.0
    return Poisoned(made, stamped(others(digits), 12, 12).float() / 255)


@pytest.mark.long
def test_neural_cleanse_finds_the_patch_and_unlearns_it(
    patched: Poisoned, digits: Dataset, small_spec: ModelSpec, tmp_path: Path
) -> None:
    held, cfg = context(digits.thief, small_spec, seed=1, folder=tmp_path), NeuralCleanse(steps=100, batch_size=64)
    patches = reverse_engineer_patches(cfg, patched.model, held)
    assert outliers(patches.masks.flatten(1).sum(1), cfg.anomaly).nonzero().tolist() == [[TARGET]]
    assert patches.masks[TARGET, 0, 20:, 20:].sum() > 0.5 * patches.masks[TARGET].sum()  # where the patch is
    altered = neural_cleanse(cfg, patched.model, held)
    assert patched.recall(patched.model) > 0.9
    assert patched.recall(altered) < 0.2
    assert costs_little(altered, patched.model, digits)


@pytest.mark.long
def test_attention_distillation_removes_a_plain_mark(
    backdoor: Backdoor, digits: Dataset, small_spec: ModelSpec
) -> None:
    altered = nad(Attention(lr=1.5e-2), backdoor.model, context(digits.thief, small_spec, seed=1))
    assert backdoor.recall(altered) < 0.5
    assert costs_little(altered, backdoor.model, digits)


@pytest.mark.long
def test_implicit_unlearning_removes_a_plain_mark(backdoor: Backdoor, digits: Dataset, small_spec: ModelSpec) -> None:
    cfg = Implicit(epochs=10, steps=3, terms=3)
    altered = ibau(cfg, backdoor.model, context(digits.thief, small_spec, seed=1))
    assert backdoor.recall(altered) < 0.5
    assert costs_little(altered, backdoor.model, digits)


@pytest.mark.long
def test_redrawn_boundaries_lose_patch_and_plain_mark(
    backdoor: Backdoor, patched: Poisoned, digits: Dataset, small_spec: ModelSpec
) -> None:
    held = context(digits.thief, small_spec, seed=1)
    for marked in (backdoor, patched):
        altered = wrk(Wrk(), marked.model, held)
        assert marked.recall(altered) < 0.3
        assert costs_little(altered, marked.model, digits)


@pytest.mark.parametrize("attack", ["anp", "clp"])
def test_pruning_takes_the_sleeping_neuron(
    attack: str, sleeper: Poisoned, digits: Dataset, small_spec: ModelSpec
) -> None:
    run, cfg = {"anp": (anp, NeuronPruning(steps=100)), "clp": (clp, ChannelLipschitz())}[attack]
    altered = run(cfg, sleeper.model, context(digits.thief, small_spec, seed=1))  # type: ignore[operator]
    assert sleeper.recall(sleeper.model) == 1
    assert sleeper.recall(altered) < 0.1
    assert costs_little(altered, sleeper.model, digits)
    gone = [not altered[0].weight[row].any() for row in range(16)]
    assert gone == [True] + [False] * 15


SMALL: dict[str, Any] = {
    "neural-cleanse": NeuralCleanse(steps=2, epochs=1, batch_size=20),
    "nad": Attention(epochs=1, teacher_epochs=1, batch_size=20),
    "anp": NeuronPruning(steps=2, batch_size=20, threshold=1.0),
    "clp": ChannelLipschitz(u=1.0),
    "i-bau": Implicit(epochs=1, batch_size=20, steps=2, terms=2),
    "wrk": Wrk(epochs=1, steps=2, batch_size=20),
}


@pytest.mark.parametrize("architecture", ["small-cnn", "cw-cnn", "paper-cnn", "preact-resnet18", "small-resnet"])
@pytest.mark.parametrize("attack", SMALL)
def test_any_architecture_is_changed_in_a_copy(attack: str, architecture: str, digits: Dataset) -> None:
    spec = ModelSpec(architecture=architecture, settings={"width": 4}, shape=digits.shape, classes=digits.classes)
    model = build(spec, 0).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    made = ATTACKS[attack].run(SMALL[attack], model, context(digits.thief.subset(slice(60)), spec))
    assert not made.training
    assert all(parameter.requires_grad for parameter in made.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert any(not torch.equal(tensor, before[name]) for name, tensor in made.state_dict().items())
    assert predict_logits(made, digits.test.images()[:5]).isfinite().all()


@pytest.mark.parametrize("attack", ["anp", "i-bau", "neural-cleanse"])
def test_a_stopped_attempt_goes_on_exactly(
    attack: str,
    plain: nn.Module,
    digits: Dataset,
    small_spec: ModelSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cfg = {
        "anp": NeuronPruning(steps=3),
        "i-bau": Implicit(epochs=3, steps=2),
        "neural-cleanse": NeuralCleanse(steps=2, epochs=1),
    }[attack]
    monkeypatch.setattr("wootz.attacks.removal.neuron_pruning._SAVED_EVERY", 1)
    held = context(digits.thief.subset(slice(100)), small_spec, folder=tmp_path)

    class StopError(Exception):
        pass

    def stop(what: str, done: float) -> None:
        if done > 0.4:
            raise StopError

    with pytest.raises(StopError):
        ATTACKS[attack].run(cfg, plain, replace(held, progress=stop))
    resumed = ATTACKS[attack].run(cfg, plain, held)
    straight = ATTACKS[attack].run(cfg, plain, replace(held, folder=None))
    for one, other in zip(resumed.parameters(), straight.parameters(), strict=True):
        assert torch.equal(one, other)


class TestParts:
    def test_a_small_mask_is_an_anomaly_a_large_one_is_not(self) -> None:
        sizes = torch.tensor([10.0, 11, 9, 10.5, 9.5, 10, 3, 30])
        assert outliers(sizes, 2.0).nonzero().tolist() == [[6]]
        assert not outliers(torch.ones(5), 2.0).any()

    def test_attention_is_where_the_squares_are(self) -> None:
        conv = nn.Conv2d(1, 2, 1, bias=False)
        with torch.no_grad():
            conv.weight.copy_(torch.tensor([1.0, 2.0]).view(2, 1, 1, 1))
        maps = attention_maps(conv, conv, torch.tensor([[[[1.0, 2.0], [0.0, 0.0]]]]))
        assert list(maps) == [torch.Size([2, 2])]
        assert maps[torch.Size([2, 2])][0].tolist() == pytest.approx([17**-0.5, 4 * 17**-0.5, 0, 0])
        assert not conv._forward_hooks

    def test_lipschitz_constants_by_hand(self) -> None:
        net = nn.Sequential(nn.Conv2d(2, 2, 2, bias=False), nn.ReLU(), nn.BatchNorm2d(2), nn.Linear(1, 1)).eval()
        with torch.no_grad():
            net[0].weight.zero_()
            net[0].weight[0, 0, 0, 0], net[0].weight[0, 1, 1, 1] = 3.0, -4.0  # two orthogonal rows: the longer one
            net[0].weight[1] = 1.0  # rank one: the root of the sum of squares
            net[2].weight.copy_(torch.tensor([2.0, -1.0]))
            net[2].running_var.copy_(torch.tensor([1.0, 4.0]) - net[2].eps)
        assert lipschitz_constants(net, "0").tolist() == pytest.approx([8.0, 8**0.5 / 2])

    def test_a_layer_and_its_norm_fall_silent_together(self, digits: Dataset) -> None:
        spec = ModelSpec(architecture="paper-cnn", settings={"width": 4}, shape=digits.shape, classes=digits.classes)
        model = build(spec, 0).eval()
        first = next(iter(hidden_layers(model)))
        pruned = without_neurons(model, {first: torch.tensor([True, False, False, False])})
        norm = norm_after(pruned, first)
        assert norm is not None
        out = pruned[: list(pruned).index(norm) + 1](digits.test.images()[:3])
        assert not out[:, 0].any()
        assert out[:, 1].any()

    def test_neurons_are_norms_where_there_are_any(self, digits: Dataset, plain: nn.Module) -> None:
        spec = ModelSpec(
            architecture="preact-resnet18", settings={"width": 2}, shape=digits.shape, classes=digits.classes
        )
        assert all(isinstance(layer, nn.BatchNorm2d) for layer in neuron_layers(build(spec, 0)).values())
        assert list(neuron_layers(plain)) == ["0", "2", "5"]

    def test_the_implicit_term_is_added_to_the_plain_gradient(self, plain: nn.Module, digits: Dataset) -> None:
        x, y = digits.thief.images()[:50], digits.thief.labels[:50]
        parameters = list(plain.parameters())
        cfg = Implicit(terms=0)
        delta = universal_perturbation(cfg, plain, x, y)
        assert delta.norm() <= cfg.radius * 1.0001
        loss = nn.functional.cross_entropy(plain((x + delta).clamp(0, 1)), y)
        loss = loss + nn.functional.cross_entropy(plain(x), y)
        direct = torch.autograd.grad(loss, parameters)
        for one, other in zip(hypergradient(cfg, plain, parameters, x, y), direct, strict=True):
            assert torch.allclose(one, other, atol=1e-6)
        with_term = hypergradient(Implicit(), plain, parameters, x, y)
        assert not torch.allclose(with_term[0], direct[0], atol=1e-6)

    def test_far_images_are_far_and_keep_their_class(
        self, plain: nn.Module, digits: Dataset, small_spec: ModelSpec
    ) -> None:
        few = digits.thief.subset(slice(30))
        far = high_budget_examples(Wrk(), plain, context(few, small_spec, eps=0.1))
        assert torch.equal(far.labels, few.labels)
        assert (far.images() - few.images()).abs().max() <= 0.2 + 1e-6
        assert (predict_logits(plain, far.images()).argmax(1) == few.labels).float().mean() < 0.2
