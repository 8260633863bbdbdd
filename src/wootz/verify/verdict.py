"""From evidence to a word. A verdict is a value: not finding a mark is no error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from wootz.errors import ConfigError
from wootz.ownership import Key
from wootz.types import Access, Predict
from wootz.verify.evidence import EVIDENCE, Evidence
from wootz.verify.exact import bits, fisher

Word: TypeAlias = Literal["KEY-DEPENDENT", "NOT SHOWN", "INCONCLUSIVE", "INVALID CLAIM"]

EXIT_CODES: Mapping[Word, int] = {"KEY-DEPENDENT": 0, "NOT SHOWN": 1, "INCONCLUSIVE": 3, "INVALID CLAIM": 4}

DEFAULT_BAR = 40.0


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
) -> Verdict:
    """Test a suspect against every key that its access allows, and combine.

    Args:
        keys: by mark; all of them count, so that none is picked after seeing the answers.
        suspect: whatever answers.
        panel: independent models: they sharpen the direction test, and can veto. A panel model that passes
            the bar itself shows that something is wrong with the claim: INVALID CLAIM.
        access: what the suspect shows, `scores` or top-1 `label`.
        bar: bits that make KEY-DEPENDENT.
        budget: queries a mark may spend at most, in registered order; None spends all.

    Raises:
        ConfigError: no mark can be tested with this access.
    """
    found = _evidence(keys, suspect, panel, access, budget)
    if not found:
        raise ConfigError(f"access = {access!r}: none of the marks {', '.join(keys)} can be tested with it")
    total = bits(fisher([item.log_p for item in found]))
    notes: list[str] = []
    word: Word = "KEY-DEPENDENT" if total >= bar else "NOT SHOWN"
    if word == "KEY-DEPENDENT":
        for number, member in enumerate(panel):
            rest = [other for other in panel if other is not member]
            theirs = bits(fisher([e.log_p for e in _evidence(keys, member, rest, access, budget)]))
            if theirs >= bar:
                word = "INVALID CLAIM"
                notes.append(f"independent panel model {number} reaches {theirs:.1f} bits itself")
    elif _answers_at_chance(found, keys):
        word = "INCONCLUSIVE"
        notes.append("the suspect answers ordinary images no better than chance: is its input range or layout another?")
    return Verdict(word=word, bits=total, evidence=tuple(found), access=access, bar=bar, notes=tuple(notes))


def _evidence(
    keys: Mapping[str, Key], suspect: Predict, panel: Sequence[Predict], access: Access, budget: int | None
) -> list[Evidence]:
    tests = (EVIDENCE[type(key)](key, suspect, panel, access=access, budget=budget) for key in keys.values())
    return [item for item in tests if item is not None]


def _answers_at_chance(found: Sequence[Evidence], keys: Mapping[str, Key]) -> bool:
    rates = [item.details["accuracy"] for item in found if "probes" in item.details]
    return bool(rates) and rates[0] < 1.5 / next(iter(keys.values())).num_classes
