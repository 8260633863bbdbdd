"""The exact tests, one per kind of key: query a suspect, or read its weights, and compute p under the key's randomness.

A test is a function `(key, predict, panel, access) -> Evidence | None`; None if the access does not suffice. The null
hypothesis is "the suspect was made without this key", so the key is random given everything about the suspect. Each
test states its null distribution and what its statistic measures in the fields `null` and `measure` of its evidence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import torch
from torch import Tensor

from wootz.keys import DirectionKey, HalfKey, Key, LabelKey, PreferenceKey, WeightKey
from wootz.statistics.direction_estimate import estimate_direction
from wootz.statistics.evidence import (
    DirectionEvidence,
    Evidence,
    HalfEvidence,
    LabelEvidence,
    PreferenceEvidence,
    WeightEvidence,
)
from wootz.statistics.pairwise_preferences import preference_residuals, query_preferences, rank_weights
from wootz.statistics.queries import SuspectAccess, query_labels
from wootz.statistics.tails import binomial_tail, bits, cosine_tail, fisher, hypergeometric_tail, signs_tail, sum_tail
from wootz.statistics.wrong_class_ranks import keyed_label_ranks, query_wrong_classes, savage_scores
from wootz.types import Predict


def hit_chance(key: LabelKey) -> float:
    """Return the probability under the null that an answer that counts is the keyed label."""
    return 1 / (key.num_classes if key.rule == "uniform" else key.num_classes - 1)


def label_evidence(key: LabelKey, predict: Predict, panel: Sequence[Predict], access: SuspectAccess) -> LabelEvidence:
    """Test whether a suspect answers images with their keyed labels, or ranks these high among the wrong classes.

    If scores or decision boundaries are visible and the labels exclude the base class, the test statistic is the sum of
    the Savage scores of the keyed labels' ranks, see `keyed_label_ranks`. Otherwise it is the number of hits: labels
    drawn from all K classes make hits ~ Bin(n, 1/K). For labels that exclude the base class, given the m answers that
    differ from it, hits ~ Bin(m, 1/(K - 1)); an answer equal to the base class cannot be a hit.
    """
    answers = query_wrong_classes(key, predict, access)
    count = len(answers.labels)
    hits = int((answers.labels == key.labels[:count]).sum())
    trials = count if key.rule == "uniform" else int((answers.labels != key.base[:count]).sum())
    chance = hit_chance(key)
    evidence = LabelEvidence(
        mark=key.mark,
        log_p=binomial_tail(hits, trials, chance),
        queries=answers.queries,
        statistic=hits / max(1, count),
        null=(
            "binomial over keyed labels drawn uniformly from all classes"
            if key.rule == "uniform"
            else "binomial over keyed labels drawn uniformly from the wrong classes, given the answers that are wrong"
        ),
        measure="fraction of the queried images that are answered with their keyed label",
        hits=hits,
        triggers=count,
        trials=trials,
        chance=chance,
        rule=key.rule,
        unconditional_bits=bits(binomial_tail(hits, count, 1 / key.num_classes)) if key.logged else None,
    )
    if answers.scores is None or not count:
        return evidence
    ranks, scores = keyed_label_ranks(key, answers.scores, panel), savage_scores(key.num_classes - 1)
    counts = tuple(torch.bincount(ranks, minlength=len(scores)).tolist())
    by = "log-score" if access.boundary_queries is None else "distance to the decision boundary"
    return replace(
        evidence,
        log_p=sum_tail(sum(scores[rank] for rank in ranks.tolist()), count, scores),
        statistic=counts[0] / count,
        null="sum of Savage scores over ranks drawn uniformly among the wrong classes, independently for each image",
        measure=f"fraction of the queried images whose keyed label ranks first of the wrong classes by residual {by}",
        ranks=counts,
    )


def preference_evidence(
    key: PreferenceKey, predict: Predict, panel: Sequence[Predict], access: SuspectAccess
) -> PreferenceEvidence:
    """Test whether a suspect prefers, of two classes, the one that the key preferred by a fair coin.

    The test statistic is the total rank weight of the images whose residual preference has the sign of the coin, see
    `query_preferences`, `preference_residuals` and `rank_weights`. Residuals and weights do not depend on the coins
    unless the suspect does, so under the null each sign agrees with probability 1/2.
    """
    answers = query_preferences(key, predict, access)
    count = len(answers.labels)
    first, second, preferred = (part[:count] for part in (key.first, key.second, key.preferred))
    left = preference_residuals(key, answers.preferences, panel)
    weights = rank_weights(left)
    agree = (left * (2 * preferred.double() - 1) > 0).tolist()
    agreeing, total = sum(w for w, agrees in zip(weights, agree, strict=True) if agrees), sum(weights)
    by = "log-score difference" if access.level != "label" else "answered label"
    by = by if access.boundary_queries is None else "signed distance to the decision boundary"
    return PreferenceEvidence(
        mark=key.mark,
        log_p=signs_tail(agreeing, weights),
        queries=answers.queries,
        statistic=agreeing / max(1, total),
        null="sum of rank weights over one fair coin per image, which class of the pair the key prefers",
        measure=f"share of the rank weights of images whose residual preference, by {by}, is the key's",
        decided=count,
        changed=int(preferred.sum()),
        hits=int((answers.labels == torch.where(preferred, second, first)).sum()),
        trials=int(((answers.labels == first) | (answers.labels == second)).sum()),
    )


def half_evidence(key: HalfKey, predict: Predict, panel: Sequence[Predict], access: SuspectAccess) -> HalfEvidence:
    """Test whether a suspect answers the embedded half of the candidates better than the other, by Fisher's exact test.

    If the halves are the ones and zeros of a message, an answer is correct if it reads as the bit of the label.
    """
    count = min(len(key.labels), access.budget or len(key.labels))
    correct = correct_answers(key, query_labels(predict, key.pixels[:count]))
    embedded = key.embedded[:count]
    hits, marked = int((correct & embedded).sum()), int(embedded.sum())
    others = [correct_answers(key, query_labels(model, key.pixels[:count])) for model in panel]
    errors = [float((read != embedded).float().mean()) for read in (correct, *others)]
    accuracy = hits / max(1, marked)
    return HalfEvidence(
        mark=key.mark,
        log_p=hypergeometric_tail(hits, int(correct.sum()), marked, count),
        queries=count,
        statistic=accuracy if key.code is None else 1 - errors[0],
        null=(
            "hypergeometric over which of the queried candidates the key embeds, given the number answered correctly"
            if key.code is None
            else "hypergeometric over which of the queried message bits are 1, given the number read as 1"
        ),
        measure=(
            "fraction of the embedded candidates that are answered with their label"
            if key.code is None
            else "fraction of the queried message bits that are read correctly"
        ),
        accuracy=accuracy,
        control_accuracy=int((correct & ~embedded).sum()) / max(1, count - marked),
        panel_accuracy=tuple(int((other & embedded).sum()) / max(1, marked) for other in others),
        bit_error=None if key.code is None else errors[0],
        panel_bit_error=() if key.code is None else tuple(errors[1:]),
    )


def correct_answers(key: HalfKey, answers: Tensor) -> Tensor:
    """Return which answers [m] to the first m candidates are the label or read as its bit; a missing one is not."""
    labels = key.labels[: len(answers)]
    if key.code is None:
        return answers == labels
    code = torch.tensor(key.code)
    return (answers >= 0) & (code[answers.clamp_min(0)] == code[labels])


def direction_evidence(
    key: DirectionKey, predict: Predict, panel: Sequence[Predict], access: SuspectAccess
) -> DirectionEvidence | None:
    """Test whether the direction that a suspect's wrong-class scores carry points along the keyed direction W.

    The estimate does not depend on W unless the suspect does, so under the null its cosine with W is that of a fixed
    and an isotropic direction. The parts of W for features of different kinds are independent; each is tested on its
    own, so that a model which learned features of one kind only is not judged by noise in the others. If the estimate
    is 0, there is nothing to test and p is 1.
    """
    estimate = estimate_direction(key, predict, panel, access)
    if estimate is None:
        return None
    w = key.direction.double()
    log_ps = [
        cosine_tail(_cosine(v, part), key.dimensions(v.shape[2]))
        for v, part in zip(estimate.v.split(key.groups, 2), w.split(key.groups, 2), strict=True)
    ]
    cosine = _cosine(estimate.v, w)
    source = "wrong-class scores" if access.boundary_queries is None else "labels beyond the decision boundary"
    return DirectionEvidence(
        mark=key.mark,
        log_p=fisher(log_ps),
        queries=estimate.queries,
        statistic=0.0 if math.isnan(cosine) else cosine,
        null="cosine between a fixed direction and a keyed direction that is isotropic (Student's t)"
        + (", per kind of feature, combined by Fisher's method" if len(log_ps) > 1 else ""),
        measure=f"cosine between the keyed direction and the one estimated from the suspect's {source}",
        ordinary=estimate.ordinary,
        dimensions=key.dimensions(sum(key.groups)),
        probes=estimate.probes,
        parts=tuple(bits(log_p) for log_p in log_ps) if len(log_ps) > 1 else (),
    )


def _cosine(v: Tensor, w: Tensor) -> float:
    """Return the cosine between two directions; NaN if one is 0."""
    return float((v * w).sum() / (v.norm() * w.norm()))


def weight_evidence(
    key: WeightKey, predict: Predict, panel: Sequence[Predict], access: SuspectAccess
) -> WeightEvidence | None:
    """Test whether the bits read from a suspect's weights are the message, whose bits are uniform: hits ~ Bin(T, 1/2).

    The null holds for any weights that do not depend on the message. If the suspect has no such tensor, nothing is read
    and p is 1, as for a query that is not answered: key and access decide which marks are tested, not the suspect. The
    record's bit error rate is the measure of Uchida et al. (arXiv 1701.04082).
    """
    if access.level != "weights" or access.weights is None:
        return None
    tensor, trials = access.weights(key.weight, key.shape), len(key.message)
    hits = None if tensor is None else int((read_bits(key, tensor) == key.message).sum())
    return WeightEvidence(
        mark=key.mark,
        log_p=0.0 if hits is None else binomial_tail(hits, trials, 0.5),
        queries=0,
        statistic=0.0 if hits is None else hits / trials,
        null="binomial over message bits that are 0 or 1 with probability 1/2",
        measure="fraction of the message bits that are read correctly from the weights",
        weight=key.weight,
        trials=trials,
        hits=hits,
    )


def read_bits(key: WeightKey, tensor: Tensor) -> Tensor:
    """Return the bits int64 [T] of a tensor along the key's directions; the message is not used.

    A projection that is exactly 0 or not finite reads as -1.
    """
    projections = key.projected(tensor.double())
    return (projections > 0).long().masked_fill(~projections.isfinite() | (projections == 0), -1)


EXACT_TESTS: Mapping[type[Key], Callable[..., Evidence | None]] = MappingProxyType(
    {
        LabelKey: label_evidence,
        PreferenceKey: preference_evidence,
        DirectionKey: direction_evidence,
        HalfKey: half_evidence,
        WeightKey: weight_evidence,
    }
)
