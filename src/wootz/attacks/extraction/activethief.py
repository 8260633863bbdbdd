"""ActiveThief (Pal et al., AAAI 2020): active learning selects the queries from a pool of unlabeled images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn

from wootz import checks
from wootz.attacks.context import AttackContext
from wootz.attacks.evasion import predict_logits
from wootz.attacks.extraction.oracle import BudgetedOracle, query_all
from wootz.attacks.extraction.substitute import SubstituteConfig, train_substitute
from wootz.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveThief(SubstituteConfig):
    """The query budget and the selection strategy. The paper's pool is of another distribution: `data` = other.

    Attributes:
        queries: the total number of queries, at most the size of the pool. The paper's budgets are 10,000 to 30,000.
        seed_share: the fraction of the queries that is selected at random before the first round.
        rounds: the number of rounds that select the others, each with a substitute trained from scratch; the paper's
            value.
        strategy: the images with the highest entropy under the substitute (`uncertainty`), greedy k-center on the
            substitute's answers (`k-center`), or k-center among the images of highest entropy (`both`). The paper's
            best strategy uses DeepFool's distance in place of entropy.
        shortlist: for `both`, the number of uncertain images per image that is selected.
    """

    queries: int = 5000
    seed_share: float = 0.1
    rounds: int = 10
    strategy: Literal["uncertainty", "k-center", "both"] = "both"
    shortlist: int = 3

    def __post_init__(self) -> None:
        SubstituteConfig.__post_init__(self)
        checks.inside(0, 1, seed_share=self.seed_share)
        checks.at_least(1, rounds=self.rounds, shortlist=self.shortlist)
        checks.at_least(20, queries=int(self.seed_share * self.queries))


def extract_actively(cfg: ActiveThief, victim: BudgetedOracle, context: AttackContext) -> nn.Module:
    """Alternate between querying, training and selection; the last substitute was trained on all answers.

    True labels are not used.

    Raises:
        BudgetError: the budget does not hold all `cfg.queries`; no query is sent.
        ConfigError: the pool is smaller than `cfg.queries`.
    """
    pixels = context.data.pixels
    if cfg.queries > len(pixels):
        raise ConfigError(f"queries = {cfg.queries}: the attacker has {len(pixels)} images, and queries each once")
    order, seeds = torch.randperm(len(pixels), generator=context.generator("seeds")), int(cfg.seed_share * cfg.queries)
    queried, pool = order[:seeds], order[seeds:]
    answers = query_all(victim, pixels[queried], context, "asked-0", need=cfg.queries)
    substitute = train_substitute(cfg, context.new_model("thief"), pixels[queried], answers, context, "thief-0")
    for number, size in enumerate(torch.arange(cfg.queries - seeds).tensor_split(cfg.rounds), 1):
        queried_predictions = predict_logits(substitute, pixels[queried].float().div_(255)).softmax(1)
        pool_predictions = predict_logits(substitute, pixels[pool].float().div_(255)).softmax(1)
        rows = _STRATEGIES[cfg.strategy](pool_predictions, queried_predictions, len(size), cfg.shortlist)
        new, remaining = pool[rows], torch.ones(len(pool), dtype=torch.bool)
        remaining[rows] = False
        pool, queried = pool[remaining], torch.cat([queried, new])
        answers = torch.cat([answers, query_all(victim, pixels[new], context, f"asked-{number}")])
        model = context.new_model("thief")
        substitute = train_substitute(cfg, model, pixels[queried], answers, context, f"thief-{number}")
    return substitute


def most_uncertain(predictions: Tensor, count: int) -> Tensor:
    """Return the `count` rows of `predictions` [N, K] with the highest entropy, or all rows if there are fewer."""
    entropy: Tensor = torch.special.entr(predictions).sum(1)
    return entropy.topk(min(count, len(predictions))).indices


def k_center(predictions: Tensor, centers: Tensor, count: int) -> Tensor:
    """Return `count` rows of `predictions` [N, K], each the farthest from `centers` [M, K] and the rows before it."""
    distance, rows = torch.cdist(predictions, centers).amin(1), []
    for _ in range(count):
        rows.append(int(distance.argmax()))
        distance = torch.minimum(distance, (predictions - predictions[rows[-1]]).norm(dim=1))
        distance[rows[-1]] = -1
    return torch.tensor(rows)


def _k_center_of_uncertain(predictions: Tensor, centers: Tensor, count: int, shortlist: int) -> Tensor:
    rows = most_uncertain(predictions, shortlist * count)
    return rows[k_center(predictions[rows], centers, count)]


_STRATEGIES: Mapping[str, Callable[[Tensor, Tensor, int, int], Tensor]] = MappingProxyType(
    {
        "uncertainty": lambda predictions, centers, count, shortlist: most_uncertain(predictions, count),
        "k-center": lambda predictions, centers, count, shortlist: k_center(predictions, centers, count),
        "both": _k_center_of_uncertain,
    }
)
