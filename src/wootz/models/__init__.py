"""Classifiers: images float32 [N, C, H, W] in [0, 1] -> logits [N, K], normalization inside.

`MODELS` lists the built-in architectures by name. Any `nn.Module` that passes `check_model` can be used instead.
"""

from __future__ import annotations

from wootz.models.architectures import MODELS, other_architecture
from wootz.models.contract import check_model
from wootz.models.filters import FILTERS, Filtered, same_answers, with_filter
from wootz.models.saved import ModelSpec, build, read_files, read_model, read_spec, write_model

__all__ = [
    "FILTERS",
    "MODELS",
    "Filtered",
    "ModelSpec",
    "build",
    "check_model",
    "other_architecture",
    "read_files",
    "read_model",
    "read_spec",
    "same_answers",
    "with_filter",
    "write_model",
]
