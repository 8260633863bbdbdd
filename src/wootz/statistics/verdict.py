"""Combine the evidence of all marks into a verdict. A verdict is a value: an unmarked suspect is not an error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from wootz.errors import ConfigError
from wootz.keys import DirectionKey, Key, LabelKey, WeightKey
from wootz.statistics.boundary_search import BoundarySearch
from wootz.statistics.evidence import Evidence, LabelEvidence, WeightEvidence
from wootz.statistics.exact_tests import EXACT_TESTS, label_evidence
from wootz.statistics.queries import LabelledImages, SuspectAccess, cache_images
from wootz.statistics.sequential import sequential_label_evidence
from wootz.statistics.tails import bits, fisher
from wootz.statistics.wrong_class_ranks import ranks_available
from wootz.types import THRESHOLD_BITS, UNTIMESTAMPED_THRESHOLD_BITS, Access, Outcome, Predict, Weights

EXIT_CODES: Mapping[Outcome, int] = MappingProxyType(
    {Outcome.KEY_DEPENDENT: 0, Outcome.NOT_SHOWN: 1, Outcome.INCONCLUSIVE: 3, Outcome.INVALID_CLAIM: 4}
)
"""The exit code of the command line per outcome."""

_MIN_ANSWERED = 0.5  # fraction of the ordinary images that a working classifier answers

CHANCE = 1.5
"""An accuracy below this many times 1 / K is no better than chance."""


def required_bits(*, timestamped: bool) -> float:
    """Return the bits that a claim needs.

    They are 40 if the keys were derived from a trusted timestamp token, so that each further key costs a request to the
    authority, and 80 without one, so that searching for a lucky key is infeasible.
    """
    return THRESHOLD_BITS if timestamped else UNTIMESTAMPED_THRESHOLD_BITS


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The verdict on a suspect.

    Attributes:
        outcome: The outcome.
        bits: The bits of all marks together, after the deductions for multiple testing.
        evidence: The evidence of each mark.
        access: What was visible of the suspect.
        bar: The bits required for KEY-DEPENDENT.
        notes: Remarks for a reader.
    """

    outcome: Outcome
    bits: float
    evidence: tuple[Evidence, ...]
    access: Access
    bar: float
    notes: tuple[str, ...] = ()


def verify(
    keys: Mapping[str, Key],
    suspect: Predict,
    *,
    panel: Sequence[Predict] = (),
    access: Access = "scores",
    bar: float = THRESHOLD_BITS,
    budget: int | None = None,
    tries: int = 1,
    sequential: bool = False,
    weights: Weights | None = None,
    boundary_search: BoundarySearch | None = None,
    discounts: Mapping[str, float] | None = None,
) -> Verdict:
    """Test a suspect against every key that the access allows, and combine the p-values.

    Args:
        keys: The keys by mark; all of them count, so that none is selected after seeing the answers.
        suspect: The suspect.
        panel: Independent models. They sharpen the tests, and they are controls: if one of them reaches the bar itself,
            something is wrong with the claim, and the outcome is INVALID CLAIM.
        access: What is visible of the suspect: top-1 `label`, `scores`, or `weights` (which includes scores).
        bar: The bits required for KEY-DEPENDENT.
        budget: The maximal number of queries per mark, in registered order; None is no limit.
        tries: The number of hypotheses the claimant could have tested (tranches, registrations, suspects); log2 of it
            is subtracted from the bits.
        sequential: Query triggers one at a time and stop at the bar; other marks, and the ranks of the same triggers'
            labels, are tested only if that does not suffice. Such a test looks twice, which costs one bit. No image is
            queried twice.
        weights: The function that returns the suspect's weights, if any; see `wootz.suspects.files.weights_of`.
        boundary_search: The search for decision boundaries; with access `label`, marks that profit from it use it.
        discounts: By mark, the bits to subtract from its own evidence before marks are combined.

    Raises:
        ConfigError: No mark can be tested with this access.
    """
    suspect_access, deduction = SuspectAccess(access, budget, weights, boundary_search), math.log2(tries)
    triggers = next((key for key in keys.values() if isinstance(key, LabelKey)), None)
    if sequential and triggers is not None:
        rest = {name: key for name, key in keys.items() if key is not triggers and _testable(key, suspect_access)}
        deduction += bool(rest) or ranks_available(triggers, suspect_access)
        suspect = cache_images(suspect)
        decoys = next(
            (LabelledImages(k.probes, k.probe_labels) for k in keys.values() if isinstance(k, DirectionKey)), None
        )
        first = sequential_label_evidence(triggers, suspect, bar=bar + deduction, decoys=decoys, budget=budget)
        if first.sequential is not None and first.sequential.stopped:
            evidence: list[Evidence] = [first]
        else:
            evidence = [
                _with_ranks(first, triggers, suspect, panel, suspect_access),
                *_evidence(rest, suspect, panel, suspect_access),
            ]
    else:
        evidence = _evidence(keys, suspect, panel, suspect_access)
    if not evidence:
        why = "".join(f" ({note})" for note in _untested_weights([], keys, suspect_access))
        raise ConfigError(f"access = {access!r}: none of the marks {', '.join(keys)} can be tested with it{why}")
    evidence = [_discounted(item, (discounts or {}).get(item.mark, 0.0)) for item in evidence]
    total = max(0.0, bits(fisher([item.log_p for item in evidence])) - deduction)
    outcome = Outcome.KEY_DEPENDENT if total >= bar else Outcome.NOT_SHOWN
    notes = [f"{deduction:.1f} bits subtracted for multiple testing (tries, sequential look)"] if deduction else []
    if outcome == Outcome.KEY_DEPENDENT:
        tested = {item.mark for item in evidence}
        used = {name: key for name, key in keys.items() if key.mark in tested}
        vetoes = _vetoes(used, panel, suspect_access, bar)
        outcome, notes = (Outcome.INVALID_CLAIM if vetoes else outcome), notes + vetoes
    if any(
        isinstance(item, LabelEvidence) and item.sequential and item.sequential.selective_refusal for item in evidence
    ):
        notes.append("selective refusal: the suspect leaves triggers unanswered far more often than ordinary images")
    if outcome == Outcome.NOT_SHOWN and (why := _unlike_a_classifier(evidence, keys)):
        outcome = Outcome.INCONCLUSIVE
        notes.append(why)
    notes += _untested_weights(evidence, keys, suspect_access)
    return Verdict(outcome=outcome, bits=total, evidence=tuple(evidence), access=access, bar=bar, notes=tuple(notes))


def _evidence(
    keys: Mapping[str, Key], suspect: Predict, panel: Sequence[Predict], access: SuspectAccess
) -> list[Evidence]:
    results = (EXACT_TESTS[type(key)](key, suspect, panel, access) for key in keys.values())
    return [evidence for evidence in results if evidence is not None]


def _discounted(evidence: Evidence, discount: float) -> Evidence:
    """Return the evidence with p multiplied by 2^discount, at most 1."""
    if not discount:
        return evidence
    return replace(evidence, log_p=min(0.0, evidence.log_p + discount * math.log(2)), discount=discount)


def _with_ranks(
    first: LabelEvidence, key: LabelKey, suspect: Predict, panel: Sequence[Predict], access: SuspectAccess
) -> LabelEvidence:
    """Return the rank test of the triggers that the sequential test queried; `first` if ranks are not available."""
    if not first.triggers:
        return first
    ranked = label_evidence(key, suspect, panel, access._replace(budget=first.triggers))
    if ranked.ranks is None:
        return first
    queries = first.queries + ranked.queries - first.triggers
    return replace(ranked, queries=queries, ordinary=first.ordinary, sequential=first.sequential)


def _testable(key: Key, access: SuspectAccess) -> bool:
    if isinstance(key, WeightKey):
        return access.level == "weights" and access.weights is not None
    return access.level != "label" or not isinstance(key, DirectionKey) or access.boundary_search is not None


def _untested_weights(evidence: Sequence[Evidence], keys: Mapping[str, Key], access: SuspectAccess) -> list[str]:
    """Return notes about marks in weights that were left out, and about those whose tensor the suspect lacks."""
    notes = [
        f"{item.mark}: the suspect has no {item.weight} of the registered shape; it counts as p = 1"
        for item in evidence
        if isinstance(item, WeightEvidence) and item.hits is None
    ]
    why = "the suspect shows none" if access.level == "weights" else f"access is {access.level}"
    left_out = [key for key in keys.values() if isinstance(key, WeightKey) and not _testable(key, access)]
    return notes + [f"{key.mark}: left out, it is read from weights and {why}" for key in left_out]


def _vetoes(keys: Mapping[str, Key], panel: Sequence[Predict], access: SuspectAccess, bar: float) -> list[str]:
    """Return notes about the independent models that reach the bar themselves with the same marks."""
    notes = []
    for number, model in enumerate(panel):
        others = [other for other in panel if other is not model]
        evidence = _evidence(keys, model, others, access._replace(weights=None))
        model_bits = bits(fisher([item.log_p for item in evidence]))
        if model_bits >= bar:
            notes.append(f"independent panel model {number} reaches {model_bits:.1f} bits itself")
    return notes


def _unlike_a_classifier(evidence: Sequence[Evidence], keys: Mapping[str, Key]) -> str:
    """Return why the suspect is no working classifier by its answers to ordinary images; empty if it is one."""
    ordinary = next((item.ordinary for item in evidence if item.ordinary is not None), None)
    if ordinary is None or not ordinary.queried:
        return ""
    if ordinary.answered < _MIN_ANSWERED * ordinary.queried:
        return f"the suspect refused {ordinary.queried - ordinary.answered} of {ordinary.queried} ordinary images"
    if ordinary.accuracy < CHANCE / next(iter(keys.values())).num_classes:
        return (
            "the suspect classifies ordinary images no better than chance; "
            "its input range or layout may be another one (--calibrate)"
        )
    return ""
