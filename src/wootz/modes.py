"""Borrow a model for a while and hand it back as it was."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def device_of(model: nn.Module) -> torch.device:
    """Return where a model's parameters are; the CPU for a model without any."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


@contextmanager
def on_device(model: nn.Module, device: torch.device | str) -> Iterator[nn.Module]:
    """The model on another device, and back after."""
    before = device_of(model)
    model.to(device)
    try:
        yield model
    finally:
        model.to(before)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[nn.Module]:
    """Every submodule in eval mode and every parameter without gradient; both are given back after.

    Attacks run inside: dropout is off, batch statistics stand still, and a backward pass reaches the
    input without leaving anything in `.grad`.
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
def without_gradients(model: nn.Module) -> Iterator[nn.Module]:
    """Every parameter without gradient, given back after; every submodule stays in its mode."""
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
    """What the module was called with last, detached; the queue holds nothing before the first call."""
    seen: deque[Tensor] = deque(maxlen=1)
    handle = module.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    try:
        yield seen
    finally:
        handle.remove()


def normalizes_batches(model: nn.Module) -> bool:
    """Whether an image's logits depend, in train mode, on the batch that it comes in."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())


@contextmanager
def kept_statistics(model: nn.Module) -> Iterator[nn.Module]:
    """Batch-norm layers in train mode normalize by the batch as ever, but their running statistics stay."""
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
    """Batch-norm layers use their running statistics and do not update them; all else trains on."""
    norms = [(module, module.training) for module in model.modules() if isinstance(module, _BatchNorm)]
    for module, _ in norms:
        module.eval()
    try:
        yield model
    finally:
        for module, training in norms:
            module.training = training
