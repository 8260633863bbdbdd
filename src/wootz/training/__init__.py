"""Training that resists evasion: losses, schedules, the one loop, and what marks may add to it."""

from wootz.training.augmentation import check_shift
from wootz.training.execution import Execution
from wootz.training.hooks import ExtraLoss, Hook, TriggerEpoch, context_batch, forward_with_context, join
from wootz.training.loop import Trained, train
from wootz.training.losses import Batch, Forward
from wootz.training.recipe import Recipe
from wootz.training.table import LOSSES

__all__ = [
    "LOSSES",
    "Batch",
    "Execution",
    "ExtraLoss",
    "Forward",
    "Hook",
    "TriggerEpoch",
    "Recipe",
    "Trained",
    "context_batch",
    "forward_with_context",
    "check_shift",
    "join",
    "train",
]
