"""Evasion: adversarial examples, and the evaluation of robustness.

Attacks are `(cfg, target, x, y, *, generator) -> images`; they use a model in eval mode and restore it. Attacks with
the access `scores` or `label` accept any `Predict`.
"""

from wootz.attacks.evasion.attacks import ATTACKS
from wootz.attacks.evasion.auto_pgd import APGD, apgd
from wootz.attacks.evasion.autoattack import reference_autoattack
from wootz.attacks.evasion.balls import BALLS, check_ball, check_images, to_pixels
from wootz.attacks.evasion.binarization import BinarizationConfig, BinarizationResult, binarization_test
from wootz.attacks.evasion.black_box import predict_logits
from wootz.attacks.evasion.bounds import Interval, certified, margins, record_batchnorm
from wootz.attacks.evasion.ensemble import AttackStep, EvaluationTarget, attack_ensemble
from wootz.attacks.evasion.evaluation import (
    BLACK_BOX,
    EVALUATIONS,
    NAMES,
    QUICK_ATTACK,
    Robustness,
    accuracy_curve,
    check_black_box,
    evaluate,
)
from wootz.attacks.evasion.hop_skip_jump import HopSkipJump, hop_skip_jump
from wootz.attacks.evasion.linear_bounds import linear_margins
from wootz.attacks.evasion.minimum_norm import FMN, accuracy_at, distances, fmn
from wootz.attacks.evasion.natural_evolution import NES, nes
from wootz.attacks.evasion.objectives import cross_entropy, logit_ratio, margin, second_margin, targeted_logit_ratio
from wootz.attacks.evasion.projected_gradient import PGD, pgd, run_pgd
from wootz.attacks.evasion.reliability import reliability
from wootz.attacks.evasion.square import Square, square

__all__ = [
    "APGD",
    "ATTACKS",
    "AttackStep",
    "BALLS",
    "BLACK_BOX",
    "BinarizationConfig",
    "BinarizationResult",
    "EVALUATIONS",
    "EvaluationTarget",
    "FMN",
    "HopSkipJump",
    "Interval",
    "NAMES",
    "NES",
    "PGD",
    "QUICK_ATTACK",
    "Robustness",
    "Square",
    "accuracy_at",
    "accuracy_curve",
    "apgd",
    "attack_ensemble",
    "binarization_test",
    "certified",
    "check_ball",
    "check_black_box",
    "check_images",
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
    "pgd",
    "predict_logits",
    "record_batchnorm",
    "reference_autoattack",
    "reliability",
    "run_pgd",
    "second_margin",
    "square",
    "targeted_logit_ratio",
    "to_pixels",
]
