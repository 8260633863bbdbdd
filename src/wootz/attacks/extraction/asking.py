"""Asking about many images in an attempt that may be cut off: nothing that was answered is asked again."""

from __future__ import annotations

import torch
from torch import Tensor

from wootz.attacks.adversary import AttackContext, State, rounds
from wootz.attacks.extraction.ledger import Ledger
from wootz.errors import BudgetError

_BATCH = 1000


def answered(
    victim: Ledger, pixels: Tensor, context: AttackContext, name: str = "answers", need: int | None = None
) -> Tensor:
    """Ask about images uint8 [N, C, H, W] and return whole distributions float32 [N, K]; costs N queries.

    Args:
        victim: who is asked.
        pixels: the images; they are asked as floats in [0, 1].
        context: whose folder keeps the answers.
        name: of these questions within the attempt.
        need: queries that must fit the budget before the first one is spent; None means N.
    """

    def ask(number: int, state: State) -> State:
        if number == 0:
            victim.require(len(pixels) if need is None else need)
        part = pixels[number * _BATCH : (number + 1) * _BATCH]
        return {"answers": torch.cat([state["answers"], victim.distributions(part.float().div_(255))])}

    batches = -(-len(pixels) // _BATCH)
    return rounds(context, name, batches, lambda: {"answers": torch.empty(0, victim.num_classes)}, ask)["answers"]


def require_scores(victim: Ledger, why: str) -> None:
    """Raise BudgetError where the victim shows its label only; `why` begins the message."""
    if victim.access == "label":
        raise BudgetError(f"{why}: needs scores, but the victim shows its label only")
