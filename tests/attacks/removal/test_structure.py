"""Whole channels: gone as if cut out, or in another place."""

from __future__ import annotations

import copy

import pytest
import torch
import torch_pruning as tp
from torch import nn

from helpers import Backdoor, context, costs_little
from wootz.attacks.evasion import predict_logits
from wootz.attacks.removal.channels import Permute, dependency_graph, permute, zero_channels
from wootz.attacks.removal.pruning import (
    FinePrune,
    Structured,
    fine_prune,
    last_convolution,
    mean_activations,
    prune_channels,
    without_channels,
)
from wootz.data import Dataset
from wootz.models import ModelSpec, build
from wootz.workflows.run import agreement

NETS = {
    "small-cnn": {"width": 6, "hidden": 16},
    "cw-cnn": {"width": 6, "hidden": 16},
    "paper-cnn": {"width": 6, "hidden": 16},
    "preact-resnet18": {"width": 4},
}


def lively(architecture: str, digits: Dataset) -> nn.Module:
    """Return a net with random weights, in which norms' statistics are not the initial ones and no channel is dead."""
    spec = ModelSpec(architecture=architecture, settings=NETS[architecture], shape=digits.shape, classes=digits.classes)
    net = build(spec, 3).train()
    with torch.no_grad():
        net(digits.train.subset(slice(64)).images())
    for name, tensor in net.named_parameters():
        if tensor.dim() == 1:
            noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(len(name)))
            tensor.data.add_(0.3 * noise.abs())
    return net.eval()


@pytest.mark.parametrize("architecture", list(NETS))
def test_silenced_channels_compute_what_the_smaller_network_computes(architecture: str, digits: Dataset) -> None:
    net, x = lively(architecture, digits), digits.test.images()[:20]
    for name in [name for name, module in net.named_modules() if isinstance(module, nn.Conv2d)]:
        smaller, quiet = copy.deepcopy(net), copy.deepcopy(net)
        for model, act in ((smaller, lambda group: group.prune()), (quiet, zero_channels)):
            layer = model.get_submodule(name)
            act(dependency_graph(model, x[:1]).get_pruning_group(layer, tp.prune_conv_out_channels, [0, 3]))
        assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in net.parameters())
        whole, cut, silent = (predict_logits(model, x) for model in (net, smaller, quiet))
        assert (silent - cut).abs().max() < 0.01 * (silent - whole).abs().max()


@pytest.mark.parametrize("architecture", list(NETS))
@pytest.mark.parametrize("scope", ["group", "global"])
def test_structured_pruning_equals_cutting(
    scope: str, architecture: str, digits: Dataset, small_spec: ModelSpec
) -> None:
    net, x = lively(architecture, digits), digits.test.images()[:20]
    altered = prune_channels(
        Structured(ratio=0.5, scope=scope),
        net,
        context(digits.thief, small_spec),  # type: ignore[arg-type]
    )
    cut = copy.deepcopy(net)
    tp.pruner.BasePruner(
        cut,
        x[:1],
        importance=tp.importance.GroupMagnitudeImportance(),
        pruning_ratio=0.5,
        global_pruning=scope == "global",
        ignored_layers=[list(cut.modules())[-1]],
    ).step()
    assert altered.state_dict().keys() == net.state_dict().keys()
    assert torch.allclose(predict_logits(altered, x), predict_logits(cut, x), atol=1e-4)


def test_pruned_channels_stay_away_while_the_rest_trains(digits: Dataset, small_spec: ModelSpec) -> None:
    net = lively("paper-cnn", digits)
    held = context(digits.thief.subset(slice(200)), small_spec)
    bare, tuned = (prune_channels(Structured(ratio=0.5, epochs=epochs), net, held) for epochs in (0, 2))
    for before, after in zip(bare.parameters(), tuned.parameters(), strict=True):
        assert not after[before == 0].any()
        assert not torch.equal(before, after)


def test_structured_pruning_and_training_on_remove_a_plain_mark(
    backdoor: Backdoor, digits: Dataset, small_spec: ModelSpec
) -> None:
    cfg = Structured(ratio=0.5, epochs=10, lr=1e-2)
    altered = prune_channels(cfg, backdoor.model, context(digits.thief, small_spec, seed=1))
    assert backdoor.recall(altered) < 0.5
    assert costs_little(altered, backdoor.model, digits)


def test_fine_pruning_removes_a_plain_mark(backdoor: Backdoor, digits: Dataset, small_spec: ModelSpec) -> None:
    cfg = FinePrune(tolerance=0.1, epochs=40, lr=2e-2)
    altered = fine_prune(cfg, backdoor.model, context(digits.thief, small_spec, seed=1))
    assert backdoor.recall(altered) < 0.5
    assert costs_little(altered, backdoor.model, digits)


def test_fine_pruning_takes_the_dormant_channels_within_its_tolerance(
    plain: nn.Module, digits: Dataset, small_spec: ModelSpec
) -> None:
    held = context(digits.thief, small_spec)
    images, labels = digits.thief.images(), digits.thief.labels
    altered = fine_prune(FinePrune(tolerance=0.1, epochs=0), plain, held)
    name = last_convolution(plain)
    before, after = mean_activations(plain, name, images), mean_activations(altered, name, images)
    gone = after == 0
    assert 0 < gone.sum() < len(gone)
    assert before[gone].max() <= before[~gone].min()

    def right(model: nn.Module) -> float:
        return (predict_logits(model, images).argmax(1) == labels).float().mean().item()

    assert right(altered) >= right(plain) - 0.1
    more = before.argsort()[: int(gone.sum()) + 1].tolist()
    assert right(without_channels(plain, more, images)) < right(plain) - 0.1


@pytest.mark.parametrize("architecture", list(NETS))
def test_permuting_changes_the_weights_and_no_answer(architecture: str, digits: Dataset, small_spec: ModelSpec) -> None:
    net, x = lively(architecture, digits), digits.test.images()[:20]
    held = context(digits.thief, small_spec)
    moved = permute(Permute(), net, held)
    assert torch.allclose(predict_logits(moved, x), predict_logits(net, x), atol=1e-4)
    for name, weight in net.named_parameters():
        other = moved.get_parameter(name)
        assert weight.shape == other.shape
        assert torch.allclose(weight.flatten().sort().values, other.flatten().sort().values)
        if weight.dim() > 1:
            assert (weight != other).float().mean() > 0.5
    again = permute(Permute(), net, held).state_dict()
    assert all(torch.equal(t, again[name]) for name, t in moved.state_dict().items())


def test_a_mark_in_the_answers_does_not_notice_a_permutation(
    backdoor: Backdoor, digits: Dataset, small_spec: ModelSpec
) -> None:
    moved = permute(Permute(), backdoor.model, context(digits.thief, small_spec))
    assert backdoor.recall(moved) == backdoor.recall(backdoor.model)
    assert agreement(moved, backdoor.model, digits) == 1.0
