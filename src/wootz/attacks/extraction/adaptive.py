"""Adaptive extraction attacks, our own: retraining on answers that were processed to weaken a watermark in them.

Averaging and blending dilute answers that carry a watermark, `stable` discards answers that a guarded service altered,
and `regress` removes what the mark `runner-up` writes into the scores of the wrong classes. All of them assume that the
attacker knows the method and not the key.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wootz import checks
from wootz.attacks.context import AttackContext
from wootz.attacks.evasion import predict_logits
from wootz.attacks.extraction.oracle import BudgetedOracle, query_all, require_scores
from wootz.attacks.extraction.substitute import SubstituteConfig, train_substitute
from wootz.attacks.linear_components import public_features, remove_linear_component
from wootz.errors import ConfigError

_MIN_IMAGES = 20
_MIN_PROBABILITY = 1e-12  # replaces the probabilities that an answer does not reveal


@dataclass(frozen=True, slots=True, kw_only=True)
class Average(SubstituteConfig):
    """Substitutes trained on disjoint parts of the answers and distilled into one network.

    Attributes:
        thieves: the number of these substitutes.
    """

    thieves: int = 3

    def __post_init__(self) -> None:
        SubstituteConfig.__post_init__(self)
        checks.at_least(2, thieves=self.thieves)


def average(cfg: Average, victim: BudgetedOracle, context: AttackContext) -> nn.Module:
    """Query every image once, train the substitutes, and distill their mean; true labels are not used."""
    pixels, images = context.data.pixels, context.data.images()
    answers = query_all(victim, pixels, context)
    order = torch.randperm(len(pixels), generator=context.generator("parts"))
    mean = torch.zeros_like(answers)
    for number, rows in enumerate(order.tensor_split(cfg.thieves)):
        name = f"thief-{number}"
        substitute = train_substitute(cfg, context.new_model(name), pixels[rows], answers[rows], context, name)
        mean += predict_logits(substitute, images).softmax(1) / cfg.thieves
    return train_substitute(cfg, context.new_model("thief"), pixels, mean, context)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blend(SubstituteConfig):
    """The victim's answers, averaged with those of a network that the attacker trained without any watermark.

    Attributes:
        own: the fraction of each target that comes from the attacker's own network.
    """

    own: float = 0.5

    def __post_init__(self) -> None:
        SubstituteConfig.__post_init__(self)
        checks.within(0, 1, own=self.own)


def blend(cfg: Blend, victim: BudgetedOracle, context: AttackContext) -> nn.Module:
    """Query every image once and train on the mean of the victim and of a teacher trained on the true labels."""
    data = context.data
    answers = query_all(victim, data.pixels, context)
    one_hot = F.one_hot(data.labels, victim.num_classes).float()
    teacher = train_substitute(cfg, context.new_model("teacher"), data.pixels, one_hot, context, "teacher")
    teacher_answers = predict_logits(teacher, data.images()).softmax(1)
    targets = (1 - cfg.own) * answers + cfg.own * teacher_answers
    return train_substitute(cfg, context.new_model("thief"), data.pixels, targets, context)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stable(SubstituteConfig):
    """Two queries per image, the second one with noise.

    Attributes:
        noise: the largest change of a pixel in the second query, in pixels of [0, 1].
    """

    noise: float = 0.03

    def __post_init__(self) -> None:
        SubstituteConfig.__post_init__(self)
        checks.within(1 / 255, 1, noise=self.noise)


def extract_stable(cfg: Stable, victim: BudgetedOracle, context: AttackContext) -> nn.Module:
    """Query each image twice, drop images whose top-1 answer changes, and train on the mean of both answers.

    Costs two queries per image; true labels are not used.

    Raises:
        BudgetError: the budget does not hold both queries of every image; no query is sent.
        ConfigError: fewer than 20 images keep their answer.
    """
    pixels = context.data.pixels
    first = query_all(victim, pixels, context, "asked", need=2 * len(pixels))
    second = query_all(victim, add_pixel_noise(pixels, cfg.noise, context.generator("noise")), context, "asked-again")
    same = first.argmax(1) == second.argmax(1)
    if same.sum() < _MIN_IMAGES:
        raise ConfigError(f"noise = {cfg.noise:g}: only {same.sum()} of {len(pixels)} answers stay; lower it")
    return train_substitute(cfg, context.new_model("thief"), pixels[same], ((first + second) / 2)[same], context)


def add_pixel_noise(pixels: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """Return images uint8 with every pixel changed by up to `noise` of [0, 1], uniformly, in whole gray levels."""
    largest = int(noise * 255)
    changes = torch.randint(-largest, largest + 1, pixels.shape, generator=generator, dtype=torch.int16)
    return (pixels + changes).clamp_(0, 255).to(torch.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegressAnswers(SubstituteConfig):
    """Linear regression of the wrong-class scores on image features, against the mark `runner-up`.

    Attributes:
        features: the number of principal components of the pixels that are regressed out; the mark's default is 30.
        amplitudes: the same of the amplitudes; the mark's default is 20.
    """

    features: int = 30
    amplitudes: int = 20

    def __post_init__(self) -> None:
        SubstituteConfig.__post_init__(self)
        checks.at_least(1, features=self.features)
        checks.at_least(0, amplitudes=self.amplitudes)


def regress_answers(cfg: RegressAnswers, victim: BudgetedOracle, context: AttackContext) -> nn.Module:
    """Query every image once and train on the answers without their linear part; true labels are not used."""
    require_scores(victim, "regress")
    pixels = context.data.pixels
    answers = query_all(victim, pixels, context)
    features = public_features(context.data.images(), answers.argmax(1), cfg.features, cfg.amplitudes)
    targets = remove_linear_component(answers.clamp_min(_MIN_PROBABILITY).log(), features)
    return train_substitute(cfg, context.new_model("thief"), pixels, targets, context)
