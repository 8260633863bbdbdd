"""The contract of every model: images in [0, 1] to logits, deterministic in eval mode."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wootz.errors import ModelError
from wootz.modes import device_of, eval_mode


def check_model(model: nn.Module, shape: tuple[int, int, int], num_classes: int) -> tuple[str, ...]:
    """Run the model on four gray images; raise if it cannot be used, and return warnings about other defects.

    Args:
        model: images float32 [N, C, H, W] in [0, 1] -> logits [N, num_classes]; normalization inside.
        shape: channels, height, width.
        num_classes: the expected number of logits.

    Returns:
        Warnings, each a short name with its reason: `probabilities`, `randomized`, `zero-gradient`.

    Raises:
        ModelError: the model does not accept such images, or returns another shape, NaN or infinity.
    """
    x = torch.linspace(0.2, 0.8, 4, device=device_of(model)).view(4, 1, 1, 1).expand(4, *shape).contiguous()
    with eval_mode(model):
        x.requires_grad_(True)
        try:
            logits = model(x)
        except RuntimeError as error:
            raise ModelError(f"the model does not accept images of shape {list(shape)}: {error}") from error
        if not isinstance(logits, Tensor) or logits.shape != (4, num_classes):
            got = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ModelError(f"the model must return logits [N, {num_classes}]; for 4 images it returned {got}")
        if not torch.isfinite(logits).all():
            raise ModelError("the model returns NaN or infinity for plain gray images")
        return tuple(_warnings(model, x, logits))


def _warnings(model: nn.Module, x: Tensor, logits: Tensor) -> list[str]:
    messages = []
    sums = logits.detach().sum(1)
    if logits.min() >= 0 and logits.max() <= 1 and torch.allclose(sums, torch.ones_like(sums), atol=1e-4):
        messages.append("probabilities: the outputs look like probabilities; return logits, attacks need them")
    if not torch.allclose(model(x), logits, atol=1e-5):
        messages.append("randomized: two outputs for the same images differ in eval mode")
    if not logits.requires_grad or not torch.autograd.grad(logits.logsumexp(1).sum(), x)[0].any():
        messages.append("zero-gradient: the input gradient is zero; gradient attacks will look weak")
    return messages
