"""Ask a suspect one image at a time and stop as soon as the bar is reached.

Triggers go out in their registered order, mixed one to one with ordinary images (decoys), so that a suspect can
not tell a test by its lack of ordinary queries; the decoys' answers say whether it knows its task at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor

from wootz.keys import LabelKey
from wootz.statistics.answers import labels_of
from wootz.statistics.evidence import Evidence
from wootz.statistics.exact import binomial_tail, bits, hypergeometric_tail
from wootz.statistics.sequential import SequentialResult, run_sequential_test
from wootz.types import Predict


class Decoys(NamedTuple):
    """Ordinary images uint8 [n, C, H, W] and their classes [n]; the first are used first."""

    pixels: Tensor
    labels: Tensor


class Silence(NamedTuple):
    """How many triggers and how many decoys were not answered."""

    triggers: int = 0
    decoys: int = 0

    def evasive(self, triggers: int, decoys: int) -> bool:
        """Return whether triggers went unanswered more often than one in a million allows (Fisher's exact test)."""
        p = hypergeometric_tail(self.triggers, self.triggers + self.decoys, triggers, triggers + decoys)
        return p < math.log(1e-6)


def early_evidence(
    key: LabelKey, predict: Predict, *, bar: float, decoys: Decoys | None = None, budget: int | None = None
) -> tuple[Evidence, bool]:
    """Test the triggers of `key` until the e-process reaches `bar` bits; return the evidence, and whether it did.

    The p-value is 1 / the highest e-value, which stopping does not spoil. `fixed` in the details is the exact tail
    as if the number of queries had been fixed: for comparison only.

    Args:
        key: triggers with keyed labels.
        predict: the suspect; asked one image at a time.
        bar: bits to stop at.
        decoys: one goes before each trigger, as long as there are any.
        budget: queries at most, decoys among them; None means all triggers.
    """
    silent = Silence()
    spent = asked = right = 0

    def answers() -> Iterator[tuple[bool, bool]]:
        nonlocal spent, silent, asked, right
        for number in range(len(key.labels)):
            decoy = decoys if decoys is not None and number < len(decoys.labels) else None
            cost = 1 if decoy is None else 2
            if budget is not None and spent + cost > budget:
                return
            if decoy is not None:
                said = _answer(predict, decoy.pixels, number)
                asked += 1
                right += said == int(decoy.labels[number])
                silent = silent._replace(decoys=silent.decoys + (said < 0))
            answer = _answer(predict, key.pixels, number)
            silent = silent._replace(triggers=silent.triggers + (answer < 0))
            spent += cost
            yield key.rule == "uniform" or answer != int(key.base[number]), answer == int(key.labels[number])

    chance = 1 / (key.num_classes if key.rule == "uniform" else key.num_classes - 1)
    found = run_sequential_test(answers(), chance, bar)
    details = _details(key, found, chance)
    if asked:
        answered = asked - silent.decoys
        details |= {"decoys": asked, "accuracy": right / max(1, answered), "asked": asked, "answered": answered}
        details |= {"unanswered": list(silent), "evasive": silent.evasive(found.asked, asked)}
    evidence = Evidence(
        mark=key.mark, log_p=found.log_p, queries=spent, statistic=found.hits / max(1, found.asked), details=details
    )
    return evidence, found.crossed


def _answer(predict: Predict, pixels: Tensor, row: int) -> int:
    return int(labels_of(predict, pixels[row : row + 1])[0])


def _details(key: LabelKey, found: SequentialResult, chance: float) -> dict[str, Any]:
    return {
        "hits": found.hits,
        "triggers": found.asked,
        "trials": found.trials,
        "chance": chance,
        "rule": key.rule,
        "stopped": found.crossed,
        "fixed": round(bits(binomial_tail(found.hits, found.trials, chance)), 2),
    }
