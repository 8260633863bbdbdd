"""Extraction of robustness with uncertain examples, BEST (Li et al., ICLR 2023).

The attacker queries images at which the substitute's predictive entropy is high, found by gradient ascent. The victim's
answers there describe its decision boundary, and with it its robustness, without adversarial training.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from wootz import checks
from wootz.attacks.context import AttackContext
from wootz.attacks.evasion import PGD, pgd
from wootz.attacks.extraction.oracle import BudgetedOracle, query_all
from wootz.attacks.extraction.substitute import SubstituteConfig, train_substitute

_BATCH = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncertain(SubstituteConfig):
    """How uncertain examples are generated; the attack costs `images * (rounds + 1)` queries.

    Attributes:
        rounds: the number of rounds; each one adds an uncertain example per image to the set of queries. The paper
            makes new examples for every batch of every epoch and discards them; here they are fewer and are kept.
        steps: the number of ascent steps within the public budget; the paper's value.
        epochs: the number of passes over all queries per round, except the last round.
        final_epochs: the number of passes in the last round.
    """

    rounds: int = 10
    steps: int = 10
    epochs: int = 2
    final_epochs: int = 10

    def __post_init__(self) -> None:
        SubstituteConfig.__post_init__(self)
        checks.at_least(1, rounds=self.rounds, steps=self.steps, final_epochs=self.final_epochs)


def extract_robustness(cfg: Uncertain, victim: BudgetedOracle, context: AttackContext) -> nn.Module:
    """Query the images, then uncertain examples, and train on the answers; true labels are not used."""
    pixels = context.data.pixels
    answers = query_all(victim, pixels, context, "asked-0", need=len(pixels) * (cfg.rounds + 1))
    substitute = train_substitute(cfg, context.new_model("thief"), pixels, answers, context, "thief-0")
    for number in range(1, cfg.rounds + 1):
        generator = context.generator("undecided", number)
        new = uncertain_examples(substitute, context.data.pixels, context.eps, cfg.steps, generator)
        pixels = torch.cat([pixels, new])
        answers = torch.cat([answers, query_all(victim, new, context, f"asked-{number}")])
        training = replace(cfg, epochs=cfg.final_epochs) if number == cfg.rounds else cfg
        substitute = train_substitute(training, substitute, pixels, answers, context, f"thief-{number}")
    return substitute


def uncertain_examples(model: nn.Module, pixels: Tensor, eps: float, steps: int, generator: torch.Generator) -> Tensor:
    """Return images uint8 near `pixels` [N, C, H, W] at which the entropy of `model`'s prediction is high.

    They lie within `eps`, in pixels of [0, 1], up to rounding to whole gray levels.
    """
    cfg = PGD(eps=eps, steps=steps, keep="last")
    examples = []
    for batch in pixels.split(_BATCH):
        unused = torch.zeros(len(batch), dtype=torch.long)
        x = pgd(cfg, model, batch.float().div_(255), unused, generator=generator, objective=entropy)
        examples.append(x.mul_(255).round_().to(torch.uint8))
    return torch.cat(examples)


def entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return the entropy [N] of the predicted distributions, in nats; the labels `y` are not used."""
    return -(logits.softmax(1) * logits.log_softmax(1)).sum(1)
