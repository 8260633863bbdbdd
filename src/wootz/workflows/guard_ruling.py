"""Whether a judge may count a guard's log: its owner could have chosen its images.

The owner knows the guard's coins. If he writes the log himself, he logs only images whose coin agrees with what
independent models answer, and later models that never met the key agree with the coins. The age of the log does not
help. A judge therefore counts a log only beside independent models of her own, and only the entries that the registered
model explains:

- An entry counts where the registered model, asked again, is unsure within the logged gap and finds the logged pair of
  classes likeliest. So the owner does not choose the pair.
- Each independent model, and all of them averaged, is tested like the suspect. One that accesses `CHOSEN` bits shows
  that images were chosen, and the log does not count. In a log that was not chosen this happens with probability at
  most 2^-`CHOSEN` per test, whatever the models are.
- The highest of their bits comes off the suspect's.

What is proven: if the owner did not choose the images, the bits are exact. If he did, and the suspect and k independent
models are exchangeable given all that he knew, then the suspect is the one of k + 1 models that accesses the threshold
while the others stay below it with probability at most 1 / (k + 1), and no rule that compares k + 1 such models does
better. `docs/guard.md` has the proof.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from wootz.keys import DirectionKey, Key, LabelKey, PreferenceKey
from wootz.statistics.exact_tests import EXACT_TESTS
from wootz.statistics.queries import SuspectAccess, query_log_scores, to_log_scores
from wootz.types import Predict
from wootz.workflows.certificate import SealedLog

CHOSEN = 10.0
"""Bits of an independent model from which on a log counts as chosen."""

_TOLERANCE = 1e-3  # of log-scores, between computers
_SIGMAS = 4.0  # that the share of unsure probes may exceed the registered one by


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRuling:
    """Which keys are tested, what comes off each mark's bits, and why.

    Attributes:
        keys: by mark; without the guard where its log does not count.
        discounts: bits by mark.
        notes: remarks for a reader.
    """

    keys: Mapping[str, Key] = field(repr=False)
    discounts: Mapping[str, float]
    notes: tuple[str, ...]


def rule_on_log(
    keys: Mapping[str, Key],
    log: SealedLog | None,
    registration: Mapping[str, Any],
    registered: Predict | None,
    panel: Sequence[Predict],
    independents: Sequence[Predict],
    access: SuspectAccess,
) -> LogRuling:
    """Decide whether a guard's log counts.

    Args:
        keys: what the claim opened.
        log: the guard's, as it was sealed; None where the claim has none.
        registration: what the keys were drawn after.
        registered: scores of the model that was registered with the key; None where the judge has it not.
        panel: the registered independent models.
        independents: the judge's own.
        access: how the suspect is tested; independent models are tested so, and by scores on all entries too.
    """
    if log is None:
        return LogRuling(keys=keys, discounts={}, notes=())
    key = keys[log.mark]
    assert isinstance(key, PreferenceKey | LabelKey)
    rest = {name: other for name, other in keys.items() if name != log.mark}

    def refused(why: str) -> LogRuling:
        return LogRuling(keys=rest, discounts={}, notes=(f"the guard does not count: {why}",))

    if registered is None:
        return refused("its log cannot be checked without the registered model (--model)")
    if not independents:
        return refused("it needs an independent model of the judge's own beside it (--independent)")
    if isinstance(key, PreferenceKey):
        most = str(registration["marks"][log.mark]["facts"]["most"])
        probes = next((other for other in rest.values() if isinstance(other, DirectionKey)), None)
        if probes is not None and not _is_rare(probes, registered, log.gap, float(Fraction(most))):
            return refused(f"its log calls more than the registered share of {most} of ordinary images unsure")
    rows = _explained(key, registered, log.gap)
    if not rows.any():
        return refused("the registered model explains no entry of its log")
    key, highest = _subset(key, rows), 0.0
    for name, predict in _tested(independents):
        tests = (
            EXACT_TESTS[type(key)](key, predict, panel, how) for how in (SuspectAccess(), access._replace(weights=None))
        )
        found = max(evidence.bits for evidence in tests if evidence)
        if found >= CHOSEN:
            return refused(f"its images were chosen: {name} agrees with its coins ({found:.1f} bits)")
        highest = max(highest, found)
    notes = (
        f"the guard counts on condition that the suspect did not exist before {log.sealed.isoformat()}",
        f"{int(rows.sum())} of {len(rows)} entries of the guard's log count. Its bits hold if its owner did not choose "
        f"the images; if he did, {len(independents)} independent models bound the chance of a false verdict by "
        f"1/{len(independents) + 1}",
    )
    return LogRuling(keys=rest | {log.mark: key}, discounts={log.mark: log.length.bits + highest}, notes=notes)


def _tested(independents: Sequence[Predict]) -> Iterator[tuple[str, Predict]]:
    """Give each independent model, then their average."""
    for number, predict in enumerate(independents, 1):
        yield f"independent model {number}", predict
    if len(independents) > 1:
        yield "the average of the independent models", _averaged(independents)


def _averaged(models: Sequence[Predict]) -> Predict:
    def predict(x: Tensor) -> Tensor:
        return torch.stack([to_log_scores(model(x)).log_softmax(1) for model in models]).mean(0)

    return predict


def _is_rare(key: DirectionKey, registered: Predict, gap: float, most: float) -> bool:
    """Return whether the registered model is unsure about no more of the registered probes than it may be."""
    top = query_log_scores(registered, key.probes).topk(2, dim=1).values
    share = float((top[:, 0] - top[:, 1] <= gap).double().mean())
    return share <= most + _SIGMAS * math.sqrt(most * (1 - most) / len(key.probes))


def _subset(key: PreferenceKey | LabelKey, rows: Tensor) -> PreferenceKey | LabelKey:
    """Return the key of these images alone."""
    if isinstance(key, PreferenceKey):
        return replace(
            key,
            pixels=key.pixels[rows],
            first=key.first[rows],
            second=key.second[rows],
            preferred=key.preferred[rows],
        )
    return replace(
        key, pixels=key.pixels[rows], base_pixels=key.base_pixels[rows], base=key.base[rows], labels=key.labels[rows]
    )


def _explained(key: PreferenceKey | LabelKey, registered: Predict, gap: float) -> Tensor:
    """Return which entries, bool [n], the registered model gives rise to: its likeliest classes, unsure enough."""
    scores = query_log_scores(registered, key.pixels)
    top = scores.topk(min(3, scores.shape[1]), dim=1).values
    first = key.first if isinstance(key, PreferenceKey) else key.base
    own = scores.gather(1, first[:, None]).flatten()
    right = own >= top[:, 0] - _TOLERANCE
    if isinstance(key, PreferenceKey):
        second = scores.gather(1, key.second[:, None]).flatten()
        right &= (second >= top[:, 1] - _TOLERANCE) & (own - second <= gap + _TOLERANCE)
    found: Tensor = right & ~scores.isnan().any(1)
    return found
