"""The marks by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from wootz.marks import baselines, guard, runner_up, triggers
from wootz.marks.baselines import OutOfDistribution, Paper
from wootz.marks.guard import Guard
from wootz.marks.runner_up import RunnerUp
from wootz.marks.triggers import Triggers
from wootz.ownership import Material
from wootz.training import Hook


class Mark(NamedTuple):
    """`prepare(cfg, data, panel, *, eps, wm_eps, generator)`, `train_hook(cfg, key, data, *, seed)`, config."""

    prepare: Callable[..., Material]
    train_hook: Callable[..., Hook]
    config: type[Any]


MARKS: Mapping[str, Mark] = MappingProxyType(
    {
        "triggers": Mark(triggers.prepare, triggers.train_hook, Triggers),
        "runner-up": Mark(runner_up.prepare, runner_up.train_hook, RunnerUp),
        "guard": Mark(guard.prepare, guard.train_hook, Guard),
        "paper": Mark(baselines.prepare_paper, baselines.train_hook, Paper),
        "ood": Mark(baselines.prepare_ood, baselines.train_hook, OutOfDistribution),
    }
)
