"""Types that several packages share."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, get_args

if TYPE_CHECKING:
    from torch import Tensor

Norm: TypeAlias = Literal["Linf", "L2"]
Kind: TypeAlias = Literal["protected", "stolen", "removed", "independent", "unknown"]

KINDS: tuple[Kind, ...] = get_args(Kind)
"""What a suspect is known to be, in the order in which tables list the kinds."""

AnswerAccess: TypeAlias = Literal["label", "scores"]
"""What a service returns: top-1 labels, or scores of all classes."""

Access: TypeAlias = Literal["label", "scores", "weights"]
"""A verifier's access to a suspect: labels, scores, or weights (which include scores)."""

Predict: TypeAlias = "Callable[[Tensor], Tensor]"
"""A classifier as a function: images float32 [N, C, H, W] in [0, 1] -> scores [N, K] (logits or log-probabilities),
or top-1 labels int64 [N]. A model, a model file and an endpoint all become one."""

Weights: TypeAlias = "Callable[[str, tuple[int, ...]], Tensor | None]"
"""Access to a model's weights: a tensor's name and shape -> the tensor in float32, or None if there is none."""

Progress: TypeAlias = "Callable[[str, float], None]"
"""A callback for progress: the name of the task and its completed fraction, from 0 to 1."""


THRESHOLD_BITS = 40.0
"""Bits of evidence that a verdict requires by default, and a claim whose registration is timestamped."""

UNTIMESTAMPED_THRESHOLD_BITS = 80.0
"""Bits of evidence that a claim without a timestamp requires."""

MAX_CLASSES = 1 << 16
"""The number of classes that a suspect may have."""

MAX_IMAGE_VALUES = 1 << 22
"""The channels times the height times the width of the images that a suspect may take."""


class Outcome(StrEnum):
    """The outcome of a verification, as records hold it and pages show it."""

    KEY_DEPENDENT = "KEY-DEPENDENT"
    NOT_SHOWN = "NOT SHOWN"
    INCONCLUSIVE = "INCONCLUSIVE"
    INVALID_CLAIM = "INVALID CLAIM"


class Attack(NamedTuple):
    """One row of a table of attacks.

    Attributes:
        run: the attack; its package documents the arguments.
        config: the default settings, those of the source.
        source: the paper.
        access: the access to the target that it needs: `weights`, `scores`, `top-K`, `rounded-D` or `label`.
        cost: the cost in queries, data or epochs, as text.
    """

    run: Callable[..., Any]
    config: Any
    source: str
    access: str
    cost: str
