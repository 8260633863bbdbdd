"""What a suspect's answers, or its weights, say about a key. One exact test for each kind of key, in `EVIDENCE`.

`evidence (key, predict, panel, reach) -> Evidence | None`; None where the access does not suffice.
The null is always the key's own randomness: "the suspect was made without this key".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from wootz.keys import DirectionKey, HalfKey, Key, LabelKey, PreferenceKey, WeightKey
from wootz.statistics.answers import labels_of
from wootz.statistics.exact import binomial_tail, bits, cosine_tail, hypergeometric_tail, signs_tail, sum_tail
from wootz.statistics.leaning import leaning
from wootz.statistics.orders import leanings, unforeseen, votes
from wootz.statistics.reach import Reach
from wootz.statistics.wrong_classes import opinions, places, savage
from wootz.types import Predict


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One mark's evidence: ln p under the null, queries spent, the statistic, and what went into it."""

    mark: str
    log_p: float
    queries: int
    statistic: float
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def bits(self) -> float:
        """-log2 p, at least 0."""
        return bits(self.log_p)


def label_evidence(key: LabelKey, predict: Predict, panel: Sequence[Predict], reach: Reach) -> Evidence:
    """Ask what a suspect thinks of the keyed labels of images.

    Where it shows scores, or labels on ways, and labels exclude the base class, the places of the keyed classes among
    the wrong ones are counted, in Savage's scores, see `opinions` and `places`. Else answers: labels drawn from all K
    classes make hits ~ Bin(n, 1/K). Labels that exclude the base class: given the m answers that differ from it, hits ~
    Bin(m, 1/(K - 1)); an answer equal to the base class can not hit. `hits` of `trials` are in the details always.

    For a service's log the details also hold DAWN's own figures (Szyller et al., arXiv 1906.00830): the accuracy on
    the whole log, and the bits of so many hits at chance 1/K without that condition.
    """
    found = opinions(key, predict, reach)
    count = len(found.said)
    hits = int((found.said == key.labels[:count]).sum())
    if key.rule == "uniform":
        trials, chance = count, 1 / key.num_classes
    else:
        trials, chance = int((found.said != key.base[:count]).sum()), 1 / (key.num_classes - 1)
    details: dict[str, Any] = {"hits": hits, "triggers": count, "trials": trials, "chance": chance, "rule": key.rule}
    if key.logged:
        plain = bits(binomial_tail(hits, count, 1 / key.num_classes))
        details |= {"accuracy": hits / max(1, count), "unconditional": round(plain, 2)}
    log_p, statistic = binomial_tail(hits, trials, chance), hits / max(1, count)
    if found.wrong is not None and count:
        place, scores = places(key, found.wrong, panel), savage(key.num_classes - 1)
        details["places"] = torch.bincount(place, minlength=len(scores)).tolist()
        log_p, statistic = sum_tail(sum(scores[n] for n in place.tolist()), count, scores), details["places"][0] / count
    return Evidence(mark=key.mark, log_p=log_p, queries=found.queries, statistic=statistic, details=details)


def order_evidence(key: PreferenceKey, predict: Predict, panel: Sequence[Predict], reach: Reach) -> Evidence:
    """Ask which of two classes a suspect leans to, on images where the key preferred one of them by a fair coin.

    From its scores, its answers, or where these turn on ways to either class, see `leanings`. What follows without the
    key is taken away, so that a leaning says most where it surprises; whatever is left, its signs agree with the coins
    as other coins would. The statistic is the share of the votes won. `hits` are answers that are the preferred class,
    `trials` those that are either of the two.
    """
    said, far, queries = leanings(key, predict, reach)
    first, second, preferred = (part[: len(said)] for part in (key.first, key.second, key.preferred))
    left = unforeseen(key, far, panel)
    counts = votes(left)
    agree = (left * (2 * preferred.double() - 1) > 0).tolist()
    won, total = sum(vote for vote, right in zip(counts, agree, strict=True) if right), sum(counts)
    details = {
        "decided": len(said),
        "changed": int(preferred.sum()),
        "hits": int((said == torch.where(preferred, second, first)).sum()),
        "trials": int(((said == first) | (said == second)).sum()),
    }
    log_p, statistic = signs_tail(won, counts), won / max(1, total)
    return Evidence(mark=key.mark, log_p=log_p, queries=queries, statistic=statistic, details=details)


def half_evidence(key: HalfKey, predict: Predict, panel: Sequence[Predict], reach: Reach) -> Evidence:
    """Compare the embedded half of the candidates with the other half, by Fisher's exact test.

    `accuracy` is the "watermark accuracy" that peers print; `control` is the same on candidates that were
    never taught, and `panel` the same of independent models. Where the halves are a message's ones and zeros,
    `bit_error` is the share of bits read wrongly, and the statistic is the share read rightly.
    """
    count = min(len(key.labels), reach.budget or len(key.labels))
    right = right_answers(key, labels_of(predict, key.pixels[:count]))
    taught = key.embedded[:count]
    hits, marked = int((right & taught).sum()), int(taught.sum())
    others = [right_answers(key, labels_of(member, key.pixels[:count])) for member in panel]
    statistic = accuracy = hits / max(1, marked)
    details: dict[str, Any] = {
        "accuracy": accuracy,
        "control": int((right & ~taught).sum()) / max(1, count - marked),
        "panel": [int((other & taught).sum()) / max(1, marked) for other in others],
    }
    if key.code is not None:
        errors = [float((read != taught).float().mean()) for read in (right, *others)]
        details |= {"bit_error": errors[0], "panel_bit_error": errors[1:]}
        statistic = 1 - errors[0]
    log_p = hypergeometric_tail(hits, int(right.sum()), marked, count)
    return Evidence(mark=key.mark, log_p=log_p, queries=count, statistic=statistic, details=details)


def right_answers(key: HalfKey, answers: Tensor) -> Tensor:
    """Which of the first answers [m] are the label, or read as its bit; an answer that is missing is not."""
    labels = key.labels[: len(answers)]
    if key.code is None:
        return answers == labels
    code = torch.tensor(key.code)
    return (answers >= 0) & (code[answers.clamp_min(0)] == code[labels])


def direction_evidence(key: DirectionKey, predict: Predict, panel: Sequence[Predict], reach: Reach) -> Evidence | None:
    """Measure how far the suspect's opinions of the wrong classes lean along the keyed direction, by scores or walks.

    The statistic is the cosine between W and where they lean. Nothing in the latter depends on W unless the suspect
    does, so the cosine is that of an isotropic direction. Where the suspect leans nowhere, there is nothing to test and
    p is 1. `answered` of `asked` ordinary images were answered, and `accuracy` is the share of these that was right.
    """
    found = leaning(key, predict, panel, reach)
    if found is None:
        return None
    w = key.direction.double()
    length = float(found.v.norm() * w.norm())
    cosine = float((found.v * w).sum()) / length if length > 0 else 0.0
    log_p = cosine_tail(cosine, key.dimensions) if length > 0 else 0.0
    details = {"dimensions": key.dimensions, "probes": found.probes, "accuracy": found.known.accuracy}
    details |= {"asked": found.known.asked, "answered": found.known.answered}
    return Evidence(mark=key.mark, log_p=log_p, queries=found.queries, statistic=cosine, details=details)


def weight_evidence(key: WeightKey, predict: Predict, panel: Sequence[Predict], reach: Reach) -> Evidence | None:
    """Compare the bits read from the suspect's weights with the message, whose bits are uniform: hits ~ Bin(T, 1/2).

    `bit_error_rate` is what the paper reports (Uchida et al., arXiv 1701.04082). Whatever the weights are, also in
    another order or of another network, they were there before the message unless they follow it. Where the suspect
    has no such tensor, nothing is read and p is 1, as a question that is not answered is a miss: which marks count is
    settled by key and access, and not by what the suspect turns out to be.
    """
    if reach.access != "weights" or reach.weights is None:
        return None
    tensor, trials = reach.weights(key.weight, key.shape), len(key.message)
    details: dict[str, Any] = {"weight": key.weight, "trials": trials, "readable": tensor is not None}
    if tensor is None:
        return Evidence(mark=key.mark, log_p=0.0, queries=0, statistic=0.0, details=details)
    hits = int((bits_read(key, tensor) == key.message).sum())
    details |= {"hits": hits, "bit_error_rate": 1 - hits / trials}
    log_p = binomial_tail(hits, trials, 0.5)
    return Evidence(mark=key.mark, log_p=log_p, queries=0, statistic=hits / trials, details=details)


def bits_read(key: WeightKey, tensor: Tensor) -> Tensor:
    """Return the bits int64 [T] that lie in a tensor along the key's directions; the message is not used.

    -1 where there is none: a projection of exactly 0, or one that is not finite.
    """
    along = key.projected(tensor.double())
    return (along > 0).long().masked_fill(~along.isfinite() | (along == 0), -1)


EVIDENCE: Mapping[type[Key], Callable[..., Evidence | None]] = MappingProxyType(
    {
        LabelKey: label_evidence,
        PreferenceKey: order_evidence,
        DirectionKey: direction_evidence,
        HalfKey: half_evidence,
        WeightKey: weight_evidence,
    }
)
