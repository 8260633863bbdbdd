"""Names for what passes between the rooms."""

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
"""What a service's answers show."""

Access: TypeAlias = Literal["label", "scores", "weights"]
"""What a verifier sees of a suspect: its answers, or its weights, and with them its scores."""

Predict: TypeAlias = "Callable[[Tensor], Tensor]"
"""Whatever answers: images float32 [N, C, H, W] in [0, 1] -> scores [N, K] (logits or log-probabilities),
or top-1 labels int64 [N]. A model, a file, an endpoint, a lambda in a test."""

Weights: TypeAlias = "Callable[[str, tuple[int, ...]], Tensor | None]"
"""Whatever shows its weights: a tensor's name and shape -> that tensor, float32, or None where there is no such one."""

Progress: TypeAlias = "Callable[[str, float], None]"
"""Told what is being done, and which share of it is done (0 to 1)."""


THRESHOLD_BITS = 40.0
"""Bits of evidence that a verdict requires by default, and a claim whose registration is timestamped."""

UNTIMESTAMPED_THRESHOLD_BITS = 80.0
"""Bits of evidence that a claim without a timestamp requires."""


class Outcome(StrEnum):
    """The outcome of a verification, as records hold it and pages show it."""

    KEY_DEPENDENT = "KEY-DEPENDENT"
    NOT_SHOWN = "NOT SHOWN"
    INCONCLUSIVE = "INCONCLUSIVE"
    INVALID_CLAIM = "INVALID CLAIM"


class Attack(NamedTuple):
    """One row of a table of attacks.

    Attributes:
        run: the attack; its package says with which arguments.
        config: its settings, the source's defaults.
        source: the paper.
        access: what it needs of its target: `weights`, `scores`, `top-K`, `rounded-D` or `label`.
        cost: in queries, data or epochs, for people.
    """

    run: Callable[..., Any]
    config: Any
    source: str
    access: str
    cost: str
