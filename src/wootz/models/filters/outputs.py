"""Filters after the model: log-probabilities [N, K] -> log-probabilities, finite, with the same top-1."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wootz import checks
from wootz.models.filters.content_noise import content_noise
from wootz.models.filters.through import through

_LEAD = 1e-3  # nats by which the top class stays ahead of classes that would pass it or tie


class After(nn.Module):
    """Asks the model, then changes its answers: `change(cfg, x, scores) -> scores`."""

    def __init__(self, change: Callable[..., Tensor], cfg: object) -> None:
        super().__init__()
        self.change, self.cfg = change, cfg

    def forward(self, inner: nn.Module, x: Tensor) -> Tensor:
        """Images -> log-probabilities [N, K]."""
        scores = inner(x).float().log_softmax(1)
        return keep_top(self.change(self.cfg, x, scores), scores).log_softmax(1)


def keep_top(changed: Tensor, scores: Tensor) -> Tensor:
    """Return `changed` [N, K] with the top class of `scores` ahead: other classes give way, the top one never moves."""
    top = scores.argmax(1, keepdim=True)
    lead = changed.gather(1, top)
    return torch.minimum(changed, lead - _LEAD).scatter(1, top, lead)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """How many decimal `digits` of each probability are shown, from 1 to 6."""

    digits: int = 2

    def __post_init__(self) -> None:
        checks.within(1, 6, digits=self.digits)


def round_scores(cfg: Round, x: Tensor, scores: Tensor) -> Tensor:
    """Round every probability; zeros become half a unit of the last digit. Straight through."""
    unit = 10.0**-cfg.digits
    rounded = (scores.exp() / unit).round() * unit
    return through(rounded.clamp_min(unit / 2).log(), scores)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopK:
    """How many classes keep their probability: `k`."""

    k: int = 3

    def __post_init__(self) -> None:
        checks.at_least(1, k=self.k)


def top_k(cfg: TopK, x: Tensor, scores: Tensor) -> Tensor:
    """Keep the k highest probabilities and spread the rest of the mass evenly. Straight through."""
    kept, hidden = scores.shape[1] - cfg.k, scores.argsort(1, descending=True)[:, cfg.k :]
    if kept <= 0:
        return scores
    even = scores.gather(1, hidden).logsumexp(1, keepdim=True) - math.log(kept)
    return through(scores.scatter(1, hidden, even.expand_as(hidden)), scores)


@dataclass(frozen=True, slots=True, kw_only=True)
class Temperature:
    """What logits are divided by: above 1 answers become more even, below 1 more certain."""

    temperature: float = 4.0

    def __post_init__(self) -> None:
        checks.positive(temperature=self.temperature)


def temper(cfg: Temperature, x: Tensor, scores: Tensor) -> Tensor:
    """Divide the log-scores."""
    return scores / cfg.temperature


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputNoise:
    """Gaussian noise of standard deviation `sigma`, in nats, drawn from the image's own content."""

    sigma: float = 0.5

    def __post_init__(self) -> None:
        checks.positive(sigma=self.sigma)


def output_noise(cfg: OutputNoise, x: Tensor, scores: Tensor) -> Tensor:
    """Add noise to the log-scores, always the same for the same image."""
    return scores + cfg.sigma * content_noise(x, scores.shape[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Flatten:
    """All wrong classes made equal: nothing to set."""


def flatten(cfg: Flatten, x: Tensor, scores: Tensor) -> Tensor:
    """Keep the top probability and spread the rest evenly over the other classes. Straight through."""
    return top_k(TopK(k=1), x, scores)
