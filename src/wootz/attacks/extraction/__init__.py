"""Model extraction: attacks that query a victim and train a substitute of their own. They never see keys.

Every attack is `(cfg, victim, context) -> model`, where `victim` is a `BudgetedOracle`, or the model itself if the
attack's access is `weights`.
"""

from wootz.attacks.extraction.attacks import ATTACKS
from wootz.attacks.extraction.oracle import BudgetedOracle, complete_answers, limit_answers, read_queries
from wootz.attacks.extraction.substitute import ExtractionConfig

__all__ = ["ATTACKS", "BudgetedOracle", "ExtractionConfig", "complete_answers", "limit_answers", "read_queries"]
