"""Evasion: small changes of an image that change the answer; the PGD core, and honest evaluation.

Attacks take `(cfg, model, x, y, *, generator)`, borrow the model and leave no trace on it.
"""

from wootz.evasion.autoattack import reference_autoattack
from wootz.evasion.balls import BALLS
from wootz.evasion.evaluation import EVALUATIONS, Robustness, accuracy_curve, evaluate, predict_logits
from wootz.evasion.objectives import cross_entropy, margin
from wootz.evasion.projected_gradient import PGD, pgd

__all__ = [
    "BALLS",
    "EVALUATIONS",
    "PGD",
    "Robustness",
    "accuracy_curve",
    "cross_entropy",
    "evaluate",
    "margin",
    "pgd",
    "predict_logits",
    "reference_autoattack",
]
