"""Classifiers: images float32 [N, C, H, W] in [0, 1] -> logits [N, K], normalization inside.

`MODELS` lists the built-in architectures by name; `factories` makes networks of other code by the name of a callable.
Any `nn.Module` that passes `check_model` can be used instead.
"""

from __future__ import annotations

from wootz.models.architectures import MODELS, other_architecture
from wootz.models.contract import check_model, depends_on_batch, last_layer, look_like_probabilities, range_warnings
from wootz.models.factories import is_factory, make_network, resolved_name, source_digest
from wootz.models.filters import FILTERS, Filtered, same_answers, with_filter
from wootz.models.saved import (
    MODULE,
    ModelSpec,
    build,
    describe_module,
    is_other_code,
    load_weights,
    read_files,
    read_model,
    read_spec,
    reinitialized,
    write_model,
)
from wootz.models.wrapper import Wrapped, Wrapper

__all__ = [
    "FILTERS",
    "MODELS",
    "MODULE",
    "Filtered",
    "ModelSpec",
    "Wrapped",
    "Wrapper",
    "build",
    "check_model",
    "depends_on_batch",
    "is_factory",
    "is_other_code",
    "load_weights",
    "last_layer",
    "look_like_probabilities",
    "make_network",
    "other_architecture",
    "read_files",
    "read_model",
    "range_warnings",
    "read_spec",
    "reinitialized",
    "resolved_name",
    "same_answers",
    "describe_module",
    "source_digest",
    "with_filter",
    "write_model",
]
