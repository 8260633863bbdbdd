"""Clean and robust accuracy, in float32, with the flags that say how far to trust them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wootz.evasion.autoattack import reference_autoattack
from wootz.evasion.projected_gradient import PGD, pgd
from wootz.modes import evaluating
from wootz.registry import lookup
from wootz.rng import generator
from wootz.types import Norm

EVALUATIONS: Mapping[str, PGD | None] = MappingProxyType(
    {
        "pgd-40x2": PGD(eps=0, steps=40, restarts=2, stop=True),
        "pgd-50x10": PGD(eps=0, steps=50, restarts=10, stop=True),
        "autoattack": None,
    }
)
"""Named evaluations; None is the reference ensemble. The budget is filled in by the caller."""


class Robustness(NamedTuple):
    """Which images are answered right [N], which of them at every point tried [N], and reliability flags."""

    correct: Tensor
    robust: Tensor
    flags: tuple[str, ...]

    @property
    def clean(self) -> float:
        """Clean accuracy, a fraction."""
        return self.correct.float().mean().item()

    @property
    def accuracy(self) -> float:
        """Robust accuracy, a fraction: worst case over all restarts and attacks of each image."""
        return self.robust.float().mean().item()


def predict_logits(model: nn.Module, x: Tensor, batch_size: int = 1000) -> Tensor:
    """Return logits float32 [N, K] of images [N, C, H, W], in eval mode and without gradients."""
    with evaluating(model), torch.no_grad():
        return torch.cat([model(batch).float() for batch in x.split(batch_size)])


def evaluate(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    attack: str = "pgd-40x2",
    norm: Norm = "Linf",
    seed: int = 0,
    batch_size: int = 500,
    progress: Callable[[float], None] = lambda _: None,
) -> Robustness:
    """Attack the images that are answered right and count those that stand.

    Args:
        model: images in [0, 1] -> logits.
        x: images float32 [N, C, H, W] in [0, 1].
        y: true labels int64 [N].
        eps: budget, in pixels of [0, 1].
        attack: a name of `EVALUATIONS`.
        norm: of the ball.
        seed: of the attack's randomness.
        batch_size: images attacked at a time.
        progress: told the fraction done, 0 to 1.
    """
    settings = lookup(EVALUATIONS, attack, "evaluation")
    correct = predict_logits(model, x).argmax(1) == y
    robust = correct.clone()
    flags: set[str] = set()
    rows = correct.nonzero().squeeze(1)
    for number, part in enumerate(rows.split(batch_size)):
        if settings is None:
            result = reference_autoattack(model, x[part], y[part], eps=eps, norm=norm, seed=seed)
            robust[part], flags = result.robust, flags | set(result.flags)
        else:
            cfg = PGD(eps=eps, norm=norm, steps=settings.steps, restarts=settings.restarts, stop=True)
            stream = generator(seed, attack, number, device=x.device)
            points = pgd(cfg, model, x[part], y[part], generator=stream)
            robust[part] = predict_logits(model, points).argmax(1) == y[part]
        progress(min(1.0, (number + 1) * batch_size / len(rows)))
    return Robustness(correct, robust, tuple(sorted(flags)))


def accuracy_curve(
    model: nn.Module, x: Tensor, y: Tensor, *, eps: Sequence[float], norm: Norm = "Linf", seed: int = 0
) -> list[float]:
    """Return robust accuracy (PGD-20, one restart) at each budget of `eps`, for a picture of how it falls."""
    right = predict_logits(model, x).argmax(1) == y
    curve = []
    for budget in eps:
        cfg = PGD(eps=budget, norm=norm, steps=20, stop=True)
        points = pgd(cfg, model, x, y, generator=generator(seed, "curve", device=x.device))
        right = right & (predict_logits(model, points).argmax(1) == y)
        curve.append(right.float().mean().item())
    return curve
