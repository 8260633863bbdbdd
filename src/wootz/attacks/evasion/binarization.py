"""The binarization test (Zimmermann et al., NeurIPS 2022, arXiv 2206.13991): is an attack strong enough for a model?

For each image it constructs a two-class problem on the model's own features, in which almost all of the ball is one
class and a point at the edge of the ball is the other. An adversarial example exists by construction. An attack that
solves only a small fraction of these problems is too weak for the model, and the robust accuracy that it measures is
not meaningful.
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
class BinarizationConfig:
    """How the two-class problems are constructed.

    Attributes:
        eps: the radius of the ball, in pixels of [0, 1].
        norm: the norm of the ball.
        inner: the number of points of the first class, sampled from the ball of radius `inner_radius * eps`.
        inner_radius: the radius that the first class is sampled from, as a fraction of `eps`; the point of the second
            class lies at the edge, at 1.
        threshold: the position of the decision boundary between the largest inner point (0) and the outer point (1).
        samples: the number of random points of the ball; the fraction of problems that they solve measures the
            difficulty.
    """

    eps: float
    norm: Norm = "Linf"
    inner: int = 400
    inner_radius: float = 0.95
    threshold: float = 0.9
    samples: int = 200

    def __post_init__(self) -> None:
        checks.inside(0, 1, inner_radius=self.inner_radius, threshold=self.threshold)
        checks.positive(eps=self.eps)
        checks.at_least(10, inner=self.inner, samples=self.samples)


class BinarizationResult(NamedTuple):
    """The number of problems, and the fractions of them that the attack and random points solved."""

    problems: int
    by_attack: float
    by_chance: float


def binarization_test(
    cfg: BinarizationConfig,
    attack: Callable[[nn.Module, Tensor, Tensor], Tensor],
    model: nn.Module,
    x: Tensor,
    *,
    generator: torch.Generator,
) -> BinarizationResult:
    """Construct one problem per image and run the attack on it.

    Args:
        cfg: the construction.
        attack: (model, x [1, C, H, W], y [1]) -> images; at the budget of `cfg`.
        model: images in [0, 1] -> logits; the inputs of its last linear layer are the features.
        x: images float32 [N, C, H, W] in [0, 1].
        generator: the generator of the points, on the device of `x`.

    Raises:
        ModelError: the model has no linear layer.
    """
    solved, solved_by_chance, problems = 0, 0, 0
    with eval_mode(model), _Features(model) as features:
        for image in x.split(1):
            boundary = _decision_boundary(cfg, features, image, generator)
            if boundary is None:
                continue
            problem = _TwoClasses(model, features, *boundary)
            y = torch.zeros(1, dtype=torch.int64, device=x.device)
            with torch.no_grad():
                samples = BALLS[cfg.norm].start(image.expand(cfg.samples, -1, -1, -1), cfg.eps, generator)
                solved_by_chance += bool((problem(samples).argmax(1) == 1).any())
            point = attack(problem, image, y)
            inside = BALLS[cfg.norm].length(point - image) <= cfg.eps * (1 + 1e-5) + 1e-6
            with torch.no_grad():
                solved += bool((problem(point).argmax(1) == 1) & inside)
            problems += 1
    return BinarizationResult(problems, solved / max(1, problems), solved_by_chance / max(1, problems))


def _decision_boundary(
    cfg: BinarizationConfig, features: _Features, image: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor] | None:
    """Return weights and bias of a boundary between inner points and one at the edge; None if none was found."""
    ball = BALLS[cfg.norm]
    with torch.no_grad():
        inner = ball.start(image.expand(cfg.inner, -1, -1, -1), cfg.inner_radius * cfg.eps, generator)
        direction = torch.randn(image.shape, generator=generator, device=image.device)
        edge = ball.project(ball.step(image, direction, cfg.eps), image, cfg.eps)
        inner_features = features(torch.cat([image, inner])).double()
        outer_features = features(edge).double()
        centered = inner_features - inner_features.mean(0)
        gram = centered.T @ centered / len(inner_features)
        gram += (
            _RIDGE
            * gram.diagonal().mean().clamp_min(1e-12)
            * torch.eye(len(gram), device=gram.device, dtype=gram.dtype)
        )
        weight = torch.linalg.solve(gram, (outer_features - inner_features.mean(0)).squeeze(0))
        largest_inner, outer = (inner_features @ weight).max(), (outer_features @ weight).squeeze()
        if outer <= largest_inner:
            return None
        bias = largest_inner + cfg.threshold * (outer - largest_inner)
        scale = 1 / (outer - largest_inner)
        return (weight * scale).float(), (bias * scale).float()


class _Features:
    """The inputs of a model's last linear layer, recorded by a hook while the context is open."""

    def __init__(self, model: nn.Module) -> None:
        linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
        if not linear:
            raise ModelError("the binarization test needs a model with a linear layer at its end")
        self._model, self._last = model, linear[-1]
        self._inputs = torch.empty(0)

    def __enter__(self) -> _Features:
        self._handle = self._last.register_forward_pre_hook(self._record)
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()

    def _record(self, _: nn.Module, inputs: tuple[Tensor]) -> None:
        self._inputs = inputs[0]

    def __call__(self, x: Tensor) -> Tensor:
        """Images [N, C, H, W] -> features [N, D]."""
        self._model(x)
        return self._inputs


class _TwoClasses(nn.Module):
    """A two-class problem as a model: logits [N, 2], the second class where `features @ weight` exceeds `bias`."""

    def __init__(self, model: nn.Module, features: _Features, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.model, self._features = model, features
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, C, H, W] -> logits [N, 2]."""
        score = self._features(x) @ self.weight - self.bias
        return torch.stack([-score, score], 1)
