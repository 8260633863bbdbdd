"""Triggers as pictures: base image, what was added, and the sum."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wootz.report.read import Trigger

_DIVERGING = "RdBu"  # red darker, white unchanged, blue lighter


class Picture(NamedTuple):
    """A trigger as three data URIs, its classes, and how far it lies from its base image."""

    base: str
    change: str
    trigger: str
    true: int
    label: int
    answer: int
    distance: str

    @property
    def hit(self) -> bool:
        """Whether the model answers the keyed label."""
        return self.label == self.answer


def pictures(triggers: Sequence[Trigger]) -> tuple[Picture, ...]:
    """Return every trigger as pictures; all changes share one scale of color."""
    changes = [_change(trigger) for trigger in triggers]
    most = max((float(np.abs(change).max()) for change in changes), default=0.0) or 1.0
    return tuple(
        Picture(
            _uri(_channels_last(trigger.base)),
            _uri(_diverging(change.mean(0) / most)),
            _uri(_channels_last(trigger.trigger)),
            trigger.true,
            trigger.label,
            trigger.answer,
            f"{np.abs(change).max() / 255:.3f}",
        )
        for trigger, change in zip(triggers, changes, strict=True)
    )


def _change(trigger: Trigger) -> NDArray[np.float64]:
    return trigger.trigger.astype(np.float64) - trigger.base.astype(np.float64)


def _diverging(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return values [H, W] in [-1, 1] as colors uint8 [H, W, 3]."""
    colored: NDArray[Any] = matplotlib.colormaps[_DIVERGING]((values + 1) / 2, bytes=True)
    return colored[..., :3]


def _channels_last(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return [C, H, W] as [H, W, 3], or as gray [H, W] where it has not three channels."""
    return image.transpose(1, 2, 0) if len(image) == 3 else image.mean(0).astype(np.uint8)


def _uri(image: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(file, format="png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
