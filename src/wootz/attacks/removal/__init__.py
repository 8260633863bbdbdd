"""Attempts to remove a mark: they hold the model and some data, and never see keys.

Every removal is `(cfg, model, context) -> model`, a changed copy.
"""

from wootz.attacks.removal.table import ATTACKS

__all__ = ["ATTACKS"]
