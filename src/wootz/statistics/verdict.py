"""From evidence to a word. A verdict is a value: not finding a mark is no error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from wootz.errors import ConfigError
from wootz.keys import DirectionKey, Key, LabelKey, WeightKey
from wootz.statistics.answers import recalled
from wootz.statistics.boundary_search import BoundarySearch
from wootz.statistics.early import Decoys, early_evidence
from wootz.statistics.evidence import EVIDENCE, Evidence, label_evidence
from wootz.statistics.exact import bits, fisher
from wootz.statistics.reach import Reach
from wootz.statistics.wrong_classes import has_places
from wootz.types import Access, Predict, Weights

Word: TypeAlias = Literal["KEY-DEPENDENT", "NOT SHOWN", "INCONCLUSIVE", "INVALID CLAIM"]

EXIT_CODES: Mapping[Word, int] = {"KEY-DEPENDENT": 0, "NOT SHOWN": 1, "INCONCLUSIVE": 3, "INVALID CLAIM": 4}

DEFAULT_BAR = 40.0
UNSTAMPED_BAR = 80.0
_ANSWERED = 0.5  # share of ordinary images that a suspect answers at least, if its answers say anything

CHANCE = 1.5
"""An accuracy below this many times 1 / K is no better than chance."""


def required_bits(*, timestamped: bool) -> float:
    """Return the bits that a claim needs.

    40 where keys were drawn after a time token, so that every try of another key costs a request; 80 without one, so
    that trying keys is out of reach.
    """
    return DEFAULT_BAR if timestamped else UNSTAMPED_BAR


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The word, the bits over all marks together, the evidence of each mark, and remarks for a reader."""

    outcome: Word
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
    bar: float = DEFAULT_BAR,
    budget: int | None = None,
    tries: int = 1,
    early: bool = False,
    weights: Weights | None = None,
    boundary_search: BoundarySearch | None = None,
    discounts: Mapping[str, float] | None = None,
) -> Verdict:
    """Test a suspect against every key that its access allows, and combine.

    Args:
        keys: by mark; all of them count, so that none is picked after seeing the answers.
        suspect: whatever answers.
        panel: independent models: they sharpen the direction test, and can veto. A panel model that passes
            the bar itself shows that something is wrong with the claim: INVALID CLAIM.
        access: what is seen of the suspect: top-1 `label`, `scores`, or `weights` and so its scores too.
        bar: bits that make KEY-DEPENDENT.
        budget: queries a mark may spend at most, in registered order; None spends all.
        tries: in how many ways the claimant could have been lucky (tranches, registrations, suspects looked at);
            log2 of it is taken off the bits.
        early: ask triggers one at a time and stop at the bar; other marks are asked, and the places of the same
            triggers' labels read, only where that is not reached. Such a test looks twice and pays one bit for it.
            No image is asked twice.
        weights: shows the suspect's weights, where it has any to show; see `wootz.statistics.weights_of`.
        boundary_search: out of images: with access `label`, marks that say more of where answers change follow them.
        discounts: by mark, bits that come off its own evidence before marks are combined.

    Raises:
        ConfigError: no mark can be tested with this access.
    """
    reach, allowance = Reach(access, budget, weights, boundary_search), math.log2(tries)
    labelled = next((key for key in keys.values() if isinstance(key, LabelKey)), None)
    if early and labelled is not None:
        rest = {name: key for name, key in keys.items() if key is not labelled and _testable(key, reach)}
        allowance += bool(rest) or has_places(labelled, reach)
        suspect = recalled(suspect)
        decoys = next((Decoys(k.probes, k.probe_labels) for k in keys.values() if isinstance(k, DirectionKey)), None)
        first, stopped = early_evidence(labelled, suspect, bar=bar + allowance, decoys=decoys, budget=budget)
        if stopped:
            found = [first]
        else:
            found = [_again(first, labelled, suspect, panel, reach), *_evidence(rest, suspect, panel, reach)]
    else:
        found = _evidence(keys, suspect, panel, reach)
    if not found:
        why = "".join(f" ({note})" for note in _unread([], keys, reach))
        raise ConfigError(f"access = {access!r}: none of the marks {', '.join(keys)} can be tested with it{why}")
    found = [_discounted(item, (discounts or {}).get(item.mark, 0.0)) for item in found]
    total = max(0.0, bits(fisher([item.log_p for item in found])) - allowance)
    outcome: Word = "KEY-DEPENDENT" if total >= bar else "NOT SHOWN"
    notes = [f"{allowance:.1f} bits are taken off for other tries and looks"] if allowance else []
    if outcome == "KEY-DEPENDENT":
        tested = {item.mark for item in found}
        used = {name: key for name, key in keys.items() if key.mark in tested}
        vetoes = _vetoes(used, panel, reach, bar)
        outcome, notes = ("INVALID CLAIM" if vetoes else outcome), notes + vetoes
    if any(item.details.get("evasive") for item in found):
        notes.append("answers differ: the suspect leaves triggers unanswered far more often than ordinary images")
    if outcome == "NOT SHOWN" and (why := _unlike_a_classifier(found, keys)):
        outcome = "INCONCLUSIVE"
        notes.append(why)
    notes += _unread(found, keys, reach)
    return Verdict(outcome=outcome, bits=total, evidence=tuple(found), access=access, bar=bar, notes=tuple(notes))


def _evidence(keys: Mapping[str, Key], suspect: Predict, panel: Sequence[Predict], reach: Reach) -> list[Evidence]:
    found = (EVIDENCE[type(key)](key, suspect, panel, reach) for key in keys.values())
    return [item for item in found if item is not None]


def _discounted(item: Evidence, discount: float) -> Evidence:
    """Return the evidence with p multiplied by 2^discount, at most 1."""
    if not discount:
        return item
    details = item.details | {"discount": round(discount, 2)}
    return replace(item, log_p=min(0.0, item.log_p + discount * math.log(2)), details=details)


def _again(first: Evidence, key: LabelKey, suspect: Predict, panel: Sequence[Predict], reach: Reach) -> Evidence:
    """Read the triggers that were asked one by one by the places of their labels; where they can't be, that stands."""
    asked = first.details["triggers"]
    if not asked:
        return first
    found = label_evidence(key, suspect, panel, reach._replace(budget=asked))
    if "places" not in found.details:
        return first
    queries = first.queries + found.queries - asked
    return replace(found, queries=queries, details=first.details | found.details)


def _testable(key: Key, reach: Reach) -> bool:
    if isinstance(key, WeightKey):
        return reach.access == "weights" and reach.weights is not None
    return reach.access != "label" or not isinstance(key, DirectionKey) or reach.boundary_search is not None


def _unread(found: Sequence[Evidence], keys: Mapping[str, Key], reach: Reach) -> list[str]:
    """Say of marks in weights which were left out, and which found nothing to read."""
    notes = [
        f"{item.mark}: the suspect has no {item.details['weight']} of the registered shape; it counts as p = 1"
        for item in found
        if item.details.get("readable") is False
    ]
    why = "the suspect shows none" if reach.access == "weights" else f"access is {reach.access}"
    left_out = [key for key in keys.values() if isinstance(key, WeightKey) and not _testable(key, reach)]
    return notes + [f"{key.mark}: left out, it is read from weights and {why}" for key in left_out]


def _vetoes(keys: Mapping[str, Key], panel: Sequence[Predict], reach: Reach, bar: float) -> list[str]:
    """Say which independent models reach the bar by the same marks themselves."""
    notes = []
    for number, member in enumerate(panel):
        others = [other for other in panel if other is not member]
        evidence = _evidence(keys, member, others, reach._replace(weights=None))
        theirs = bits(fisher([item.log_p for item in evidence]))
        if theirs >= bar:
            notes.append(f"independent panel model {number} reaches {theirs:.1f} bits itself")
    return notes


def _unlike_a_classifier(found: Sequence[Evidence], keys: Mapping[str, Key]) -> str:
    """Say what is wrong with the suspect's answers to ordinary images, or nothing where most are answered, and well."""
    about = next((item.details for item in found if {"probes", "decoys"} & item.details.keys()), None)
    if about is None or not about["asked"]:
        return ""
    asked, answered = about["asked"], about["answered"]
    if answered < _ANSWERED * asked:
        return f"the suspect refused {asked - answered} of {asked} ordinary images"
    if about["accuracy"] < CHANCE / next(iter(keys.values())).num_classes:
        return "the suspect answers ordinary images no better than chance: is its input range or layout another?"
    return ""
