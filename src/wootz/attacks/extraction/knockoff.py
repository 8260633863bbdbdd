"""Knockoff nets, the adaptive strategy (Orekondy et al., arXiv 1812.02766, section 4.1.2).

A bandit learns which classes of a foreign data set are worth asking about, from how certain, how varied and how
surprising the victim's answers are. The random strategy is `retrain` with foreign images.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wootz import checks
from wootz.attacks.adversary import AttackContext
from wootz.attacks.evasion import predict_logits
from wootz.attacks.extraction.asking import answered
from wootz.attacks.extraction.learner import Learner, imitate
from wootz.attacks.extraction.ledger import Ledger
from wootz.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Knockoff(Learner):
    """How much is asked, and how often the policy changes.

    Attributes:
        queries: in all; at most as many as there are images. The paper goes up to 60,000 and more.
        rounds: into which they are divided. The paper changes its policy after every image; ours asks in batches.
    """

    data: Literal["thief", "owner", "other"] = "other"
    queries: int = 10_000
    rounds: int = 20

    def __post_init__(self) -> None:
        Learner.__post_init__(self)
        checks.at_least(1, rounds=self.rounds)
        checks.at_least(20 * self.rounds, queries=self.queries)


def steal_by_bandit(cfg: Knockoff, victim: Ledger, context: AttackContext) -> nn.Module:
    """Ask about images that the policy chooses, and train a fresh network on all answers.

    The labels of the foreign images serve as the bandit's arms, as in the paper; they are never learned.
    """
    pixels, arms = context.data
    if cfg.queries > len(arms):
        raise ConfigError(f"queries = {cfg.queries}: the thief has {len(arms)} images, and asks about each once")
    chosen, answers = torch.empty(0, dtype=torch.long), torch.empty(0, victim.num_classes)
    preference = torch.zeros(int(arms.max()) + 1)
    thief, short = context.fresh("scout"), replace(cfg, epochs=1)
    for number, size in enumerate(torch.arange(cfg.queries).tensor_split(cfg.rounds)):
        policy = preference.softmax(0)
        new = drawn(policy, arms, chosen, len(size), context.generator("draw", number))
        need = cfg.queries if number == 0 else None
        told = answered(victim, pixels[new], context, f"asked-{number}", need=need)
        guess = predict_logits(thief, pixels[new].float().div_(255)).log_softmax(1)
        chosen, answers = torch.cat([chosen, new]), torch.cat([answers, told])
        pulls = torch.bincount(arms[chosen], minlength=len(preference))
        preference = preference + improvement(policy, arms[new], rewards(told, answers.mean(0), guess), pulls)
        thief = imitate(short, thief, pixels[chosen], answers, context, f"scout-{number}")
    return imitate(cfg, context.fresh("thief"), pixels[chosen], answers, context)


def drawn(policy: Tensor, arms: Tensor, chosen: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return `count` rows not in `chosen`: arms follow the policy, images of an arm are equally likely.

    An arm that runs out leaves its share to the others.
    """
    left = torch.ones(len(arms), dtype=torch.bool)
    left[chosen] = False
    size = torch.bincount(arms[left], minlength=len(policy)).clamp_min(1)
    weight = (policy / size).clamp_min(1e-9)[arms] * left
    return torch.multinomial(weight, count, generator=generator)


def rewards(answers: Tensor, mean: Tensor, guess: Tensor) -> Tensor:
    """Return the rewards [N]: the mean of certainty, diversity and loss, each scaled to [0, 1] within the batch.

    Args:
        answers: the victim's, [N, K].
        mean: of all its answers so far, [K].
        guess: the thief's log-probabilities for the same images, [N, K].
    """
    top = answers.topk(2, dim=1).values
    certainty = top[:, 0] - top[:, 1]
    diversity = (answers - mean).clamp_min(0).sum(1)
    loss = F.kl_div(guess.clamp_min(-100), answers, reduction="none").sum(1)
    return (_scaled(certainty) + _scaled(diversity) + _scaled(loss)) / 3


def improvement(policy: Tensor, arms: Tensor, reward: Tensor, pulls: Tensor) -> Tensor:
    """Return what the gradient bandit adds to its preferences [A] after a batch.

    Every image adds `(reward - baseline) * (1[arm] - policy)` at a rate of one over the pulls of its arm so far;
    the baseline is the batch's mean (the paper's: the mean of the last few rewards).
    """
    step = (reward - reward.mean()) / pulls[arms]
    return torch.zeros_like(policy).index_add_(0, arms, step) - step.sum() * policy


def _scaled(value: Tensor) -> Tensor:
    low, high = value.aminmax()
    return (value - low) / (high - low).clamp_min(1e-12)
