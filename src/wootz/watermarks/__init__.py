"""Marks that prove whose a model is: how their material is made, and how training writes them.

A mark is a row of `MARKS`. `prepare` fixes everything public before a key exists; the key is then drawn in
`wootz.keys`; `train_hook` says what training adds; the test is in `wootz.statistics`, found by the key's kind.
"""

from wootz.watermarks.baselines import (
    App,
    Blackmarks,
    Content,
    Entangled,
    Frontier,
    KeyedContent,
    Margin,
    Noise,
    OutOfDistribution,
    Paper,
    Unrelated,
)
from wootz.watermarks.context import MarkContext
from wootz.watermarks.dawn import Dawn
from wootz.watermarks.guard import AnswerFilter, CalibrationScores, Guard
from wootz.watermarks.mark_loss import MarkLoss
from wootz.watermarks.out_of_ball import check_budget
from wootz.watermarks.protecting import check_together, hook_of, prepare_all, weights_digest
from wootz.watermarks.runner_up import RunnerUp
from wootz.watermarks.table import MARKS, Mark
from wootz.watermarks.triggers import Triggers
from wootz.watermarks.uchida import Uchida

__all__ = [
    "MARKS",
    "App",
    "Blackmarks",
    "Content",
    "Dawn",
    "Entangled",
    "Frontier",
    "MarkContext",
    "Guard",
    "AnswerFilter",
    "KeyedContent",
    "Margin",
    "Mark",
    "Noise",
    "CalibrationScores",
    "OutOfDistribution",
    "Paper",
    "MarkLoss",
    "RunnerUp",
    "Triggers",
    "Uchida",
    "Unrelated",
    "check_budget",
    "check_together",
    "hook_of",
    "prepare_all",
    "weights_digest",
]
