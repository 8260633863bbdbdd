"""Distillation (Hinton et al., arXiv 1503.02531): a fresh network learns the answers, and leaves the weights behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from wootz import checks
from wootz.attacks.adversary import AttackContext
from wootz.attacks.evasion import predict_logits
from wootz.attacks.removal.tuning import Tuning, tune


@dataclass(frozen=True, slots=True, kw_only=True)
class Distill(Tuning):
    """What the student learns.

    Attributes:
        labels: the teacher's probabilities (`soft`), or its top-1 (`hard`).
        temperature: of the teacher's softmax. The source warms the student in training as well; ours stays at 1,
            so it really answers as softly as it was taught.
        truth: share of each target that goes to the true label instead.
    """

    labels: Literal["soft", "hard"] = "soft"
    temperature: float = 2.0
    truth: float = 0.5
    epochs: int = 15
    lr: float = 2e-3

    def __post_init__(self) -> None:
        Tuning.__post_init__(self)
        checks.positive(temperature=self.temperature)
        checks.within(0, 1, truth=self.truth)


def distill(cfg: Distill, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a fresh network that was taught by `model`."""
    targets = lessons(cfg, predict_logits(model, context.data.images()), context.data.labels)
    return tune(cfg, context.fresh("student"), context, targets=targets)


def lessons(cfg: Distill, logits: Tensor, labels: Tensor) -> Tensor:
    """The teacher's logits [N, K] and true labels [N] -> target probabilities [N, K]."""
    classes = logits.shape[1]
    soft = (logits / cfg.temperature).softmax(1)
    answers = soft if cfg.labels == "soft" else F.one_hot(logits.argmax(1), classes).float()
    return (1 - cfg.truth) * answers + cfg.truth * F.one_hot(labels, classes).float()
