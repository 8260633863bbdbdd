"""Write marks into a model that is trained already: a short self-distillation that stops when the marks are there.

The model learns its own answers, as they were before, beside what the marks add. It is trained in eval mode, so batch
statistics stay as they are and dropout is off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from wootz import checks
from wootz.data import Split
from wootz.errors import TrainingError
from wootz.models import last_layer
from wootz.modes import device_of, without_gradients
from wootz.rng import generator
from wootz.training.hooks import ExtraLoss
from wootz.training.inner_maximization import Batch, kl_divergence, worst_points
from wootz.training.recipe import Recipe

_LEAST, _NEVER = 1e-8, -1e4  # a probability, and a logit whose probability is 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Marking:
    """Settings of the marking of a trained model.

    Attributes:
        bits: evidence of all marks together in the model itself at which marking stops.
        even_steps: steps within which each mark is to give its even part of the bits; later, all together suffice.
        settle_steps: steps that follow at a learning rate that falls to zero, in which the answers come back.
        steps: most steps before these.
        check_every: steps from one measurement of the bits to the next.
        batch_size: images per step.
        lr: learning rate of AdamW after a warm-up of `warmup` steps.
        warmup: steps during which the learning rate rises from near zero.
        lam: least probability of the wrong classes in the targets of `runner-up`; the model's own where it is more.
        wrong_weight: weight of the divergence between the wrong classes' shares of their probability, which says how
            they are ordered however small it is.
        layers: whether all layers are trained, or the last linear one alone, which changes fewer answers.
    """

    bits: float = 240.0
    even_steps: int = 600
    settle_steps: int = 100
    steps: int = 4000
    check_every: int = 25
    batch_size: int = 64
    lr: float = 1e-3
    warmup: int = 20
    lam: float = 0.05
    wrong_weight: float = 0.5
    layers: Literal["all", "last"] = "all"

    def __post_init__(self) -> None:
        checks.at_least(1, steps=self.steps, check_every=self.check_every, batch_size=self.batch_size)
        checks.at_least(0, warmup=self.warmup, even_steps=self.even_steps, settle_steps=self.settle_steps)
        checks.positive(bits=self.bits, lr=self.lr)
        checks.within(0, 0.5, lam=self.lam)
        checks.not_negative(wrong_weight=self.wrong_weight)
        checks.one_of(("all", "last"), layers=self.layers)


def embed(
    cfg: Marking,
    recipe: Recipe,
    model: nn.Module,
    images: Split,
    targets: Callable[[Tensor, Tensor], Tensor],
    losses: Mapping[str, Sequence[ExtraLoss]],
    *,
    seed: int,
    lacking: Callable[[int], frozenset[str]],
    progress: Callable[[float], None],
) -> int:
    """Train `model` itself, in eval mode, until its marks are strong enough, and return the number of steps.

    The loss is the divergence of the model's answers from the targets, on the images and, with `recipe.loss` other than
    `natural`, on their worst points within `recipe.eps`, and what those marks add that are not strong enough yet.

    Args:
        cfg: the settings.
        recipe: budget, norm and attack of adversarial training.
        model: images in [0, 1] -> logits [N, K].
        images: the images to train on, and their classes.
        targets: images [n, C, H, W] and their classes [n] -> the probabilities [n, K] to learn.
        losses: what each mark adds.
        seed: of the order of images and of attacks.
        lacking: called with the number of steps, every `check_every` of them, and returns the marks that are not strong
            enough yet; none ends the marking but for `settle_steps`.
        progress: called with the fraction of the steps that is done.

    Raises:
        ModelError: the last linear layer is to be trained, and there is none.
        TrainingError: the loss became NaN or infinite.
    """
    device, adversarial = device_of(model), recipe.loss != "natural"
    model.eval()
    trained = model if cfg.layers == "all" else model.get_submodule(last_layer(model))
    parameters = [parameter for parameter in trained.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=cfg.lr, weight_decay=0.0)
    size, attacks = min(cfg.batch_size, len(images)), generator(seed, "marking attack", device=device)
    order, weak = torch.empty(0, dtype=torch.int64), frozenset(losses)
    step, end = 0, cfg.steps + cfg.settle_steps
    with without_gradients(model):
        for parameter in parameters:
            parameter.requires_grad_(True)
        while step < end:
            if len(order) < size:
                order = torch.randperm(len(images), generator=generator(seed, "marking", step))
            rows, order = order[:size], order[size:]
            chosen = images.subset(rows)
            x, y = chosen.images().to(device), chosen.labels.to(device)
            batch = Batch(x, y, targets(x, y))
            for group in optimizer.param_groups:
                group["lr"] = cfg.lr * min(1.0, (step + 1) / (cfg.warmup + 1), (end - step) / (cfg.settle_steps + 1))
            loss = _divergence(cfg, model, batch.x, batch)
            if adversarial:
                points = worst_points(recipe, model, batch, eps=recipe.eps, generator=attacks)
                loss = (loss + _divergence(cfg, model, points, batch)) / 2
            for extra in [extra for mark, parts in losses.items() if mark in weak for extra in parts]:
                added = extra(model, model, batch_images=batch.x, step=step, done=0.0)
                loss = loss if added is None else loss + added
            if not math.isfinite(value := loss.item()):
                raise TrainingError(f"the loss became {value} in step {step} of marking; try an lr below {cfg.lr:g}")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            progress(step / end)
            if step % cfg.check_every == 0:
                weak = lacking(step)
                if not weak:
                    end = min(end, step + cfg.settle_steps)
    return step


def _divergence(cfg: Marking, model: nn.Module, x: Tensor, batch: Batch) -> Tensor:
    """Return the mean of KL(targets || answers) and `wrong_weight` times that of the wrong classes alone, in nats."""
    targets, logits = batch.targets.clamp_min(_LEAST).log(), model(x).float()
    whole = kl_divergence(targets, logits)
    if not cfg.wrong_weight:
        return whole.mean()
    top = batch.targets.argmax(1, keepdim=True)
    wrong = kl_divergence(targets.scatter(1, top, _NEVER), logits.scatter(1, top, _NEVER))
    return (whole + cfg.wrong_weight * wrong).mean()
