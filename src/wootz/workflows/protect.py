"""Train a robust marked model into a run folder; a killed run continues where it was."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import nn

from wootz.attacks.evasion import accuracy_curve
from wootz.config import digest, from_mapping, read_toml, to_mapping, to_toml
from wootz.data import Dataset, load
from wootz.errors import ConfigError
from wootz.keys import (
    BoundarySearchTerms,
    OwnerKeys,
    draw_keys,
    has_keys,
    owner_secret,
    public_hex,
    read_keys,
    run_secret,
    signing_key,
    write_keys,
)
from wootz.models import ModelSpec, build, read_model, write_model
from wootz.records import Cell, to_json
from wootz.rng import derive
from wootz.store import write_bytes, write_json
from wootz.training import Execution, Recipe, check_shift, train
from wootz.types import Progress
from wootz.watermarks import MarkContext, hook_of, prepare_all, weights_digest
from wootz.workflows.protection import Protection
from wootz.workflows.run import TEST_IMAGES, Timer, measure, prepare_run_folder
from wootz.workflows.timestamp import fetch_token

CURVE_IMAGES = 300


def protect(
    cfg: Protection,
    out: Path,
    *,
    data_dir: Path | None = None,
    execution: Execution | None = None,
    resume: bool = False,
    tsa: str | None = None,
    policy: str = "",
    count: int = TEST_IMAGES,
    progress: Progress = lambda *_: None,
) -> Cell:
    """Make the panel, the key and the model, in this order, and measure the model.

    Args:
        cfg: what to make.
        out: the run folder; must not hold a model yet unless `resume`.
        data_dir: where data are looked for first.
        execution: device, precision, processes.
        resume: take up what an earlier call with the same settings left unfinished.
        tsa: address of an RFC 3161 authority that stamps the registration before the keys are drawn.
        policy: the authority's policy, a dotted object identifier; empty for its default.
        count: test images that robust accuracy is measured on.
        progress: told what is going on.
    """
    time = Timer()
    execution = execution or Execution()
    data = load(cfg.data, data_dir, cfg.set_aside)
    spec = cfg.spec(data)
    model = build(spec, cfg.seed)
    check_shift(cfg.recipe, data.shape)
    prepare_run_folder(out, resume=resume)
    _keep_config(cfg, out, resume=resume)
    settings, hook, owner_keys = cfg.mark_settings(), None, None
    if settings:
        panel = make_panel(cfg, data, out / "panel", execution=execution, progress=progress)
        progress("making the key", 0.0)
        owner_keys = _make_keys(cfg, data, panel, model, out, tsa, policy)
        hook = hook_of(settings, owner_keys.keys, data, seed=cfg.seed)
    trained = train(
        cfg.recipe,
        model,
        data.train,
        data.validation,
        seed=cfg.seed,
        hook=hook,
        execution=execution,
        folder=out,
        resume=resume,
        progress=lambda done, figures: progress(f"training (loss {figures['loss']:.3f})", done),
    )
    about = {
        "kind": "protected" if settings else "independent",
        "data": cfg.data,
        "set_aside": cfg.set_aside,
        "eps": cfg.recipe.eps,
        "seed": cfg.seed,
        "training": to_mapping(cfg),
        "digest": digest(cfg),
        "precision": "bf16" if execution.bfloat16 else "32",
        "best_epoch": trained.best_epoch,
    }
    write_model(out, trained.model, spec, about)
    clean, robust = measure(
        trained.model, data, eps=cfg.recipe.eps, count=count, progress=progress, seed=cfg.seed, execution=execution
    )
    cell = Cell(
        data=cfg.data,
        suspect=out.name,
        kind="protected" if settings else "independent",
        clean=clean,
        robust=robust,
        seconds=time.seconds,
        seed=cfg.seed,
    )
    write_json(out / "record.json", to_json(cell))
    write_json(out / "curve.json", curve(trained.model, data, cfg.recipe.eps))
    return cell


def read_config(out: Path) -> Protection:
    """Return the settings that the run at `out` was begun with."""
    if not (out / "config.toml").is_file():
        raise ConfigError(f"{out}: nothing to resume (it holds no config.toml)")
    return from_mapping(Protection, read_toml(out / "config.toml"), str(out / "config.toml"))


def make_panel(
    cfg: Protection, data: Dataset, place: Path, *, execution: Execution, progress: Progress
) -> list[nn.Module]:
    """Train the independent models, or read those that are already there."""
    recipes = {
        "robust": Recipe(
            eps=cfg.recipe.eps,
            norm=cfg.recipe.norm,
            steps=cfg.panel.robust_steps,
            epochs=cfg.panel.robust_epochs,
            lr=cfg.panel.lr,
        ),
        "plain": Recipe(loss="natural", eps=cfg.recipe.eps, epochs=cfg.panel.plain_epochs, lr=cfg.panel.lr),
    }
    spec = replace(cfg, model="small-cnn", small_cnn=replace(cfg.small_cnn, width=cfg.panel.width)).spec(data)
    return [_member(name, recipe, spec, cfg, data, place, execution, progress) for name, recipe in recipes.items()]


def _member(
    name: str,
    recipe: Recipe,
    spec: ModelSpec,
    cfg: Protection,
    data: Dataset,
    place: Path,
    execution: Execution,
    progress: Progress,
) -> nn.Module:
    folder = place / name
    if (folder / "model.json").exists():
        return read_model(folder)[0]
    seed = derive(cfg.seed, "panel", name)
    trained = train(
        recipe,
        build(spec, seed),
        data.train,
        data.validation,
        seed=seed,
        execution=execution,
        progress=lambda done, _: progress(f"training the panel ({name})", done),
    )
    about = {
        "kind": "independent",
        "data": cfg.data,
        "eps": recipe.eps,
        "seed": cfg.seed,
        "training": to_mapping(recipe),
    }
    write_model(folder, trained.model, spec, about)
    return trained.model


def _make_keys(
    cfg: Protection, data: Dataset, panel: list[nn.Module], model: nn.Module, out: Path, tsa: str | None, policy: str
) -> OwnerKeys:
    if has_keys(out):
        return read_keys(out)
    secret = run_secret(owner_secret(), digest(cfg))
    context = MarkContext(data=data, panel=tuple(panel), model=model, eps=cfg.recipe.eps, wm_eps=cfg.wm_eps)
    materials = prepare_all(cfg.mark_settings(), context, secret)
    digests = [weights_digest(member) for member in panel]
    owner_keys = draw_keys(
        secret,
        materials,
        classes=data.classes,
        shape=data.shape,
        panel=digests,
        owner=public_hex(signing_key()),
        boundary_search=BoundarySearchTerms.for_eps(cfg.recipe.eps, cfg.recipe.norm),
        options=cfg.claim.options(),
        fetch_token=partial(fetch_token, tsa, policy=policy) if tsa else None,
        policy=policy,
    )
    write_keys(out, owner_keys)
    return owner_keys


def curve(model: nn.Module, data: Dataset, eps: float) -> dict[str, list[float]]:
    """Return robust accuracy at budgets from 0 to twice `eps`, on the first few hundred test images."""
    few = data.test.subset(slice(CURVE_IMAGES))
    budgets = [round(eps * step / 4, 6) for step in range(9)]
    return {"eps": budgets, "accuracy": accuracy_curve(model, few.images(), few.labels, eps=budgets)}


def _keep_config(cfg: Protection, out: Path, *, resume: bool) -> None:
    path = out / "config.toml"
    if resume and path.exists() and digest(read_config(out)) != digest(cfg):
        raise ConfigError(f"{path}: this run was begun with other settings; resume it with the same ones")
    write_bytes(path, to_toml(cfg))
