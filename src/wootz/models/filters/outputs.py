"""Filters of the outputs: log-probabilities [N, K] -> finite log-probabilities with the same top-1 class."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wootz import checks
from wootz.models.filters.common import content_noise, straight_through

_MARGIN = 1e-3  # nats by which the top class exceeds classes that would otherwise reach or pass it


class OutputFilter(nn.Module):
    """Passes the model's log-probabilities through `change(cfg, x, scores) -> scores`, and keeps the top-1 class."""

    def __init__(self, change: Callable[..., Tensor], cfg: object) -> None:
        super().__init__()
        self.change, self.cfg = change, cfg

    def forward(self, inner: nn.Module, x: Tensor) -> Tensor:
        """Images -> log-probabilities [N, K]."""
        scores = inner(x).float().log_softmax(1)
        return keep_top(self.change(self.cfg, x, scores), scores).log_softmax(1)


def keep_top(changed: Tensor, scores: Tensor) -> Tensor:
    """Return `changed` [N, K] with the top-1 class of `scores` [N, K]; other scores are lowered if necessary."""
    top = scores.argmax(1, keepdim=True)
    top_score = changed.gather(1, top)
    return torch.minimum(changed, top_score - _MARGIN).scatter(1, top, top_score)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Rounding of the probabilities.

    Attributes:
        digits: the number of decimal digits, from 1 to 6.
    """

    digits: int = 2

    def __post_init__(self) -> None:
        checks.within(1, 6, digits=self.digits)


def round_scores(cfg: Round, x: Tensor, scores: Tensor) -> Tensor:
    """Return rounded scores with straight-through gradients; zeros become half a unit of the last digit."""
    unit = 10.0**-cfg.digits
    rounded = (scores.exp() / unit).round() * unit
    return straight_through(rounded.clamp_min(unit / 2).log(), scores)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopK:
    """Truncation to the most probable classes.

    Attributes:
        k: the number of classes that keep their probability.
    """

    k: int = 3

    def __post_init__(self) -> None:
        checks.at_least(1, k=self.k)


def top_k(cfg: TopK, x: Tensor, scores: Tensor) -> Tensor:
    """Return scores whose mass outside the top k is spread evenly, with straight-through gradients."""
    num_hidden, hidden = scores.shape[1] - cfg.k, scores.argsort(1, descending=True)[:, cfg.k :]
    if num_hidden <= 0:
        return scores
    even = scores.gather(1, hidden).logsumexp(1, keepdim=True) - math.log(num_hidden)
    return straight_through(scores.scatter(1, hidden, even.expand_as(hidden)), scores)


@dataclass(frozen=True, slots=True, kw_only=True)
class Temperature:
    """Temperature scaling.

    Attributes:
        temperature: the divisor of the logits; above 1 answers become more uniform, below 1 more confident.
    """

    temperature: float = 4.0

    def __post_init__(self) -> None:
        checks.positive(temperature=self.temperature)


def apply_temperature(cfg: Temperature, x: Tensor, scores: Tensor) -> Tensor:
    """Return the scores divided by the temperature."""
    return scores / cfg.temperature


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputNoise:
    """Gaussian noise that is a function of the image.

    Attributes:
        sigma: the standard deviation, in nats.
    """

    sigma: float = 0.5

    def __post_init__(self) -> None:
        checks.positive(sigma=self.sigma)


def output_noise(cfg: OutputNoise, x: Tensor, scores: Tensor) -> Tensor:
    """Return the scores with noise; equal images get equal noise."""
    return scores + cfg.sigma * content_noise(x, scores.shape[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Flatten:
    """Equal probabilities for all wrong classes; has no settings."""


def flatten(cfg: Flatten, x: Tensor, scores: Tensor) -> Tensor:
    """Return scores with the top-1 probability and all others equal, with straight-through gradients."""
    return top_k(TopK(k=1), x, scores)
