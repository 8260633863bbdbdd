"""The one training loop. Every random choice is a function of seed and epoch, so a killed run continues exactly."""

from __future__ import annotations

import copy
import json
import math
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F

from wootz import config
from wootz.attacks.evasion import predict_logits
from wootz.data import Split, epoch_batches
from wootz.errors import TrainingError
from wootz.modes import capture_inputs, frozen_statistics
from wootz.registry import lookup
from wootz.rng import generator, global_seed
from wootz.store import read_json, read_tensors, tensor_digest, write_bytes, write_json, write_tensors
from wootz.training import checkpoint
from wootz.training.augmentation import augmented, check_shift
from wootz.training.execution import Execution, memory_format
from wootz.training.hooks import Hook, TriggerEpoch, plain_targets
from wootz.training.losses import Batch
from wootz.training.recipe import Recipe
from wootz.training.schedules import budget, learning_rate
from wootz.training.table import LOSSES
from wootz.training.validation import figures_of, is_newest_best

_EMA_START = 10  # the average follows quickly at first: decay min(ema, step / (step + 10))


class Trained(NamedTuple):
    """The model of the epoch that was kept (see `train`), that epoch (from 0), and all epochs' figures."""

    model: nn.Module
    best_epoch: int
    history: list[dict[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """All that one process needs to know. Plain data: it may cross to another process."""

    cfg: Recipe
    model: nn.Module
    train: Split
    validation: Split
    targets: Tensor
    hook: Hook
    seed: int
    folder: Path | None
    run: str
    progress: Callable[[float, dict[str, float]], None] | None


def train(
    cfg: Recipe,
    model: nn.Module,
    training: Split,
    validation: Split,
    *,
    seed: int,
    hook: Hook | None = None,
    execution: Execution | None = None,
    folder: Path | None = None,
    resume: bool = False,
    progress: Callable[[float, dict[str, float]], None] | None = None,
) -> Trained:
    """Train a copy of `model` and return the best epoch's: the latest within one standard error of the best.

    Args:
        cfg: the recipe.
        model: images in [0, 1] -> logits; left as it is.
        training: images to train on.
        validation: images on which the epoch is chosen, by PGD-10 accuracy at the recipe's eps (certified accuracy
            for losses by bounds alone, clean accuracy for `natural`).
        seed: of data order, attacks and dropout.
        hook: what marks add.
        execution: device, precision, processes.
        folder: where checkpoints and `metrics.jsonl` go; None keeps none.
        resume: continue from the folder's checkpoint where there is one.
        progress: told the share of training done and the newest figures.

    Raises:
        ConfigError: images are as small as the recipe's shift.
        TrainingError: the loss became NaN or infinite; the last good checkpoint stands.
    """
    check_shift(cfg, training.pixels.shape[1:])
    hook, execution = hook or Hook(), execution or Execution()
    num_classes = predict_logits(model.cpu(), training.subset(slice(1)).images()).shape[1]
    targets = (
        hook.targets if hook.targets is not None else plain_targets(training.labels, num_classes, cfg.label_smoothing)
    )
    if hook.left_out is not None:
        training, targets = training.subset(~hook.left_out), targets[~hook.left_out]
    job = _Job(
        cfg=cfg,
        model=copy.deepcopy(model),
        train=training,
        validation=validation,
        targets=targets,
        hook=hook,
        seed=seed,
        folder=folder,
        run=config.digest(cfg, {"seed": seed, "data": tensor_digest(training.labels, targets)}),
        progress=progress if execution.processes == 1 else None,
    )
    if folder is not None and not resume:
        checkpoint.clear(folder / "checkpoint")
    state = _in_processes(execution, job) if execution.processes > 1 else _run(execution.fabric(), job)
    trained = copy.deepcopy(model)
    trained.load_state_dict(state.best)
    return Trained(trained.eval(), state.best_epoch, state.history)


def _in_processes(execution: Execution, job: _Job) -> checkpoint.TrainingState:
    """Train in several processes; the first one leaves the result in files, which pass any size without blocking."""
    with tempfile.TemporaryDirectory() as folder:
        execution.launch(partial(_run_and_leave, job=job, place=Path(folder)))
        told = read_json(Path(folder) / "told.json")
        best = read_tensors(Path(folder) / "best.safetensors")
    return checkpoint.TrainingState(
        epoch=told["epoch"], history=told["history"], best=best, best_epoch=told["best_epoch"]
    )


def _run_and_leave(fabric: Fabric, job: _Job, place: Path) -> None:
    state = _run(fabric, job)
    if fabric.is_global_zero:
        write_tensors(place / "best.safetensors", state.best)
        write_json(
            place / "told.json", {"epoch": state.epoch, "history": state.history, "best_epoch": state.best_epoch}
        )


def _run(fabric: Fabric, job: _Job) -> checkpoint.TrainingState:
    """Train in this process and return how far it came: all epochs, unless something is raised."""
    if fabric.world_size > 1 and fabric.device.type == "cpu":
        torch.set_num_threads(max(1, torch.get_num_threads() // fabric.world_size))
    cfg, folder = job.cfg, job.folder / "checkpoint" if job.folder else None
    layout = memory_format(job.model, fabric.device)
    model = job.model.to(fabric.device).to(memory_format=layout)  # type: ignore[call-overload]
    average = copy.deepcopy(model) if cfg.ema else model
    optimizer = _optimizer(cfg, model)
    state = (
        checkpoint.load(folder, job.run, model, average, optimizer) if folder else None
    ) or checkpoint.TrainingState(epoch=-1, history=[], best={}, best_epoch=-1)
    forward, wrapped = fabric.setup(model, optimizer)
    for epoch in range(state.epoch + 1, cfg.epochs):
        with global_seed(job.seed, "epoch", epoch, fabric.global_rank):
            loss = _epoch(fabric, job, epoch, model, average, forward, wrapped)
            for number, taught in enumerate(job.hook.trigger_epochs):
                _teach(fabric, taught, forward, wrapped, generator(job.seed, "pass", number, epoch))
        _average_buffers(fabric, average)
        figures = {"epoch": epoch, "loss": loss} | figures_of(
            cfg, average, job.validation, seed=job.seed, device=fabric.device
        )
        state.history.append(figures)
        state.epoch = epoch
        if is_newest_best(cfg, len(job.validation), state.history):
            state.best_epoch = epoch
            state.best = {name: t.detach().cpu().clone() for name, t in average.state_dict().items()}
        if folder and job.folder and fabric.is_global_zero:
            checkpoint.save(folder, job.run, state, model, average, optimizer)
            write_bytes(job.folder / "metrics.jsonl", "".join(json.dumps(h) + "\n" for h in state.history).encode())
        if job.progress:
            job.progress((epoch + 1) / cfg.epochs, figures)
    return state


def _epoch(
    fabric: Fabric,
    job: _Job,
    epoch: int,
    model: nn.Module,
    average: nn.Module,
    forward: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> float:
    """Train one epoch and return its mean loss."""
    layout = memory_format(job.model, fabric.device)
    cfg, loss_function = job.cfg, lookup(LOSSES, job.cfg.loss, "loss")
    batches = epoch_batches(
        len(job.train),
        cfg.batch_size,
        seed=job.seed,
        epoch=epoch,
        rank=fabric.global_rank,
        world=fabric.world_size,
    )
    cfg = replace(cfg, awp_gamma=0.0) if epoch < cfg.awp_warmup else cfg
    stream = generator(job.seed, "attack", epoch, fabric.global_rank, device=fabric.device)
    moves = generator(job.seed, "augmentation", epoch, fabric.global_rank)
    total, model = 0.0, model.train()
    forward.train()
    for number, index in enumerate(batches):
        step = epoch * len(batches) + number
        done = step / (cfg.epochs * len(batches))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(cfg, done)
        batch = _take(job, index, moves, fabric.device, layout)
        with fabric.autocast():
            with capture_inputs(forward) as seen:
                loss = loss_function(cfg, model, forward, batch, eps=budget(cfg, done), generator=stream)
            for extra in job.hook.extra:
                added = extra(model, forward, batch_images=seen[-1], step=step, done=done)
                loss = loss if added is None else loss + added
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss became {value} in epoch {epoch}, step {number}; the checkpoint of the epoch before stands; "
                f"try a lower lr than {cfg.lr:g}"
            )
        optimizer.zero_grad()
        fabric.backward(loss)
        optimizer.step()
        if average is not model:
            _follow(average, model, min(cfg.ema, step / (step + _EMA_START)))
        if job.progress and number % 10 == 0:
            job.progress(done, {"epoch": epoch, "loss": value})
        total += value
    return total / len(batches)


def _teach(
    fabric: Fabric,
    taught: TriggerEpoch,
    forward: nn.Module,
    optimizer: torch.optim.Optimizer,
    stream: torch.Generator,
) -> None:
    """One pass of plain cross-entropy steps over a mark's own images; every process takes the same ones."""
    for rows in torch.randperm(len(taught.labels), generator=stream).split(taught.batch):
        x = taught.pixels[rows].to(fabric.device).float().div_(255)
        with fabric.autocast(), frozen_statistics(forward) if taught.frozen else nullcontext():
            loss = F.cross_entropy(forward(x).float(), taught.labels[rows].to(fabric.device))
        optimizer.zero_grad()
        fabric.backward(loss)
        optimizer.step()


def _take(job: _Job, index: Tensor, moves: torch.Generator, device: torch.device, layout: torch.memory_format) -> Batch:
    pixels = augmented(job.cfg, job.train.pixels[index].to(device), moves)
    x = pixels.float().div_(255).contiguous(memory_format=layout)
    return Batch(x, job.train.labels[index].to(device), job.targets[index].to(device))


def _optimizer(cfg: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    if cfg.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=cfg.lr, weight_decay=cfg.weight_decay)
    return torch.optim.SGD(model.parameters(), lr=cfg.lr, momentum=0.9, nesterov=True, weight_decay=cfg.weight_decay)


def _follow(average: nn.Module, model: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for mean, now in zip(average.parameters(), model.parameters(), strict=True):
            mean.lerp_(now, 1 - decay)
        for kept, buffer in zip(average.buffers(), model.buffers(), strict=True):
            kept.copy_(buffer)


def _average_buffers(fabric: Fabric, model: nn.Module) -> None:
    """Every process saw other batches: average their batch statistics."""
    if fabric.world_size > 1:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                mean = fabric.all_reduce(buffer, reduce_op="mean")
                assert isinstance(mean, Tensor)
                buffer.copy_(mean)
