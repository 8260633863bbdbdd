"""Grid files: axes, named variants along them, independent models as controls, and how models are measured."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from wootz import checks
from wootz.config import from_mapping, read_toml, to_mapping
from wootz.errors import ConfigError
from wootz.records import OWNER_MODEL, UNMARKED
from wootz.types import THRESHOLD_BITS, Access

PRESET = "preset"
"""Name along the axes `model` and `loss` of what the grid's preset has for the data set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """Names along each axis; the cells of a grid are their product.

    Attributes:
        data: Names of data sets.
        model: Architectures, names of `[model.NAME]`, or `preset`.
        loss: Training losses, names of `[loss.NAME]`, or `preset`.
        mark: `none`, single marks, or names of `[mark.NAME]`.
        theft: `none` (the owner's own model), `independent` (every independent model), extraction and removal
            attacks, or names of `[theft.NAME]`.
        access: What a verifier sees of the suspect: `scores`, `label` or `weights`.
        seed: Seeds of training and of attacks.
    """

    data: tuple[str, ...] = ()
    model: tuple[str, ...] = (PRESET,)
    loss: tuple[str, ...] = (PRESET,)
    mark: tuple[str, ...] = (UNMARKED,)
    theft: tuple[str, ...] = (OWNER_MODEL,)
    access: tuple[Access, ...] = ("scores",)
    seed: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        for axis in fields(self):
            if not getattr(self, axis.name):
                raise ConfigError(f"axes.{axis.name}: is empty; every axis needs at least one name")


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A named variant of a data set, a model or a loss.

    Attributes:
        base: The name that the variant is based on; None means its own name.
        settings: The settings that the variant changes.
    """

    base: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkSet:
    """Marks that are embedded together.

    Attributes:
        marks: Names of the marks.
        settings: Settings of the marks or of the training.
        by_data: Further settings for single data sets, by the name of the data set.
    """

    marks: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    by_data: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Theft:
    """An extraction or removal attack with its settings.

    Attributes:
        attack: A name of `wootz steal --attack list` or `wootz remove --attack list`.
        access: What the answers of the attacked service show; None means what the attack needs.
        budget: The number of queries that the attack may spend; None means no limit.
        served: Whether the attack queries the model through the owner's guard, whose log is then part of the key.
        settings: Settings of the attack.
    """

    attack: str
    access: str | None = None
    budget: int | None = None
    served: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndependentModels:
    """Independent models to train per data set, as controls.

    Attributes:
        count: The number of models per data set.
        model: The architecture, as along the axis `model`.
        loss: The training loss, as along the axis `loss`.
        seed: The models have the seeds `seed + 1`, `seed + 2` and so on.
        settings: Settings of their training.
    """

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
        images: The number of test images on which every model is attacked by PGD-40 x 2.
        evaluations: Further evaluations, of the owners' models only.
        evaluation_images: The number of test images for these.
        bits: Bits of evidence that a verdict requires.
        walks: Queries per mark for the boundary search with access `label`, see `wootz verify --boundary-queries`.
    """

    images: int = 1000
    evaluations: tuple[str, ...] = ()
    evaluation_images: int = 1000
    bits: float = THRESHOLD_BITS
    walks: int = 0

    def __post_init__(self) -> None:
        checks.at_least(1, images=self.images, evaluation_images=self.evaluation_images)
        checks.at_least(0, walks=self.walks)
        checks.not_negative(bits=self.bits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The content of a grid file.

    Attributes:
        name: The name of the grid, for people.
        preset: The preset of `wootz protect` that every training starts from.
        axes: Names along each axis.
        block: Several products instead of one; each block replaces some of the axes.
        settings: Settings of every training.
        data: Variants of data sets, with settings of the trainings on them.
        model: Variants of architectures.
        loss: Variants of losses.
        mark: Sets of marks.
        theft: Attacks with settings.
        independent: Independent models, the controls.
        measure: How models are measured.
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
    independent: tuple[IndependentModels, ...] = ()
    measure: Measure = field(default_factory=Measure)

    @property
    def products(self) -> tuple[Axes, ...]:
        """The axes of each block, or the axes themselves if there is no block."""
        base = to_mapping(self.axes)
        blocks = (from_mapping(Axes, base | block, f"block {number}") for number, block in enumerate(self.block, 1))
        return tuple(blocks) or (self.axes,)


def read_grid(path: Path) -> Grid:
    """Read a grid file.

    Raises:
        ConfigError: The file is not TOML, or a setting is unknown or has a wrong value; the message names it.
    """
    return from_mapping(Grid, read_toml(path), str(path))
