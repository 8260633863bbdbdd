"""What every removal attack of the table owes: an altered copy that still answers, and a target left as it was."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from torch import nn

from helpers import context
from wootz.attacks.evasion import predict_logits
from wootz.attacks.removal import ATTACKS
from wootz.data import Dataset
from wootz.models import ModelSpec

QUICK = {"epochs": 1, "teacher_epochs": 1, "shrinking": 1, "steps": 2, "triggers": 32, "partners": 1}
"""Settings with which an attack takes a second."""

HARD = {"u": 1.0, "threshold": 0.99}
"""Settings with which pruning by a threshold finds something to prune in a small network."""


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_returns_an_altered_copy(
    name: str, plain: nn.Module, digits: Dataset, small_spec: ModelSpec
) -> None:
    row, before = ATTACKS[name], {key: tensor.clone() for key, tensor in plain.state_dict().items()}
    known = {field.name for field in fields(row.config)}
    cfg = replace(row.config, **{key: value for key, value in (QUICK | HARD).items() if key in known})
    altered = row.run(cfg, plain, context(digits.thief.subset(slice(256)), small_spec))
    assert all(torch.equal(tensor, before[key]) for key, tensor in plain.state_dict().items())
    assert not altered.training
    x = digits.test.subset(slice(200)).images()
    had, has = predict_logits(plain, x), predict_logits(altered, x)
    assert has.shape == had.shape
    assert not has.isnan().any()
    if name == "feature-permute":  # another order of the features computes the same function
        assert torch.allclose(has, had, atol=1e-4)
        assert any(not torch.equal(tensor, before[key]) for key, tensor in altered.state_dict().items())
    else:
        assert not torch.allclose(has, had, atol=1e-4)
