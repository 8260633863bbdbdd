"""Forgetting the order of the wrong classes: made against our own mark `runner-up`, its method known, its key not.

The mark is a linear trace of an image's principal components in its wrong-class scores. Whoever knows that much can
have the model learn its own answers with everything linear taken out, the owner's direction and all.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from wootz import checks
from wootz.attacks.adversary import AttackContext, components, without_trace
from wootz.attacks.evasion import predict_logits
from wootz.attacks.removal.tuning import Tuning, tune
from wootz.data import Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Forget(Tuning):
    """What is taken out: all that is linear in the first `features` principal components, class by class."""

    features: int = 30
    epochs: int = 10

    def __post_init__(self) -> None:
        Tuning.__post_init__(self)
        checks.at_least(1, features=self.features)


def forget(cfg: Forget, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a copy of `model` that learned its own answers without that part; true labels are not used."""
    x = context.data.images()
    answers = predict_logits(model, x).log_softmax(1)
    top = answers.argmax(1)
    return tune(
        cfg,
        model,
        context,
        share=Split(context.data.pixels, top),
        targets=without_trace(answers, components(x, top, cfg.features)),
    )
