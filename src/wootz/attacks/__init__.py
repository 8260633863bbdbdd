"""Attacks on a model: evasion of its predictions, extraction of a copy, removal of its watermarks."""
