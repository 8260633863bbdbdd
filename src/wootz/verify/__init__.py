"""Verification: exact evidence for each kind of key, panels, verdicts, suspects. No training, no attacks."""

from wootz.verify.answers import remembered
from wootz.verify.evidence import EVIDENCE, Evidence
from wootz.verify.reach import Reach
from wootz.verify.suspects import Limits, described_network, open_file, open_suspect, predictor, weights_of
from wootz.verify.verdict import DEFAULT_BAR, EXIT_CODES, Verdict, bar_of, verify

__all__ = [
    "DEFAULT_BAR",
    "EVIDENCE",
    "EXIT_CODES",
    "Evidence",
    "Limits",
    "Reach",
    "Verdict",
    "bar_of",
    "described_network",
    "open_file",
    "open_suspect",
    "predictor",
    "remembered",
    "verify",
    "weights_of",
]
