"""Verification: exact evidence for each kind of key, panels, verdicts, suspects. No training, no attacks."""

from wootz.statistics.answers import remembered
from wootz.statistics.evidence import EVIDENCE, Evidence
from wootz.statistics.reach import Reach
from wootz.statistics.verdict import DEFAULT_BAR, EXIT_CODES, Verdict, required_bits, verify
from wootz.suspects.files import Limits, described_network, open_file, open_suspect, predictor, weights_of

__all__ = [
    "DEFAULT_BAR",
    "EVIDENCE",
    "EXIT_CODES",
    "Evidence",
    "Limits",
    "Reach",
    "Verdict",
    "required_bits",
    "described_network",
    "open_file",
    "open_suspect",
    "predictor",
    "remembered",
    "verify",
    "weights_of",
]
