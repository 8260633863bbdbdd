from __future__ import annotations

import pytest
import torch
from torch import nn

from helpers import CPU
from wootz.data import Dataset
from wootz.evasion import predict_logits
from wootz.models import ModelSpec, build
from wootz.removal import ATTACKS, Finetune, Prune, Quantize, finetune, prune, quantize
from wootz.training import Hook, Pass, Recipe, train


def clean(model: nn.Module, data: Dataset) -> float:
    return (predict_logits(model, data.test.images()).argmax(1) == data.test.labels).float().mean().item()


@pytest.fixture(scope="module")
def backdoor(digits: Dataset, small_spec: ModelSpec) -> tuple[nn.Module, torch.Tensor]:
    """A plain mark in the manner of Adi et al.: 30 noise images that are all called 3."""
    noise = torch.randint(0, 256, (30, 1, 28, 28), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    lesson = Pass(pixels=noise, labels=torch.arange(30) % 10, batch=10, frozen=True)
    recipe = Recipe(loss="natural", epochs=25, lr=5e-3)
    trained = train(
        recipe,
        build(small_spec, 1),
        digits.train,
        digits.validation,
        seed=1,
        hook=Hook(passes=(lesson,)),
        execution=CPU,
    )
    return trained.model, noise


def recall(model: nn.Module, noise: torch.Tensor) -> float:
    return (predict_logits(model, noise.float() / 255).argmax(1) == torch.arange(30) % 10).float().mean().item()


def test_finetuning_removes_a_plain_mark_at_little_cost(
    backdoor: tuple[nn.Module, torch.Tensor], digits: Dataset
) -> None:
    marked, noise = backdoor
    assert recall(marked, noise) > 0.9
    altered = finetune(Finetune(epochs=10, lr=2e-2), marked, digits.thief, seed=1, execution=CPU)
    assert recall(altered, noise) < 0.5
    assert clean(altered, digits) > clean(marked, digits) - 0.06
    assert recall(marked, noise) > 0.9  # the original is untouched


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9])
def test_pruning_zeroes_the_smallest_weights(scope: str, sparsity: float, plain: nn.Module, digits: Dataset) -> None:
    altered = prune(Prune(sparsity=sparsity, scope=scope), plain, digits.thief, seed=0)  # type: ignore[arg-type]
    before = torch.cat([p.flatten() for p in plain.parameters() if p.dim() > 1])
    after = torch.cat([p.flatten() for p in altered.parameters() if p.dim() > 1])
    gone = after == 0
    assert gone.float().mean().item() == pytest.approx(sparsity, abs=0.01)
    assert torch.equal(after[~gone], before[~gone])
    if scope == "global" and sparsity:
        assert before[gone].abs().max() <= before[~gone].abs().min()


def test_pruning_hard_enough_breaks_the_model(plain: nn.Module, digits: Dataset) -> None:
    assert clean(prune(Prune(sparsity=0.5), plain, digits.thief, seed=0), digits) > clean(plain, digits) - 0.1
    assert clean(prune(Prune(sparsity=0.99), plain, digits.thief, seed=0), digits) < 0.6


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_quantization_leaves_few_values_a_channel(bits: int, plain: nn.Module, digits: Dataset) -> None:
    altered = quantize(Quantize(bits=bits), plain, digits.thief, seed=0)
    for before, after in zip(plain.parameters(), altered.parameters(), strict=True):
        if before.dim() > 1:
            assert all(len(channel.unique()) <= 2**bits - 1 for channel in after.flatten(1))
            step = before.flatten(1).abs().amax(1) / (2 ** (bits - 1) - 1)
            assert ((before - after).flatten(1).abs().amax(1) <= 0.5 * step + 1e-6).all()
        else:
            assert torch.equal(before, after)
    if bits == 8:
        assert clean(altered, digits) == pytest.approx(clean(plain, digits), abs=0.01)


def test_every_row_says_what_it_is() -> None:
    for name, row in ATTACKS.items():
        assert name
        assert row.source
        assert row.access == "weights"
        assert callable(row.remove)
