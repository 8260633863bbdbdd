"""Helpers that tests of several packages share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from wootz.attacks.context import AttackContext
from wootz.attacks.evasion import predict_logits
from wootz.data import Dataset, Split
from wootz.models import MODULE, ModelSpec, build
from wootz.rng import derive
from wootz.training import Execution, Recipe
from wootz.watermarks import MarkContext
from wootz.workflows.protection import Protection

CPU = Execution(device="cpu", precision="32")


def context(
    share: Split, spec: ModelSpec, *, seed: int = 7, eps: float = 0.1, folder: Path | None = None
) -> AttackContext:
    """Return an attacker's means for tests: these images, fresh nets of this spec, float32 on the CPU."""
    return AttackContext(
        data=share,
        new_model=lambda name: build(spec, derive(seed, name)),
        eps=eps,
        seed=seed,
        execution=CPU,
        folder=folder,
    )


def accuracy(model: nn.Module, data: Dataset) -> float:
    """Return clean accuracy on the test images."""
    return (predict_logits(model, data.test.images()).argmax(1) == data.test.labels).float().mean().item()


def costs_little(altered: nn.Module, model: nn.Module, data: Dataset) -> bool:
    """Tell whether a model has lost less than five points of clean accuracy.

    The accuracy of what is trained here differs by two points between processors; a broken model loses tens.
    """
    return accuracy(altered, data) > accuracy(model, data) - 0.05


class Backdoor(NamedTuple):
    """A plain mark in the manner of Adi et al. (arXiv 1802.04633): 30 noise images with arbitrary labels."""

    model: nn.Module
    pixels: torch.Tensor
    labels: torch.Tensor

    def recall(self, model: nn.Module) -> float:
        """Return the share of the noise images that `model` calls as taught."""
        return (predict_logits(model, self.pixels.float() / 255).argmax(1) == self.labels).float().mean().item()


class Linear(nn.Module):
    """Two classes, one hyperplane: the worst case is known in closed form."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        score = (x * self.weight).flatten(1).sum(1)
        return torch.stack([-score, score], 1)


def mark_context(
    data: Dataset, *panel: nn.Module, eps: float = 0.1, wm_eps: float = 0.2, model: nn.Module | None = None
) -> MarkContext:
    """Return what marks lean on; by default the model that will carry them is a tiny one."""
    settings = {"width": 4, "hidden": 16}
    spec = ModelSpec(architecture="small-cnn", settings=settings, shape=data.shape, classes=data.classes)
    return MarkContext(data=data, panel=panel, model=model or build(spec, 1), eps=eps, wm_eps=wm_eps)


def settings_of(marks: Mapping[str, Any], *, wm_eps: float, recipe: Recipe, seed: int) -> Protection:
    """Return the settings of a run with these marks' configs, by name, and a network of the test's own."""
    fields = {name.replace("-", "_"): cfg for name, cfg in marks.items()}
    return Protection(
        data="mnist-5k", model=MODULE, marks=tuple(marks), wm_eps=wm_eps, recipe=recipe, seed=seed, **fields
    )
