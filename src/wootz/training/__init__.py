"""Adversarial and certified training: recipes, losses, the training loop, and hooks for what marks add to it."""

from wootz.training.epoch import check_shift
from wootz.training.execution import Execution
from wootz.training.hooks import ExtraLoss, Hook, TriggerEpoch, context_batch, forward_with_context, join
from wootz.training.inner_maximization import Batch, Forward
from wootz.training.loop import Trained, train
from wootz.training.losses import LOSSES
from wootz.training.marking import Marking, embed
from wootz.training.recipe import Recipe

__all__ = [
    "LOSSES",
    "Batch",
    "Execution",
    "ExtraLoss",
    "Forward",
    "Hook",
    "Marking",
    "TriggerEpoch",
    "Recipe",
    "Trained",
    "context_batch",
    "forward_with_context",
    "check_shift",
    "embed",
    "join",
    "train",
]
