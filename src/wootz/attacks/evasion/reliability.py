"""Signs that a robust accuracy is too good to be true: gradients that lead nowhere hide weakness, they do not mend it.

After Athalye et al. (arXiv 1802.00420) and Carlini et al. (arXiv 1902.06705).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wootz.attacks.evasion.objectives import cross_entropy
from wootz.attacks.evasion.projected_gradient import PGD, pgd
from wootz.modes import eval_mode
from wootz.rng import generator
from wootz.types import Norm

BLACK_BOX_BETTER = "black-box-better"
"""A black box felled images that no gradient had."""

_IMAGES = 100
_STANDS = 0.05  # the share that may stand when an image can become any other


def reliability(model: nn.Module, x: Tensor, y: Tensor, *, norm: Norm = "Linf", seed: int = 0) -> tuple[str, ...]:
    """Return flags, none where nothing is suspicious.

    `randomized`: two answers to the same images differ. `probabilities`: the outputs look like probabilities, of
    which attacks take a second softmax. `zero-gradient`: for more than a tenth of the images the loss has no slope.
    `no-collapse`: with a budget that lets an image become any other, more than 5% still stand.

    Args:
        model: images in [0, 1] -> logits; borrowed in eval mode.
        x: images that are answered right, float32 [N, C, H, W] in [0, 1]; the first hundred are looked at.
        y: their labels int64 [N].
        norm: of the ball that robustness is reported in.
        seed: of the attack at a huge budget.
    """
    x, y = x[:_IMAGES], y[:_IMAGES]
    if len(x) == 0:
        return ()
    with eval_mode(model):
        return tuple(_answers(model, x, y)) + tuple(_collapse(model, x, y, norm, seed))


def _answers(model: nn.Module, x: Tensor, y: Tensor) -> list[str]:
    found, point = [], x.clone().requires_grad_(True)
    logits = model(point).float()
    (gradient,) = torch.autograd.grad(cross_entropy(logits, y).sum(), point, allow_unused=True, materialize_grads=True)
    with torch.no_grad():
        if not torch.allclose(model(x).float(), logits, atol=1e-4, rtol=1e-4):
            found.append("randomized")
        if logits.min() >= 0 and torch.allclose(logits.sum(1), torch.ones_like(logits[:, 0]), atol=1e-3):
            found.append("probabilities")
        if (gradient.flatten(1).abs().amax(1) == 0).float().mean() > 0.1:
            found.append("zero-gradient")
    return found


def _collapse(model: nn.Module, x: Tensor, y: Tensor, norm: Norm, seed: int) -> list[str]:
    reach = 1.0 if norm == "Linf" else x[0].numel() ** 0.5
    cfg = PGD(eps=reach, norm=norm, steps=20, random_start=False, stop=True)  # noise alone would fell many
    points = pgd(cfg, model, x, y, generator=generator(seed, "reliability", device=x.device))
    with torch.no_grad():
        stands = (model(points).argmax(1) == y).float().mean()
    return ["no-collapse"] if stands > _STANDS else []
