"""Auto-PGD (Croce, Hein, arXiv 2003.01690): momentum, and a step that halves by itself where it stops paying."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from wootz import checks
from wootz.attacks.evasion.balls import BALLS
from wootz.attacks.evasion.objectives import cross_entropy, logit_ratio, targeted_logit_ratio
from wootz.modes import eval_mode
from wootz.types import Norm

_TRUST = 0.75  # alpha of the paper's eq. 2: what the new step weighs against the last one's momentum
_PAYS = 0.75  # rho: the share of steps that must have gained since the last checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class APGD:
    """How to climb; the defaults are the reference ensemble's.

    Attributes:
        eps: radius of the ball, in pixels of [0, 1]; 0 gives the images back.
        norm: the ball's norm.
        loss: what to climb: cross-entropy (`ce`), the ratio of logit differences (`dlr`), or its targeted form
            (`targeted-dlr`) towards each of the likeliest wrong classes.
        targets: how many wrong classes `targeted-dlr` tries, the likeliest first.
        steps: gradient steps a start.
        restarts: starts an image and target.
        random_start: begin at a random point of the ball rather than at the image.
        stop: let an image leave as soon as it is misclassified.
        lanes: starts that climb side by side in one batch; changes memory and speed.
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
    """Return images in the ball around `x` on which `model` does badly.

    All starts of an image, one for each restart and target, climb side by side; with `stop`, all of them leave
    when one arrives.

    Args:
        cfg: how to climb.
        model: images in [0, 1] -> logits; borrowed in eval mode.
        x: images float32 [N, C, H, W] in [0, 1].
        y: true labels int64 [N].
        generator: for random starts, on the device of `x`.

    Returns:
        Images [N, C, H, W] in [0, 1], none further than `eps` from `x` (up to float rounding): with `stop` the
        first misclassified ones, else and elsewhere those of the highest loss.
    """
    points = x.clone()
    if cfg.eps == 0 or len(x) == 0:
        return points
    highest = torch.full((len(x),), float("-inf"), device=x.device)
    with eval_mode(model):
        rows, aims = _lanes(cfg, model, x, y)
        for part in torch.arange(len(rows), device=x.device).split(cfg.lanes):
            part = part[highest[rows[part]] < math.inf]
            start = BALLS[cfg.norm].start(x[rows[part]], cfg.eps, generator) if cfg.random_start else x[rows[part]]
            best, height = _climb(cfg, model, _Lanes.at(start, rows[part], x, y, aims[part]))
            known = highest.clone()
            highest.scatter_reduce_(0, rows[part], height, "amax")
            winners = (height == highest[rows[part]]) & (height > known[rows[part]])
            points[rows[part][winners]] = best[winners]
    return points


def _lanes(cfg: APGD, model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each start the image's row and the class aimed at (its own class where none is aimed at)."""
    aims = y[:, None]
    if cfg.loss == "targeted-dlr":
        with torch.no_grad():
            wrong = model(x).float().scatter(1, y[:, None], float("-inf"))
        aims = wrong.argsort(1, descending=True)[:, : min(cfg.targets, wrong.shape[1] - 1)]
    aims = aims.repeat(1, cfg.restarts)
    return torch.arange(len(x), device=x.device).repeat_interleave(aims.shape[1]), aims.flatten()


class _Lanes(NamedTuple):
    """What every start carries, all [L] or [L, C, H, W]."""

    lane: Tensor
    row: Tensor
    base: Tensor
    label: Tensor
    aim: Tensor
    point: Tensor
    before: Tensor
    best: Tensor
    uphill: Tensor  # the gradient at the best point
    height: Tensor  # the value there
    height_then: Tensor  # and at the last checkpoint
    gains: Tensor
    size: Tensor
    halved: Tensor

    @staticmethod
    def at(start: Tensor, row: Tensor, x: Tensor, y: Tensor, aim: Tensor) -> _Lanes:
        """Return lanes that stand at `start` and know nothing yet."""
        low = torch.full((len(start),), float("-inf"), device=start.device)
        none = torch.zeros(len(start), device=start.device)
        return _Lanes(
            torch.arange(len(start), device=start.device),
            row,
            x[row],
            y[row],
            aim,
            start,
            start,
            start,
            torch.zeros_like(start),
            low,
            low,
            none,
            none + 1,
            none.bool(),
        )

    def keep(self, mask: Tensor) -> _Lanes:
        """Return the lanes where `mask` holds."""
        return self if mask.all() else _Lanes(*(t[mask] for t in self))


def _climb(cfg: APGD, model: nn.Module, now: _Lanes) -> tuple[Tensor, Tensor]:
    """Climb side by side; return every lane's best point and its height, infinite where an image fell."""
    ball, marks = BALLS[cfg.norm], _checkpoints(cfg.steps)
    found, heights = now.base.clone(), now.height.clone()
    fallen = torch.zeros(int(now.row.max()) + 1 if len(now.row) else 0, dtype=torch.bool, device=now.base.device)
    value, last = now.height, 0
    for step in range(cfg.steps + 1):
        if len(now.lane) == 0:
            break
        earlier, (value, gradient, fooled) = value, _look(cfg, model, now)
        better = value > now.height
        now = now._replace(
            best=torch.where(_wide(better), now.point, now.best),
            uphill=torch.where(_wide(better), gradient, now.uphill),
            height=torch.where(better, value, now.height),
            gains=now.gains + (value > earlier) * (step > 0),
        )
        if cfg.stop and fooled.any():
            found[now.lane[fooled]], heights[now.lane[fooled]] = now.point[fooled], math.inf
            fallen[now.row[fooled]] = True
            stay = ~fallen[now.row]
            now, value, gradient = now.keep(stay), value[stay], gradient[stay]
        if step in marks:
            halve = (now.gains < _PAYS * (step - last)) | (~now.halved & (now.height == now.height_then))
            last = step
            wide = _wide(halve)
            now = now._replace(
                point=torch.where(wide, now.best, now.point),
                before=torch.where(wide, now.best, now.before),
                height_then=now.height,
                gains=torch.zeros_like(now.gains),
                size=torch.where(halve, now.size / 2, now.size),
                halved=halve,
            )
            gradient, value = torch.where(wide, now.uphill, gradient), torch.where(halve, now.height, value)
        if step < cfg.steps:
            ahead = ball.project(ball.step(now.point, gradient, 2 * cfg.eps * _wide(now.size)), now.base, cfg.eps)
            if step:
                ahead = now.point + _TRUST * (ahead - now.point) + (1 - _TRUST) * (now.point - now.before)
                ahead = ball.project(ahead, now.base, cfg.eps)
            now = now._replace(point=ahead, before=now.point)
    if len(now.lane):
        found[now.lane], heights[now.lane] = now.best, now.height
    return found, heights


def _look(cfg: APGD, model: nn.Module, now: _Lanes) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss [L], its gradient [L, C, H, W], and which points are misclassified [L]."""
    point = now.point.detach().requires_grad_(True)
    logits = model(point).float()
    if cfg.loss == "targeted-dlr":
        value = targeted_logit_ratio(logits, now.label, now.aim)
    else:
        value = (cross_entropy if cfg.loss == "ce" else logit_ratio)(logits, now.label)
    (gradient,) = torch.autograd.grad(value.sum(), point)
    return value.detach(), gradient, logits.argmax(1) != now.label


def _checkpoints(steps: int) -> frozenset[int]:
    """Return the steps at which the step size is reconsidered (the paper's w_j)."""
    marks, before, now = set(), 0.0, 0.22
    while now <= 1:
        marks.add(math.ceil(now * steps))
        before, now = now, now + max(now - before - 0.03, 0.06)
    return frozenset(marks)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.view(-1, 1, 1, 1)
