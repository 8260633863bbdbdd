"""Plan a grid: its cells in order, and the jobs that train, attack and test the models behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from wootz.bench.grid import PRESET, Axes, Grid, IndependentModels, MarkSet, Theft, Variant
from wootz.config import digest, from_mapping, to_mapping, with_values
from wootz.data import load
from wootz.errors import ConfigError
from wootz.models import MODELS
from wootz.records import INDEPENDENT, OWNER_MODEL, UNMARKED
from wootz.registry import lookup, nearest
from wootz.training import LOSSES, Recipe
from wootz.types import Kind
from wootz.watermarks import MARKS
from wootz.workflows.attack import FAMILIES
from wootz.workflows.protection import Protection, preset

PROTOCOL = "wootz-bench/2"

JobKind: TypeAlias = Literal["panel", "train", "attack", "test"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One unit of work, named by the digest of everything that decides its result.

    Plain data: a job can be sent to other processes and machines.

    Attributes:
        kind: `panel`, `train` and `attack` make models, each in its own folder; `test` computes a result of the grid.
        config: Everything that decides the result, as plain values; other jobs are named in it by digest.
        needs: Digests of the jobs that must end before this one.
        label: A name for people; jobs with the same label take about the same time.
        digest: 32 hexadecimal digits; equal configs give equal digests.
    """

    kind: JobKind
    config: dict[str, Any]
    needs: tuple[str, ...] = ()
    label: str = field(compare=False)
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        name = digest({"protocol": PROTOCOL, "kind": self.kind, "config": self.config})[:32]
        object.__setattr__(self, "digest", name)


@dataclass(frozen=True, slots=True, kw_only=True)
class GridCell:
    """One cell of a grid: its coordinates, the suspect that it is about, and the job that computes its result."""

    axes: dict[str, str]
    seed: int
    suspect: str
    kind: Kind
    job: Job

    @property
    def coordinates(self) -> dict[str, str]:
        """The cell's name along each axis, the seed included."""
        return self.axes | {"seed": str(self.seed)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A grid's cells in order, and its model jobs by digest, each after the jobs that it needs."""

    cells: tuple[GridCell, ...]
    models: Mapping[str, Job]


def plan_grid(grid: Grid, data_dir: Path | None = None) -> Plan:
    """Return the cells and jobs of a grid. Equal cells are planned once, at their first position.

    Raises:
        ConfigError: A name or setting is unknown, or settings contradict each other.
    """
    planner = _Planner(grid, data_dir)
    cells: dict[str, GridCell] = {}
    for axes in grid.products:
        for cell in planner.cells(axes):
            cells.setdefault(cell.job.digest, cell)
    if not cells:
        raise ConfigError(f"grid {grid.name!r}: holds no cell; independent models alone need an owner with marks")
    return Plan(cells=tuple(cells.values()), models=planner.models)


def select_cells(cells: Sequence[GridCell], selectors: Sequence[str]) -> tuple[GridCell, ...]:
    """Return the cells that match all selectors, in the grid's order.

    Args:
        cells: The cells of the grid.
        selectors: Each `axis=name` or `axis=name,name`, with the grid's own axes and names.

    Raises:
        ConfigError: There is no such axis, no such name along it, or no cell that matches all selectors.
    """
    selected = tuple(cells)
    for selector in selectors:
        axis, _, names = selector.partition("=")
        lookup(cells[0].coordinates, axis, "axis in `select`")
        wanted, available = names.split(","), dict.fromkeys(cell.coordinates[axis] for cell in cells)
        for name in wanted:
            lookup(available, name, f"{axis} in `select`")
        selected = tuple(cell for cell in selected if cell.coordinates[axis] in wanted)
    if not selected:
        raise ConfigError(f"`select` {' '.join(selectors)}: the grid has no cell there; leave one of them out")
    return selected


class _Planner:
    """Collects the model jobs of a grid while its cells are enumerated."""

    def __init__(self, grid: Grid, data_dir: Path | None) -> None:
        self.models: dict[str, Job] = {}
        self._grid, self._data_dir = grid, data_dir
        self._train_sizes: dict[str, int] = {}
        self._attack_configs: dict[str, dict[str, Any]] = {}
        self._independent: dict[str, list[str]] = {}

    def cells(self, axes: Axes) -> Iterator[GridCell]:
        """Yield the cells of one product of names, in order."""
        for data in axes.data:
            for model in axes.model:
                for loss in axes.loss:
                    for mark in axes.mark:
                        cfg = self._protection(data, model, loss, mark)
                        names = {
                            "data": data,
                            "model": cfg.model if model == PRESET else model,
                            "loss": cfg.recipe.loss if loss == PRESET else loss,
                            "mark": mark,
                        }
                        for seed in axes.seed:
                            yield from self._cells_of_owner(replace(cfg, seed=seed), names, axes)

    def _cells_of_owner(self, cfg: Protection, names: dict[str, str], axes: Axes) -> Iterator[GridCell]:
        """Yield the cells of one owner's model: each suspect under each access."""
        measure = self._grid.measure
        owner = self._train_job(cfg, evaluations=measure.evaluations)
        for theft in axes.theft:
            for suspect, kind, model in self._suspects(theft, cfg, owner, names["data"]):
                for access in axes.access if cfg.marks else axes.access[:1]:
                    boundary_queries = measure.walks if access == "label" and cfg.marks else 0
                    config = {
                        "owner": owner if cfg.marks else None,
                        "suspect": model,
                        "access": access,
                        "bits": measure.bits,
                    } | ({"walks": boundary_queries} if boundary_queries else {})
                    needs = tuple(dict.fromkeys((owner, model)))
                    job = Job(kind="test", config=config, needs=needs, label=f"test {names['data']}")
                    coordinates = names | {"theft": theft, "access": access}
                    yield GridCell(axes=coordinates, seed=cfg.seed, suspect=suspect, kind=kind, job=job)

    def _suspects(self, theft: str, cfg: Protection, owner: str, data: str) -> Iterator[tuple[str, Kind, str]]:
        """Yield name, kind and model job of every suspect that is tested against an owner's key."""
        if theft == OWNER_MODEL:
            yield "owner", "protected" if cfg.marks else "independent", owner
        elif theft != INDEPENDENT:
            yield theft, *self._attack_job(theft, owner, data, cfg.seed)
        elif cfg.marks:
            for number, model in enumerate(self._independent_jobs(data), 1):
                yield f"independent-{number}", "independent", model

    def _independent_jobs(self, data: str) -> list[str]:
        """Return the jobs of a data set's independent models; every owner's key is tested against the same ones."""
        if data not in self._independent:
            rows = [models for models in self._grid.independent for _ in range(models.count)]
            self._independent[data] = [
                self._independent_job(models, data, models.seed + number) for number, models in enumerate(rows, 1)
            ]
        return self._independent[data]

    def _independent_job(self, models: IndependentModels, data: str, seed: int) -> str:
        cfg = replace(self._protection(data, models.model, models.loss, UNMARKED), seed=seed)
        return self._train_job(with_values(cfg, models.settings, "independent.settings"), evaluations=())

    def _protection(self, data: str, model: str, loss: str, mark: str) -> Protection:
        """Return the training config for one name along each axis, with seed 0."""
        grid = self._grid
        dataset, mark_set = _resolve(grid.data, data), self._mark_set(mark)
        cfg = preset(
            grid.preset,
            data=dataset.base,
            eps=_training_eps(dataset, data),
            wm_eps=None,
            seed=0,
            count=self._train_size(dataset.base),
        )
        layers = (
            (grid.settings, "settings"),
            (dataset.settings, f"data.{data}.settings"),
            *_variant_layers("model", grid.model, model, MODELS, lambda base: {"model": base}),
            *_variant_layers("loss", grid.loss, loss, LOSSES, lambda base: {"recipe": {"loss": base}}),
            ({"marks": list(mark_set.marks)}, "axes"),
            (mark_set.settings, f"mark.{mark}.settings"),
            (mark_set.by_data.get(data, {}), f"mark.{mark}.by_data.{data}"),
        )
        for values, where in layers:
            cfg = with_values(cfg, values, where)
        return cfg

    def _mark_set(self, name: str) -> MarkSet:
        if name == UNMARKED:
            return MarkSet(marks=())
        if name in self._grid.mark:
            return self._grid.mark[name]
        if name in MARKS:
            return MarkSet(marks=(name,))
        raise ConfigError(f"unknown mark {name!r}: {nearest(name, (UNMARKED, *self._grid.mark, *MARKS))}")

    def _train_size(self, data: str) -> int:
        if data not in self._train_sizes:
            self._train_sizes[data] = len(load(data, self._data_dir).train)
        return self._train_sizes[data]

    def _train_job(self, cfg: Protection, *, evaluations: tuple[str, ...]) -> str:
        measure = self._grid.measure
        parts = {
            "images": measure.images,
            "evaluations": list(evaluations),
            "evaluation_images": measure.evaluation_images,
        }
        panel = self._panel_job(cfg) if cfg.marks else None
        config = {"protection": cfg.used_settings(), "panel": panel, "measure": parts}
        needs = (panel,) if panel else ()
        return self._add_job(
            "train", config, needs, f"train {cfg.data} {cfg.model} {cfg.recipe.loss} {cfg.recipe.epochs}"
        )

    def _panel_job(self, cfg: Protection) -> str:
        """Return the job of the reference models of a key's tests; owners that differ in marks or loss share them."""
        base = Protection(
            data=cfg.data,
            **cfg.reading(),
            seed=cfg.seed,
            marks=(),
            panel=cfg.panel,
            small_cnn=cfg.small_cnn,
            recipe=replace(Protection().recipe, eps=cfg.recipe.eps, norm=cfg.recipe.norm),
        )
        return self._add_job("panel", {"protection": base.used_settings()}, (), f"panel {cfg.data}")

    def _attack_job(self, name: str, owner: str, data: str, seed: int) -> tuple[Kind, str]:
        if name not in self._attack_configs:
            self._attack_configs[name] = self._attack_config(name)
        config = self._attack_configs[name] | {"owner": owner, "images": self._grid.measure.images, "seed": seed}
        job = self._add_job("attack", config, (owner,), f"{config['attack']} {data}")
        return FAMILIES[config["family"]].kind, job

    def _attack_config(self, name: str) -> dict[str, Any]:
        """Return everything that decides an attack except its target."""
        theft = self._grid.theft.get(name) or Theft(attack=name)
        family = next((kind for kind, row in FAMILIES.items() if theft.attack in row.attacks), None)
        if family is None:
            attacks = (name for row in FAMILIES.values() for name in row.attacks)
            available = (OWNER_MODEL, INDEPENDENT, *self._grid.theft, *attacks)
            raise ConfigError(f"unknown theft {theft.attack!r}: {nearest(theft.attack, available)}")
        settings = with_values(FAMILIES[family].attacks[theft.attack].config, theft.settings, f"theft.{name}.settings")
        return to_mapping(theft) | {"family": family, "settings": to_mapping(settings)}

    def _add_job(self, kind: JobKind, config: dict[str, Any], needs: tuple[str, ...], label: str) -> str:
        job = Job(kind=kind, config=config, needs=needs, label=label)
        self.models.setdefault(job.digest, job)
        return job.digest


class _ResolvedVariant(NamedTuple):
    """A variant with its base filled in."""

    base: str
    settings: dict[str, Any]


def _resolve(variants: Mapping[str, Variant], name: str) -> _ResolvedVariant:
    variant = variants.get(name, Variant())
    return _ResolvedVariant(variant.base or name, variant.settings)


def _variant_layers(
    axis: str,
    variants: Mapping[str, Variant],
    name: str,
    table: Mapping[str, Any],
    select_base: Callable[[str], dict[str, Any]],
) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the settings of a name along an axis, with their source: its base, unless the preset's own, and its own."""
    base, settings = _resolve(variants, name)
    if base != PRESET:
        lookup(table, base, axis)
        yield select_base(base), "axes"
    yield settings, f"{axis}.{name}.settings"


def _training_eps(dataset: _ResolvedVariant, name: str) -> float | None:
    """Return the training eps in a data set's settings, which the preset derives further settings from."""
    eps = dataset.settings.get("recipe", {}).get("eps")
    return None if eps is None else from_mapping(Recipe, {"eps": eps}, f"data.{name}.settings.recipe").eps
