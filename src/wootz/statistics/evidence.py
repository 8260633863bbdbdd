"""The result of the exact test of one mark: p-value, statistic, null distribution, and the counts that it rests on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from wootz.statistics.queries import OrdinaryAnswers
from wootz.statistics.tails import bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The evidence of one mark.

    Attributes:
        mark: The name of the mark.
        log_p: ln p under the null hypothesis that the suspect was made without the key.
        queries: The number of queries spent.
        statistic: The value that is reported, see `measure`.
        null: The null distribution of the test.
        measure: What `statistic` is.
        ordinary: How the suspect answered ordinary images; None if the test queries none.
        discount: The bits that were subtracted from this evidence.
    """

    mark: str
    log_p: float
    queries: int
    statistic: float
    null: str
    measure: str
    ordinary: OrdinaryAnswers | None = None
    discount: float = 0.0

    @property
    def bits(self) -> float:
        """-log2 p, at least 0."""
        return bits(self.log_p)

    @property
    def details(self) -> dict[str, Any]:
        """The counts of the test as plain JSON, for records."""
        return self._counts() | ({"discount": round(self.discount, 2)} if self.discount else {})

    def _counts(self) -> dict[str, Any]:
        return {}


class NonResponse(NamedTuple):
    """The numbers of triggers and of decoys that were not answered."""

    triggers: int = 0
    decoys: int = 0


class SequentialSummary(NamedTuple):
    """How a sequential test of triggers went.

    Attributes:
        stopped: Whether it reached the required bits and stopped.
        fixed_bits: The bits of the exact tail as if the number of queries had been fixed, for comparison only.
        unanswered: The missing answers.
        selective_refusal: Whether triggers went unanswered significantly more often than decoys.
    """

    stopped: bool
    fixed_bits: float
    unanswered: NonResponse
    selective_refusal: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelEvidence(Evidence):
    """Evidence of keyed labels.

    Attributes:
        hits: The number of answers that are the keyed label.
        triggers: The number of images queried.
        trials: The number of answers that count: all of them, or those that differ from the base class.
        chance: The probability of a hit per trial under the null.
        rule: What the labels were drawn from, see `wootz.keys.LabelKey`.
        unconditional_bits: For a service's log, the bits of so many hits of all images at chance 1/K, the measure of
            DAWN (Szyller et al., arXiv 1906.00830); None for other images.
        ranks: The number of images by the rank of their keyed label among the wrong classes; None if only answers were
            tested.
        sequential: The summary of the sequential test that came first, if any; its decoys are `ordinary`.
    """

    hits: int
    triggers: int
    trials: int
    chance: float
    rule: str
    unconditional_bits: float | None = None
    ranks: tuple[int, ...] | None = None
    sequential: SequentialSummary | None = None

    def _counts(self) -> dict[str, Any]:
        counts: dict[str, Any] = {
            "hits": self.hits,
            "triggers": self.triggers,
            "trials": self.trials,
            "chance": self.chance,
            "rule": self.rule,
        }
        if self.sequential is not None:
            counts |= {"stopped": self.sequential.stopped, "fixed": round(self.sequential.fixed_bits, 2)}
            if self.ordinary is not None:
                counts |= {"decoys": self.ordinary.queried} | _ordinary(self.ordinary)
                counts["unanswered"] = list(self.sequential.unanswered)
                counts["evasive"] = self.sequential.selective_refusal
        if self.unconditional_bits is not None:
            counts |= {
                "accuracy": self.hits / max(1, self.triggers),
                "unconditional": round(self.unconditional_bits, 2),
            }
        if self.ranks is not None:
            counts["places"] = list(self.ranks)
        return counts


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceEvidence(Evidence):
    """Evidence of pairwise preferences.

    Attributes:
        decided: The number of images.
        changed: The number of images for which the key preferred the second class.
        hits: The number of answers that are the preferred class.
        trials: The number of answers that are either class of the pair.
    """

    decided: int
    changed: int
    hits: int
    trials: int

    def _counts(self) -> dict[str, Any]:
        return {"decided": self.decided, "changed": self.changed, "hits": self.hits, "trials": self.trials}


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfEvidence(Evidence):
    """Evidence of an embedded half of candidate triggers.

    Attributes:
        accuracy: The fraction of embedded candidates answered correctly, the "watermark accuracy" of the literature.
        control_accuracy: The same on the candidates that were not embedded.
        panel_accuracy: The same as `accuracy` for each panel model.
        bit_error: For candidates that carry a message, the fraction of its bits that are read wrongly; else None.
        panel_bit_error: The same for each panel model.
    """

    accuracy: float
    control_accuracy: float
    panel_accuracy: tuple[float, ...]
    bit_error: float | None = None
    panel_bit_error: tuple[float, ...] = ()

    def _counts(self) -> dict[str, Any]:
        counts: dict[str, Any] = {
            "accuracy": self.accuracy,
            "control": self.control_accuracy,
            "panel": list(self.panel_accuracy),
        }
        if self.bit_error is not None:
            counts |= {"bit_error": self.bit_error, "panel_bit_error": list(self.panel_bit_error)}
        return counts


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectionEvidence(Evidence):
    """Evidence of a keyed direction.

    Attributes:
        dimensions: The number of dimensions in which the keyed direction is isotropic.
        probes: The number of images that the estimate used.
        parts: The bits of the part of the direction that weighs pixels and of the part that weighs amplitudes; empty if
            the key has one part only.
    """

    dimensions: int
    probes: int
    parts: tuple[float, ...] = ()

    def _counts(self) -> dict[str, Any]:
        counts: dict[str, Any] = {"dimensions": self.dimensions, "probes": self.probes}
        if self.parts:
            counts["parts"] = [round(part, 2) for part in self.parts]
        return counts | (_ordinary(self.ordinary) if self.ordinary is not None else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightEvidence(Evidence):
    """Evidence of a message in weights.

    Attributes:
        weight: The name of the tensor that carries the message.
        trials: The number of bits of the message.
        hits: The number of bits read correctly; None if the suspect has no such tensor.
    """

    weight: str
    trials: int
    hits: int | None

    def _counts(self) -> dict[str, Any]:
        counts: dict[str, Any] = {"weight": self.weight, "trials": self.trials, "readable": self.hits is not None}
        if self.hits is not None:
            counts |= {"hits": self.hits, "bit_error_rate": 1 - self.hits / self.trials}
        return counts


def _ordinary(answers: OrdinaryAnswers) -> dict[str, Any]:
    return {"accuracy": answers.accuracy, "asked": answers.queried, "answered": answers.answered}
