"""Against a keyed order of the wrong classes: whatever is linear in an image's components is regressed out.

Made against our own mark `runner-up` by someone who knows its method and not its key: the direction is a linear
trace of the leading principal components in the scores of the wrong classes.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from wootz import checks
from wootz.attacks.adversary import AttackContext, components, without_trace
from wootz.attacks.extraction.asking import answered, require_scores
from wootz.attacks.extraction.learner import Learner, imitate
from wootz.attacks.extraction.ledger import Ledger

_LEAST = 1e-12  # what a probability that was not shown counts as


@dataclass(frozen=True, slots=True, kw_only=True)
class Regress(Learner):
    """`features` leading principal components are regressed out; the mark's default is 30. Adaptive, ours."""

    features: int = 30

    def __post_init__(self) -> None:
        Learner.__post_init__(self)
        checks.at_least(1, features=self.features)


def regress(cfg: Regress, victim: Ledger, context: AttackContext) -> nn.Module:
    """Ask about every image once and learn the answers without that part; true labels are not used."""
    require_scores(victim, "regress")
    pixels = context.data.pixels
    answers = answered(victim, pixels, context)
    features = components(context.data.images(), answers.argmax(1), cfg.features)
    return imitate(
        cfg, context.fresh("thief"), pixels, without_trace(answers.clamp_min(_LEAST).log(), features), context
    )
