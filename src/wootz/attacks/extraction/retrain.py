"""Extraction by retraining: query the attacker's images once and train a substitute on the answers.

Tramer et al. 2016; Orekondy et al., arXiv 1812.02766. With images of another distribution and scores, `retrain` is the
random strategy of Knockoff nets; with labels alone it is CopycatCNN (Correia-Silva et al., arXiv 1806.05476). Variants
query transformed copies of a small number of images, or mix the answers with true labels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wootz import checks
from wootz.attacks.context import AttackContext
from wootz.attacks.extraction.oracle import BudgetedOracle, query_all
from wootz.attacks.extraction.substitute import SubstituteConfig, train_substitute
from wootz.errors import BudgetError


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrain(SubstituteConfig):
    """How the attacker transforms the answers before training.

    Attributes:
        labels: the answers as they are (`soft`), their top-1 label (`hard`), or the top-1 score with all wrong classes
            set equal (`flat`, against watermarks in the order of the wrong classes).
        temperature: soft answers are raised to the power 1 / temperature and normalized.
    """

    labels: Literal["soft", "hard", "flat"] = "soft"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        SubstituteConfig.__post_init__(self)
        checks.positive(temperature=self.temperature)


def retrain(cfg: Retrain, victim: BudgetedOracle, context: AttackContext) -> nn.Module:
    """Query every image once and train a new network on the answers; true labels are not used.

    Raises:
        BudgetError: the budget is too small, or the victim returns labels only and `cfg.labels` needs scores.
    """
    if cfg.labels != "hard" and victim.access == "label":
        raise BudgetError(f"labels = {cfg.labels!r}: needs scores, but the victim returns labels only; use hard")
    targets = training_targets(cfg, query_all(victim, context.data.pixels, context))
    return train_substitute(cfg, context.new_model("thief"), context.data.pixels, targets, context)


def training_targets(cfg: Retrain, answers: Tensor) -> Tensor:
    """Return the targets [N, K] that the settings make of the answers, distributions [N, K]."""
    if cfg.labels == "hard":
        return F.one_hot(answers.argmax(1), answers.shape[1]).float()
    if cfg.labels == "flat":
        top, classes = answers.max(1, keepdim=True), answers.shape[1]
        even = ((1 - top.values) / (classes - 1)).expand_as(answers)
        return even.scatter(1, top.indices, top.values)
    return apply_temperature(answers, cfg.temperature)


def apply_temperature(answers: Tensor, temperature: float) -> Tensor:
    """Return distributions [N, K] raised to the power 1 / temperature and normalized."""
    powers = answers.clamp_min(1e-12) ** (1 / temperature)
    return powers / powers.sum(1, keepdim=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class FewImages(SubstituteConfig):
    """The number of images and their variations; the attack costs `images * (copies + 1)` queries.

    Attributes:
        copies: the number of variations per image, queried in addition to the image itself.
        shift: the largest shift along each axis, in pixels.
        angle: the largest rotation, in degrees.
        noise: the standard deviation of Gaussian noise, in pixels of [0, 1].
    """

    images: int | None = 1000
    copies: int = 9
    shift: float = 2.0
    angle: float = 10.0
    noise: float = 0.05

    def __post_init__(self) -> None:
        SubstituteConfig.__post_init__(self)
        checks.at_least(0, copies=self.copies)
        checks.not_negative(shift=self.shift, angle=self.angle, noise=self.noise)


def retrain_on_few(cfg: FewImages, victim: BudgetedOracle, context: AttackContext) -> nn.Module:
    """Query the images and random variations of them, and train on the answers; true labels are not used."""
    pixels, generator = context.data.pixels, context.generator("variations")
    variations = [
        random_affine(pixels, shift=cfg.shift, angle=cfg.angle, noise=cfg.noise, generator=generator)
        for _ in range(cfg.copies)
    ]
    queries = torch.cat([pixels, *variations])
    answers = query_all(victim, queries, context)
    return train_substitute(cfg, context.new_model("thief"), queries, answers, context)


def random_affine(pixels: Tensor, *, shift: float, angle: float, noise: float, generator: torch.Generator) -> Tensor:
    """Return images uint8 [N, C, H, W], each randomly shifted, rotated and with noise added.

    Args:
        pixels: images uint8 [N, C, H, W].
        shift: the largest shift along each axis, in pixels; the border is repeated.
        angle: the largest rotation, in degrees.
        noise: the standard deviation of Gaussian noise, in pixels of [0, 1].
        generator: the generator of all three.
    """
    count, _, height, width = pixels.shape
    rotation = math.radians(angle) * _uniform(count, generator)
    cos, sin = rotation.cos(), rotation.sin()
    right = 2 * shift / width * _uniform(count, generator)
    down = 2 * shift / height * _uniform(count, generator)
    rows = (torch.stack([cos, -sin * height / width, right], 1), torch.stack([sin * width / height, cos, down], 1))
    grid = F.affine_grid(torch.stack(rows, 1), list(pixels.shape), align_corners=False)
    x = F.grid_sample(pixels.float().div_(255), grid, padding_mode="border", align_corners=False)
    x = x + noise * torch.randn(x.shape, generator=generator)
    return x.clamp_(0, 1).mul_(255).round_().to(torch.uint8)


def _uniform(count: int, generator: torch.Generator) -> Tensor:
    """Return uniform random numbers [count] in [-1, 1)."""
    return 2 * torch.rand(count, generator=generator) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillAnswers(SubstituteConfig):
    """Distillation (Hinton et al., arXiv 1503.02531) from answers.

    Attributes:
        temperature: the victim's answers are raised to the power 1 / temperature. The source also trains the student
            at this temperature; here the student trains at 1, so its own answers become as soft as its targets.
        alpha: the fraction of each target that goes to the true label instead.
    """

    temperature: float = 4.0
    alpha: float = 0.1

    def __post_init__(self) -> None:
        SubstituteConfig.__post_init__(self)
        checks.positive(temperature=self.temperature)
        checks.within(0, 1, alpha=self.alpha)


def distill_answers(cfg: DistillAnswers, victim: BudgetedOracle, context: AttackContext) -> nn.Module:
    """Query every image once and train on the softened answers, mixed with the true labels as in the source."""
    soft = apply_temperature(query_all(victim, context.data.pixels, context), cfg.temperature)
    one_hot = F.one_hot(context.data.labels, victim.num_classes).float()
    targets = (1 - cfg.alpha) * soft + cfg.alpha * one_hot
    return train_substitute(cfg, context.new_model("thief"), context.data.pixels, targets, context)
