"""Theft of robustness (BEST: Li et al., ICLR 2023, "Extracting robust models with uncertain examples").

The thief asks about images that its own network can not decide on, found by gradient ascent on its entropy. The
victim's answers there show where the victim's boundary runs, and so its robustness, without adversarial training.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from wootz import checks
from wootz.attacks.adversary import AttackContext
from wootz.attacks.evasion import PGD, pgd
from wootz.attacks.extraction.asking import answered
from wootz.attacks.extraction.learner import Learner, imitate
from wootz.attacks.extraction.ledger import Ledger

_BATCH = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncertain(Learner):
    """How uncertain examples are found; the attack costs `images * (rounds + 1)` queries.

    Attributes:
        rounds: in each, every image is moved anew, asked, and joins all that was asked before. The paper makes new
            examples for every batch of every epoch and does not keep them; ours are fewer and stay.
        steps: of the ascent within the customary budget; the paper's.
        epochs: passes over all that was asked, a round; the last round has `final_epochs`.
        final_epochs: the last round's.
    """

    rounds: int = 10
    steps: int = 10
    epochs: int = 2
    final_epochs: int = 10

    def __post_init__(self) -> None:
        Learner.__post_init__(self)
        checks.at_least(1, rounds=self.rounds, steps=self.steps, final_epochs=self.final_epochs)


def steal_robustness(cfg: Uncertain, victim: Ledger, context: AttackContext) -> nn.Module:
    """Ask about the images, then about uncertain examples, and learn the answers; true labels are not used."""
    pixels = context.data.pixels
    answers = answered(victim, pixels, context, "asked-0", need=len(pixels) * (cfg.rounds + 1))
    thief = imitate(cfg, context.fresh("thief"), pixels, answers, context, "thief-0")
    for number in range(1, cfg.rounds + 1):
        moved = undecided(thief, context.data.pixels, context.eps, cfg.steps, context.generator("undecided", number))
        pixels = torch.cat([pixels, moved])
        answers = torch.cat([answers, answered(victim, moved, context, f"asked-{number}")])
        lesson = replace(cfg, epochs=cfg.final_epochs) if number == cfg.rounds else cfg
        thief = imitate(lesson, thief, pixels, answers, context, f"thief-{number}")
    return thief


def undecided(model: nn.Module, pixels: Tensor, eps: float, steps: int, generator: torch.Generator) -> Tensor:
    """Return images uint8 [N, C, H, W] within `eps` of `pixels`, about up to rounding, where `model` wavers."""
    climb = PGD(eps=eps, steps=steps, keep="last")
    moved = []
    for part in pixels.split(_BATCH):
        nobody = torch.zeros(len(part), dtype=torch.long)
        x = pgd(climb, model, part.float().div_(255), nobody, generator=generator, objective=entropy)
        moved.append(x.mul_(255).round_().to(torch.uint8))
    return torch.cat(moved)


def entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return the entropy [N] of the predicted distributions, in nats; the labels `y` do not matter."""
    return -(logits.softmax(1) * logits.log_softmax(1)).sum(1)
