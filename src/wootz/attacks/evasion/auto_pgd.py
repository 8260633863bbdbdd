"""Auto-PGD (Croce, Hein, arXiv 2003.01690): momentum, and a step size that halves when progress stalls."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from wootz import checks
from wootz.attacks.evasion.balls import BALLS, check_ball
from wootz.attacks.evasion.objectives import cross_entropy, logit_ratio, targeted_logit_ratio
from wootz.modes import eval_mode
from wootz.types import Norm

_ALPHA = 0.75  # the paper's eq. 2: the weight of the new step, against the momentum of the last one
_RHO = 0.75  # the fraction of steps since the last checkpoint that must have increased the loss


@dataclass(frozen=True, slots=True, kw_only=True)
class APGD:
    """Settings of the attack; the defaults are the reference ensemble's.

    Attributes:
        eps: the radius of the ball, in pixels of [0, 1]; 0 returns the images unchanged.
        norm: the norm of the ball.
        loss: the loss to maximize: cross-entropy (`ce`), the difference of logits ratio (`dlr`), or its targeted form
            (`targeted-dlr`) for each of the most probable wrong classes.
        targets: the number of target classes of `targeted-dlr`, the most probable first.
        steps: the number of gradient steps per run.
        restarts: the number of runs per image and target.
        random_start: whether a run starts at a random point of the ball rather than at the image.
        stop: whether all runs of an image stop once it is misclassified.
        lanes: the number of runs in one batch; affects memory and speed only.
    """

    eps: float
    norm: Norm = "Linf"
    loss: Literal["ce", "dlr", "targeted-dlr"] = "ce"
    targets: int = 9
    steps: int = 100
    restarts: int = 1
    random_start: bool = True
    stop: bool = True
    lanes: int = 1000

    def __post_init__(self) -> None:
        checks.not_negative(eps=self.eps)
        checks.one_of(("Linf", "L2"), norm=self.norm)
        checks.one_of(("ce", "dlr", "targeted-dlr"), loss=self.loss)
        checks.at_least(1, targets=self.targets, restarts=self.restarts, lanes=self.lanes)
        checks.at_least(2, steps=self.steps)


def apgd(cfg: APGD, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
    """Return images in the ball around `x` at which the loss of `model` is high.

    All runs of an image, one per restart and target, are computed in parallel; with `stop`, all of them end when one
    succeeds.

    Args:
        cfg: the settings.
        model: images in [0, 1] -> logits; used in eval mode and restored.
        x: images float32 [N, C, H, W] in [0, 1].
        y: true labels int64 [N].
        generator: the generator of random starts, on the device of `x`.

    Returns:
        Images [N, C, H, W] in [0, 1], none farther than `eps` from `x` (up to float rounding). With `stop`, the first
        misclassified point of an image if there is one; otherwise its point of the highest loss.
    """
    check_ball(x, cfg.eps, cfg.norm)
    points = x.clone()
    if cfg.eps == 0 or len(x) == 0:
        return points
    best_loss = torch.full((len(x),), float("-inf"), device=x.device)
    with eval_mode(model):
        rows, targets = _plan_runs(cfg, model, x, y)
        for batch in torch.arange(len(rows), device=x.device).split(cfg.lanes):
            batch = batch[best_loss[rows[batch]] < math.inf]
            start = BALLS[cfg.norm].start(x[rows[batch]], cfg.eps, generator) if cfg.random_start else x[rows[batch]]
            run_points, run_loss = _maximize(cfg, model, _Runs.at(start, rows[batch], x, y, targets[batch]))
            previous = best_loss.clone()
            best_loss.scatter_reduce_(0, rows[batch], run_loss, "amax")
            improved = (run_loss == best_loss[rows[batch]]) & (run_loss > previous[rows[batch]])
            points[rows[batch][improved]] = run_points[improved]
    return points


def _plan_runs(cfg: APGD, model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the image's row and the target class of each run (the image's own class for untargeted losses)."""
    targets = y[:, None]
    if cfg.loss == "targeted-dlr":
        with torch.no_grad():
            wrong = model(x).float().scatter(1, y[:, None], float("-inf"))
        targets = wrong.argsort(1, descending=True)[:, : min(cfg.targets, wrong.shape[1] - 1)]
    targets = targets.repeat(1, cfg.restarts)
    return torch.arange(len(x), device=x.device).repeat_interleave(targets.shape[1]), targets.flatten()


class _Runs(NamedTuple):
    """The state of the active runs, all tensors [L] or [L, C, H, W]."""

    slot: Tensor  # the position in the batch of runs
    row: Tensor  # the image's row
    image: Tensor
    label: Tensor
    target: Tensor
    point: Tensor
    previous_point: Tensor
    best_point: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    checkpoint_loss: Tensor  # the best loss at the last checkpoint
    gains: Tensor  # the number of steps since the last checkpoint that increased the loss
    step_size: Tensor  # in units of 2 * eps
    halved: Tensor  # whether the last checkpoint halved the step size

    @staticmethod
    def at(start: Tensor, row: Tensor, x: Tensor, y: Tensor, target: Tensor) -> _Runs:
        """Return new runs at the points `start`."""
        lowest = torch.full((len(start),), float("-inf"), device=start.device)
        zeros = torch.zeros(len(start), device=start.device)
        return _Runs(
            slot=torch.arange(len(start), device=start.device),
            row=row,
            image=x[row],
            label=y[row],
            target=target,
            point=start,
            previous_point=start,
            best_point=start,
            best_gradient=torch.zeros_like(start),
            best_loss=lowest,
            checkpoint_loss=lowest,
            gains=zeros,
            step_size=zeros + 1,
            halved=zeros.bool(),
        )

    def select(self, mask: Tensor) -> _Runs:
        """Return the runs for which `mask` [L] is true."""
        return self if mask.all() else _Runs(*(tensor[mask] for tensor in self))


def _maximize(cfg: APGD, model: nn.Module, runs: _Runs) -> tuple[Tensor, Tensor]:
    """Return the best point and the best loss of every run; the loss is infinite if the run succeeded."""
    ball, checkpoints = BALLS[cfg.norm], _checkpoints(cfg.steps)
    points, losses = runs.image.clone(), runs.best_loss.clone()
    rows = int(runs.row.max()) + 1 if len(runs.row) else 0
    succeeded = torch.zeros(rows, dtype=torch.bool, device=runs.image.device)
    loss, last_checkpoint = runs.best_loss, 0
    for step in range(cfg.steps + 1):
        if len(runs.slot) == 0:
            break
        previous_loss, (loss, gradient, misclassified) = loss, _evaluate_loss(cfg, model, runs)
        better = loss > runs.best_loss
        runs = runs._replace(
            best_point=torch.where(_expand(better), runs.point, runs.best_point),
            best_gradient=torch.where(_expand(better), gradient, runs.best_gradient),
            best_loss=torch.where(better, loss, runs.best_loss),
            gains=runs.gains + (loss > previous_loss) * (step > 0),
        )
        if cfg.stop and misclassified.any():
            done = runs.slot[misclassified]
            points[done], losses[done] = runs.point[misclassified], math.inf
            succeeded[runs.row[misclassified]] = True
            active = ~succeeded[runs.row]
            runs, loss, gradient = runs.select(active), loss[active], gradient[active]
        if step in checkpoints:
            stalled = ~runs.halved & (runs.best_loss == runs.checkpoint_loss)
            halve = (runs.gains < _RHO * (step - last_checkpoint)) | stalled
            last_checkpoint = step
            runs = runs._replace(
                point=torch.where(_expand(halve), runs.best_point, runs.point),
                previous_point=torch.where(_expand(halve), runs.best_point, runs.previous_point),
                checkpoint_loss=runs.best_loss,
                gains=torch.zeros_like(runs.gains),
                step_size=torch.where(halve, runs.step_size / 2, runs.step_size),
                halved=halve,
            )
            gradient = torch.where(_expand(halve), runs.best_gradient, gradient)
            loss = torch.where(halve, runs.best_loss, loss)
        if step < cfg.steps:
            moved = ball.step(runs.point, gradient, 2 * cfg.eps * _expand(runs.step_size))
            moved = ball.project(moved, runs.image, cfg.eps)
            if step:
                momentum = runs.point - runs.previous_point
                moved = runs.point + _ALPHA * (moved - runs.point) + (1 - _ALPHA) * momentum
                moved = ball.project(moved, runs.image, cfg.eps)
            runs = runs._replace(point=moved, previous_point=runs.point)
    if len(runs.slot):
        points[runs.slot], losses[runs.slot] = runs.best_point, runs.best_loss
    return points, losses


def _evaluate_loss(cfg: APGD, model: nn.Module, runs: _Runs) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss [L], its gradient [L, C, H, W], and which points are misclassified [L]."""
    point = runs.point.detach().requires_grad_(True)
    logits = model(point).float()
    if cfg.loss == "targeted-dlr":
        loss = targeted_logit_ratio(logits, runs.label, runs.target)
    else:
        loss = (cross_entropy if cfg.loss == "ce" else logit_ratio)(logits, runs.label)
    (gradient,) = torch.autograd.grad(loss.sum(), point)
    return loss.detach(), gradient, logits.argmax(1) != runs.label


def _checkpoints(steps: int) -> frozenset[int]:
    """Return the steps at which the step size is reconsidered (the paper's w_j)."""
    checkpoints, before, now = set(), 0.0, 0.22
    while now <= 1:
        checkpoints.add(math.ceil(now * steps))
        before, now = now, now + max(now - before - 0.03, 0.06)
    return frozenset(checkpoints)


def _expand(tensor: Tensor) -> Tensor:
    """Return a tensor [L] as [L, 1, 1, 1]."""
    return tensor.view(-1, 1, 1, 1)
