"""The interface of a mark: two functions and a config, and the context in which its material is prepared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from wootz.data import Dataset
from wootz.keys import RegisteredMaterial
from wootz.training import Hook


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkContext:
    """What is public, or at least fixed, when the material of a mark is prepared.

    Attributes:
        data: the owner's data set.
        panel: independent models, the robust one first.
        model: the network that will carry the marks, not trained yet.
        eps: training budget, in pixels of [0, 1].
        wm_eps: budget of the triggers, in pixels of [0, 1].
    """

    data: Dataset
    panel: tuple[nn.Module, ...]
    model: nn.Module
    eps: float
    wm_eps: float


class Mark(NamedTuple):
    """One kind of watermark.

    Attributes:
        prepare: `prepare(cfg, context, generator)` fixes the public material before a key exists.
        train_hook: `train_hook(cfg, key, data, *, seed)` returns what training adds to embed the key.
        config: the config type; its defaults are the default settings.
        check: `check(cfg, data)` raises ConfigError if the data do not suffice, before a reference model is trained;
            None if `prepare` needs no reference model, and so finds that out itself.
    """

    prepare: Callable[[Any, MarkContext, torch.Generator], RegisteredMaterial]
    train_hook: Callable[..., Hook]
    config: type[Any]
    check: Callable[[Any, Dataset], None] | None = None
