"""From evidence to a word. A verdict is a value: not finding a mark is no error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from wootz.errors import ConfigError
from wootz.ownership import DirectionKey, Key, LabelKey, WeightKey
from wootz.types import Access, Predict, Weights
from wootz.verify.early import Decoys, early_evidence
from wootz.verify.evidence import EVIDENCE, Evidence, walk_evidence
from wootz.verify.exact import bits, fisher
from wootz.verify.walks import Ways

Word: TypeAlias = Literal["KEY-DEPENDENT", "NOT SHOWN", "INCONCLUSIVE", "INVALID CLAIM"]

EXIT_CODES: Mapping[Word, int] = {"KEY-DEPENDENT": 0, "NOT SHOWN": 1, "INCONCLUSIVE": 3, "INVALID CLAIM": 4}

DEFAULT_BAR = 40.0
UNSTAMPED_BAR = 80.0


def bar_of(*, stamped: bool) -> float:
    """Return the bits that a claim needs.

    40 where keys were drawn after a time token, so that every try of another key costs a request; 80 without one, so
    that trying keys is out of reach.
    """
    return DEFAULT_BAR if stamped else UNSTAMPED_BAR


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The word, the bits over all marks together, the evidence of each mark, and remarks for a reader."""

    word: Word
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
    ways: Ways | None = None,
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
        early: ask triggers one at a time and stop at the bar; other marks are asked only where that is not reached.
            Such a test looks twice and pays one bit for it.
        weights: shows the suspect's weights, where it has any to show; see `wootz.verify.weights_of`.
        ways: out of the classes of images: with access `label`, marks that need more than labels follow them.

    Raises:
        ConfigError: no mark can be tested with this access.
    """
    allowance = math.log2(tries)
    labelled = next((key for key in keys.values() if isinstance(key, LabelKey)), None)
    if early and labelled is not None:
        rest = {
            name: key for name, key in keys.items() if key is not labelled and _testable(key, access, weights, ways)
        }
        allowance += bool(rest)
        decoys = next((Decoys(k.probes, k.probe_labels) for k in keys.values() if isinstance(k, DirectionKey)), None)
        first, stopped = early_evidence(labelled, suspect, bar=bar + allowance, decoys=decoys, budget=budget)
        found = [first] if stopped else [first, *_evidence(rest, suspect, panel, access, budget, weights, ways)]
    else:
        found = _evidence(keys, suspect, panel, access, budget, weights, ways)
    if not found:
        why = "".join(f" ({note})" for note in _unread([], keys, access, weights))
        raise ConfigError(f"access = {access!r}: none of the marks {', '.join(keys)} can be tested with it{why}")
    total = max(0.0, bits(fisher([item.log_p for item in found])) - allowance)
    word: Word = "KEY-DEPENDENT" if total >= bar else "NOT SHOWN"
    notes = [f"{allowance:.1f} bits are taken off for other tries and looks"] if allowance else []
    if word == "KEY-DEPENDENT":
        tested = {item.mark for item in found}
        used = {name: key for name, key in keys.items() if key.mark in tested}
        vetoes = _vetoes(used, panel, access, budget, ways, bar)
        word, notes = ("INVALID CLAIM" if vetoes else word), notes + vetoes
    if any(item.details.get("evasive") for item in found):
        notes.append("answers differ: the suspect leaves triggers unanswered far more often than ordinary images")
    if word == "NOT SHOWN" and _answers_at_chance(found, keys):
        word = "INCONCLUSIVE"
        notes.append("the suspect answers ordinary images no better than chance: is its input range or layout another?")
    notes += _unread(found, keys, access, weights)
    return Verdict(word=word, bits=total, evidence=tuple(found), access=access, bar=bar, notes=tuple(notes))


def _evidence(
    keys: Mapping[str, Key],
    suspect: Predict,
    panel: Sequence[Predict],
    access: Access,
    budget: int | None,
    weights: Weights | None,
    ways: Ways | None,
) -> list[Evidence]:
    found = []
    for key in keys.values():
        if ways is not None and access == "label" and isinstance(key, DirectionKey):
            found.append(walk_evidence(key, suspect, panel, ways))
            continue
        item = EVIDENCE[type(key)](key, suspect, panel, access=access, budget=budget, weights=weights)
        if item is not None:
            found.append(item)
    return found


def _testable(key: Key, access: Access, weights: Weights | None, ways: Ways | None) -> bool:
    if isinstance(key, WeightKey):
        return access == "weights" and weights is not None
    return access != "label" or not isinstance(key, DirectionKey) or ways is not None


def _unread(found: Sequence[Evidence], keys: Mapping[str, Key], access: Access, weights: Weights | None) -> list[str]:
    """Say of marks in weights which were left out, and which found nothing to read."""
    notes = [f"{item.mark}: the suspect has no {item.details['weight']} of the registered shape; it counts as p = 1"
             for item in found if item.details.get("readable") is False]  # fmt: skip
    why = "the suspect shows none" if access == "weights" else f"access is {access}"
    left_out = [
        key for key in keys.values() if isinstance(key, WeightKey) and not _testable(key, access, weights, None)
    ]
    return notes + [f"{key.mark}: left out, it is read from weights and {why}" for key in left_out]


def _vetoes(
    keys: Mapping[str, Key],
    panel: Sequence[Predict],
    access: Access,
    budget: int | None,
    ways: Ways | None,
    bar: float,
) -> list[str]:
    """Say which independent models reach the bar by the same marks themselves."""
    notes = []
    for number, member in enumerate(panel):
        others = [other for other in panel if other is not member]
        evidence = _evidence(keys, member, others, access, budget, None, ways)
        theirs = bits(fisher([item.log_p for item in evidence]))
        if theirs >= bar:
            notes.append(f"independent panel model {number} reaches {theirs:.1f} bits itself")
    return notes


def _answers_at_chance(found: Sequence[Evidence], keys: Mapping[str, Key]) -> bool:
    rates = [item.details["accuracy"] for item in found if {"probes", "decoys"} & item.details.keys()]
    return bool(rates) and rates[0] < 1.5 / next(iter(keys.values())).num_classes
