"""Would this attack find what is there? Adversarial examples are planted, and it is counted how many it finds.

After Zimmermann et al., "Increasing confidence in adversarial robustness evaluations" (NeurIPS 2022,
arXiv 2206.13991): around each image a two-class problem is made on the model's own features, such that almost all
of the ball is one class and a planted point at the ball's edge is the other. A solution exists by construction;
an attack that finds few is too weak for this model, and its robust accuracy means little.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wootz import checks
from wootz.attacks.evasion.balls import BALLS
from wootz.errors import ModelError
from wootz.modes import eval_mode
from wootz.types import Norm

_RIDGE = 1e-2


@dataclass(frozen=True, slots=True, kw_only=True)
class Planting:
    """How the two-class problems are made.

    Attributes:
        eps: radius of the ball, in pixels of [0, 1].
        norm: the ball's norm.
        inner: points of the first class, drawn from the ball of radius `reach * eps`.
        reach: how far the first class is sampled; the planted point lies at the edge, at 1.
        slack: where the border runs between the highest inner point (0) and the planted point (1).
        tries: random points of the ball that one would need luck with; they measure how hard a problem is.
    """

    eps: float
    norm: Norm = "Linf"
    inner: int = 400
    reach: float = 0.95
    slack: float = 0.9
    tries: int = 200

    def __post_init__(self) -> None:
        checks.inside(0, 1, reach=self.reach, slack=self.slack)
        checks.positive(eps=self.eps)
        checks.at_least(10, inner=self.inner, tries=self.tries)


class Planted(NamedTuple):
    """How many problems were made, and which shares of them the attack and random points solved."""

    problems: int
    found: float
    by_chance: float


def active_test(
    cfg: Planting,
    attack: Callable[[nn.Module, Tensor, Tensor], Tensor],
    model: nn.Module,
    x: Tensor,
    *,
    generator: torch.Generator,
) -> Planted:
    """Plant one adversarial example an image and let the attack look for it.

    Args:
        cfg: how to plant.
        attack: (model, x [1, C, H, W], y [1]) -> images; at the budget of `cfg`.
        model: images in [0, 1] -> logits; its last linear layer's input are the features.
        x: images float32 [N, C, H, W] in [0, 1].
        generator: for the points, on the device of `x`.

    Raises:
        ModelError: the model has no linear layer.
    """
    solved, lucky, problems = 0, 0, 0
    with eval_mode(model), _Features(model) as features:
        for image in x.split(1):
            head = _plant(cfg, features, image, generator)
            if head is None:
                continue
            problem = _TwoClasses(model, features, *head)
            y = torch.zeros(1, dtype=torch.int64, device=x.device)
            with torch.no_grad():
                around = BALLS[cfg.norm].start(image.expand(cfg.tries, -1, -1, -1), cfg.eps, generator)
                lucky += bool((problem(around).argmax(1) == 1).any())
            found = attack(problem, image, y)
            inside = BALLS[cfg.norm].length(found - image) <= cfg.eps * (1 + 1e-5) + 1e-6
            with torch.no_grad():
                solved += bool((problem(found).argmax(1) == 1) & inside)
            problems += 1
    return Planted(problems, solved / max(1, problems), lucky / max(1, problems))


def _plant(
    cfg: Planting, features: _Features, image: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor] | None:
    """Return weights and bias of a border between inner points and one planted at the edge; None if none exists."""
    ball = BALLS[cfg.norm]
    with torch.no_grad():
        inner = ball.start(image.expand(cfg.inner, -1, -1, -1), cfg.reach * cfg.eps, generator)
        direction = torch.randn(image.shape, generator=generator, device=image.device)
        edge = ball.project(ball.step(image, direction, cfg.eps), image, cfg.eps)
        below = features(torch.cat([image, inner])).double()
        above = features(edge).double()
        spread = below - below.mean(0)
        gram = spread.T @ spread / len(below)
        gram += (
            _RIDGE
            * gram.diagonal().mean().clamp_min(1e-12)
            * torch.eye(len(gram), device=gram.device, dtype=gram.dtype)
        )
        weight = torch.linalg.solve(gram, (above - below.mean(0)).squeeze(0))
        highest, planted = (below @ weight).max(), (above @ weight).squeeze()
        if planted <= highest:
            return None
        border = highest + cfg.slack * (planted - highest)
        scale = 1 / (planted - highest)
        return (weight * scale).float(), (border * scale).float()


class _Features:
    """The input of a model's last linear layer, seen through a hook while the block lasts."""

    def __init__(self, model: nn.Module) -> None:
        linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
        if not linear:
            raise ModelError("the active test needs a model with a linear layer at its end")
        self._model, self._last = model, linear[-1]
        self._seen = torch.empty(0)

    def __enter__(self) -> _Features:
        self._handle = self._last.register_forward_pre_hook(self._see)
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()

    def _see(self, _: nn.Module, inputs: tuple[Tensor]) -> None:
        self._seen = inputs[0]

    def __call__(self, x: Tensor) -> Tensor:
        """Images [N, C, H, W] -> features [N, D]."""
        self._model(x)
        return self._seen


class _TwoClasses(nn.Module):
    """A planted problem as a model: logits [N, 2], the second class beyond the border."""

    def __init__(self, model: nn.Module, features: _Features, weight: Tensor, border: Tensor) -> None:
        super().__init__()
        self.model, self._features = model, features
        self.weight, self.border = weight, border

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, C, H, W] -> logits [N, 2]."""
        beyond = self._features(x) @ self.weight - self.border
        return torch.stack([-beyond, beyond], 1)
