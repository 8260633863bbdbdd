"""The training loop: epochs, checkpoints, selection of the best epoch, one or several processes.

Every random choice is a function of the seed and the epoch, so a run that was killed resumes bit-identically.
"""

from __future__ import annotations

import copy
import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from wootz import config
from wootz.attacks.evasion import PGD, evaluate, pgd, predict_logits
from wootz.data import Split
from wootz.rng import generator, global_seed
from wootz.store import read_json, read_tensors, tensor_digest, write_bytes, write_json, write_tensors
from wootz.training import checkpoint
from wootz.training.epoch import TrainingRun, check_shift, make_optimizer, train_epoch, train_trigger_epoch
from wootz.training.execution import Execution, memory_format
from wootz.training.hooks import Hook, plain_targets
from wootz.training.recipe import CERTIFIED, Recipe

_ASKED = 8
"""Training images on which a checkpoint recognizes the network by its initial answers."""


class Trained(NamedTuple):
    """The result of `train`.

    Attributes:
        model: the model of the selected epoch, in eval mode.
        best_epoch: the selected epoch, from 0.
        history: one mapping of metrics per epoch.
    """

    model: nn.Module
    best_epoch: int
    history: list[dict[str, float]]


def train(
    cfg: Recipe,
    model: nn.Module,
    training: Split,
    validation: Split,
    *,
    seed: int,
    hook: Hook | None = None,
    execution: Execution | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    progress: Callable[[float, dict[str, float]], None] | None = None,
) -> Trained:
    """Train a copy of `model` and return the best epoch's: the latest within one standard error of the best.

    Args:
        cfg: the recipe.
        model: the network, images in [0, 1] -> logits; it is not changed.
        training: the images to train on.
        validation: the images on which the epoch is selected, by PGD-10 accuracy at the recipe's eps (certified
            accuracy for losses computed from bounds alone, clean accuracy for `natural`).
        seed: the seed of data order, augmentation, attacks and dropout.
        hook: what marks add.
        execution: the device, the precision and the number of processes.
        folder: the folder for checkpoints and `metrics.jsonl`; None writes neither.
        resume: whether to continue from the folder's checkpoint, if there is one.
        progress: called with the completed fraction of training and the latest metrics.

    Raises:
        ConfigError: the recipe's shift is at least the side of the images.
        TrainingError: the loss became NaN or infinite; the last epoch's checkpoint is unchanged.
    """
    check_shift(cfg, training.pixels.shape[1:])
    hook, execution = hook or Hook(), execution or Execution()
    folder = None if folder is None else Path(folder)
    with global_seed(seed, "identity"):
        answers = predict_logits(model.cpu(), training.subset(slice(_ASKED)).images())
    targets = (
        hook.targets
        if hook.targets is not None
        else plain_targets(training.labels, answers.shape[1], cfg.label_smoothing)
    )
    if hook.left_out is not None:
        training, targets = training.subset(~hook.left_out), targets[~hook.left_out]
    run = TrainingRun(
        cfg=cfg,
        model=model,
        train=training,
        validation=validation,
        targets=targets,
        hook=hook,
        seed=seed,
        folder=folder,
        identity=checkpoint.Identity(
            digests={
                "settings or seed": config.digest(cfg, {"seed": seed}),
                "training images": tensor_digest(*training),
                "validation images": tensor_digest(*validation),
                "targets": tensor_digest(targets),
                "triggers": tensor_digest(*(tensor for t in hook.trigger_epochs for tensor in (t.pixels, t.labels))),
                "initial weights": config.digest({n: tensor_digest(t) for n, t in model.state_dict().items()}),
            },
            answers=answers,
        ),
        progress=progress if execution.processes == 1 else None,
    )
    if folder is not None and not resume:
        checkpoint.clear(folder / "checkpoint")
    state = _train_in_processes(execution, run) if execution.processes > 1 else _train_process(execution.fabric(), run)
    trained = copy.deepcopy(model)
    trained.load_state_dict(state.best)
    return Trained(trained.eval(), state.best_epoch, state.history)


def _train_in_processes(execution: Execution, run: TrainingRun) -> checkpoint.TrainingState:
    """Train in several processes; the first one returns the result in files, which never block, whatever their size."""
    with tempfile.TemporaryDirectory() as folder:
        execution.launch(partial(_train_process_and_write, run=run, folder=Path(folder)))
        result = read_json(Path(folder) / "result.json")
        best = read_tensors(Path(folder) / "best.safetensors")
    return checkpoint.TrainingState(**result, best=best)


def _train_process_and_write(fabric: Fabric, run: TrainingRun, folder: Path) -> None:
    state = _train_process(fabric, run)
    if fabric.is_global_zero:
        write_tensors(folder / "best.safetensors", state.best)
        result = {"epoch": state.epoch, "history": state.history, "best_epoch": state.best_epoch}
        write_json(folder / "result.json", result)


def _train_process(fabric: Fabric, run: TrainingRun) -> checkpoint.TrainingState:
    """Train all epochs in this process and return the final state."""
    if fabric.world_size > 1 and fabric.device.type == "cpu":
        torch.set_num_threads(max(1, torch.get_num_threads() // fabric.world_size))
    cfg, folder = run.cfg, run.folder / "checkpoint" if run.folder else None
    model = copy.deepcopy(run.model)  # the processes share the memory of the tensors that they are started with
    layout = memory_format(model, fabric.device)
    model = model.to(fabric.device).to(memory_format=layout)  # type: ignore[call-overload]
    average = copy.deepcopy(model) if cfg.ema else model
    optimizer = make_optimizer(cfg, model)
    state = (
        checkpoint.load(folder, run.identity, model, average, optimizer) if folder else None
    ) or checkpoint.TrainingState(epoch=-1, history=[], best={}, best_epoch=-1)
    if state.history and fabric.is_global_zero:
        _write_metrics(run, state.history)  # a run that was stopped after its checkpoint may lack the last line
    forward, wrapped = fabric.setup(model, optimizer)
    for epoch in range(state.epoch + 1, cfg.epochs):
        with global_seed(run.seed, "epoch", epoch, fabric.global_rank):
            loss = train_epoch(fabric, run, epoch, model, average, forward, wrapped, layout)
            for number, triggers in enumerate(run.hook.trigger_epochs):
                train_trigger_epoch(fabric, triggers, forward, wrapped, generator(run.seed, "pass", number, epoch))
        _average_buffers(fabric, average)
        metrics = {"epoch": epoch, "loss": loss} | validation_metrics(
            cfg, average, run.validation, seed=run.seed, device=fabric.device
        )
        state.history.append(metrics)
        state.epoch = epoch
        if is_newest_best(cfg, len(run.validation), state.history):
            state.best_epoch = epoch
            state.best = {name: t.detach().cpu().clone() for name, t in average.state_dict().items()}
        if folder and fabric.is_global_zero:
            checkpoint.save(folder, run.identity, state, model, average, optimizer)
            _write_metrics(run, state.history)
        if run.progress:
            run.progress((epoch + 1) / cfg.epochs, metrics)
    return state


def _write_metrics(run: TrainingRun, history: Sequence[Mapping[str, float]]) -> None:
    if run.folder:
        write_bytes(run.folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in history).encode())


def validation_metrics(
    cfg: Recipe, model: nn.Module, validation: Split, *, seed: int, device: torch.device
) -> dict[str, float]:
    """Return clean and PGD-10 accuracy in float32, and certified accuracy for losses computed from bounds alone."""
    x, y = validation.images().to(device), validation.labels.to(device)
    attack = PGD(eps=cfg.eps, norm=cfg.norm, steps=10, stop=True)
    points = pgd(attack, model, x, y, generator=generator(seed, "validation", device=device))
    metrics = {
        "clean": (predict_logits(model, x).argmax(1) == y).float().mean().item(),
        "robust": (predict_logits(model, points).argmax(1) == y).float().mean().item(),
    }
    if cfg.loss in CERTIFIED:
        metrics["certified"] = evaluate(model, x, y, eps=cfg.eps, attack="ibp").accuracy
    return metrics


def is_newest_best(cfg: Recipe, validation: int, history: Sequence[Mapping[str, float]]) -> bool:
    """Return whether to select the newest epoch: its accuracy is within one standard error of the best so far.

    With a thousand validation images the standard error is over a percentage point, so that without the tolerance
    chance would select an early epoch. Epochs inside the ramp are ignored once there is one after it.
    """
    measure = "clean" if cfg.loss == "natural" else "certified" if cfg.loss in CERTIFIED else "robust"
    past = [h for h in history if (h["epoch"] + 1) / cfg.epochs >= cfg.ramp] or history
    newest, best = history[-1], max(h[measure] for h in past)
    return newest in past and newest[measure] >= best - math.sqrt(best * (1 - best) / validation)


def _average_buffers(fabric: Fabric, model: nn.Module) -> None:
    """Average the batch statistics, which each process collected on its own batches."""
    if fabric.world_size > 1:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                mean = fabric.all_reduce(buffer, reduce_op="mean")
                assert isinstance(mean, Tensor)
                buffer.copy_(mean)
