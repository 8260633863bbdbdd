"""Watermark removal: attacks that hold the model and some data, and never see keys.

Every attack is `(cfg, model, context) -> model` and returns a changed copy.
"""

from wootz.attacks.removal.attacks import ATTACKS

__all__ = ["ATTACKS"]
