"""Thieves: they see a victim through a query ledger and build a model of their own. They never see keys.

Every theft is `(cfg, victim, means) -> model`, where `victim` is a `Ledger`, or the model itself where the
access is `weights`.
"""

from wootz.stealing.access import complete, reveal
from wootz.stealing.ledger import Ledger, read_queries
from wootz.stealing.table import ATTACKS
from wootz.stealing.thief import Thief

__all__ = ["ATTACKS", "Ledger", "Thief", "complete", "read_queries", "reveal"]
