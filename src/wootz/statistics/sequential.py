"""The sequential test: query triggers one at a time and stop as soon as the evidence suffices (an e-process).

Under the null every answer that counts is a hit with a known chance c. The likelihood ratio of a hit rate r > c,
averaged over r uniform on (c, 1], is a nonnegative martingale that starts at 1; by Ville's inequality it ever reaches
2^b with probability at most 2^-b, so 1 / its maximum is a p-value under any stopping rule (Vovk and Wang,
arXiv 1912.06116).

Triggers are queried in their registered order, alternating with ordinary images (decoys), so that a suspect cannot
recognize a test by its lack of ordinary queries; the answers to decoys show whether it is a working classifier.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from scipy.special import betaln
from torch import Tensor

from wootz.keys import LabelKey
from wootz.statistics.evidence import LabelEvidence, NonResponse, SequentialSummary
from wootz.statistics.exact_tests import hit_chance
from wootz.statistics.queries import LabelledImages, OrdinaryAnswers, query_labels
from wootz.statistics.tails import binomial_tail, bits, hypergeometric_tail, log_beta_cdf
from wootz.types import Predict

_SIGNIFICANT_REFUSAL = math.log(1e-6)  # ln p of Fisher's exact test


def log_e_value(hits: int, trials: int, chance: float) -> float:
    """Return ln of the mixture likelihood ratio after `hits` of `trials` answers that count.

    ln [ B(h+1, m-h+1) * P(r > c) / ((1-c) * c^h * (1-c)^(m-h)) ] with r ~ Beta(h+1, m-h+1). If every answer is a hit by
    chance there is nothing to test, and it is 0.
    """
    if chance >= 1:
        return 0.0
    misses = trials - hits
    above = log_beta_cdf(1 - chance, misses + 1, hits + 1)
    null = hits * math.log(chance) + misses * math.log1p(-chance)
    return float(betaln(hits + 1, misses + 1)) + above - math.log1p(-chance) - null


class SequentialResult(NamedTuple):
    """The state in which a sequential test ended.

    Attributes:
        queried: The number of answers, counted or not.
        trials: The number of answers that count.
        hits: The number of those that are the keyed label.
        log_p: ln of 1 / the maximum of the e-process, at most 0.
        crossed: Whether the required bits were reached.
    """

    queried: int
    trials: int
    hits: int
    log_p: float
    crossed: bool


def run_sequential_test(answers: Iterable[tuple[bool, bool]], chance: float, bar: float) -> SequentialResult:
    """Follow the e-process over (counts, is a hit) answers, one by one, until it reaches `bar` bits or they end.

    `answers` may be lazy: nothing after the crossing is queried.
    """
    queried = trials = hits = 0
    best = 0.0
    for counted, hit in answers:
        queried += 1
        trials += counted
        hits += counted and hit
        best = max(best, log_e_value(hits, trials, chance))
        if bits(-best) >= bar:
            return SequentialResult(queried, trials, hits, -best, True)
    return SequentialResult(queried, trials, hits, -best, False)


def sequential_label_evidence(
    key: LabelKey, predict: Predict, *, bar: float, decoys: LabelledImages | None = None, budget: int | None = None
) -> LabelEvidence:
    """Test the triggers of `key` one at a time until the e-process reaches `bar` bits.

    Args:
        key: The triggers with their keyed labels.
        predict: The suspect; it is queried one image at a time.
        bar: The bits at which the test stops.
        decoys: Ordinary images; one is queried before each trigger, as long as there are any.
        budget: The maximal number of queries, including decoys; None queries all triggers.
    """
    unanswered = NonResponse()
    spent = decoys_queried = decoys_correct = 0

    def answers() -> Iterator[tuple[bool, bool]]:
        nonlocal unanswered, spent, decoys_queried, decoys_correct
        for number in range(len(key.labels)):
            decoy = decoys if decoys is not None and number < len(decoys.labels) else None
            cost = 1 if decoy is None else 2
            if budget is not None and spent + cost > budget:
                return
            if decoy is not None:
                label = _query_one(predict, decoy.pixels, number)
                decoys_queried += 1
                decoys_correct += label == int(decoy.labels[number])
                unanswered = unanswered._replace(decoys=unanswered.decoys + (label < 0))
            label = _query_one(predict, key.pixels, number)
            unanswered = unanswered._replace(triggers=unanswered.triggers + (label < 0))
            spent += cost
            yield key.rule == "uniform" or label != int(key.base[number]), label == int(key.labels[number])

    chance = hit_chance(key)
    result = run_sequential_test(answers(), chance, bar)
    answered = OrdinaryAnswers(decoys_queried, decoys_queried - unanswered.decoys, decoys_correct)
    refusal = decoys_queried > 0 and is_selective_refusal(unanswered, result.queried, decoys_queried)
    return LabelEvidence(
        mark=key.mark,
        log_p=result.log_p,
        queries=spent,
        statistic=result.hits / max(1, result.queried),
        null="e-process, a martingale over uniformly drawn keyed labels, whose p-value holds under any stopping rule",
        measure="fraction of the triggers queried before the test stopped that are answered with their keyed label",
        ordinary=answered if decoys_queried else None,
        hits=result.hits,
        triggers=result.queried,
        trials=result.trials,
        chance=chance,
        rule=key.rule,
        sequential=SequentialSummary(
            stopped=result.crossed,
            fixed_bits=bits(binomial_tail(result.hits, result.trials, chance)),
            unanswered=unanswered,
            selective_refusal=refusal,
        ),
    )


def is_selective_refusal(unanswered: NonResponse, triggers: int, decoys: int) -> bool:
    """Return whether triggers went unanswered more often than decoys, with p below one in a million (Fisher's test)."""
    missing = unanswered.triggers + unanswered.decoys
    return hypergeometric_tail(unanswered.triggers, missing, triggers, triggers + decoys) < _SIGNIFICANT_REFUSAL


def _query_one(predict: Predict, pixels: Tensor, row: int) -> int:
    return int(query_labels(predict, pixels[row : row + 1])[0])
