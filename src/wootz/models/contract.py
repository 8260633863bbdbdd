"""The contract of every model: images in [0, 1] to logits, deterministic in eval mode."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from wootz.errors import ModelError
from wootz.modes import device_of, eval_mode, kept_buffers
from wootz.types import Predict

_TOLERANCE = 0.01
"""Of the largest output: kernels for other batch sizes round otherwise, by less."""

_FAR_BETTER = 0.2
"""Difference of two accuracies on the same images that chance does not explain."""


def check_model(model: nn.Module, shape: tuple[int, int, int], num_classes: int | None = None) -> tuple[str, ...]:
    """Run the model on four gray images; raise if it cannot be used, and return warnings about other defects.

    Args:
        model: images float32 [N, C, H, W] in [0, 1] -> logits [N, num_classes]; normalization inside.
        shape: channels, height, width.
        num_classes: the expected number of logits; None accepts two or more.

    Returns:
        Warnings, each a short name with its reason: `probabilities`, `randomized`, `zero-gradient`, `batch-dependent`,
        `stateful`. Buffers that the model changes are restored.

    Raises:
        ModelError: the model does not accept such images, or returns another shape, NaN or infinity.
    """
    x = torch.linspace(0.2, 0.8, 4, device=device_of(model)).view(4, 1, 1, 1).expand(4, *shape).contiguous()
    with eval_mode(model), kept_buffers(model) as changed:
        x.requires_grad_(True)
        try:
            logits = model(x)
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
            raise ModelError(f"the model does not accept images of shape {list(shape)}: {error}") from error
        if not isinstance(logits, Tensor) or not _has_shape(logits, 4, num_classes):
            got = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ModelError(f"the model must return logits [N, {num_classes or 'K'}]; for 4 images it returned {got}")
        if not torch.isfinite(logits).all():
            raise ModelError("the model returns NaN or infinity for plain gray images")
        return tuple(_warnings(model, x, logits, changed))


def range_warnings(model: nn.Module | Predict, x: Tensor, y: Tensor) -> tuple[str, ...]:
    """Return the warning `range` for a model that classifies images far better from 0 to 255 than from 0 to 1.

    Args:
        model: images -> logits, used in eval mode; or any `Predict`.
        x: some images float32 [N, C, H, W] in [0, 1].
        y: their labels int64 [N].
    """

    def accuracy(scale: int) -> float:
        answers = model(scale * x.to(device))
        labels = answers.argmax(1) if answers.dim() == 2 else answers
        return (labels == y.to(device)).float().mean().item()

    with ExitStack() as stack:
        device = torch.device("cpu")
        if isinstance(model, nn.Module):
            device = device_of(model)
            stack.enter_context(eval_mode(model))
            stack.enter_context(kept_buffers(model))
        stack.enter_context(torch.no_grad())
        given = accuracy(1)
        try:
            levels = accuracy(255) if given < 1 - _FAR_BETTER else given
        except (AssertionError, RuntimeError, ValueError):  # the model refuses such images
            levels = given
    if levels < given + _FAR_BETTER:
        return ()
    return (
        f"range: {given:.0%} of the images in [0, 1] are classified correctly, {levels:.0%} of the same in [0, 255]; "
        "the model must take images in [0, 1], and not divide them by 255",
    )


def look_like_probabilities(scores: Tensor) -> bool:
    """Return whether all rows of scores [N, K] are positive and sum to 1, up to rounding; labels [N] do not.

    A row of NaN, for an image without an answer, does not count.
    """
    if scores.dim() != 2:
        return False
    scores = scores.detach()[~scores.isnan().any(1)]
    sums = scores.sum(1)
    return len(scores) > 0 and bool(scores.min() >= 0) and torch.allclose(sums, torch.ones_like(sums), atol=1e-3)


def depends_on_batch(predict: Predict, x: Tensor) -> bool:
    """Return whether the images are answered together otherwise than one by one, up to rounding.

    Batch normalization without running statistics does so, and a network that was exported in training mode.

    Args:
        predict: images -> scores [N, K] or labels [N].
        x: some images float32 [N, C, H, W].
    """
    with torch.no_grad():
        together = predict(x)
        try:
            alone = torch.cat([predict(image) for image in x.split(1)])
        except (RuntimeError, ValueError):  # batch normalization refuses to normalize a single value
            return True
    if together.dim() == 1:
        return not torch.equal(together, alone)
    tolerance = _TOLERANCE * together.nan_to_num().abs().amax().clamp_min(1).item()
    return not torch.allclose(together, alone, rtol=0, atol=tolerance, equal_nan=True)


def last_layer(model: nn.Module) -> str:
    """Return the name of the last linear layer.

    Raises:
        ModelError: it has none.
    """
    names: list[str] = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not names:
        raise ModelError("the network has no linear layer (nn.Linear); choose another attack or setting")
    return names[-1]


def _has_shape(logits: Tensor, count: int, num_classes: int | None) -> bool:
    if logits.dim() != 2 or len(logits) != count:
        return False
    return logits.shape[1] >= 2 if num_classes is None else logits.shape[1] == num_classes


def _warnings(model: nn.Module, x: Tensor, logits: Tensor, changed: Callable[[], bool]) -> list[str]:
    messages = []
    if look_like_probabilities(logits):
        messages.append("probabilities: the outputs look like probabilities; return logits, attacks need them")
    randomized = not torch.allclose(model(x), logits, atol=1e-5)
    if randomized:
        messages.append("randomized: two outputs for the same images differ in eval mode")
    if not logits.requires_grad or not torch.autograd.grad(logits.logsumexp(1).sum(), x)[0].any():
        messages.append("zero-gradient: the input gradient is zero; gradient attacks will look weak")
    if not randomized and depends_on_batch(model, x.detach()):
        messages.append("batch-dependent: images get other outputs together than one by one, in eval mode")
    if changed():
        messages.append("stateful: the model changes its buffers while it is asked, in eval mode")
    return messages
