"""Changes of the weights alone, without training."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from helpers import Backdoor, accuracy, context, costs_little
from wootz.attacks.removal.pruning import Prune, prune
from wootz.attacks.removal.weights import Quantize, WeightNoise, add_noise, quantize
from wootz.data import Dataset
from wootz.models import ModelSpec


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9])
def test_pruning_zeroes_the_smallest_weights(
    scope: str, sparsity: float, plain: nn.Module, digits: Dataset, small_spec: ModelSpec
) -> None:
    cfg = Prune(sparsity=sparsity, scope=scope)  # type: ignore[arg-type]
    altered = prune(cfg, plain, context(digits.thief, small_spec))
    before = torch.cat([p.flatten() for p in plain.parameters() if p.dim() > 1])
    after = torch.cat([p.flatten() for p in altered.parameters() if p.dim() > 1])
    gone = after == 0
    assert gone.float().mean().item() == pytest.approx(sparsity, abs=0.01)
    assert torch.equal(after[~gone], before[~gone])
    if scope == "global" and sparsity:
        assert before[gone].abs().max() <= before[~gone].abs().min()


def test_pruning_hard_enough_breaks_the_model(plain: nn.Module, digits: Dataset, small_spec: ModelSpec) -> None:
    held = context(digits.thief, small_spec)
    assert accuracy(prune(Prune(sparsity=0.5), plain, held), digits) > accuracy(plain, digits) - 0.1
    assert accuracy(prune(Prune(sparsity=0.99), plain, held), digits) < 0.6


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_quantization_leaves_few_values_a_channel(
    bits: int, plain: nn.Module, digits: Dataset, small_spec: ModelSpec
) -> None:
    altered = quantize(Quantize(bits=bits), plain, context(digits.thief, small_spec))
    for before, after in zip(plain.parameters(), altered.parameters(), strict=True):
        if before.dim() > 1:
            assert all(len(channel.unique()) <= 2**bits - 1 for channel in after.flatten(1))
            step = before.flatten(1).abs().amax(1) / (2 ** (bits - 1) - 1)
            assert ((before - after).flatten(1).abs().amax(1) <= 0.5 * step + 1e-6).all()
        else:
            assert torch.equal(before, after)
    if bits == 8:
        assert accuracy(altered, digits) == pytest.approx(accuracy(plain, digits), abs=0.01)


def test_noise_has_the_size_that_was_asked_for(plain: nn.Module, digits: Dataset, small_spec: ModelSpec) -> None:
    altered = add_noise(WeightNoise(noise=0.5), plain, context(digits.thief, small_spec))
    for before, after in zip(plain.parameters(), altered.parameters(), strict=True):
        if before.dim() > 1:
            assert ((after - before).std() / before.std()).item() == pytest.approx(0.5, rel=0.2)
        else:
            assert torch.equal(before, after)


def test_noise_follows_the_seed_and_leaves_the_model(plain: nn.Module, digits: Dataset, small_spec: ModelSpec) -> None:
    before = {name: t.clone() for name, t in plain.state_dict().items()}
    one, same, other = (
        add_noise(WeightNoise(), plain, context(digits.thief, small_spec, seed=seed)).state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["0.weight"], other["0.weight"])
    assert all(torch.equal(before[name], t) for name, t in plain.state_dict().items())


def test_the_plain_mark_outlives_the_model_that_carries_it(
    backdoor: Backdoor, digits: Dataset, small_spec: ModelSpec
) -> None:
    """What removes the mark without training costs the model far more than two points."""
    held, clean = context(digits.thief, small_spec), accuracy(backdoor.model, digits)
    for altered in (
        prune(Prune(), backdoor.model, held),
        quantize(Quantize(bits=4), backdoor.model, held),
        add_noise(WeightNoise(), backdoor.model, held),
    ):
        assert backdoor.recall(altered) > 0.9
        assert costs_little(altered, backdoor.model, digits)
    for altered in (
        prune(Prune(sparsity=0.7, scope="layer"), backdoor.model, held),
        quantize(Quantize(bits=2), backdoor.model, held),
    ):
        assert backdoor.recall(altered) < 0.5
        assert accuracy(altered, digits) < clean - 0.1
