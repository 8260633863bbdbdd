"""Clean and robust accuracy of a run folder."""

from __future__ import annotations

from pathlib import Path

from wootz.models import check_model
from wootz.records import Cell
from wootz.registry import lookup
from wootz.stages.run import Clock, measure, open_run
from wootz.types import Tell

ATTACK_NAMES = {
    "pgd": "pgd-40x2",
    "pgd-40x2": "pgd-40x2",
    "pgd-50x10": "pgd-50x10",
    "autoattack": "autoattack",
}


def evaluate_run(
    folder: Path,
    *,
    attack: str = "pgd",
    count: int = 2000,
    eps: float | None = None,
    seed: int = 0,
    data_dir: Path | None = None,
    tell: Tell = lambda *_: None,
) -> Cell:
    """Attack the first `count` test images at the run's own budget, or at `eps`."""
    time, run = Clock(), open_run(folder)
    data = run.data(data_dir)
    name = lookup(ATTACK_NAMES, attack, "evaluation")
    warnings = check_model(run.model, run.spec.shape, len(run.spec.classes))
    clean, robust = measure(
        run.model, data, eps=run.eps if eps is None else eps, attack=name, count=count, seed=seed, tell=tell
    )
    return Cell(
        data=data.name, suspect=folder.name, kind=run.about["kind"], theft=run.about.get("theft"), clean=clean,
        robust=robust, seconds=time.seconds, seed=run.about["seed"], notes=warnings,
    )  # fmt: skip
