"""Reference AutoAttack (Croce, Hein, arXiv 2003.01690) by `pyautoattack`, with its warnings as flags."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from wootz.attacks.evasion.balls import check_ball
from wootz.errors import ConfigError
from wootz.extras import require
from wootz.modes import eval_mode
from wootz.rng import derive
from wootz.types import Norm

_FLAGS = {
    "randomized defense": "randomized",
    "probability distribution": "probabilities",
    "zero gradient": "zero-gradient",
    "Square Attack has decreased": "square-better",
    "dynamic defense": "dynamic",
}


class ReferenceResult(NamedTuple):
    """The final points [N, C, H, W], which images are robust [N] bool, and the reliability flags raised."""

    points: Tensor
    robust: Tensor
    flags: tuple[str, ...]


def reference_autoattack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    norm: Norm = "Linf",
    seed: int = 0,
    batch_size: int = 250,
) -> ReferenceResult:
    """Run the standard ensemble with the reference settings: APGD-CE, targeted APGD, targeted FAB, Square.

    The number of target classes is at most the number of wrong classes. With 2 or 3 classes the targeted DLR loss does
    not exist; APGD-CE, FAB and Square run instead, which the flag `few-classes` indicates.

    Args:
        model: images in [0, 1] -> logits; used in eval mode and restored.
        x: images float32 [N, C, H, W] in [0, 1].
        y: true labels int64 [N].
        eps: the budget, in pixels of [0, 1].
        norm: the norm of the ball.
        seed: the seed of all its randomness; the global random state is unchanged.
        batch_size: the number of images attacked at a time; affects memory and speed only.

    Raises:
        ConfigError: there are no images.
    """
    require("autoattack")
    from pyautoattack import AutoAttack

    check_ball(x, eps, norm)
    if len(x) == 0:
        raise ConfigError("AutoAttack: needs at least one image")
    recorder = _WarningRecorder()
    logger = logging.getLogger("auto-attack")
    level, propagate = logger.level, logger.propagate
    logger.addHandler(recorder)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    devices = [x.device] if x.is_cuda else []
    try:
        with eval_mode(model), torch.random.fork_rng(devices):
            num_classes = int(model(x[:1]).shape[1])
            attack = _standard(AutoAttack, model, x, num_classes, eps=eps, norm=norm, seed=seed)
            points, answers = attack.run_standard_evaluation(x, y, batch_size=batch_size)
            robust = (answers == y) & (model(x).argmax(1) == y)
    finally:
        logger.removeHandler(recorder)
        logger.setLevel(level)
        logger.propagate = propagate
    flags = [flag for text, flag in _FLAGS.items() if any(text in message for message in recorder.messages)]
    return ReferenceResult(points, robust, (*flags, *(("few-classes",) if num_classes < 4 else ())))


def _standard(kind: type, model: nn.Module, x: Tensor, num_classes: int, *, eps: float, norm: Norm, seed: int) -> Any:
    settings = {"norm": norm, "eps": eps, "seed": derive(seed, "autoattack") % 2**31, "device": x.device}
    if num_classes < 4:
        return kind(model, version="custom", attacks=["apgd-ce", "fab", "square"], **settings)
    attack = kind(model, version="standard", **settings)
    attack.apgd_targeted.n_target_classes = min(9, num_classes - 1)
    attack.fab.n_target_classes = min(9, num_classes - 1)
    return attack


class _WarningRecorder(logging.Handler):
    """Records the messages of warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Record the message."""
        self.messages.append(record.getMessage())
