"""Classifiers: images float32 [N, C, H, W] in [0, 1] -> logits [N, K], normalization inside.

`MODELS` lists the built-in architectures by name. Any `nn.Module` that passes `check_model` can be used instead.
"""

from __future__ import annotations

from wootz.models.architectures import MODELS, other_architecture
from wootz.models.contract import check_model, depends_on_batch, look_like_probabilities, range_warnings
from wootz.models.filters import FILTERS, Filtered, same_answers, with_filter
from wootz.models.saved import (
    MODULE,
    ModelSpec,
    build,
    describe_module,
    load_weights,
    read_files,
    read_model,
    read_spec,
    reinitialized,
    write_model,
)

__all__ = [
    "FILTERS",
    "MODELS",
    "MODULE",
    "Filtered",
    "ModelSpec",
    "build",
    "check_model",
    "depends_on_batch",
    "load_weights",
    "look_like_probabilities",
    "other_architecture",
    "read_files",
    "read_model",
    "range_warnings",
    "read_spec",
    "reinitialized",
    "same_answers",
    "describe_module",
    "with_filter",
    "write_model",
]
