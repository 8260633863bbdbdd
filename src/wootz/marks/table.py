"""The marks by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from wootz.marks import baselines, dawn, guard, runner_up, triggers, uchida
from wootz.marks.baselines import OutOfDistribution, Paper
from wootz.marks.dawn import Dawn
from wootz.marks.guard import Guard
from wootz.marks.runner_up import RunnerUp
from wootz.marks.triggers import Triggers
from wootz.marks.uchida import Uchida
from wootz.ownership import Material
from wootz.training import Hook


class Mark(NamedTuple):
    """`prepare(cfg, data, panel, *, eps, wm_eps, generator)`, `train_hook(cfg, key, data, *, seed)`, config.

    The `prepare` of a mark that lies `in_weights` is also told the `model` that will carry it, before it is trained.
    """

    prepare: Callable[..., Material]
    train_hook: Callable[..., Hook]
    config: type[Any]
    in_weights: bool = False


MARKS: Mapping[str, Mark] = MappingProxyType(
    {
        "triggers": Mark(triggers.prepare, triggers.train_hook, Triggers),
        "runner-up": Mark(runner_up.prepare, runner_up.train_hook, RunnerUp),
        "guard": Mark(guard.prepare, guard.train_hook, Guard),
        "paper": Mark(baselines.prepare_paper, baselines.train_hook, Paper),
        "ood": Mark(baselines.prepare_ood, baselines.train_hook, OutOfDistribution),
        "dawn": Mark(dawn.prepare, guard.train_hook, Dawn),
        "uchida": Mark(uchida.prepare, uchida.train_hook, Uchida, in_weights=True),
    }
)
