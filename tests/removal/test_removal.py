"""Removal of a plain backdoor mark (Adi et al.): what each attack takes from the mark, and from the model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from conftest import Backdoor
from helpers import accuracy, means
from wootz.data import Dataset
from wootz.models import ModelSpec
from wootz.removal import ATTACKS
from wootz.removal.finetune import Finetune, finetune
from wootz.removal.prune import Prune, prune
from wootz.removal.quantize import Quantize, quantize


def test_finetuning_removes_a_plain_mark_at_little_cost(
    backdoor: Backdoor, digits: Dataset, small_spec: ModelSpec
) -> None:
    held = means(digits.thief, small_spec, seed=1)
    altered = finetune(Finetune(epochs=10, lr=2e-2), backdoor.model, held)
    assert backdoor.recall(altered) < 0.5
    assert accuracy(altered, digits) > accuracy(backdoor.model, digits) - 0.06
    assert backdoor.recall(backdoor.model) > 0.9  # the original is untouched


def test_the_last_layer_alone_learns_when_asked(plain: nn.Module, digits: Dataset, small_spec: ModelSpec) -> None:
    held = means(digits.thief, small_spec)
    tuned = finetune(Finetune(layers="last", redraw=True, epochs=1), plain, held)
    moved = [name for name, p in tuned.named_parameters() if not torch.equal(p, plain.get_parameter(name))]
    assert moved == ["7.weight", "7.bias"]
    assert all(p.requires_grad for p in tuned.parameters())


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9])
def test_pruning_zeroes_the_smallest_weights(
    scope: str, sparsity: float, plain: nn.Module, digits: Dataset, small_spec: ModelSpec
) -> None:
    cfg = Prune(sparsity=sparsity, scope=scope)  # type: ignore[arg-type]
    altered = prune(cfg, plain, means(digits.thief, small_spec))
    before = torch.cat([p.flatten() for p in plain.parameters() if p.dim() > 1])
    after = torch.cat([p.flatten() for p in altered.parameters() if p.dim() > 1])
    gone = after == 0
    assert gone.float().mean().item() == pytest.approx(sparsity, abs=0.01)
    assert torch.equal(after[~gone], before[~gone])
    if scope == "global" and sparsity:
        assert before[gone].abs().max() <= before[~gone].abs().min()


def test_pruning_hard_enough_breaks_the_model(plain: nn.Module, digits: Dataset, small_spec: ModelSpec) -> None:
    held = means(digits.thief, small_spec)
    assert accuracy(prune(Prune(sparsity=0.5), plain, held), digits) > accuracy(plain, digits) - 0.1
    assert accuracy(prune(Prune(sparsity=0.99), plain, held), digits) < 0.6


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_quantization_leaves_few_values_a_channel(
    bits: int, plain: nn.Module, digits: Dataset, small_spec: ModelSpec
) -> None:
    altered = quantize(Quantize(bits=bits), plain, means(digits.thief, small_spec))
    for before, after in zip(plain.parameters(), altered.parameters(), strict=True):
        if before.dim() > 1:
            assert all(len(channel.unique()) <= 2**bits - 1 for channel in after.flatten(1))
            step = before.flatten(1).abs().amax(1) / (2 ** (bits - 1) - 1)
            assert ((before - after).flatten(1).abs().amax(1) <= 0.5 * step + 1e-6).all()
        else:
            assert torch.equal(before, after)
    if bits == 8:
        assert accuracy(altered, digits) == pytest.approx(accuracy(plain, digits), abs=0.01)


def test_every_row_says_what_it_is() -> None:
    for name, row in ATTACKS.items():
        assert name == name.lower()
        assert row.source
        assert row.cost
        assert row.access == "weights"
