"""Marks that prove whose a model is: how their material is made, and how training writes them.

A mark is a row of `MARKS`. `prepare` fixes everything public before a key exists; the key is then drawn in
`wootz.ownership`; `train_hook` says what training adds; the test is in `wootz.verify`, found by the key's kind.
"""

from wootz.marks.baselines import OutOfDistribution, Paper
from wootz.marks.beyond import check_budget
from wootz.marks.dawn import Dawn
from wootz.marks.guard import Guard, Guarded
from wootz.marks.protecting import Protected, check_together, hook_of, prepare_all, protect, weights_digest
from wootz.marks.runner_up import RunnerUp
from wootz.marks.table import MARKS, Mark
from wootz.marks.triggers import Triggers
from wootz.marks.uchida import Uchida

__all__ = [
    "MARKS", "Dawn", "Guard", "Guarded", "Mark", "OutOfDistribution", "Paper", "Protected", "RunnerUp", "Triggers",
    "Uchida", "check_budget", "check_together", "hook_of", "prepare_all", "protect", "weights_digest",
]  # fmt: skip
