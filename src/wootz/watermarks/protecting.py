"""The library's face for training: a model and data in, a robust marked model and its keys out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from wootz.data import Dataset
from wootz.errors import ConfigError
from wootz.keys import BoundarySearchTerms, ClaimOptions, Key, OwnerKeys, RegisteredMaterial, draw_keys, fresh_secret
from wootz.keys.prf import subkey
from wootz.models import check_model
from wootz.registry import lookup
from wootz.rng import generator
from wootz.store import tensor_digest
from wootz.training import Execution, Hook, Recipe, join, train
from wootz.watermarks.context import MarkContext
from wootz.watermarks.dawn import Dawn
from wootz.watermarks.guard import Guard
from wootz.watermarks.table import MARKS


@dataclass(frozen=True, slots=True, kw_only=True)
class Protected:
    """The trained model, its keys (secret), the independent panel that its tests use, and training figures."""

    model: nn.Module
    owner_keys: OwnerKeys = field(repr=False)
    panel: tuple[nn.Module, ...] = field(repr=False)
    history: list[dict[str, float]] = field(repr=False)


def protect(
    model: nn.Module,
    data: Dataset,
    *,
    eps: float,
    wm_eps: float,
    panel: Sequence[nn.Module],
    marks: Sequence[str] = ("triggers", "runner-up"),
    settings: Mapping[str, Any] | None = None,
    recipe: Recipe | None = None,
    seed: int = 0,
    execution: Execution | None = None,
    owner: str = "",
    options: ClaimOptions | None = None,
    stamp: Callable[[bytes], bytes] | None = None,
) -> Protected:
    """Train a copy of `model` so that it resists evasion within `eps` and carries the marks.

    Args:
        model: images float32 [N, C, H, W] in [0, 1] -> logits [N, K]; any `nn.Module`.
        data: what to train on, from `wootz.data.load` or `split_dataset`.
        eps: training budget, in pixels of [0, 1].
        wm_eps: budget of the triggers, larger than `eps`.
        panel: models trained without any key; the first is the reference that triggers are made on.
        marks: names of `MARKS`.
        settings: a mark's config by name, where the default is not wanted.
        recipe: training recipe; its eps is replaced by `eps`.
        seed: of training; keys come from the operating system's randomness.
        execution: device, precision, processes.
        owner: public key that claims will be signed with, see `wootz.keys.public_hex`; empty where none will be.
        options: what a claim may choose, see `wootz.keys.ClaimOptions`.
        stamp: see `wootz.keys.draw_keys`.

    Raises:
        ModelError: the model does not fit the data or the contract.
        ConfigError: an unknown mark, two that can not be had together, or a `wm_eps` too small to hold.
    """
    for member in (model, *panel):
        check_model(member, data.shape, len(data.classes))
    chosen = {name: (settings or {}).get(name) or lookup(MARKS, name, "mark").config() for name in marks}
    check_together(chosen.values())
    secret = fresh_secret()
    context = MarkContext(data=data, panel=tuple(panel), model=model, eps=eps, wm_eps=wm_eps)
    materials = prepare_all(chosen, context, secret)
    recipe = replace(recipe or Recipe(), eps=eps)
    owner_keys = draw_keys(
        secret,
        materials,
        classes=data.classes,
        shape=data.shape,
        panel=[weights_digest(m) for m in panel],
        owner=owner,
        walk=BoundarySearchTerms.beyond(eps, recipe.norm) if panel else None,
        options=options,
        stamp=stamp,
    )
    hook = hook_of(chosen, owner_keys.keys, data, seed=seed)
    trained = train(recipe, model, data.train, data.validation, seed=seed, hook=hook, execution=execution)
    return Protected(model=trained.model, owner_keys=owner_keys, panel=tuple(panel), history=trained.history)


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
