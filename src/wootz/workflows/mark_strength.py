"""How strongly a model carries marks while it is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

from torch import nn

from wootz.attacks.evasion import predict_logits
from wootz.errors import ConfigError
from wootz.keys import Key, LabelKey, OwnerKeys
from wootz.statistics import verify
from wootz.suspects.files import weights_of
from wootz.training import Marking
from wootz.workflows.guard_log import without_guard
from wootz.workflows.reference_models import ReferenceModels

_QUERIES = 2000  # per mark and measurement


class MarkStrength:
    """The bits of each mark in a model when they were last measured.

    Args:
        keys: the owner's keys.
        panel: the reference models.
        cfg: how many bits are wanted, and how evenly.

    Attributes:
        by_mark: the bits of each mark; empty before the first measurement.
        bits: those of all marks that were measured last, together.

    Raises:
        ConfigError: a model carries none of the marks.
    """

    def __init__(self, keys: OwnerKeys, panel: ReferenceModels, cfg: Marking) -> None:
        self.by_mark, self.bits = dict[str, float](), 0.0
        self._keys, self._panel, self._cfg = without_guard(keys.by_mark), panel, cfg
        if not self._keys:
            raise ConfigError(f"marks: a model carries none of {', '.join(keys.by_mark)}; add triggers or runner-up")

    def __str__(self) -> str:
        return ", ".join(f"{name} {bits:.0f}" for name, bits in self.by_mark.items()) or "not measured yet"

    @property
    def marks(self) -> frozenset[str]:
        """The marks that a model carries."""
        return frozenset(self._keys)

    def lacking(self, model: nn.Module, step: int) -> frozenset[str]:
        """Measure the bits in `model`, and return the marks that are not strong enough after so many steps.

        Triggers take the fewest queries: until they have their even part, nothing else is measured.
        """
        part = self._cfg.bits / len(self._keys)
        triggers = {name: key for name, key in self._keys.items() if isinstance(key, LabelKey)}
        if triggers and self._measure(model, triggers) < part * len(triggers):
            return self.marks
        self.measure(model)
        if step <= self._cfg.even_steps:
            return frozenset(name for name, bits in self.by_mark.items() if bits < part)
        return frozenset() if self.bits >= self._cfg.bits else self.marks

    def measure(self, model: nn.Module) -> float:
        """Measure every mark in `model`, in eval mode, and return the bits of all together."""
        return self._measure(model, self._keys)

    def _measure(self, model: nn.Module, keys: Mapping[str, Key]) -> float:
        verdict = verify(
            keys,
            partial(predict_logits, model),
            panel=self._panel.answers,
            access="weights",
            weights=weights_of(model),
            budget=_QUERIES,
            bar=math.inf,  # asks no reference model for the bits that it has itself
        )
        self.by_mark |= {item.mark: item.bits for item in verdict.evidence}
        self.bits = verdict.bits
        return verdict.bits
