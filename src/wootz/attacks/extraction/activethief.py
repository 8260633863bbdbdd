"""ActiveThief (Pal et al., AAAI 2020): a pool of unlabeled images, and a thief who chooses what to ask next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn

from wootz import checks
from wootz.attacks.adversary import AttackContext
from wootz.attacks.evasion import predict_logits
from wootz.attacks.extraction.asking import answered
from wootz.attacks.extraction.learner import Learner, imitate
from wootz.attacks.extraction.ledger import Ledger
from wootz.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveThief(Learner):
    """How much is asked, and how it is chosen. The paper's pool is of another kind: `data` = other.

    Attributes:
        queries: in all; at most as many as the pool has images. The paper's budgets are 10,000 to 30,000.
        seed_share: of them that are drawn at random to begin with.
        rounds: in which the others are chosen, each time by a thief trained from scratch; the paper's number.
        strategy: images on which the thief is uncertain (highest entropy), images far from all that were asked
            (greedy k-center on the thief's answers), or k-center among the most uncertain (`both`). The paper's
            best puts DeepFool's distance in the place of entropy.
        shortlist: with `both`, how many uncertain images stand behind each that is chosen.
    """

    queries: int = 5000
    seed_share: float = 0.1
    rounds: int = 10
    strategy: Literal["uncertainty", "k-center", "both"] = "both"
    shortlist: int = 3

    def __post_init__(self) -> None:
        Learner.__post_init__(self)
        checks.inside(0, 1, seed_share=self.seed_share)
        checks.at_least(1, rounds=self.rounds, shortlist=self.shortlist)
        checks.at_least(20, queries=int(self.seed_share * self.queries))


def steal_actively(cfg: ActiveThief, victim: Ledger, context: AttackContext) -> nn.Module:
    """Ask, learn, choose, ask again; the last thief has learned all answers. True labels are not used."""
    pixels = context.data.pixels
    if cfg.queries > len(pixels):
        raise ConfigError(f"queries = {cfg.queries}: the thief has {len(pixels)} images, and asks about each once")
    order, seeds = torch.randperm(len(pixels), generator=context.generator("seeds")), int(cfg.seed_share * cfg.queries)
    chosen, left = order[:seeds], order[seeds:]
    answers = answered(victim, pixels[chosen], context, "asked-0", need=cfg.queries)
    thief = imitate(cfg, context.fresh("thief"), pixels[chosen], answers, context, "thief-0")
    for number, size in enumerate(torch.arange(cfg.queries - seeds).tensor_split(cfg.rounds), 1):
        known = predict_logits(thief, pixels[chosen].float().div_(255)).softmax(1)
        guess = predict_logits(thief, pixels[left].float().div_(255)).softmax(1)
        rows = _CHOICES[cfg.strategy](guess, known, len(size), cfg.shortlist)
        new, keep = left[rows], torch.ones(len(left), dtype=torch.bool)
        keep[rows] = False
        left, chosen = left[keep], torch.cat([chosen, new])
        answers = torch.cat([answers, answered(victim, pixels[new], context, f"asked-{number}")])
        thief = imitate(cfg, context.fresh("thief"), pixels[chosen], answers, context, f"thief-{number}")
    return thief


def most_uncertain(guess: Tensor, count: int) -> Tensor:
    """Return the rows of `guess` [N, K] with the highest entropy."""
    entropy: Tensor = torch.special.entr(guess).sum(1)
    return entropy.topk(min(count, len(guess))).indices


def farthest(guess: Tensor, known: Tensor, count: int) -> Tensor:
    """Return `count` rows of `guess` [N, K], each the farthest from `known` [M, K] and those before it."""
    distance, rows = torch.cdist(guess, known).amin(1), []
    for _ in range(count):
        rows.append(int(distance.argmax()))
        distance = torch.minimum(distance, (guess - guess[rows[-1]]).norm(dim=1))
        distance[rows[-1]] = -1
    return torch.tensor(rows)


def _farthest_of_uncertain(guess: Tensor, known: Tensor, count: int, shortlist: int) -> Tensor:
    rows = most_uncertain(guess, shortlist * count)
    return rows[farthest(guess[rows], known, count)]


_CHOICES: Mapping[str, Callable[[Tensor, Tensor, int, int], Tensor]] = MappingProxyType(
    {
        "uncertainty": lambda guess, known, count, shortlist: most_uncertain(guess, count),
        "k-center": lambda guess, known, count, shortlist: farthest(guess, known, count),
        "both": _farthest_of_uncertain,
    }
)
