"""Evasion: small changes of an image that change the answer; attacks, and honest evaluation.

Attacks take `(cfg, target, x, y, *, generator)`, borrow the model and leave no trace on it. Those whose access is
`scores` or `label` take any `Predict`.
"""

from wootz.evasion.active_test import Planted, Planting, active_test
from wootz.evasion.auto_pgd import APGD, apgd
from wootz.evasion.autoattack import reference_autoattack
from wootz.evasion.balls import BALLS, to_pixels
from wootz.evasion.bounds import Interval, certified, margins, noting
from wootz.evasion.evaluation import EVALUATIONS, Robustness, accuracy_curve, evaluate, predict_logits
from wootz.evasion.hop_skip_jump import HopSkipJump, hop_skip_jump
from wootz.evasion.linear_bounds import linear_margins
from wootz.evasion.minimum_norm import FMN, accuracy_at, distances, fmn
from wootz.evasion.natural_evolution import NES, nes
from wootz.evasion.objectives import cross_entropy, logit_ratio, margin, second_margin, targeted_logit_ratio
from wootz.evasion.projected_gradient import PGD, climb, pgd
from wootz.evasion.reliability import reliability
from wootz.evasion.square import Square, square
from wootz.evasion.table import ATTACKS
from wootz.evasion.worst_case import Step, Trial, worst_case

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
