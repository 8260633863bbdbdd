"""Borrow a model for a while and hand it back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def device_of(model: nn.Module) -> torch.device:
    """Return where a model's parameters are; the CPU for a model without any."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


@contextmanager
def placed(model: nn.Module, device: torch.device | str) -> Iterator[nn.Module]:
    """The model on another device, and back after."""
    before = device_of(model)
    model.to(device)
    try:
        yield model
    finally:
        model.to(before)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Every submodule in eval mode and every parameter without gradient; both are given back after.

    Attacks run inside: dropout is off, batch statistics stand still, and a backward pass reaches the
    input without leaving anything in `.grad`.
    """
    with still(model), without_gradients(model):
        yield model


@contextmanager
def still(model: nn.Module) -> Iterator[nn.Module]:
    """Every submodule in eval mode, given back after; parameters keep their gradients."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
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
