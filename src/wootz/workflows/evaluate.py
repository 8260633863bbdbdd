"""Clean and robust accuracy of a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from wootz.attacks.evasion import EVALUATIONS
from wootz.models import check_model
from wootz.records import Result
from wootz.registry import lookup
from wootz.training import Execution
from wootz.types import Norm, Progress
from wootz.workflows.run import QUICK_ATTACK, TEST_IMAGES, Timer, measure, open_run

NAMES: Mapping[str, str] = MappingProxyType({"pgd": QUICK_ATTACK} | {name: name for name in EVALUATIONS})
"""What a user may call an evaluation."""


def evaluate_run(
    folder: Path,
    *,
    attack: str = "pgd",
    count: int = TEST_IMAGES,
    eps: float | None = None,
    norm: Norm = "Linf",
    seed: int = 0,
    data_dir: Path | None = None,
    execution: Execution | None = None,
    progress: Progress = lambda *_: None,
) -> Result:
    """Attack the first `count` test images at the run's own budget, or at `eps`.

    An evaluation of several attacks that was cut off goes on from `folder`/evaluation when it is called again.
    """
    name = lookup(NAMES, attack, "evaluation")
    time, run = Timer(), open_run(folder)
    data = run.data(data_dir)
    warnings = check_model(run.model, run.spec.shape, len(run.spec.classes))
    clean, robust = measure(
        run.model,
        data,
        eps=run.eps if eps is None else eps,
        attack=name,
        norm=norm,
        count=count,
        seed=seed,
        folder=folder / "evaluation",
        execution=execution,
        progress=progress,
    )
    return Result(
        data=data.name,
        suspect=folder.name,
        kind=run.about["kind"],
        theft=run.about.get("theft"),
        clean=clean,
        robust=robust,
        seconds=time.seconds,
        seed=run.about["seed"],
        notes=warnings,
    )
