"""The table of all marks by name, and the functions for all marks of a run: prepare, check and embed them together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from torch import nn

from wootz.data import Dataset
from wootz.errors import ConfigError
from wootz.keys import Key, RegisteredMaterial
from wootz.keys.prf import subkey
from wootz.rng import generator
from wootz.store import tensor_digest
from wootz.training import Hook, join
from wootz.watermarks import guard, runner_up, triggers
from wootz.watermarks.baselines import (
    app,
    blackmarks,
    entangled,
    frontier,
    keyed_content,
    margin,
    out_of_distribution,
    paper,
    uchida,
    within_class,
)
from wootz.watermarks.interface import Mark, MarkContext


def _check_three_classes(_: Any, data: Dataset) -> None:
    if len(data.classes) < 3:
        raise ConfigError(f"needs at least three classes; {data.name} has {len(data.classes)}")


def _no_check(_: Any, __: Dataset) -> None:
    """What the data suffice for shows only with the reference models."""


MARKS: Mapping[str, Mark] = MappingProxyType(
    {
        "triggers": Mark(triggers.prepare, triggers.train_hook, triggers.Triggers, triggers.check),
        "runner-up": Mark(runner_up.prepare, runner_up.train_hook, runner_up.RunnerUp, _check_three_classes),
        "guard": Mark(guard.prepare_guard, guard.train_hook, guard.Guard),
        "paper": Mark(paper.prepare, paper.train_hook, paper.Paper, _no_check),
        "ood": Mark(
            out_of_distribution.prepare_ood, out_of_distribution.train_hook_ood, out_of_distribution.OutOfDistribution
        ),
        "content": Mark(within_class.prepare_content, within_class.train_hook, within_class.Content),
        "noise": Mark(within_class.prepare_noise, within_class.train_hook, within_class.Noise),
        "unrelated": Mark(
            out_of_distribution.prepare_unrelated,
            out_of_distribution.train_hook_unrelated,
            out_of_distribution.Unrelated,
        ),
        "content-keyed": Mark(keyed_content.prepare, keyed_content.train_hook, keyed_content.KeyedContent),
        "frontier": Mark(frontier.prepare, frontier.train_hook, frontier.Frontier, _no_check),
        "entangled": Mark(entangled.prepare, entangled.train_hook, entangled.Entangled, entangled.check),
        "margin": Mark(margin.prepare, margin.train_hook, margin.Margin),
        "blackmarks": Mark(blackmarks.prepare, blackmarks.train_hook, blackmarks.Blackmarks, _no_check),
        "app": Mark(app.prepare, app.train_hook, app.App),
        "dawn": Mark(guard.prepare_dawn, guard.train_hook, guard.Dawn),
        "uchida": Mark(uchida.prepare, uchida.train_hook, uchida.Uchida),
    }
)


def check_marks(configs: Mapping[str, Any], context: MarkContext) -> None:
    """Check, before anything is trained, that the data and the model suffice for each mark.

    Args:
        configs: the settings by mark.
        context: data, model and budgets; reference models are not used.

    Raises:
        ConfigError: they do not; names each mark with the reason, and the marks that could be chosen.
    """
    context, problems = replace(context, panel=()), dict[str, str]()
    for name, cfg in configs.items():
        mark = MARKS[name]
        try:
            if mark.check is None:
                mark.prepare(cfg, context, generator(0, "check"))
            else:
                mark.check(cfg, context.data)
        except ConfigError as error:
            problems[name] = str(error).removeprefix(f"mark {name!r}: ")
    if problems:
        reasons = "; ".join(f"mark {name!r}: {reason}" for name, reason in problems.items())
        fitting = ",".join(name for name in configs if name not in problems)
        raise ConfigError(f"{reasons}; or choose other marks, such as --marks {fitting or 'none'}")


def prepare_all(configs: Mapping[str, Any], context: MarkContext, secret: bytes) -> dict[str, RegisteredMaterial]:
    """Prepare the material of each mark; which images become triggers is determined by the secret."""
    materials = {}
    for name, cfg in configs.items():
        seed = int.from_bytes(subkey(secret, "pick", name)[:8], "big")
        materials[name] = MARKS[name].prepare(cfg, context, generator(seed, "pick"))
    return materials


def check_compatible(configs: Iterable[Any]) -> None:
    """Raise ConfigError if two of the marks change served answers, because a service writes a single log."""
    if sum(isinstance(cfg, guard.Guard | guard.Dawn) for cfg in configs) > 1:
        raise ConfigError("marks: 'guard' and 'dawn' both change the answers of the served model; choose one of them")


def hook_of(configs: Mapping[str, Any], keys: Mapping[str, Key], data: Dataset, *, seed: int) -> Hook:
    """Return one training hook that embeds all marks."""
    return join(*(MARKS[name].train_hook(cfg, keys[name], data, seed=seed) for name, cfg in configs.items()))


def weights_digest(model: nn.Module) -> str:
    """Return the digest of a model's weights that is stored in registrations."""
    return tensor_digest(*(tensor for _, tensor in sorted(model.state_dict().items())))
