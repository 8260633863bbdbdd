"""Ways away from an answer, along which a suspect that shows labels only says what it would choose next."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from wootz.evasion import PGD, pgd
from wootz.rng import generator
from wootz.stages.run import open_run
from wootz.verify.walks import Away

_REACH = 3.0
_STEPS = 10


def open_away(guide: Path) -> Away:
    """Return the ways that an adversarially trained independent model shows: where it leaves a class soonest.

    Ten steps of PGD against that class, without a random start, to three times the budget that it was trained at: far
    enough that nearly every way leaves the class.
    """
    run = open_run(guide)
    cfg = PGD(eps=_REACH * run.eps, steps=_STEPS, random_start=False, keep="last")

    def away(x: Tensor, classes: Tensor) -> Tensor:
        return pgd(cfg, run.model, x, classes, generator=generator(0, "away"))

    return away
