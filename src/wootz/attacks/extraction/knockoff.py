"""Knockoff nets, the adaptive strategy (Orekondy et al., arXiv 1812.02766, section 4.1.2).

A bandit learns which classes of a foreign data set are worth querying, from the certainty and diversity of the victim's
answers and from the substitute's loss on them. The random strategy is `retrain` with foreign images.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wootz import checks
from wootz.attacks.context import AttackContext
from wootz.attacks.evasion import predict_logits
from wootz.attacks.extraction.oracle import BudgetedOracle, query_all
from wootz.attacks.extraction.substitute import SubstituteConfig, train_substitute
from wootz.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Knockoff(SubstituteConfig):
    """The query budget and the number of policy updates.

    Attributes:
        queries: the total number of queries, at most the number of images. The paper's budgets reach 60,000 and more.
        rounds: the number of batches of queries, after each of which the policy changes. The paper changes it after
            every image.
    """

    data: Literal["thief", "owner", "other"] = "other"
    queries: int = 10_000
    rounds: int = 20

    def __post_init__(self) -> None:
        SubstituteConfig.__post_init__(self)
        checks.at_least(1, rounds=self.rounds)
        checks.at_least(20 * self.rounds, queries=self.queries)


def extract_by_bandit(cfg: Knockoff, victim: BudgetedOracle, context: AttackContext) -> nn.Module:
    """Query the images that the policy selects, and train a new network on all answers.

    The labels of the foreign images are the arms of the bandit, as in the paper; the network is not trained on them.

    Raises:
        BudgetError: the budget does not hold all `cfg.queries`; no query is sent.
        ConfigError: there are fewer than `cfg.queries` images.
    """
    pixels, arms = context.data
    if cfg.queries > len(arms):
        raise ConfigError(f"queries = {cfg.queries}: the attacker has {len(arms)} images, and queries each once")
    queried, answers = torch.empty(0, dtype=torch.long), torch.empty(0, victim.num_classes)
    preferences = torch.zeros(int(arms.max()) + 1)
    surrogate, one_epoch = context.new_model("scout"), replace(cfg, epochs=1)
    for number, size in enumerate(torch.arange(cfg.queries).tensor_split(cfg.rounds)):
        policy = preferences.softmax(0)
        new = sample_images(policy, arms, queried, len(size), context.generator("draw", number))
        need = cfg.queries if number == 0 else None
        new_answers = query_all(victim, pixels[new], context, f"asked-{number}", need=need)
        predictions = predict_logits(surrogate, pixels[new].float().div_(255)).log_softmax(1)
        queried, answers = torch.cat([queried, new]), torch.cat([answers, new_answers])
        pulls = torch.bincount(arms[queried], minlength=len(preferences))
        reward = rewards(new_answers, answers.mean(0), predictions)
        preferences = preferences + preference_update(policy, arms[new], reward, pulls)
        surrogate = train_substitute(one_epoch, surrogate, pixels[queried], answers, context, f"scout-{number}")
    return train_substitute(cfg, context.new_model("thief"), pixels[queried], answers, context)


def sample_images(policy: Tensor, arms: Tensor, queried: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return `count` rows that are not in `queried`: arms follow the policy, images of one arm are equally likely.

    The probability of an arm without images left goes to the other arms.

    Args:
        policy: the probability of each arm, [A].
        arms: the arm of each image, int64 [N].
        queried: the rows of the images that were queried before, int64 [M].
        count: the number of rows to sample.
        generator: the generator of the samples.
    """
    remaining = torch.ones(len(arms), dtype=torch.bool)
    remaining[queried] = False
    size = torch.bincount(arms[remaining], minlength=len(policy)).clamp_min(1)
    weight = (policy / size).clamp_min(1e-9)[arms] * remaining
    return torch.multinomial(weight, count, generator=generator)


def rewards(answers: Tensor, mean: Tensor, predictions: Tensor) -> Tensor:
    """Return the rewards [N]: the mean of certainty, diversity and loss, each scaled to [0, 1] within the batch.

    Args:
        answers: the victim's answers [N, K].
        mean: the mean of all its answers so far, [K].
        predictions: the surrogate's log-probabilities for the same images, [N, K].
    """
    top = answers.topk(2, dim=1).values
    certainty = top[:, 0] - top[:, 1]
    diversity = (answers - mean).clamp_min(0).sum(1)
    loss = F.kl_div(predictions.clamp_min(-100), answers, reduction="none").sum(1)
    return (_scale(certainty) + _scale(diversity) + _scale(loss)) / 3


def preference_update(policy: Tensor, arms: Tensor, reward: Tensor, pulls: Tensor) -> Tensor:
    """Return the change [A] of the gradient bandit's preferences after a batch.

    Every image adds `(reward - baseline) * (1[arm] - policy)` at a rate of one over the pulls of its arm so far;
    the baseline is the batch's mean (the paper's: the mean of the last few rewards).

    Args:
        policy: the probability of each arm, [A].
        arms: the arm of each image of the batch, int64 [N].
        reward: the reward of each image, [N].
        pulls: the number of images of each arm that were queried so far, with this batch, [A].
    """
    step = (reward - reward.mean()) / pulls[arms]
    return torch.zeros_like(policy).index_add_(0, arms, step) - step.sum() * policy


def _scale(value: Tensor) -> Tensor:
    low, high = value.aminmax()
    return (value - low) / (high - low).clamp_min(1e-12)
