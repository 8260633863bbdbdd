"""Clean and robust accuracy, of a model in memory, of a run folder, or of a suspect that answers queries."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import torch
from torch import Tensor, nn

from wootz import checks
from wootz.attacks.evasion import NAMES, QUICK_ATTACK, Robustness, check_black_box, predict_logits
from wootz.attacks.evasion import evaluate as attack_images
from wootz.data import Dataset, Split, load
from wootz.errors import ConfigError, ModelError
from wootz.logs import warn_once
from wootz.models import check_model, depends_on_batch, range_warnings, same_answers
from wootz.modes import on_device
from wootz.records import QueryRecord, Result, RobustRecord
from wootz.registry import lookup
from wootz.statistics.calibration import MOST_FORMATS
from wootz.statistics.queries import LabelledImages, to_labels
from wootz.store import sha256
from wootz.training import Execution
from wootz.types import Access, Norm, Progress
from wootz.workflows.inputs import DataLike, as_split
from wootz.workflows.run import Timer, open_run, user_folder
from wootz.workflows.suspects import (
    QueryConfig,
    Suspect,
    SuspectLike,
    fitting,
    is_endpoint,
    named_network,
    open_suspect_model,
)
from wootz.workflows.verify import calibrated_suspect

TEST_IMAGES = 2000
RANGE_IMAGES = 100
"""Images on which the range of pixels that a model expects is checked."""

SUSPECT_IMAGES, ENDPOINT_IMAGES = 500, 100
"""Test images attacked by default where every point costs a query."""

ENDPOINT_QUERIES = 1000
"""The default of `max_queries` at an endpoint."""

_ENDPOINT_BATCH = 64
_ALONE = 8


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
        queries: number of queries; None for attacks by gradients.
        notes: remarks on the figures.
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
    queries: QueryRecord | None = None
    notes: tuple[str, ...] = ()

    @property
    def record(self) -> RobustRecord:
        """The robust accuracy as a record."""
        return RobustRecord(
            eps=self.eps,
            norm=self.norm,
            attack=self.attack,
            n=self.n,
            accuracy=self.robust_accuracy,
            flags=self.flags,
            fallen=dict(self.first_success),
            queries=self.queries,
        )


def evaluate(
    model: SuspectLike,
    data: DataLike,
    *,
    eps: float,
    attack: str | None = None,
    norm: Norm = "Linf",
    n: int | None = None,
    seed: int = 0,
    access: Access | None = None,
    query: QueryConfig | None = None,
    max_queries: int | None = None,
    folder: str | Path | None = None,
    execution: Execution | None = None,
    progress: Progress = lambda *_: None,
) -> Evaluation:
    """Attack a model within a ball around each image.

    A module is attacked with its gradients, unless `access` or `query` says otherwise. A function, a file and an
    endpoint are attacked by queries alone, which are counted.

    Args:
        model: a module (images float32 [N, C, H, W] in [0, 1] -> logits [N, K]), a function from such images to scores
            or labels, the path of a run folder, a safetensors or an ONNX file, or the URL of an endpoint.
        data: images and labels, see `as_split`; of a wootz data set, its test split.
        eps: budget in pixels of [0, 1].
        attack: `pgd`, or a name of `wootz.attacks.evasion.EVALUATIONS`; None is `ensemble` for a module and `black-box`
            for all others.
        norm: norm of the ball, `Linf` or `L2`.
        n: only the first images; None is all, and the first 100 for an endpoint.
        seed: of the attacks.
        access: what is seen of the model: `weights`, `scores` or `label`; None is all that it shows.
        query: all settings of the queries, instead of `access` alone; `calibrate` takes validation images, so that it
            needs a data set with splits.
        max_queries: bound of the attacks' queries per image; None is 1,000 for an endpoint, and otherwise what each
            attack spends by default.
        folder: where a stopped evaluation leaves what it found, to be continued; None is a folder in the user's state
            folder for a path or a URL, and none for all others.
        execution: device of a module; attacks compute in float32.
        progress: called with the name of the step and the fraction done.

    Raises:
        ConfigError: an unknown evaluation, one that has no such norm or needs gradients that there are not, or an
            `eps` beyond the range of images.
        DataError: no images, or labels that the model does not have.
        InconclusiveError: the suspect cannot be run, or the endpoint gives no answer; what was done is kept.
        ModelError: the model does not take the images, or returns no finite scores.
    """
    if n is not None:
        checks.at_least(1, n=n)
    if max_queries is not None:
        checks.at_least(1, max_queries=max_queries)
    folder = None if folder is None else Path(folder)
    if not isinstance(model, nn.Module) or query is not None or access in ("scores", "label"):
        query = query or QueryConfig(access=access or "scores")
        name = lookup(NAMES, attack or "black-box", "evaluation")
        return _by_queries(
            model, data, query, name, eps, norm=norm, n=n, seed=seed, most=max_queries, folder=folder, progress=progress
        )
    name, split = lookup(NAMES, attack or "ensemble", "evaluation"), as_split(data).subset(slice(n))
    check_black_box(name, required=False, max_queries=max_queries)
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
            max_queries=max_queries,
            folder=folder,
            progress=lambda done: progress(f"attacking ({name})", done),
        )
    return _evaluation(result, name, eps, norm, warnings)


def _evaluation(
    result: Robustness, attack: str, eps: float, norm: Norm, warnings: tuple[str, ...], other_queries: int = 0
) -> Evaluation:
    """Return a result with its warnings as flags; `other_queries` are those before the evaluation."""
    count, queries = len(result.robust), None
    if result.queries is not None:
        spent = result.queries[result.correct].double()
        queries = QueryRecord(
            total=int(spent.sum()) + count + other_queries,
            mean=round(spent.mean().item(), 2) if len(spent) else 0.0,
            median=spent.quantile(0.5).item() if len(spent) else 0.0,
        )
    return Evaluation(
        attack=attack,
        eps=eps,
        norm=norm,
        n=count,
        clean_accuracy=result.clean,
        robust_accuracy=result.accuracy,
        standard_error=math.sqrt(result.accuracy * (1 - result.accuracy) / count),
        first_success=result.first_success,
        flags=tuple(sorted({*result.flags, *(warning.split(":")[0] for warning in warnings)})),
        robust=result.robust.cpu(),
        queries=queries,
        notes=warnings,
    )


def _by_queries(
    suspect: SuspectLike,
    data: DataLike,
    query: QueryConfig,
    attack: str,
    eps: float,
    *,
    norm: Norm,
    n: int | None,
    seed: int,
    most: int | None,
    folder: Path | None,
    progress: Progress,
) -> Evaluation:
    """Attack whatever answers; see `evaluate`."""
    check_black_box(attack, required=True, max_queries=most)
    if query.access == "weights":
        raise ConfigError("access = 'weights': attacks by queries see scores or labels")
    remote = is_endpoint(suspect)
    if remote:
        n, most = n or ENDPOINT_IMAGES, most or ENDPOINT_QUERIES
        query = replace(query, client=_with_batch(query.client))
    data = load(str(data)) if isinstance(data, str | Path) else data
    split = as_split(data).subset(slice(n))
    with TemporaryDirectory() as temporary:
        if folder is None and isinstance(suspect, str | Path):
            where = str(suspect) if remote else str(Path(suspect).absolute())
            folder = user_folder("evaluation", sha256(where.encode(errors="surrogateescape"))[7:23])
        wanted = {"shape": tuple(split.pixels.shape[1:]), "classes": _classes(data)}
        network = named_network(query.architecture, wanted)
        with open_suspect_model(suspect, query, folder or Path(temporary), network, resend=True) as opened:
            asked = _Asked(opened)
            if remote:
                _announce(opened, len(split), cast("int", most), query.calibrate)
            ready = _calibrated(replace(opened, predict=asked), wanted, data, query.calibrate)
            ready = fitting(wanted, ready, "the data have")
            progress("checking the answers", 0.0)
            warnings = _query_warnings(ready, split, calibrated=query.calibrate > 0)
            before = asked.count
            result = attack_images(
                ready.predict,
                split.images(),
                split.labels,
                eps=eps,
                attack=attack,
                norm=norm,
                seed=seed,
                max_queries=most,
                folder=folder,
                progress=lambda done: progress(f"attacking ({attack})", done),
            )
            found = _evaluation(result, attack, eps, norm, warnings, before)
            return replace(found, notes=(*found.notes, *ready.notes()))


class _Asked:
    """A suspect that counts its queries and is refused without answers.

    Only an endpoint may leave images without an answer, and not all of the first ones.

    Attributes:
        count: the number of images so far.
    """

    def __init__(self, suspect: Suspect) -> None:
        self._suspect, self.count = suspect, 0

    def __call__(self, x: Tensor) -> Tensor:
        answers = self._suspect.predict(x)
        name, first = self._suspect.identity.name, self.count == 0
        self.count += len(x)
        if self._suspect.remote:
            if first and bool((to_labels(answers) < 0).all()):
                reasons = "; ".join(self._suspect.notes())
                raise ModelError(f"{name}: answers nothing usable ({reasons}); does --access label help?")
        elif answers.is_floating_point() and (invalid := int((~answers.isfinite().flatten(1).all(1)).sum())):
            raise ModelError(f"{name}: returns NaN or infinity for {invalid} of {len(x)} images")
        return answers


def _with_batch(client: tuple[str, ...]) -> tuple[str, ...]:
    """Return the client's settings with many images per request, where the API can."""
    single = {"api=huggingface", "template.single=true"}
    return client if single.intersection(client) else (f"batch={_ENDPOINT_BATCH}", *client)


def _classes(data: DataLike) -> tuple[str, ...]:
    """Return the classes of a data set; images and labels alone may lack some, so that they name none."""
    return data.classes if isinstance(data, Dataset) else ()


def _announce(suspect: Suspect, count: int, most: int, calibrate: int) -> None:
    """Log how many queries an endpoint will receive at most, before the first one."""
    others = calibrate * MOST_FORMATS if calibrate else min(count, RANGE_IMAGES)
    warn_once(
        f"{suspect.identity.name}: up to {count * (1 + most) + others:,} queries will be sent: {count:,} images, "
        f"up to {most:,} each, and {others:,} to check or find its input format"
    )


def _calibrated(suspect: Suspect, wanted: Mapping[str, object], data: DataLike, count: int) -> Suspect:
    """Return the suspect calibrated on validation images, which are never attacked."""
    if count == 0:
        return suspect
    if not isinstance(data, Dataset):
        raise ConfigError("calibrate: needs validation images; give a data set or its name, not images and labels")
    few = data.validation.subset(slice(count))
    return calibrated_suspect(wanted, suspect, LabelledImages(few.pixels, few.labels))


def _query_warnings(suspect: Suspect, split: Split, *, calibrated: bool) -> tuple[str, ...]:
    """Return warnings as `check_model` does, as far as answers show them; an endpoint is sent no image twice."""
    few, warnings = split.subset(slice(RANGE_IMAGES)), list[str]()
    x = few.images()
    if not suspect.remote:
        first, second = suspect.predict(x[:_ALONE]), suspect.predict(x[:_ALONE])
        if not torch.allclose(first.float(), second.float(), atol=1e-4, rtol=1e-4):
            warnings.append("randomized: two answers for the same images differ")
        elif depends_on_batch(suspect.predict, x[:_ALONE]):
            warnings.append("batch-dependent: images get other answers together than one by one")
    if not calibrated:
        warnings += range_warnings(suspect.predict, x, few.labels)
    return tuple(warnings)


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
    max_queries: int | None = None,
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
        max_queries=max_queries,
        folder=folder,
        execution=execution,
        progress=progress,
    )
    return clean_accuracy(model, data, execution), found.record


def clean_accuracy(model: nn.Module, data: Dataset, execution: Execution | None = None) -> float:
    """Return the fraction of the test images that a model classifies correctly."""
    with on_device(model, (execution or Execution()).accelerator):
        return (predict_logits(model, data.test.images()).argmax(1) == data.test.labels).float().mean().item()


def evaluate_run(
    folder: str | Path,
    *,
    attack: str = "pgd",
    count: int = TEST_IMAGES,
    eps: float | None = None,
    norm: Norm = "Linf",
    seed: int = 0,
    max_queries: int | None = None,
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
        max_queries=max_queries,
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
        queries=None if robust.queries is None else robust.queries.total,
        seconds=timer.seconds,
        seed=run.about["seed"],
        notes=warnings,
    )


def evaluate_suspect(
    suspect: str | Path,
    query: QueryConfig,
    *,
    attack: str = "black-box",
    count: int | None = None,
    eps: float | None = None,
    norm: Norm = "Linf",
    seed: int = 0,
    max_queries: int | None = None,
    data: str | None = None,
    data_dir: Path | None = None,
    progress: Progress = lambda *_: None,
) -> Result:
    """Attack a file, another's run folder or an endpoint by queries alone; see `evaluate`.

    Args:
        suspect: a path or URL.
        query: how it is queried.
        attack: a name of `wootz.attacks.evasion.BLACK_BOX`.
        count: the first test images to attack; None is 500, and 100 for an endpoint.
        eps: budget in pixels of [0, 1].
        norm: norm of the ball.
        seed: of the attacks.
        max_queries: bound of the attacks' queries per image.
        data: name or path of the data set.
        data_dir: folder that named data sets are looked up in first.
        progress: called with the name of the step and the fraction done.

    Raises:
        ConfigError: `data` or `eps` is missing, or see `evaluate`.
    """
    timer = Timer()
    check_black_box(lookup(NAMES, attack, "evaluation"), required=True, max_queries=max_queries)
    if data is None or eps is None:
        raise ConfigError(f"{suspect}: needs --data, with images that it classifies, and --eps, such as 8/255")
    known = load(data, data_dir)
    found = evaluate(
        suspect,
        known,
        eps=eps,
        attack=attack,
        norm=norm,
        n=count or (None if is_endpoint(suspect) else SUSPECT_IMAGES),
        seed=seed,
        query=query,
        max_queries=max_queries,
        progress=progress,
    )
    return Result(
        data=known.name,
        suspect=str(suspect) if is_endpoint(suspect) else Path(suspect).name,
        kind="unknown",
        access=query.access,
        clean=found.clean_accuracy,
        robust=found.record,
        queries=None if found.queries is None else found.queries.total,
        seconds=timer.seconds,
        seed=seed,
        notes=found.notes,
    )
