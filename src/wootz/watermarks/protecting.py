"""All marks of a run together: their materials before the keys, and their training hook after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from wootz.data import Dataset
from wootz.errors import ConfigError
from wootz.keys import Key, RegisteredMaterial
from wootz.keys.prf import subkey
from wootz.rng import generator
from wootz.store import tensor_digest
from wootz.training import Hook, join
from wootz.watermarks.context import MarkContext
from wootz.watermarks.dawn import Dawn
from wootz.watermarks.guard import Guard
from wootz.watermarks.table import MARKS


def prepare_all(configs: Mapping[str, Any], context: MarkContext, secret: bytes) -> dict[str, RegisteredMaterial]:
    """Fix everything public about each mark; which images become triggers follows from the secret."""
    materials = {}
    for name, cfg in configs.items():
        seed = int.from_bytes(subkey(secret, "pick", name)[:8], "big")
        materials[name] = MARKS[name].prepare(cfg, context, generator(seed, "pick"))
    return materials


def check_together(configs: Iterable[Any]) -> None:
    """Raise ConfigError where two of the marks change served answers: one service keeps one log."""
    if sum(isinstance(cfg, Guard | Dawn) for cfg in configs) > 1:
        raise ConfigError("marks: 'guard' and 'dawn' both change the answers of the served model; choose one of them")


def hook_of(configs: Mapping[str, Any], keys: Mapping[str, Key], data: Dataset, *, seed: int) -> Hook:
    """Return one hook that writes every mark."""
    return join(*(MARKS[name].train_hook(cfg, keys[name], data, seed=seed) for name, cfg in configs.items()))


def weights_digest(model: nn.Module) -> str:
    """Return the digest of a model's weights, as registrations hold it."""
    return tensor_digest(*(tensor for _, tensor in sorted(model.state_dict().items())))
