"""How good an epoch is, on images that are not trained on, and which epoch to keep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from wootz.attacks.evasion import PGD, evaluate, pgd, predict_logits
from wootz.data import Split
from wootz.rng import generator
from wootz.training.recipe import CERTIFIED, Recipe


def figures_of(
    cfg: Recipe, model: nn.Module, validation: Split, *, seed: int, device: torch.device
) -> dict[str, float]:
    """Return clean and PGD-10 accuracy, in float32; for losses by bounds certified accuracy, too."""
    x, y = validation.images().to(device), validation.labels.to(device)
    attack = PGD(eps=cfg.eps, norm=cfg.norm, steps=10, stop=True)
    points = pgd(attack, model, x, y, generator=generator(seed, "validation", device=device))
    figures = {
        "clean": (predict_logits(model, x).argmax(1) == y).float().mean().item(),
        "robust": (predict_logits(model, points).argmax(1) == y).float().mean().item(),
    }
    if cfg.loss in CERTIFIED:
        figures["certified"] = evaluate(model, x, y, eps=cfg.eps, attack="ibp").accuracy
    return figures


def is_newest_best(cfg: Recipe, validation: int, history: Sequence[Mapping[str, float]]) -> bool:
    """Whether the newest epoch is the one to keep: the latest within one standard error of the best so far.

    With a thousand validation images the error is over a point; without it, luck would pick an early epoch.
    Epochs inside the ramp do not count once one is past it.
    """
    measure = "clean" if cfg.loss == "natural" else "certified" if cfg.loss in CERTIFIED else "robust"
    past = [h for h in history if (h["epoch"] + 1) / cfg.epochs >= cfg.ramp] or history
    newest, best = history[-1], max(h[measure] for h in past)
    return newest in past and newest[measure] >= best - math.sqrt(best * (1 - best) / validation)
