"""Everything that decides what `protect` makes, in one frozen config, and the presets that fill it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, NamedTuple

from wootz import checks
from wootz.config import digest, from_mapping, to_mapping, with_settings
from wootz.data import Dataset, check_set_aside, check_size
from wootz.errors import ConfigError
from wootz.keys import ClaimOptions
from wootz.models import MODELS, MODULE, ModelSpec, Wrapper, is_factory, resolved_name, source_digest
from wootz.models.architectures import CWCNN, PaperCNN, PreActResNet18, SmallCNN, SmallResNet
from wootz.registry import lookup
from wootz.training import LOSSES, Marking, Recipe
from wootz.watermarks import (
    MARKS,
    App,
    Blackmarks,
    Content,
    Dawn,
    Entangled,
    Frontier,
    Guard,
    KeyedContent,
    Margin,
    Noise,
    OutOfDistribution,
    Paper,
    RunnerUp,
    Triggers,
    Uchida,
    Unrelated,
    check_compatible,
    check_wm_eps,
)

REFERENCE_NETWORK = "small-cnn"
"""Network of the reference models."""

SETTINGS_SCHEMA = 1
"""Version of what enters `Protection.digest`."""

_MANY_CLASSES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceConfig:
    """Training of the reference models, which are independent of the key: one adversarially trained, one plain."""

    width: int = 16
    robust_epochs: int = 6
    robust_steps: int = 2
    plain_epochs: int = 3
    lr: float = 3e-3

    def __post_init__(self) -> None:
        checks.at_least(1, width=self.width, robust_epochs=self.robust_epochs, plain_epochs=self.plain_epochs)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimChoices:
    """What a claim may choose after the suspect has answered; log2 of the number of choices comes off its bits.

    Attributes:
        accesses: of `scores`, `label`, `boundary_queries`, `weights`; empty for all that the marks can be tested by.
        budgets: queries per mark; 0 is all.
    """

    accesses: tuple[str, ...] = ()
    budgets: tuple[int, ...] = (0, 500)

    def __post_init__(self) -> None:
        for access in self.accesses:
            checks.one_of(("scores", "label", "walks", "weights"), accesses=access)
        checks.at_least(1, budgets=len(self.budgets))
        for budget in self.budgets:
            checks.at_least(0, budgets=budget)

    def options(self) -> ClaimOptions:
        """Return the choices as a registration holds them."""
        return ClaimOptions(self.accesses, self.budgets)


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """What to train, how, and which marks to write; a setting changed here changes the run's key.

    `model` is a name of `MODELS`, whose settings have a field of their own, or a factory (`wootz.models.factories`),
    which gets `model_settings`; `wrapper` is what is done around either. `wm_eps` is the triggers' budget (the founding
    paper's beta), larger than `recipe.eps`. `set_aside` is how much of the images customarily kept for probes and for a
    thief is kept; what is left over trains. `size` is the side that images are resized and cropped to, and
    `skip_unreadable` leaves out those that cannot be read. With `marking`, the marks are written into a model that is
    trained already.
    """

    data: str = "mnist-5k"
    model: str = "small-cnn"
    model_settings: dict[str, Any] = field(default_factory=dict)
    wrapper: Wrapper = field(default_factory=Wrapper)
    marking: Marking | None = None
    marks: tuple[str, ...] = ("triggers", "runner-up", "guard")
    wm_eps: float = 0.7
    set_aside: float = 1.0
    size: int | None = None
    skip_unreadable: bool = False
    seed: int = 0
    recipe: Recipe = field(default_factory=Recipe)
    panel: ReferenceConfig = field(default_factory=ReferenceConfig)
    claim: ClaimChoices = field(default_factory=ClaimChoices)
    small_cnn: SmallCNN = field(default_factory=SmallCNN)
    cw_cnn: CWCNN = field(default_factory=CWCNN)
    paper_cnn: PaperCNN = field(default_factory=PaperCNN)
    preact_resnet18: PreActResNet18 = field(default_factory=PreActResNet18)
    small_resnet: SmallResNet = field(default_factory=SmallResNet)
    triggers: Triggers = field(default_factory=Triggers)
    runner_up: RunnerUp = field(default_factory=RunnerUp)
    guard: Guard = field(default_factory=Guard)
    paper: Paper = field(default_factory=Paper)
    ood: OutOfDistribution = field(default_factory=OutOfDistribution)
    content: Content = field(default_factory=Content)
    noise: Noise = field(default_factory=Noise)
    unrelated: Unrelated = field(default_factory=Unrelated)
    content_keyed: KeyedContent = field(default_factory=KeyedContent)
    frontier: Frontier = field(default_factory=Frontier)
    entangled: Entangled = field(default_factory=Entangled)
    margin: Margin = field(default_factory=Margin)
    blackmarks: Blackmarks = field(default_factory=Blackmarks)
    app: App = field(default_factory=App)
    dawn: Dawn = field(default_factory=Dawn)
    uchida: Uchida = field(default_factory=Uchida)

    def __post_init__(self) -> None:
        if self.model != MODULE:
            object.__setattr__(self, "model", resolved_name(self.model))
        if self.model_settings and not is_factory(self.model):
            raise ConfigError(
                f"model_settings: are for factories; those of {self.model!r} are {_field(self.model)}.NAME"
            )
        for mark in self.marks:
            lookup(MARKS, mark, "mark")
        lookup(LOSSES, self.recipe.loss, "loss")
        checks.inside(0, 1, wm_eps=self.wm_eps)
        check_set_aside(self.set_aside)
        check_size(self.size)
        check_compatible(self.mark_settings().values())
        for settings in self.mark_settings().values():
            if isinstance(settings, Triggers | Paper):
                check_wm_eps(self.recipe.eps, settings.alpha, self.wm_eps)

    def reading(self) -> dict[str, Any]:
        """Return the keyword arguments of `wootz.data.load` that say how the data are read and split."""
        return {"set_aside": self.set_aside, "size": self.size, "skip_unreadable": self.skip_unreadable}

    def used_settings(self) -> dict[str, Any]:
        """Return what decides the result, as plain values: of marks and networks only those that are used.

        A setting that is added to a mark or a network which is not used changes no digest and no key; `size` and
        `skip_unreadable` are left out where they are not set.
        """
        chosen = {_field(name) for name in (*self.marks, self.model, REFERENCE_NETWORK)}
        unused = {_field(name) for name in (*MARKS, *MODELS)} - chosen
        unused |= {name for name in _LATER if getattr(self, name) == getattr(_DEFAULT, name)}
        return {name: value for name, value in to_mapping(self).items() if name not in unused}

    @property
    def digest(self) -> str:
        """The SHA-256 of `used_settings` and their schema, from which the run's secret follows."""
        return digest({"schema": SETTINGS_SCHEMA, **self.used_settings()})

    def mark_settings(self) -> dict[str, Any]:
        """Return each chosen mark's config."""
        return {mark: getattr(self, _field(mark)) for mark in self.marks}

    def spec(self, data: Dataset) -> ModelSpec:
        """Return the spec of the model for these data."""
        return self.network_spec(data.shape, data.classes)

    def network_spec(self, shape: tuple[int, int, int], classes: tuple[str, ...]) -> ModelSpec:
        """Return the spec of the model for images of `shape` [C, H, W] in these classes."""
        own = is_factory(self.model)
        return ModelSpec(
            architecture=self.model,
            settings=self.model_settings if own else to_mapping(getattr(self, _field(self.model))),
            shape=shape,
            classes=classes,
            wrapper=self.wrapper,
            source=source_digest(self.model) if own else "",
        )


def with_network(cfg: Protection, spec: ModelSpec) -> Protection:
    """Return `cfg` with the network that `spec` describes."""
    if spec.architecture == MODULE:
        return replace(cfg, model=MODULE)
    if is_factory(spec.architecture):
        return replace(cfg, model=spec.architecture, model_settings=spec.settings, wrapper=spec.wrapper)
    settings = from_mapping(MODELS[spec.architecture][1], spec.settings, spec.architecture)
    return replace(cfg, model=spec.architecture, wrapper=spec.wrapper, **{_field(spec.architecture): settings})


_LATER = ("size", "skip_unreadable", "model_settings", "wrapper", "marking")
"""Settings that enter the digest only where they are not the defaults, so that older runs keep theirs."""


def change(cfg: Protection, settings: Sequence[str] | Mapping[str, Any]) -> Protection:
    """Return `cfg` with settings applied, `key=value` texts or by path; `model.KEY` stands for `model_settings.KEY`."""
    if isinstance(settings, Mapping):
        settings = [f"{name}={value}" for name, value in settings.items()]
    return with_settings(cfg, [re.sub(r"^\s*model\.", "model_settings.", setting) for setting in settings])


def quick_triggers(classes: int) -> Triggers:
    """Return triggers for a training that ends when they are there: few of them, embedded at every step.

    They are fewer where there are many classes, since each is worth more bits. There are two tranches, so that one of
    them, half of the bits, suffices for a claim.
    """
    cfg = Triggers(count=128, tranches=2, weight=1.0, every=1, recall=1.0, batch=32)
    return replace(cfg, count=64, batch=16) if classes > _MANY_CLASSES else cfg


def _field(name: str) -> str:
    """Return the field of `Protection` that holds the settings of a mark or a network."""
    return name.replace("-", "_")


_DEFAULT = Protection()


class DatasetDefaults(NamedTuple):
    """A data set's customary training budget, and what goes with it.

    Nearer triggers cost robustness, farther ones are forgotten in fine-tuning; docs/results/tuning.md has figures. At
    MNIST's budget three steps overfit: PGD finds such models robust, `ensemble` does not; docs/results/frontier.md.

    Attributes:
        eps: the training budget.
        reach: how many times larger the triggers' is.
        steps: of the attack in training.
        robust_weight: of the divergence where a preset trains by one.
        shift: of training images in preset `strong`.
        net: of preset `strong`. The deeper `cw-cnn` is more robust on MNIST and less on Fashion-MNIST.
    """

    eps: float = 8 / 255
    reach: float = 2.5
    steps: int = 3
    robust_weight: float | None = None
    shift: int = 0
    net: str = "small-cnn"


_USUAL: Mapping[str, DatasetDefaults] = MappingProxyType(
    {
        "mnist": DatasetDefaults(0.25, 2.8, steps=5, robust_weight=1.5, shift=1, net="cw-cnn"),
        "mnist-5k": DatasetDefaults(0.25, 2.8),
        "fashion-mnist": DatasetDefaults(0.1, 2.5),
    }
)


def defaults_for(data: str) -> DatasetDefaults:
    """Return what is customary for a data set; one that is not known here gets the defaults."""
    return _USUAL.get(data, DatasetDefaults())


def _fast(base: Protection) -> Protection:
    """Minutes on two cores."""
    return base


def _paper(base: Protection) -> Protection:
    """The founding paper's network and training (its triggers are the mark `paper`)."""
    recipe = Recipe(
        eps=base.recipe.eps,
        steps=25,
        step_size=0.04,
        attack_mode="train",
        epochs=100,
        optimizer="sgd",
        lr=5e-3,
        weight_decay=5e-4,
        schedule="constant",
        warmup=0,
        ramp=0,
    )
    return replace(base, model="paper-cnn", recipe=recipe)


def _strong(base: Protection) -> Protection:
    """As robust as a small network gets in under an hour on two cores; docs/results/frontier.md has figures."""
    custom = defaults_for(base.data)
    recipe = Recipe(
        loss="trades",
        robust_weight=custom.robust_weight,
        eps=base.recipe.eps,
        steps=10,
        epochs=_STRONG_EPOCHS[custom.net] * base.recipe.epochs,
        ema=0.999,
        shift=custom.shift,
    )
    return replace(
        base,
        model=custom.net,
        set_aside=0.25,
        recipe=recipe,
        small_cnn=SmallCNN(width=64, hidden=256),
        cw_cnn=CWCNN(dropout=0.0),
    )


_STRONG_EPOCHS: Mapping[str, int] = MappingProxyType({"small-cnn": 2, "cw-cnn": 1})
"""How many times as many as `fast` has; more were not tried of `cw-cnn`, whose steps take a third longer."""

PRESETS: Mapping[str, Callable[[Protection], Protection]] = MappingProxyType(
    {"fast": _fast, "paper": _paper, "strong": _strong}
)


def preset(name: str, *, data: str, eps: float | None, wm_eps: float | None, seed: int, count: int) -> Protection:
    """Return a preset's protection for a data set with `count` training images.

    Small data sets get more epochs, so that every run takes about as many steps.
    """
    custom = defaults_for(data)
    budget = custom.eps if eps is None else eps
    epochs = min(60, max(10, 470_000 // max(1, count)))
    base = Protection(
        data=data,
        seed=seed,
        wm_eps=min(round(max(custom.reach * budget, budget + 0.04), 6), 0.98) if wm_eps is None else wm_eps,
        recipe=Recipe(eps=budget, epochs=epochs, steps=custom.steps),
        panel=ReferenceConfig(robust_epochs=max(6, epochs * 6 // 10), plain_epochs=max(3, epochs * 3 // 10)),
    )
    return lookup(PRESETS, name, "preset")(base)
