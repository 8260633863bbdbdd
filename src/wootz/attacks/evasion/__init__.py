"""Evasion: small changes of an image that change the answer; attacks, and honest evaluation.

Attacks take `(cfg, target, x, y, *, generator)`, borrow the model and leave no trace on it. Those whose access is
`scores` or `label` take any `Predict`.
"""

from wootz.attacks.evasion.active_test import Planted, Planting, active_test
from wootz.attacks.evasion.auto_pgd import APGD, apgd
from wootz.attacks.evasion.autoattack import reference_autoattack
from wootz.attacks.evasion.balls import BALLS, to_pixels
from wootz.attacks.evasion.bounds import Interval, certified, margins, noting
from wootz.attacks.evasion.evaluation import EVALUATIONS, Robustness, accuracy_curve, evaluate, predict_logits
from wootz.attacks.evasion.hop_skip_jump import HopSkipJump, hop_skip_jump
from wootz.attacks.evasion.linear_bounds import linear_margins
from wootz.attacks.evasion.minimum_norm import FMN, accuracy_at, distances, fmn
from wootz.attacks.evasion.natural_evolution import NES, nes
from wootz.attacks.evasion.objectives import cross_entropy, logit_ratio, margin, second_margin, targeted_logit_ratio
from wootz.attacks.evasion.projected_gradient import PGD, climb, pgd
from wootz.attacks.evasion.reliability import reliability
from wootz.attacks.evasion.square import Square, square
from wootz.attacks.evasion.table import ATTACKS
from wootz.attacks.evasion.worst_case import Step, Trial, worst_case

__all__ = [
    "APGD",
    "ATTACKS",
    "BALLS",
    "EVALUATIONS",
    "FMN",
    "HopSkipJump",
    "Interval",
    "NES",
    "PGD",
    "Planted",
    "Planting",
    "Robustness",
    "Square",
    "Step",
    "Trial",
    "accuracy_at",
    "accuracy_curve",
    "active_test",
    "apgd",
    "certified",
    "climb",
    "cross_entropy",
    "distances",
    "evaluate",
    "fmn",
    "hop_skip_jump",
    "linear_margins",
    "logit_ratio",
    "margin",
    "margins",
    "nes",
    "noting",
    "pgd",
    "predict_logits",
    "reference_autoattack",
    "reliability",
    "square",
    "second_margin",
    "targeted_logit_ratio",
    "to_pixels",
    "worst_case",
]
