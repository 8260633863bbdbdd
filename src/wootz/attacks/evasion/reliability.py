"""Checks for gradient masking: signs that a measured robust accuracy is too high.

After Athalye et al. (arXiv 1802.00420) and Carlini et al. (arXiv 1902.06705).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wootz.attacks.evasion.objectives import cross_entropy
from wootz.attacks.evasion.projected_gradient import PGD, pgd
from wootz.models.contract import depends_on_batch, look_like_probabilities
from wootz.modes import eval_mode, kept_buffers
from wootz.rng import generator
from wootz.types import Norm

BLACK_BOX_BETTER = "black-box-better"
"""The flag for a black-box attack that succeeds on images on which no gradient-based attack did."""

LABELS_ONLY = "labels-only"
"""The flag for a target that shows no scores, from which attacks would need fewer queries."""

_IMAGES, _ALONE = 100, 8
_MAX_ROBUST = 0.05  # the fraction that may remain robust when the budget allows any image


def reliability(model: nn.Module, x: Tensor, y: Tensor, *, norm: Norm = "Linf", seed: int = 0) -> tuple[str, ...]:
    """Return the names of the checks that fail.

    `randomized`: two evaluations of the same images differ. `batch-dependent`: images get other outputs together than
    one by one. `stateful`: an evaluation changes the model's buffers, in eval mode. `probabilities`: the outputs look
    like probabilities, to which attacks apply a second softmax. `zero-gradient`: the loss has a zero gradient for more
    than a tenth of the images. `no-collapse`: with a budget that allows any image, more than 5% of the images remain
    robust.

    Args:
        model: images in [0, 1] -> logits; used in eval mode and restored.
        x: images that are classified correctly, float32 [N, C, H, W] in [0, 1]; the first hundred are used.
        y: their labels int64 [N].
        norm: the norm of the ball that robustness is reported for.
        seed: the seed of the attack at the huge budget.
    """
    x, y = x[:_IMAGES], y[:_IMAGES]
    if len(x) == 0:
        return ()
    with eval_mode(model):
        return (*_check_outputs(model, x, y), *_check_batches(model, x), *_check_collapse(model, x, y, norm, seed))


def _check_outputs(model: nn.Module, x: Tensor, y: Tensor) -> list[str]:
    flags, point = [], x.clone().requires_grad_(True)
    logits = model(point).float()
    (gradient,) = torch.autograd.grad(cross_entropy(logits, y).sum(), point, allow_unused=True, materialize_grads=True)
    with torch.no_grad():
        if not torch.allclose(model(x).float(), logits, atol=1e-4, rtol=1e-4):
            flags.append("randomized")
        if look_like_probabilities(logits):
            flags.append("probabilities")
        if (gradient.flatten(1).abs().amax(1) == 0).float().mean() > 0.1:
            flags.append("zero-gradient")
    return flags


def _check_batches(model: nn.Module, x: Tensor) -> list[str]:
    with kept_buffers(model) as changed:
        flags = ["batch-dependent"] if depends_on_batch(model, x[:_ALONE]) else []
        return [*flags, "stateful"] if changed() else flags


def _check_collapse(model: nn.Module, x: Tensor, y: Tensor, norm: Norm, seed: int) -> list[str]:
    radius = 1.0 if norm == "Linf" else x[0].numel() ** 0.5
    cfg = PGD(
        eps=radius, norm=norm, steps=20, random_start=False, stop=True
    )  # random noise alone would succeed on many images
    points = pgd(cfg, model, x, y, generator=generator(seed, "reliability", device=x.device))
    with torch.no_grad():
        robust = (model(points).argmax(1) == y).float().mean()
    return ["no-collapse"] if robust > _MAX_ROBUST else []
