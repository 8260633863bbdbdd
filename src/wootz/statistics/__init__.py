"""Exact statistical tests of ownership and the verdict that combines them. Nothing is trained or attacked here.

`verdict` runs the `exact_tests` (one per kind of key) and the `sequential` test through `queries`, and combines their
`evidence`. The tests rest on `wrong_class_ranks`, `pairwise_preferences` and `direction_estimate` (all by `regression`
and, for label-only suspects, `boundary_search`) and on exact `tails`. `null` checks a test with random keys;
`calibration` finds a suspect's input format first.
"""

from wootz.statistics.evidence import Evidence
from wootz.statistics.exact_tests import EXACT_TESTS
from wootz.statistics.queries import SuspectAccess, cache_batches
from wootz.statistics.verdict import EXIT_CODES, Verdict, required_bits, verify
from wootz.types import Outcome

__all__ = [
    "EXACT_TESTS",
    "EXIT_CODES",
    "Evidence",
    "Outcome",
    "SuspectAccess",
    "Verdict",
    "cache_batches",
    "required_bits",
    "verify",
]
