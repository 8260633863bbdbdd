"""Context managers that change a model's device, modes or gradients, and restore them afterwards."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's parameters; the CPU for a model without parameters."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


@contextmanager
def on_device(model: nn.Module, device: torch.device | str) -> Iterator[nn.Module]:
    """Move the model to another device inside the block, and back afterwards."""
    before = device_of(model)
    model.to(device)
    try:
        yield model
    finally:
        model.to(before)


@contextmanager
def channels_last(model: nn.Module, x: Tensor) -> Iterator[None]:
    """Lay the weights of convolutions out channels last inside the block, which is faster, if the model takes it.

    Networks that `view` a tensor across its channels do not.

    Args:
        model: images [N, C, H, W] -> logits [N, K].
        x: images to try it with.
    """
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        with eval_mode(model), torch.no_grad():
            model(x.contiguous(memory_format=torch.channels_last))
    except RuntimeError:
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    try:
        yield
    finally:
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[nn.Module]:
    """Put every submodule into eval mode and disable the parameters' gradients inside the block.

    For attacks: dropout is off, batch statistics do not change, and a backward pass reaches the input without writing
    to any parameter's `.grad`.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with without_gradients(model):
            yield model
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def kept_buffers(model: nn.Module) -> Iterator[Callable[[], bool]]:
    """Restore the model's buffers after the block; yields a function that says whether any has changed so far."""
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield lambda: any(not torch.equal(buffer, value) for buffer, value in before)
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)


@contextmanager
def without_gradients(model: nn.Module) -> Iterator[nn.Module]:
    """Disable the parameters' gradients inside the block; every submodule stays in its mode."""
    gradients = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    for parameter, _ in gradients:
        parameter.requires_grad_(False)
    try:
        yield model
    finally:
        for parameter, required in gradients:
            parameter.requires_grad_(required)


@contextmanager
def capture_inputs(module: nn.Module) -> Iterator[deque[Tensor]]:
    """Record the last input of the module, detached, in a queue of length one; it is empty before the first call."""
    inputs: deque[Tensor] = deque(maxlen=1)
    handle = module.register_forward_pre_hook(lambda _, args: inputs.append(args[0].detach()))
    try:
        yield inputs
    finally:
        handle.remove()


def normalizes_batches(model: nn.Module) -> bool:
    """Return whether the model has batch normalization: in train mode, logits then depend on the rest of the batch."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())


@contextmanager
def kept_statistics(model: nn.Module) -> Iterator[nn.Module]:
    """Keep the running statistics of batch normalization unchanged; in train mode it still normalizes by the batch."""
    norms = [(module, module.momentum) for module in model.modules() if isinstance(module, _BatchNorm)]
    for module, _ in norms:
        module.momentum = 0.0
    try:
        yield model
    finally:
        for module, momentum in norms:
            module.momentum = momentum


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[nn.Module]:
    """Put batch normalization into eval mode: it uses its running statistics and does not update them."""
    norms = [(module, module.training) for module in model.modules() if isinstance(module, _BatchNorm)]
    for module, _ in norms:
        module.eval()
    try:
        yield model
    finally:
        for module, training in norms:
            module.training = training
