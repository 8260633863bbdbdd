"""What a grid file says: axes, named variants along them, controls, and how everything is measured."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from wootz import checks
from wootz.config import from_mapping, read_toml, to_mapping
from wootz.errors import ConfigError
from wootz.types import Access

OWN, CONTROLS = "none", "independent"
"""Thefts that are none: the owner's own model, and the controls tested with its key."""

PRESET = "preset"
"""A model or a loss that is whatever the grid's preset has for the data set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """Names along each axis; a grid's cells are their product.

    Attributes:
        data: data sets.
        model: architectures, names of `[model.NAME]`, or `preset`.
        loss: training losses, names of `[loss.NAME]`, or `preset`.
        mark: `none`, single marks, or names of `[mark.NAME]`.
        theft: `none` (the owner's own model), `independent` (every control), attacks of either family, or names of
            `[theft.NAME]`.
        access: what the suspect shows to whoever tests it: `scores`, `label` or `weights`.
        seed: of training and of attacks.
    """

    data: tuple[str, ...] = ()
    model: tuple[str, ...] = (PRESET,)
    loss: tuple[str, ...] = (PRESET,)
    mark: tuple[str, ...] = (OWN,)
    theft: tuple[str, ...] = (OWN,)
    access: tuple[Access, ...] = ("scores",)
    seed: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        for axis in fields(self):
            if not getattr(self, axis.name):
                raise ConfigError(f"axes.{axis.name}: is empty; every axis needs one name at least")


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A named variant of a data set, a model or a loss: what it is based on (by default its own name), and settings."""

    base: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkSet:
    """Marks that are written together, with settings of theirs or of the training, and some for single data sets."""

    marks: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    by_data: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Theft:
    """An attack of either family with its settings.

    Attributes:
        attack: a name of `wootz steal --attack list` or `wootz remove --attack list`.
        access: what the robbed service shows; None means what the attack asks for.
        budget: queries that the thief may spend; None means as many as he wants.
        served: the thief is answered through the owner's guard, whose log is then part of the key.
        settings: of the attack.
    """

    attack: str
    access: str | None = None
    budget: int | None = None
    served: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """Independent models for each data set, one seed each from `seed` on."""

    count: int
    model: str = PRESET
    loss: str = PRESET
    seed: int = 1000
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checks.at_least(1, count=self.count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """How models are measured.

    Attributes:
        images: test images that PGD-40 x 2 attacks on every model.
        evaluations: further evaluations of owners' models, stolen ones and controls are spared them.
        evaluation_images: test images that these attack.
        bits: bar of a verdict.
        walks: queries per mark for the boundary search with access `label`, see `wootz verify --boundary-queries`.
    """

    images: int = 1000
    evaluations: tuple[str, ...] = ()
    evaluation_images: int = 1000
    bits: float = 40.0
    walks: int = 0

    def __post_init__(self) -> None:
        checks.at_least(1, images=self.images, evaluation_images=self.evaluation_images)
        checks.at_least(0, walks=self.walks)
        checks.not_negative(bits=self.bits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A whole grid.

    Attributes:
        name: for people.
        preset: of `wootz protect`, which every training starts from.
        axes: names along each axis.
        block: several products instead of one; each replaces some of the axes.
        settings: of every training.
        data: settings of a data set's trainings, by its name.
        model: variants of architectures.
        loss: variants of losses.
        mark: sets of marks.
        theft: attacks with settings.
        independent: controls.
        measure: how models are measured.
    """

    name: str
    preset: str = "fast"
    axes: Axes
    block: tuple[dict[str, Any], ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Variant] = field(default_factory=dict)
    model: dict[str, Variant] = field(default_factory=dict)
    loss: dict[str, Variant] = field(default_factory=dict)
    mark: dict[str, MarkSet] = field(default_factory=dict)
    theft: dict[str, Theft] = field(default_factory=dict)
    independent: tuple[Controls, ...] = ()
    measure: Measure = field(default_factory=Measure)

    @property
    def products(self) -> tuple[Axes, ...]:
        """The axes of each block, or the axes themselves where there is no block."""
        base = to_mapping(self.axes)
        blocks = (from_mapping(Axes, base | block, f"block {place}") for place, block in enumerate(self.block, 1))
        return tuple(blocks) or (self.axes,)


def read_grid(path: Path) -> Grid:
    """Read a grid file; whatever does not fit is a ConfigError that names its place."""
    return from_mapping(Grid, read_toml(path), str(path))
