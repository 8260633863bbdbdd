"""Write marks into a model that exists, so that it becomes a run like any other."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from wootz.attacks.evasion import predict_logits
from wootz.data import DATASETS, Dataset, Split, label_dataset, load_unlabelled
from wootz.errors import ConfigError
from wootz.keys import DirectionKey, fresh_secret
from wootz.logs import warn_once
from wootz.models import (
    ModelSpec,
    Wrapped,
    build,
    describe_module,
    is_factory,
    make_network,
    read_model,
)
from wootz.modes import channels_last, eval_mode, on_device
from wootz.records import Before, Result, to_json
from wootz.statistics import Verdict
from wootz.store import lock_folder, write_json, write_tensors
from wootz.training import Execution, ExtraLoss, Marking, embed
from wootz.types import Progress
from wootz.watermarks import RunnerUp, tilted_answers
from wootz.workflows.evaluate import TEST_IMAGES, clean_accuracy, measure
from wootz.workflows.guard_log import without_guard
from wootz.workflows.initial_weights import load_initial_weights
from wootz.workflows.inputs import DataLike, as_dataset
from wootz.workflows.mark_loss import loss_terms
from wootz.workflows.mark_strength import MarkStrength
from wootz.workflows.owner import Owner, References, Tsa, begin_run, check_run, prepare_owner
from wootz.workflows.protect import curve
from wootz.workflows.protection import Protection, change, preset, quick_triggers, with_network
from wootz.workflows.run import ANSWERS_FILE, Timer, agreement
from wootz.workflows.verify import verdict_fields, verify_own_model

_MANY_CLASSES, _LEAST_EPOCHS = 100, 3
_TRIGGER_WEIGHT, _TRIGGER_WEIGHT_OF_MANY = 0.3, 0.02
_RUNNER_UP = RunnerUp(tau=4.0)  # of which a small part is learned
_WM_EPS = 0.25  # at least, of a model that is not adversarially trained: far triggers change fewer answers
_CHUNK = 256


class Original(NamedTuple):
    """A model that is to be marked.

    Attributes:
        model: images float32 [N, C, H, W] in [0, 1] -> logits [N, K].
        spec: the description of the network.
        data: the images, with their labels or the model's own answers.
        answers: the model's answers on all images int64 [N], in their order; None if the data have labels.
    """

    model: nn.Module
    spec: ModelSpec
    data: Dataset
    answers: Tensor | None


def mark(
    model: nn.Module,
    data: DataLike,
    *,
    eps: float | None = None,
    wm_eps: float | None = None,
    marks: Sequence[str] | None = None,
    bits: float = Marking().bits,
    references: References | None = None,
    settings: Sequence[str] | Mapping[str, Any] = (),
    seed: int = 0,
    data_dir: Path | None = None,
    execution: Execution | None = None,
    tsa: Tsa = None,
    progress: Progress = lambda *_: None,
) -> Owner:
    """Write marks into a copy of a trained model, until they give so much evidence.

    The model learns its own answers beside the marks, so that it goes on answering as it does.

    Args:
        model: images float32 [N, C, H, W] in [0, 1] -> logits [N, K], normalization inside; it is not changed.
        data: images and labels like those that it was trained on, see `wootz.protect`.
        eps: budget within which its answers are kept too, by adversarial training; None keeps those on images alone.
        wm_eps: budget of the triggers; None takes the customary multiple of the data set's budget.
        marks: names of `wootz.MARKS`; None takes `triggers`, `runner-up` and `guard`.
        bits: evidence of all marks together in the model itself, each its even part, at which training stops.
        references: independent models; made unless given.
        settings: changes of any other setting, see `wootz.protect`; those of marking are `marking.NAME`.
        seed: of everything random but keys.
        data_dir: folder that named data sets are looked up in first.
        execution: device.
        tsa: see `wootz.protect`.
        progress: called with the name of the step and the fraction done.

    Raises:
        ConfigError: an unknown mark or setting, or a mark that cannot be written into a trained model.
        ModelError: the model does not take the images, or does not return logits.
    """
    dataset = as_dataset(data, data_dir)
    original = Original(model, describe_module(model, dataset.shape, dataset.classes), dataset, None)
    cfg = marking_config(original, eps=eps, wm_eps=wm_eps, marks=marks, bits=bits, seed=seed, settings=settings)
    owner, _ = _write_marks(
        cfg,
        original,
        None,
        references=references,
        execution=execution or Execution(),
        tsa=tsa,
        tsa_policy="",
        progress=progress,
    )
    return owner


def mark_run(
    cfg: Protection,
    original: Original,
    out: str | Path,
    *,
    execution: Execution | None = None,
    tsa: Tsa = None,
    tsa_policy: str = "",
    count: int = TEST_IMAGES,
    progress: Progress = lambda *_: None,
) -> Result:
    """Write marks into a model and the model into a run folder; measure it before and after.

    Args:
        cfg: see `marking_config`.
        original: the model, see `open_original`.
        out: the run folder; must not hold a model yet.
        execution: device.
        tsa: see `wootz.protect`.
        tsa_policy: see `wootz.protect`.
        count: test images that robust accuracy is measured on, where training is adversarial.
        progress: called with the name of the step and the fraction done.
    """
    timer, execution, out = Timer(), execution or Execution(), Path(out)
    data, adversarial = original.data, cfg.recipe.loss != "natural"

    def measured(model: nn.Module) -> dict[str, Any]:
        if not adversarial:
            return {"clean": clean_accuracy(model, data, execution), "robust": None}
        clean, robust = measure(
            model, data, eps=cfg.recipe.eps, count=count, progress=progress, seed=cfg.seed, execution=execution
        )
        return {"clean": clean, "robust": robust}

    with lock_folder(out):
        owner, steps = _write_marks(
            cfg,
            original,
            out,
            references=None,
            execution=execution,
            tsa=tsa,
            tsa_policy=tsa_policy,
            progress=progress,
        )
        progress("verifying the model", 0.0)
        verdict, before = verify_own_model(owner), verify_own_model(owner, original.model)
        cell = Result(
            data=data.name,
            suspect=out.name,
            kind="protected",
            **measured(owner.model),
            agreement=agreement(owner.model, original.model, data),
            before=Before(
                **measured(original.model), bits=None if before is None else round(before.bits, 2), steps=steps
            ),
            seed=cfg.seed,
            notes=_notes(cfg, original, verdict, steps),
            **({} if verdict is None else verdict_fields(verdict)),
        )
        cell = replace(cell, seconds=timer.seconds)
        write_json(out / "record.json", to_json(cell))
        if adversarial:
            write_json(out / "curve.json", curve(owner.model, data, cfg.recipe.eps))
        return cell


def open_original(
    name: str,
    data: str,
    out: Path,
    *,
    init: Path | None = None,
    torch_zip: bool = False,
    labelled: bool = True,
    settings: Sequence[str] = (),
    size: int | None = None,
    skip_unreadable: bool = False,
    data_dir: Path | None = None,
) -> Original:
    """Open a model that exists, with images like those that it was trained on.

    Args:
        name: a run folder, or the name of a network, see `wootz.models.factories`.
        data: name or path of the images.
        out: the run folder that will be written.
        init: file of the network's weights; None for a run folder, or a factory that loads them itself.
        torch_zip: whether `init` may be a file of `torch.save`.
        labelled: whether the labels of the images are used; if not, the model's own answers are.
        settings: `key=value` texts; those of `model` and `wrapper` describe the network.
        size: side that images are resized to, see `wootz.data.load`.
        skip_unreadable: see `wootz.data.load`.
        data_dir: folder that named data sets are looked up in first.

    Raises:
        ConfigError: no such network, or weights that are given twice or not at all.
        ModelError: the weights do not fit the network, or the network the images.
    """
    if labelled:
        dataset = as_dataset(data, data_dir, size=size, skip_unreadable=skip_unreadable)
        model, spec = _open_network(name, init, torch_zip, settings, dataset.shape, dataset.classes)
        return Original(model, spec, dataset, None)
    pixels, unreadable = load_unlabelled(data, data_dir, size=size, skip_unreadable=skip_unreadable)
    channels, height, width = pixels.shape[1:]
    model, spec = _open_network(name, init, torch_zip, settings, (channels, height, width), None)
    answers = _answers(model, pixels)
    dataset = label_dataset(
        data if data in DATASETS else os.path.abspath(data),
        pixels,
        answers,
        spec.classes,
        size=size,
        unreadable=unreadable,
    )
    return Original(model, spec, replace(dataset, labels_from=os.path.abspath(out / ANSWERS_FILE)), answers)


def marking_config(
    original: Original,
    *,
    eps: float | None = None,
    wm_eps: float | None = None,
    marks: Sequence[str] | None = None,
    bits: float = Marking().bits,
    seed: int = 0,
    settings: Sequence[str] | Mapping[str, Any] = (),
) -> Protection:
    """Return the settings of marking a model.

    Reference models are trained for a third of the epochs that `wootz.protect` takes. Of a model with many classes the
    last layer alone is trained, without `runner-up`, which would need many images of each class, and with fewer
    triggers, each of which is worth more bits.

    Raises:
        ConfigError: an unknown mark or setting, or budgets that do not fit.
    """
    data, robust = original.data, eps is not None
    cfg = preset("fast", data=data.name, eps=eps, wm_eps=wm_eps, seed=seed, count=len(data.train))
    if not robust and wm_eps is None:
        cfg = replace(cfg, wm_eps=max(cfg.wm_eps, _WM_EPS))
    many = len(data.classes) > _MANY_CLASSES
    if many and marks is None:
        marks = [name for name in cfg.marks if name != "runner-up"]
    cfg = replace(
        cfg if marks is None else replace(cfg, marks=tuple(marks)),
        marking=Marking(bits=bits, layers="last", batch_size=16, check_every=10) if many else Marking(bits=bits),
        recipe=replace(cfg.recipe, loss=cfg.recipe.loss if robust else "natural"),
        triggers=replace(
            quick_triggers(len(data.classes)), weight=_TRIGGER_WEIGHT_OF_MANY if many else _TRIGGER_WEIGHT
        ),
        runner_up=_RUNNER_UP,
        panel=replace(
            cfg.panel,
            robust_epochs=max(_LEAST_EPOCHS, cfg.panel.robust_epochs // 3),
            plain_epochs=max(_LEAST_EPOCHS, cfg.panel.plain_epochs // 3),
        ),
    )
    cfg = replace(with_network(cfg, original.spec), size=data.size, skip_unreadable=bool(data.unreadable))
    return change(cfg, settings)


def _open_network(
    name: str,
    init: Path | None,
    torch_zip: bool,
    settings: Sequence[str],
    shape: tuple[int, int, int],
    classes: tuple[str, ...] | None,
) -> tuple[nn.Module, ModelSpec]:
    """Return a network with its weights, and its description; `classes` of None are as many as the network answers."""
    if Path(name).is_dir():
        if init is not None:
            raise ConfigError(f"--init {init}: {name} is a run folder and has weights; give one of the two")
        model, spec, _ = read_model(name)
        return model, spec
    cfg = change(Protection(model=name), [one for one in settings if one.split(".")[0].strip() in ("model", "wrapper")])
    if init is None and not is_factory(cfg.model):
        raise ConfigError(f"{name}: has no weights; give them with --init FILE, or a run folder")
    if classes is None:
        classes = tuple(str(label) for label in range(_count_outputs(cfg, shape)))
    spec = cfg.network_spec(shape, classes)
    model = build(spec, cfg.seed)
    if init is None:
        warn_once(f"{name}: no --init was given; the weights are those that its code gives it")
    else:
        load_initial_weights(model, init, torch_zip=torch_zip)
    return model.eval(), spec


def _answers(model: nn.Module, pixels: Tensor) -> Tensor:
    """Return the classes int64 [N] that a model answers to images uint8 [N, C, H, W]."""
    with channels_last(model, pixels[:2].float().div(255)):
        return torch.cat([predict_logits(model, part.float().div(255)).argmax(1) for part in pixels.split(_CHUNK)])


def _count_outputs(cfg: Protection, shape: tuple[int, int, int]) -> int:
    """Return the number of classes that the network of a factory has when it is not told one."""
    if not is_factory(cfg.model):
        raise ConfigError(
            f"{cfg.model}: without labels, the number of classes is known of networks of your own code only"
        )
    network = make_network(cfg.model, cfg.model_settings, cfg.wrapper.network_shape(shape), None)
    gray = torch.full((1, *shape), 0.5)
    with eval_mode(network), torch.no_grad():
        return int(Wrapped(network, cfg.wrapper)(gray).shape[1])


def _write_marks(
    cfg: Protection,
    original: Original,
    out: Path | None,
    *,
    references: References | None,
    execution: Execution,
    tsa: Tsa,
    tsa_policy: str,
    progress: Progress,
) -> tuple[Owner, int]:
    """Draw the key and write it into a copy of the model; return the owner and the steps that were taken."""
    data, marking, answered = original.data, cfg.marking, _with_answers(original)
    assert marking is not None
    check_run(original.model, data, cfg)
    if out is not None:
        begin_run(cfg, out, resume=False)
        if original.answers is not None:
            write_tensors(out / ANSWERS_FILE, {"labels": original.answers})
    owner = prepare_owner(
        copy.deepcopy(original.model),
        data,
        cfg,
        fresh_secret(),
        references=references,
        folder=out,
        execution=execution,
        tsa=tsa,
        tsa_policy=tsa_policy,
        progress=progress,
        answered=answered,
    )
    device, strength = execution.accelerator, MarkStrength(owner.keys, owner.reference_models, marking)
    with ExitStack() as stack:
        for model in (owner.model, original.model):
            stack.enter_context(on_device(model, device))
            stack.enter_context(channels_last(model, data.test.subset(slice(2)).images().to(device)))
        steps = embed(
            marking,
            cfg.recipe,
            owner.model,
            answered.train,
            partial(_targets, cfg, owner, original.model),
            _losses(cfg, owner, data),
            seed=cfg.seed,
            lacking=partial(strength.lacking, owner.model),
            progress=lambda done: progress(f"writing the marks (bits: {strength})", done),
        )
    owner.about["marking"] = {"steps": steps}
    owner.about |= {"training": cfg.used_settings(), "digest": cfg.digest}
    if out is not None:
        owner._write_model(out)
    return owner, steps


def _with_answers(original: Original) -> Dataset:
    """Return the data with the model's own answers as labels of the images that marks are made from.

    The wrong classes are those that the model does not answer, whether it is right or not.
    """
    data = original.data
    if original.answers is not None:
        return data

    def answered(split: Split) -> Split:
        return Split(split.pixels, _answers(original.model, split.pixels))

    return replace(data, train=answered(data.train), validation=answered(data.validation), probes=answered(data.probes))


def _targets(cfg: Protection, owner: Owner, original: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return what the model is to answer images x [N, C, H, W] of classes y [N]: what it did, tilted by the key."""
    assert cfg.marking is not None
    with eval_mode(original), torch.no_grad():
        p: Tensor = original(x).float().softmax(1)
    for name, settings in cfg.mark_settings().items():
        key = owner.keys.by_mark[name]
        if isinstance(settings, RunnerUp) and isinstance(key, DirectionKey):
            p = tilted_answers(settings, key, x.cpu(), y.cpu(), p.cpu(), cfg.marking.lam).to(x.device)
    return p


def _losses(cfg: Protection, owner: Owner, data: Dataset) -> dict[str, tuple[ExtraLoss, ...]]:
    """Return what each mark that a model carries adds to the loss.

    Raises:
        ConfigError: a mark needs more than that.
    """
    settings, seed = cfg.mark_settings(), cfg.seed
    return {
        name: () if isinstance(key, DirectionKey) else loss_terms(name, settings[name], key, data, seed=seed)
        for name, key in without_guard(owner.keys.by_mark).items()
    }


def _notes(cfg: Protection, original: Original, verdict: Verdict | None, steps: int) -> tuple[str, ...]:
    assert cfg.marking is not None
    notes = []
    if original.answers is not None:
        notes.append("no labels were used: accuracies are agreement with the model as it was")
    if verdict is not None and verdict.bits < cfg.marking.bits:
        notes.append(
            f"the marks give {verdict.bits:.1f} bits after {steps} steps, less than the {cfg.marking.bits:g} wanted; "
            f"train longer (--set marking.steps={2 * steps}) or faster (--set marking.lr={2 * cfg.marking.lr:g})"
        )
    return tuple(notes)
