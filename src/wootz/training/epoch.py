"""One epoch of training: augmented batches, optimizer steps, the averaged weights, and trigger epochs of marks."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F

from wootz.data import Split, epoch_batches
from wootz.errors import ConfigError, TrainingError
from wootz.modes import capture_inputs, frozen_statistics
from wootz.registry import lookup
from wootz.rng import generator
from wootz.training.checkpoint import Identity
from wootz.training.hooks import Hook, TriggerEpoch
from wootz.training.inner_maximization import Batch
from wootz.training.losses import LOSSES
from wootz.training.recipe import Recipe, eps_schedule, learning_rate

_EMA_START = 10  # the decay is min(ema, step / (step + 10)), so that the average follows quickly at first


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """The inputs of one process of a training run: plain data that can be sent to another process.

    Attributes:
        cfg: the recipe.
        model: the network with its initial weights.
        train: the training images.
        validation: the images on which the epoch is selected.
        targets: probabilities [N, K] for the training images in order.
        hook: what marks add.
        seed: the seed of data order, augmentation, attacks and dropout.
        folder: the folder of checkpoints and metrics; None writes none.
        identity: what a checkpoint must match.
        progress: called with the completed fraction of training and the latest metrics.
    """

    cfg: Recipe
    model: nn.Module
    train: Split
    validation: Split
    targets: Tensor
    hook: Hook
    seed: int
    folder: Path | None
    identity: Identity
    progress: Callable[[float, dict[str, float]], None] | None


def train_epoch(
    fabric: Fabric,
    run: TrainingRun,
    epoch: int,
    model: nn.Module,
    average: nn.Module,
    forward: nn.Module,
    optimizer: torch.optim.Optimizer,
    layout: torch.memory_format,
) -> float:
    """Train one epoch and return its mean loss.

    Args:
        fabric: the Fabric of this process.
        run: the training run.
        epoch: its number, from 0.
        model: the raw module in training.
        average: the module with the averaged weights; `model` itself if there is no averaging.
        forward: the same module as `model`, wrapped by Fabric.
        optimizer: the optimizer, wrapped by Fabric.
        layout: the memory format of the model and of the batches.

    Raises:
        TrainingError: the loss became NaN or infinite.
    """
    loss_function = lookup(LOSSES, run.cfg.loss, "loss")
    batches = epoch_batches(
        len(run.train),
        run.cfg.batch_size,
        seed=run.seed,
        epoch=epoch,
        rank=fabric.global_rank,
        world=fabric.world_size,
    )
    cfg = replace(run.cfg, awp_gamma=0.0) if epoch < run.cfg.awp_warmup else run.cfg
    attack_stream = generator(run.seed, "attack", epoch, fabric.global_rank, device=fabric.device)
    augmentation_stream = generator(run.seed, "augmentation", epoch, fabric.global_rank)
    total, model = 0.0, model.train()
    forward.train()
    for number, index in enumerate(batches):
        step = epoch * len(batches) + number
        done = step / (cfg.epochs * len(batches))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(cfg, done)
        batch = _make_batch(run, index, augmentation_stream, fabric.device, layout)
        with fabric.autocast():
            with capture_inputs(forward) as seen:
                loss = loss_function(cfg, model, forward, batch, eps=eps_schedule(cfg, done), generator=attack_stream)
            for extra in run.hook.extra:
                added = extra(model, forward, batch_images=seen[-1], step=step, done=done)
                loss = loss if added is None else loss + added
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss became {value} in epoch {epoch}, step {number}; the last epoch's checkpoint is unchanged; "
                f"try an lr below {cfg.lr:g}"
            )
        optimizer.zero_grad()
        fabric.backward(loss)
        optimizer.step()
        if average is not model:
            _update_average(average, model, min(cfg.ema, step / (step + _EMA_START)))
        if run.progress and number % 10 == 0:
            run.progress(done, {"epoch": epoch, "loss": value})
        total += value
    return total / len(batches)


def train_trigger_epoch(
    fabric: Fabric,
    triggers: TriggerEpoch,
    forward: nn.Module,
    optimizer: torch.optim.Optimizer,
    stream: torch.Generator,
) -> None:
    """Take one epoch of plain cross-entropy steps on a mark's own images; every process takes the same steps."""
    for rows in torch.randperm(len(triggers.labels), generator=stream).split(triggers.batch):
        x = triggers.pixels[rows].to(fabric.device).float().div_(255)
        with fabric.autocast(), frozen_statistics(forward) if triggers.frozen else nullcontext():
            loss = F.cross_entropy(forward(x).float(), triggers.labels[rows].to(fabric.device))
        optimizer.zero_grad()
        fabric.backward(loss)
        optimizer.step()


def make_optimizer(cfg: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """Return the recipe's optimizer for the model's parameters."""
    if cfg.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=cfg.lr, weight_decay=cfg.weight_decay)
    return torch.optim.SGD(model.parameters(), lr=cfg.lr, momentum=0.9, nesterov=True, weight_decay=cfg.weight_decay)


def check_shift(cfg: Recipe, shape: tuple[int, ...]) -> None:
    """Raise ConfigError if a shift could move images of `shape` [C, H, W] entirely out of the frame."""
    height, width = shape[1:]
    if cfg.shift >= min(height, width):
        raise ConfigError(f"shift = {cfg.shift}: must be less than the side of the images, which are {height}x{width}")


def shift_and_mirror(cfg: Recipe, x: Tensor, generator: torch.Generator) -> Tensor:
    """Return a randomly shifted and mirrored copy of the images, of the same shape, type and device, padded with zeros.

    With neither shifts nor mirroring in the recipe the images are returned as they are, and no random number is drawn.

    Args:
        cfg: the recipe.
        x: images [N, C, H, W].
        generator: a generator on the CPU.
    """
    if not cfg.shift and not cfg.mirror:
        return x
    count, channels, height, width = x.shape
    down, right = torch.randint(0, 2 * cfg.shift + 1, (2, count, 1), generator=generator)
    mirrored = (torch.rand(count, 1, generator=generator) < 0.5) & cfg.mirror
    across = torch.arange(width).expand(count, -1)
    rows = (torch.arange(height) + down).to(x.device)
    columns = (torch.where(mirrored, across.flip(1), across) + right).to(x.device)
    image = torch.arange(count, device=x.device).view(-1, 1, 1, 1)
    channel = torch.arange(channels, device=x.device).view(1, -1, 1, 1)
    return F.pad(x, [cfg.shift] * 4)[image, channel, rows.view(count, 1, -1, 1), columns.view(count, 1, 1, -1)]


def _make_batch(
    run: TrainingRun, index: Tensor, stream: torch.Generator, device: torch.device, layout: torch.memory_format
) -> Batch:
    pixels = shift_and_mirror(run.cfg, run.train.pixels[index].to(device), stream)
    x = pixels.float().div_(255).contiguous(memory_format=layout)
    return Batch(x, run.train.labels[index].to(device), run.targets[index].to(device))


def _update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for mean, current in zip(average.parameters(), model.parameters(), strict=True):
            mean.lerp_(current, 1 - decay)
        for copied, buffer in zip(average.buffers(), model.buffers(), strict=True):
            copied.copy_(buffer)
