"""Verification: exact evidence for each kind of key, panels, verdicts, suspects. No training, no attacks."""

from wootz.verify.answers import remembered
from wootz.verify.evidence import EVIDENCE, Evidence
from wootz.verify.suspects import open_suspect, predictor
from wootz.verify.verdict import DEFAULT_BAR, EXIT_CODES, Verdict, bar_of, verify

__all__ = [
    "DEFAULT_BAR",
    "EVIDENCE",
    "EXIT_CODES",
    "Evidence",
    "Verdict",
    "bar_of",
    "open_suspect",
    "predictor",
    "remembered",
    "verify",
]
