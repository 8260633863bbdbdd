"""Thieves: they see a victim through a query ledger and build a model of their own. They never see keys.

Every theft is `(cfg, victim, context) -> model`, where `victim` is a `Ledger`, or the model itself where the
access is `weights`.
"""

from wootz.attacks.extraction.access import complete, reveal
from wootz.attacks.extraction.ledger import Ledger, read_queries
from wootz.attacks.extraction.table import ATTACKS
from wootz.attacks.extraction.thief import Thief

__all__ = ["ATTACKS", "Ledger", "Thief", "complete", "read_queries", "reveal"]
