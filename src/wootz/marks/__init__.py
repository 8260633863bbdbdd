"""Marks that prove whose a model is: how their material is made, and how training writes them.

A mark is a row of `MARKS`. `prepare` fixes everything public before a key exists; the key is then drawn in
`wootz.ownership`; `train_hook` says what training adds; the test is in `wootz.verify`, found by the key's kind.
"""

from wootz.marks.baselines import (
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
)  # fmt: skip
from wootz.marks.beyond import check_budget
from wootz.marks.dawn import Dawn
from wootz.marks.ground import Ground
from wootz.marks.guard import Guard, Guarded, Ordinary
from wootz.marks.protecting import Protected, check_together, hook_of, prepare_all, protect, weights_digest
from wootz.marks.runner_up import RunnerUp
from wootz.marks.table import MARKS, Mark
from wootz.marks.triggers import Triggers
from wootz.marks.uchida import Uchida

__all__ = [
    "MARKS", "App", "Blackmarks", "Content", "Dawn", "Entangled", "Frontier", "Ground", "Guard", "Guarded",
    "KeyedContent", "Margin", "Mark", "Noise", "Ordinary", "OutOfDistribution", "Paper", "Protected", "RunnerUp",
    "Triggers", "Uchida", "Unrelated", "check_budget", "check_together", "hook_of", "prepare_all", "protect",
    "weights_digest",
]  # fmt: skip
