"""The marks by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from wootz.keys import RegisteredMaterial
from wootz.training import Hook
from wootz.watermarks import dawn, guard, runner_up, triggers, uchida
from wootz.watermarks.baselines import (
    app,
    blackmarks,
    entangled,
    frontier,
    keyed_content,
    margin,
    ood,
    paper,
    unrelated,
    within_class,
)
from wootz.watermarks.context import MarkContext
from wootz.watermarks.dawn import Dawn
from wootz.watermarks.guard import Guard
from wootz.watermarks.runner_up import RunnerUp
from wootz.watermarks.triggers import Triggers
from wootz.watermarks.uchida import Uchida


class Mark(NamedTuple):
    """`prepare(cfg, context, generator)`, `train_hook(cfg, key, data, *, seed)`, config."""

    prepare: Callable[[Any, MarkContext, torch.Generator], RegisteredMaterial]
    train_hook: Callable[..., Hook]
    config: type[Any]


MARKS: Mapping[str, Mark] = MappingProxyType(
    {
        "triggers": Mark(triggers.prepare, triggers.train_hook, Triggers),
        "runner-up": Mark(runner_up.prepare, runner_up.train_hook, RunnerUp),
        "guard": Mark(guard.prepare, guard.train_hook, Guard),
        "paper": Mark(paper.prepare, paper.train_hook, paper.Paper),
        "ood": Mark(ood.prepare, ood.train_hook, ood.OutOfDistribution),
        "content": Mark(within_class.prepare_content, within_class.train_hook, within_class.Content),
        "noise": Mark(within_class.prepare_noise, within_class.train_hook, within_class.Noise),
        "unrelated": Mark(unrelated.prepare, unrelated.train_hook, unrelated.Unrelated),
        "content-keyed": Mark(keyed_content.prepare, keyed_content.train_hook, keyed_content.KeyedContent),
        "frontier": Mark(frontier.prepare, frontier.train_hook, frontier.Frontier),
        "entangled": Mark(entangled.prepare, entangled.train_hook, entangled.Entangled),
        "margin": Mark(margin.prepare, margin.train_hook, margin.Margin),
        "blackmarks": Mark(blackmarks.prepare, blackmarks.train_hook, blackmarks.Blackmarks),
        "app": Mark(app.prepare, app.train_hook, app.App),
        "dawn": Mark(dawn.prepare, guard.train_hook, Dawn),
        "uchida": Mark(uchida.prepare, uchida.train_hook, Uchida),
    }
)
