"""Training of a protected model: from a model and data to a robust, watermarked model and its keys."""

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
from wootz.watermarks.guard import Dawn, Guard
from wootz.watermarks.interface import MarkContext
from wootz.watermarks.marks import MARKS


@dataclass(frozen=True, slots=True, kw_only=True)
class Protected:
    """The result of `protect`.

    Attributes:
        model: the trained model.
        owner_keys: its keys, which are secret.
        panel: the independent models that its tests use.
        history: training metrics, one entry per epoch.
    """

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
    fetch_token: Callable[[bytes], bytes] | None = None,
) -> Protected:
    """Train a copy of `model` so that it resists evasion within `eps` and carries the marks.

    Args:
        model: any module from images float32 [N, C, H, W] in [0, 1] to logits [N, K].
        data: the data set to train on, from `wootz.data.load` or `divide`.
        eps: training budget, in pixels of [0, 1].
        wm_eps: budget of the triggers, larger than `eps`.
        panel: models trained without any key; triggers are made on the first.
        marks: names of `MARKS`.
        settings: configs by mark, for marks that should not use the default.
        recipe: training recipe; its eps is replaced by `eps`.
        seed: seed of the training; the keys come from the operating system's randomness.
        execution: device, precision and number of processes.
        owner: public key for signed claims, see `wootz.keys.public_hex`; empty if claims will not be signed.
        options: the choices left to a claim, see `wootz.keys.ClaimOptions`.
        fetch_token: requests a time token, see `wootz.keys.draw_keys`.

    Returns:
        The trained model with its keys.

    Raises:
        ModelError: the model does not fit the data or the model contract.
        ConfigError: a mark is unknown, two marks exclude each other, or `wm_eps` is too small.
    """
    for member in (model, *panel):
        check_model(member, data.shape, len(data.classes))
    configs = {name: (settings or {}).get(name) or lookup(MARKS, name, "mark").config() for name in marks}
    check_compatible(configs.values())
    secret = fresh_secret()
    context = MarkContext(data=data, panel=tuple(panel), model=model, eps=eps, wm_eps=wm_eps)
    materials = prepare_all(configs, context, secret)
    recipe = replace(recipe or Recipe(), eps=eps)
    owner_keys = draw_keys(
        secret,
        materials,
        classes=data.classes,
        shape=data.shape,
        panel=[weights_digest(m) for m in panel],
        owner=owner,
        boundary_search=BoundarySearchTerms.for_eps(eps, recipe.norm) if panel else None,
        options=options,
        fetch_token=fetch_token,
    )
    hook = hook_of(configs, owner_keys.keys, data, seed=seed)
    trained = train(recipe, model, data.train, data.validation, seed=seed, hook=hook, execution=execution)
    return Protected(model=trained.model, owner_keys=owner_keys, panel=tuple(panel), history=trained.history)


def prepare_all(configs: Mapping[str, Any], context: MarkContext, secret: bytes) -> dict[str, RegisteredMaterial]:
    """Prepare the material of each mark; which images become triggers is determined by the secret."""
    materials = {}
    for name, cfg in configs.items():
        seed = int.from_bytes(subkey(secret, "pick", name)[:8], "big")
        materials[name] = MARKS[name].prepare(cfg, context, generator(seed, "pick"))
    return materials


def check_compatible(configs: Iterable[Any]) -> None:
    """Raise ConfigError if two of the marks change served answers, because a service writes a single log."""
    if sum(isinstance(cfg, Guard | Dawn) for cfg in configs) > 1:
        raise ConfigError("marks: 'guard' and 'dawn' both change the answers of the served model; choose one of them")


def hook_of(configs: Mapping[str, Any], keys: Mapping[str, Key], data: Dataset, *, seed: int) -> Hook:
    """Return one training hook that embeds all marks."""
    return join(*(MARKS[name].train_hook(cfg, keys[name], data, seed=seed) for name, cfg in configs.items()))


def weights_digest(model: nn.Module) -> str:
    """Return the digest of a model's weights that is stored in registrations."""
    return tensor_digest(*(tensor for _, tensor in sorted(model.state_dict().items())))
