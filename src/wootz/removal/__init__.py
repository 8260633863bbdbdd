"""Attempts to remove a mark: they hold the model and some data, and never see keys.

Every removal is `(cfg, model, means) -> model`, a changed copy.
"""

from wootz.removal.table import ATTACKS

__all__ = ["ATTACKS"]
