"""Clean and robust accuracy, of a model in memory or of a run folder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from wootz import checks
from wootz.attacks.evasion import NAMES, QUICK_ATTACK, predict_logits
from wootz.attacks.evasion import evaluate as attack_images
from wootz.data import Dataset, Split
from wootz.models import check_model, range_warnings, same_answers
from wootz.modes import on_device
from wootz.records import Result, RobustRecord
from wootz.registry import lookup
from wootz.training import Execution
from wootz.types import Norm, Progress
from wootz.workflows.inputs import DataLike, as_split
from wootz.workflows.run import Timer, open_run

TEST_IMAGES = 2000
RANGE_IMAGES = 100
"""Images on which the range of pixels that a model expects is checked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Robustness of a model on `n` images.

    Attributes:
        attack: name of the evaluation.
        eps: its budget in pixels of [0, 1].
        norm: norm of the ball.
        n: number of images.
        clean_accuracy: a fraction.
        robust_accuracy: a fraction: the worst case over all attacks and restarts per image, or what is certified.
        standard_error: of `robust_accuracy`, from the number of images.
        first_success: attack -> number of images that it was the first to change.
        flags: reasons why `robust_accuracy` may be too high.
        robust: which images are answered right at every point that was tried, bool [n].
    """

    attack: str
    eps: float
    norm: Norm
    n: int
    clean_accuracy: float
    robust_accuracy: float
    standard_error: float
    first_success: Mapping[str, int]
    flags: tuple[str, ...]
    robust: Tensor = field(repr=False)


def evaluate(
    model: nn.Module,
    data: DataLike,
    *,
    eps: float,
    attack: str = "ensemble",
    norm: Norm = "Linf",
    n: int | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    execution: Execution | None = None,
    progress: Progress = lambda *_: None,
) -> Evaluation:
    """Attack a model within a ball around each image.

    Args:
        model: images float32 [N, C, H, W] in [0, 1] -> logits [N, K].
        data: images and labels, see `as_split`; of a wootz data set, its test split.
        eps: budget in pixels of [0, 1].
        attack: `pgd`, or a name of `wootz.attacks.evasion.EVALUATIONS`.
        norm: norm of the ball, `Linf` or `L2`.
        n: only the first images; None is all.
        seed: of the attacks.
        folder: where a stopped evaluation by several attacks leaves what it found, to be continued.
        execution: device; attacks compute in float32.
        progress: called with the name of the step and the fraction done.

    Raises:
        ConfigError: an unknown evaluation, one that has no such norm, or an `eps` beyond the range of images.
        DataError: no images, or labels that the model does not have.
        ModelError: the model does not take the images, or returns no finite logits.
    """
    if n is not None:
        checks.at_least(1, n=n)
    name, split = lookup(NAMES, attack, "evaluation"), as_split(data).subset(slice(n))
    device = (execution or Execution()).accelerator
    channels, height, width = split.pixels.shape[1:]
    warnings = (*check_model(model, (channels, height, width)), *_range_warnings(model, split))
    with on_device(model, device):
        result = attack_images(
            same_answers(model),
            split.images().to(device),
            split.labels.to(device),
            eps=eps,
            attack=name,
            norm=norm,
            seed=seed,
            folder=None if folder is None else Path(folder),
            progress=lambda done: progress(f"attacking ({name})", done),
        )
    return Evaluation(
        attack=name,
        eps=eps,
        norm=norm,
        n=len(split),
        clean_accuracy=result.clean,
        robust_accuracy=result.accuracy,
        standard_error=math.sqrt(result.accuracy * (1 - result.accuracy) / len(split)),
        first_success=result.first_success,
        flags=tuple(sorted({*result.flags, *(warning.split(":")[0] for warning in warnings)})),
        robust=result.robust.cpu(),
    )


def _range_warnings(model: nn.Module, split: Split) -> tuple[str, ...]:
    few = split.subset(slice(RANGE_IMAGES))
    return range_warnings(model, few.images(), few.labels)


def measure(
    model: nn.Module,
    data: Dataset,
    *,
    eps: float,
    progress: Progress,
    attack: str = QUICK_ATTACK,
    norm: Norm = "Linf",
    count: int = TEST_IMAGES,
    seed: int = 0,
    folder: Path | None = None,
    execution: Execution | None = None,
) -> tuple[float, RobustRecord]:
    """Return clean accuracy on all test images, and robust accuracy on the first `count` of them."""
    found = evaluate(
        model,
        data,
        eps=eps,
        attack=attack,
        norm=norm,
        n=count,
        seed=seed,
        folder=folder,
        execution=execution,
        progress=progress,
    )
    with on_device(model, (execution or Execution()).accelerator):
        clean = (predict_logits(model, data.test.images()).argmax(1) == data.test.labels).float().mean().item()
    return clean, RobustRecord(
        eps=eps,
        norm=norm,
        attack=found.attack,
        n=found.n,
        accuracy=found.robust_accuracy,
        flags=found.flags,
        fallen=dict(found.first_success),
    )


def evaluate_run(
    folder: str | Path,
    *,
    attack: str = "pgd",
    count: int = TEST_IMAGES,
    eps: float | None = None,
    norm: Norm = "Linf",
    seed: int = 0,
    data: str | None = None,
    data_dir: Path | None = None,
    execution: Execution | None = None,
    progress: Progress = lambda *_: None,
) -> Result:
    """Attack the first `count` test images at the run's own budget, or at `eps`.

    An evaluation of several attacks that was cut off goes on from `folder`/evaluation when it is called again.
    `data` is the name or path of the run's data set, if it was moved.
    """
    name = lookup(NAMES, attack, "evaluation")
    timer, run = Timer(), open_run(folder, data)
    known = run.data(data_dir)
    checked = check_model(run.model, run.spec.shape, len(run.spec.classes))
    warnings = (*checked, *_range_warnings(run.model, known.test))
    clean, robust = measure(
        run.model,
        known,
        eps=run.eps if eps is None else eps,
        attack=name,
        norm=norm,
        count=count,
        seed=seed,
        folder=run.folder / "evaluation",
        execution=execution,
        progress=progress,
    )
    return Result(
        data=known.name,
        suspect=run.folder.name,
        kind=run.about["kind"],
        theft=run.about.get("theft"),
        clean=clean,
        robust=robust,
        seconds=timer.seconds,
        seed=run.about["seed"],
        notes=warnings,
    )
