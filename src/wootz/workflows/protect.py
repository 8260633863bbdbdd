"""Train a run folder from its settings: a protected model, or an independent one without marks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from wootz.attacks.evasion import accuracy_curve
from wootz.data import Dataset, check_balance, load
from wootz.models import build, write_model
from wootz.records import Result, to_json
from wootz.statistics import Verdict
from wootz.store import lock_folder, write_json
from wootz.training import Execution, check_shift, train
from wootz.types import Progress
from wootz.workflows.evaluate import TEST_IMAGES, measure
from wootz.workflows.owner import Tsa, begin_run, protect, run_metadata, training_metadata
from wootz.workflows.protection import Protection
from wootz.workflows.run import Timer, load_moved
from wootz.workflows.verify import verdict_fields, verify_own_model

CURVE_IMAGES = 300


def protect_run(
    cfg: Protection,
    out: str | Path,
    *,
    data_dir: Path | None = None,
    execution: Execution | None = None,
    resume: bool = False,
    tsa: Tsa = None,
    tsa_policy: str = "",
    count: int = TEST_IMAGES,
    progress: Progress = lambda *_: None,
) -> Result:
    """Train what the settings say into a run folder, and measure the model: accuracies, and the bits of its marks.

    If the marks give fewer bits than a verdict needs, a note says which settings embed them more strongly.

    Args:
        cfg: all settings; without marks the model is an independent one.
        out: the run folder; must not hold a model yet unless `resume`.
        data_dir: folder that named data sets are looked up in first.
        execution: device, precision, processes.
        resume: continue what an earlier call with the same settings left unfinished.
        tsa: see `protect`.
        tsa_policy: see `protect`.
        count: test images that robust accuracy is measured on.
        progress: called with the name of the step and the fraction done.
    """
    timer, execution, out = Timer(), execution or Execution(), Path(out)
    if resume:
        data = load_moved(cfg.data, data_dir, run=out, **cfg.reading())
    else:
        data = load(cfg.data, data_dir, **cfg.reading())
    with lock_folder(out):
        verdict = None
        if cfg.marks:
            owner = protect(
                cfg.model,
                data,
                config=cfg,
                folder=out,
                resume=resume,
                execution=execution,
                tsa=tsa,
                tsa_policy=tsa_policy,
                progress=progress,
            )
            progress("verifying the model", 0.0)
            model, verdict = owner.model, verify_own_model(owner)
        else:
            model = _train_independent(cfg, data, out, execution=execution, resume=resume, progress=progress)
        clean, robust = measure(
            model, data, eps=cfg.recipe.eps, count=count, progress=progress, seed=cfg.seed, execution=execution
        )
        cell = Result(
            data=data.name,
            suspect=out.name,
            kind="protected" if cfg.marks else "independent",
            clean=clean,
            robust=robust,
            seconds=timer.seconds,
            seed=cfg.seed,
        )
        if verdict is not None:
            cell = _with_own_evidence(cell, verdict, cfg)
        write_json(out / "record.json", to_json(cell))
        write_json(out / "curve.json", curve(model, data, cfg.recipe.eps))
        return cell


def _with_own_evidence(cell: Result, verdict: Verdict, cfg: Protection) -> Result:
    notes = cell.notes
    if verdict.bits < verdict.bar:
        notes = (
            *notes,
            f"the marks give {verdict.bits:.1f} bits in the model itself, below the {verdict.bar:g} that a verdict "
            f"needs; train longer (--set recipe.epochs={2 * cfg.recipe.epochs}), or on the triggers more often "
            "(--set triggers.every=1 --set triggers.recall=1)",
        )
    return replace(cell, notes=notes, **verdict_fields(verdict))


def _train_independent(
    cfg: Protection, data: Dataset, out: Path, *, execution: Execution, resume: bool, progress: Progress
) -> nn.Module:
    spec = cfg.spec(data)
    model = build(spec, cfg.seed)
    check_shift(cfg.recipe, data.shape)
    check_balance(data)
    begin_run(cfg, out, resume=resume)
    trained = train(
        cfg.recipe,
        model,
        data.train,
        data.validation,
        seed=cfg.seed,
        execution=execution,
        folder=out,
        resume=resume,
        progress=lambda done, figures: progress(f"training (loss {figures['loss']:.3f})", done),
    )
    about = training_metadata("independent", cfg, data)
    write_model(out, trained.model, spec, about | run_metadata(cfg, execution, trained.best_epoch))
    return trained.model


def curve(model: nn.Module, data: Dataset, eps: float) -> dict[str, list[float]]:
    """Return robust accuracy at budgets from 0 to twice `eps`, on the first few hundred test images."""
    images = data.test.subset(slice(CURVE_IMAGES))
    budgets = [round(min(eps * step / 4, 1.0), 6) for step in range(9)]
    return {"eps": budgets, "accuracy": accuracy_curve(model, images.images(), images.labels, eps=budgets)}
