"""The filter `regress`, fitted on the attacker's own images: ours, adaptive, against the mark `runner-up`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wootz import checks
from wootz.attacks.adversary import AttackContext, AttackDataConfig
from wootz.attacks.evasion import predict_logits
from wootz.attacks.removal.filtering import filtering
from wootz.models.filters.regress import Regress, Residual

_RIDGE = 1.0  # images' worth of doubt: keeps the map small where a class has few images


@dataclass(frozen=True, slots=True, kw_only=True)
class Regressing(AttackDataConfig):
    """How many principal components are taken out: `features`."""

    features: int = 30

    def __post_init__(self) -> None:
        AttackDataConfig.__post_init__(self)
        checks.at_least(1, features=self.features)


def forget_scores(cfg: Regressing, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a copy of `model` whose wrong-class scores follow no component linearly; true labels are not used."""
    filtered = filtering(Regress(features=cfg.features), model, context)
    residual = filtered.filter
    assert isinstance(residual, Residual)
    x = context.data.images()
    scores = predict_logits(model, x).log_softmax(1)
    top = scores.argmax(1)
    _whiten(residual, x, top)
    z = residual.features(x, top).double()
    for k in top.unique().tolist():
        residual.slope[k] = _linear_part(z[top == k], scores[top == k].double(), k).float()
    return filtered


def _whiten(residual: Residual, x: Tensor, top: Tensor) -> None:
    """Find the principal components, and the features' mean and spread among images that are answered alike."""
    flat = x.flatten(1)
    residual.center.copy_(flat.mean(0))
    flat = flat - residual.center
    _, directions = torch.linalg.eigh(flat.T @ flat)  # ascending
    residual.components.copy_(directions.flip(1)[:, : residual.components.shape[1]])
    z = flat @ residual.components
    for k in top.unique().tolist():
        spread, mean = torch.std_mean(z[top == k], 0, correction=0)
        residual.mean[k], residual.scale[k] = mean, spread.clamp_min(1e-3)


def _linear_part(z: Tensor, scores: Tensor, k: int) -> Tensor:
    """Return the slope [K, d] of class k's centered wrong-class scores over the features; row k is zero."""
    wrong = torch.arange(scores.shape[1]) != k
    order = scores[:, wrong] - scores[:, wrong].mean(1, keepdim=True)
    z, order = z - z.mean(0), order - order.mean(0)
    slope = torch.zeros(scores.shape[1], z.shape[1], dtype=z.dtype)
    slope[wrong] = torch.linalg.solve(z.T @ z + _RIDGE * torch.eye(z.shape[1], dtype=z.dtype), z.T @ order).T
    return slope
