"""Verification: exact evidence for each kind of key, panels, verdicts, suspects. No training, no attacks."""

from wootz.verify.evidence import EVIDENCE, Evidence
from wootz.verify.suspects import open_suspect, predictor
from wootz.verify.verdict import DEFAULT_BAR, EXIT_CODES, Verdict, verify

__all__ = [
    "DEFAULT_BAR",
    "EVIDENCE",
    "EXIT_CODES",
    "Evidence",
    "Verdict",
    "open_suspect",
    "predictor",
    "verify",
]
