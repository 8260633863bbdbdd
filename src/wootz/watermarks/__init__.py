"""Watermarks that prove ownership of a model: how their material is prepared and how training embeds them.

A mark is a row of `MARKS`. `prepare` fixes everything public before a key exists; the key is then derived in
`wootz.keys`; `train_hook` states what training adds. The test of a mark is in `wootz.statistics`, selected by the kind
of its key.
"""

from wootz.watermarks.answer_filter import AnswerFilter, CalibrationScores
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
    Uchida,
    Unrelated,
)
from wootz.watermarks.guard import Dawn, Guard
from wootz.watermarks.interface import Mark, MarkContext
from wootz.watermarks.marks import MARKS, check_compatible, check_marks, hook_of, prepare_all, weights_digest
from wootz.watermarks.out_of_ball import check_wm_eps
from wootz.watermarks.runner_up import RunnerUp, keyed_targets, tilted_answers
from wootz.watermarks.triggers import Triggers

__all__ = [
    "MARKS",
    "AnswerFilter",
    "App",
    "Blackmarks",
    "CalibrationScores",
    "Content",
    "Dawn",
    "Entangled",
    "Frontier",
    "Guard",
    "KeyedContent",
    "Margin",
    "Mark",
    "MarkContext",
    "Noise",
    "OutOfDistribution",
    "Paper",
    "RunnerUp",
    "Triggers",
    "Uchida",
    "Unrelated",
    "check_compatible",
    "check_marks",
    "check_wm_eps",
    "hook_of",
    "keyed_targets",
    "prepare_all",
    "tilted_answers",
    "weights_digest",
]
