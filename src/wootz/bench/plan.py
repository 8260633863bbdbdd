"""From a grid to its cells in order, and to the models that they need, each of which is made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from wootz.bench.grid import CONTROLS, OWN, PRESET, Axes, Controls, Grid, MarkSet, Theft, Variant
from wootz.bench.job import Job
from wootz.config import from_mapping, to_mapping, with_values
from wootz.data import load
from wootz.errors import ConfigError
from wootz.models import MODELS
from wootz.registry import lookup, nearest
from wootz.training import LOSSES, Recipe
from wootz.types import Kind
from wootz.watermarks import MARKS
from wootz.workflows.attack import FAMILIES
from wootz.workflows.protection import Protection, preset


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One cell of a grid: where it stands, what it is about, and the job that makes it."""

    axes: dict[str, str]
    seed: int
    suspect: str
    kind: Kind
    job: Job

    @property
    def names(self) -> dict[str, str]:
        """The cell's name along each axis."""
        return self.axes | {"seed": str(self.seed)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A grid's cells in order, and the jobs that make models, by digest and after what they need."""

    places: tuple[Place, ...]
    models: Mapping[str, Job]


def plan_of(grid: Grid, data_dir: Path | None = None) -> Plan:
    """Lay out a grid. Cells that come out the same stand once, where they came first.

    Raises:
        ConfigError: an unknown name or setting, or settings that contradict each other.
    """
    layout = _Layout(grid, data_dir)
    places: dict[str, Place] = {}
    for axes in grid.products:
        for place in layout.cells(axes):
            places.setdefault(place.job.digest, place)
    if not places:
        raise ConfigError(f"grid {grid.name!r}: holds no cell; controls alone need an owner with marks")
    return Plan(places=tuple(places.values()), models=layout.models)


class _Layout:
    """Gathers the jobs of a grid while its cells are gone through."""

    def __init__(self, grid: Grid, data_dir: Path | None) -> None:
        self.models: dict[str, Job] = {}
        self._grid, self._data_dir = grid, data_dir
        self._counts: dict[str, int] = {}
        self._thefts: dict[str, dict[str, Any]] = {}
        self._strangers: dict[str, list[str]] = {}

    def cells(self, axes: Axes) -> Iterator[Place]:
        """Yield the cells of one product in order."""
        for data in axes.data:
            for model in axes.model:
                for loss in axes.loss:
                    for mark in axes.mark:
                        cfg = self._protection(data, model, loss, mark)
                        named = {
                            "data": data,
                            "model": cfg.model if model == PRESET else model,
                            "loss": cfg.recipe.loss if loss == PRESET else loss,
                            "mark": mark,
                        }
                        for seed in axes.seed:
                            yield from self._of_owner(replace(cfg, seed=seed), named, axes)

    def _of_owner(self, cfg: Protection, named: dict[str, str], axes: Axes) -> Iterator[Place]:
        owner = self._training(cfg, evaluations=self._grid.measure.evaluations)
        for theft in axes.theft:
            for name, kind, suspect in self._suspects(theft, cfg, owner, named["data"]):
                for access in axes.access if cfg.marks else axes.access[:1]:
                    where = named | {"theft": theft, "access": access}
                    boundary_queries = self._grid.measure.walks if access == "label" and cfg.marks else 0
                    config = {
                        "owner": owner if cfg.marks else None,
                        "suspect": suspect,
                        "access": access,
                        "bits": self._grid.measure.bits,
                    } | ({"walks": boundary_queries} if boundary_queries else {})
                    needs = tuple(dict.fromkeys((owner, suspect)))
                    job = Job(kind="test", config=config, needs=needs, label=f"test {named['data']}")
                    yield Place(axes=where, seed=cfg.seed, suspect=name, kind=kind, job=job)

    def _suspects(self, theft: str, cfg: Protection, owner: str, data: str) -> Iterator[tuple[str, Kind, str]]:
        """Yield name, kind and job of what is tested against an owner."""
        if theft == OWN:
            yield "owner", "protected" if cfg.marks else "independent", owner
        elif theft != CONTROLS:
            yield theft, *self._attack(theft, owner, data, cfg.seed)
        elif cfg.marks:
            for number, control in enumerate(self._controls(data), 1):
                yield f"independent-{number}", "independent", control

    def _controls(self, data: str) -> list[str]:
        """Return the jobs of a data set's controls; every owner is tested against the same ones."""
        if data not in self._strangers:
            each = [controls for controls in self._grid.independent for _ in range(controls.count)]
            self._strangers[data] = [
                self._control(controls, data, controls.seed + number) for number, controls in enumerate(each, 1)
            ]
        return self._strangers[data]

    def _control(self, controls: Controls, data: str, seed: int) -> str:
        cfg = replace(self._protection(data, controls.model, controls.loss, OWN), seed=seed)
        return self._training(with_values(cfg, controls.settings, "independent.settings"), evaluations=())

    def _protection(self, data: str, model: str, loss: str, mark: str) -> Protection:
        """Return what to train, but for the seed."""
        grid = self._grid
        of_data, chosen = _chosen(grid.data, data), self._marks(mark)
        cfg = preset(
            grid.preset,
            data=of_data.base,
            eps=_eps(of_data, data),
            wm_eps=None,
            seed=0,
            count=self._count(of_data.base),
        )
        layers = (
            (grid.settings, "settings"),
            (of_data.settings, f"data.{data}.settings"),
            *_along("model", grid.model, model, MODELS, lambda base: {"model": base}),
            *_along("loss", grid.loss, loss, LOSSES, lambda base: {"recipe": {"loss": base}}),
            ({"marks": list(chosen.marks)}, "axes"),
            (chosen.settings, f"mark.{mark}.settings"),
            (chosen.by_data.get(data, {}), f"mark.{mark}.by_data.{data}"),
        )
        for values, where in layers:
            cfg = with_values(cfg, values, where)
        return cfg

    def _marks(self, name: str) -> MarkSet:
        if name == OWN:
            return MarkSet(marks=())
        if name in self._grid.mark:
            return self._grid.mark[name]
        if name in MARKS:
            return MarkSet(marks=(name,))
        raise ConfigError(f"unknown mark {name!r}: {nearest(name, (OWN, *self._grid.mark, *MARKS))}")

    def _count(self, data: str) -> int:
        if data not in self._counts:
            self._counts[data] = len(load(data, self._data_dir).train)
        return self._counts[data]

    def _training(self, cfg: Protection, *, evaluations: tuple[str, ...]) -> str:
        measure = self._grid.measure
        parts = {
            "images": measure.images,
            "evaluations": list(evaluations),
            "evaluation_images": measure.evaluation_images,
        }
        panel = self._panel(cfg) if cfg.marks else None
        config = {"protection": to_mapping(cfg), "panel": panel, "measure": parts}
        needs = (panel,) if panel else ()
        return self._model(
            "train", config, needs, f"train {cfg.data} {cfg.model} {cfg.recipe.loss} {cfg.recipe.epochs}"
        )

    def _panel(self, cfg: Protection) -> str:
        """The independent models that a key's tests lean on; owners that differ in marks or loss share them."""
        base = Protection(
            data=cfg.data,
            set_aside=cfg.set_aside,
            seed=cfg.seed,
            marks=(),
            panel=cfg.panel,
            small_cnn=cfg.small_cnn,
            recipe=replace(Protection().recipe, eps=cfg.recipe.eps, norm=cfg.recipe.norm),
        )
        return self._model("panel", {"protection": to_mapping(base)}, (), f"panel {cfg.data}")

    def _attack(self, name: str, owner: str, data: str, seed: int) -> tuple[Kind, str]:
        if name not in self._thefts:
            self._thefts[name] = self._theft(name)
        config = self._thefts[name] | {"owner": owner, "images": self._grid.measure.images, "seed": seed}
        job = self._model("attack", config, (owner,), f"{config['attack']} {data}")
        return FAMILIES[config["family"]].kind, job

    def _theft(self, name: str) -> dict[str, Any]:
        """Return all that decides an attack but its target."""
        theft = self._grid.theft.get(name) or Theft(attack=name)
        family = next((kind for kind, row in FAMILIES.items() if theft.attack in row.attacks), None)
        if family is None:
            known = (OWN, CONTROLS, *self._grid.theft, *(n for row in FAMILIES.values() for n in row.attacks))
            raise ConfigError(f"unknown theft {theft.attack!r}: {nearest(theft.attack, known)}")
        settings = with_values(FAMILIES[family].attacks[theft.attack].config, theft.settings, f"theft.{name}.settings")
        return to_mapping(theft) | {"family": family, "settings": to_mapping(settings)}

    def _model(self, kind: Any, config: dict[str, Any], needs: tuple[str, ...], label: str) -> str:
        job = Job(kind=kind, config=config, needs=needs, label=label)
        self.models.setdefault(job.digest, job)
        return job.digest


class _Chosen(NamedTuple):
    """A variant with its base filled in."""

    base: str
    settings: dict[str, Any]


def _chosen(named: Mapping[str, Variant], name: str) -> _Chosen:
    variant = named.get(name, Variant())
    return _Chosen(variant.base or name, variant.settings)


def _along(
    axis: str,
    named: Mapping[str, Variant],
    name: str,
    table: Mapping[str, Any],
    says: Callable[[str], dict[str, Any]],
) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield what a name along an axis changes: its base, unless that is the preset's own, and its settings."""
    base, settings = _chosen(named, name)
    if base != PRESET:
        lookup(table, base, axis)
        yield says(base), "axes"
    yield settings, f"{axis}.{name}.settings"


def _eps(of_data: _Chosen, name: str) -> float | None:
    """Return the training budget that a data set's settings name, so that all that follows from it does."""
    eps = of_data.settings.get("recipe", {}).get("eps")
    return None if eps is None else from_mapping(Recipe, {"eps": eps}, f"data.{name}.settings.recipe").eps
