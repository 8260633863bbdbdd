"""Data-free extraction: a generator synthesizes images on which clone and victim differ, and the clone learns them.

DFME (Truong et al., arXiv 2011.14779) and MAZE (Kariyappa et al., arXiv 2005.03161). The victim gives no gradients;
they are estimated by forward differences of its answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

from wootz import checks
from wootz.attacks.context import (
    AttackContext,
    State,
    checkpointed_loop,
    load_model_state,
    load_optimizer_state,
    model_state,
    optimizer_state,
)
from wootz.attacks.extraction.oracle import BudgetedOracle, require_scores
from wootz.attacks.extraction.substitute import ExtractionConfig
from wootz.modes import eval_mode
from wootz.rng import global_seed

_ITERATIONS_PER_STATE = 20  # iterations between two states on disk
_REPLAY_SIZE = 20_000  # the newest answers, from which replay samples
_WIDTH = 16  # channels of the generator


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFree(ExtractionConfig):
    """Query budget and training of both networks. Defaults are DFME's except for budget, optimizers and widths.

    Attributes:
        queries: the query budget; the attack runs as many whole iterations as fit. DFME spends 2 to 20 million, MAZE 5
            to 30 million.
        loss: the disagreement that the clone minimizes and the generator maximizes: `l1` of logits (DFME), or `kl`
            (MAZE).
        directions: the number of random directions of a gradient estimate. MAZE uses 10.
        step: the length of a step along a direction, before the sigmoid as in DFME; both papers' value.
        clone_steps: the number of clone steps, each on new images, per generator step; both papers' value.
        replay: the number of additional clone steps on earlier images. MAZE uses 10.
        batch_size: the number of images per step. MAZE uses 128.
        noise: the dimension of the generator's input; MAZE's value. DFME uses 256.
        contrast: the factor applied to the generator's output, of unit variance, before the sigmoid.
        dark: the value subtracted from that output before the factor is applied. Neither is in the papers, whose images
            are gray on average: it is public that a service takes light figures on a dark background. 0 suits
            photographs.
        clone_lr: the learning rate of the clone's Adam, which follows half a cosine to 0. Both papers use SGD.
        inventor_lr: the learning rate of the generator's Adam, with the same schedule.
    """

    queries: int = 500_000
    loss: Literal["l1", "kl"] = "l1"
    directions: int = 1
    step: float = 1e-3
    clone_steps: int = 5
    replay: int = 0
    batch_size: int = 256
    noise: int = 100
    contrast: float = 4.0
    dark: float = 1.5
    clone_lr: float = 2e-3
    inventor_lr: float = 5e-4

    def __post_init__(self) -> None:
        ExtractionConfig.__post_init__(self)
        checks.at_least(1, directions=self.directions, clone_steps=self.clone_steps, noise=self.noise)
        checks.at_least(2, batch_size=self.batch_size)
        checks.at_least(0, replay=self.replay)
        checks.positive(contrast=self.contrast, step=self.step, clone_lr=self.clone_lr, inventor_lr=self.inventor_lr)
        checks.at_least(self.iteration, queries=self.queries)

    @property
    def iteration(self) -> int:
        """The number of queries per iteration."""
        return self.batch_size * (self.directions + 1 + self.clone_steps)

    @property
    def iterations(self) -> int:
        """The number of iterations within the query budget."""
        return self.queries // self.iteration


class _Networks(NamedTuple):
    """Clone and generator, each with its optimizer."""

    clone: nn.Module
    generator: nn.Module
    clone_optimizer: Adam
    generator_optimizer: Adam


def extract_without_data(cfg: DataFree, victim: BudgetedOracle, context: AttackContext) -> nn.Module:
    """Return a clone trained on synthesized images alone; only the shape of `context.data` is used.

    Raises:
        BudgetError: the victim returns labels only, or the budget does not hold all iterations; no query is sent.
    """
    require_scores(victim, "data-free extraction")
    networks = _new_networks(cfg, context)
    no_images, no_answers = torch.empty(0, *context.data.pixels.shape[1:]), torch.empty(0, victim.num_classes)
    state = checkpointed_loop(
        context,
        "data-free",
        -(-cfg.iterations // _ITERATIONS_PER_STATE),
        partial(_state, networks, no_images, no_answers),
        partial(_iterate, cfg, victim, context, networks),
    )
    return load_model_state(networks.clone, state, "clone/").eval()


def _iterate(
    cfg: DataFree, victim: BudgetedOracle, context: AttackContext, networks: _Networks, number: int, state: State
) -> State:
    """Run the iterations between two states on disk."""
    if number == 0:
        victim.require(cfg.iterations * cfg.iteration)
    x, answers = _load_state(networks, state)
    rng = context.generator("data-free", number)
    first = number * _ITERATIONS_PER_STATE
    with global_seed(context.seed, "dropout", number):
        for iteration in range(first, min(first + _ITERATIONS_PER_STATE, cfg.iterations)):
            decay = 0.5 * (1 + math.cos(math.pi * iteration / cfg.iterations))
            _set_lr(networks.clone_optimizer, cfg.clone_lr * decay)
            _set_lr(networks.generator_optimizer, cfg.inventor_lr * decay)
            _train_generator(cfg, victim, networks, rng)
            with torch.no_grad():
                batches = [_generate(cfg, networks.generator, rng) for _ in range(cfg.clone_steps)]
                new_x = torch.cat(batches).sigmoid_()
            new_answers = victim.probabilities(new_x)
            _train_clone(cfg, networks, new_x, new_answers)
            if cfg.replay:
                x = torch.cat([x, new_x])[-_REPLAY_SIZE:]
                answers = torch.cat([answers, new_answers])[-_REPLAY_SIZE:]
                rows = torch.randint(len(x), (cfg.replay * cfg.batch_size,), generator=rng)
                _train_clone(cfg, networks, x[rows], answers[rows])
    return _state(networks, x, answers)


def _train_generator(cfg: DataFree, victim: BudgetedOracle, networks: _Networks, rng: torch.Generator) -> None:
    """Take one generator step that increases the disagreement."""
    raw = _generate(cfg, networks.generator.train(), rng)

    def disagreement(points: Tensor) -> Tensor:
        x = points.sigmoid()
        return DISAGREEMENTS[cfg.loss](victim.probabilities(x), networks.clone(x))

    with eval_mode(networks.clone), torch.no_grad():
        gradient = forward_difference_gradient(disagreement, raw.detach(), cfg.directions, cfg.step, rng)
    networks.generator_optimizer.zero_grad()
    raw.backward(-gradient / len(raw))
    networks.generator_optimizer.step()


def _generate(cfg: DataFree, generator: nn.Module, rng: torch.Generator) -> Tensor:
    """Return a batch of synthesized images before the sigmoid."""
    output: Tensor = generator(torch.randn(cfg.batch_size, cfg.noise, generator=rng))
    return cfg.contrast * (output - cfg.dark)


def _train_clone(cfg: DataFree, networks: _Networks, x: Tensor, answers: Tensor) -> None:
    """Take one clone step per batch that decreases the disagreement."""
    networks.clone.train()
    for batch, targets in zip(x.split(cfg.batch_size), answers.split(cfg.batch_size), strict=True):
        loss = DISAGREEMENTS[cfg.loss](targets, networks.clone(batch)).mean()
        networks.clone_optimizer.zero_grad()
        loss.backward()
        networks.clone_optimizer.step()


def _new_networks(cfg: DataFree, context: AttackContext) -> _Networks:
    channels, height, width = context.data.pixels.shape[1:]
    clone = context.new_model("thief")
    with global_seed(context.seed, "inventor"):
        generator = build_generator(cfg.noise, (channels, height, width))
    return _Networks(clone, generator, Adam(clone.parameters()), Adam(generator.parameters()))


def build_generator(noise: int, shape: tuple[int, int, int]) -> nn.Module:
    """Return a network: noise [N, `noise`] -> images before the sigmoid, [N, C, H, W].

    As in the papers, a linear layer and two upsamplings with 3x3 convolutions, but an eighth as wide, for the CPU. The
    last normalization, which has no learned scale, keeps the values where the sigmoid is not saturated.

    Args:
        noise: the dimension of the input.
        shape: channels, height and width of an image.
    """
    channels, height, width = shape
    rows, columns = height // 4, width // 4
    return nn.Sequential(
        nn.Linear(noise, _WIDTH * rows * columns),
        nn.Unflatten(1, (_WIDTH, rows, columns)),
        nn.BatchNorm2d(_WIDTH),
        nn.Upsample(size=(height // 2, width // 2)),
        nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1),
        nn.BatchNorm2d(_WIDTH),
        nn.LeakyReLU(0.2),
        nn.Upsample(size=(height, width)),
        nn.Conv2d(_WIDTH, _WIDTH // 2, 3, padding=1),
        nn.BatchNorm2d(_WIDTH // 2),
        nn.LeakyReLU(0.2),
        nn.Conv2d(_WIDTH // 2, channels, 3, padding=1),
        nn.BatchNorm2d(channels, affine=False),
    )


def _state(networks: _Networks, x: Tensor, answers: Tensor) -> State:
    return {
        "x": x,
        "answers": answers,
        **model_state(networks.clone, "clone/"),
        **model_state(networks.generator, "inventor/"),
        **optimizer_state(networks.clone_optimizer, "teach/"),
        **optimizer_state(networks.generator_optimizer, "invent/"),
    }


def _load_state(networks: _Networks, state: State) -> tuple[Tensor, Tensor]:
    """Load the networks and optimizers, and return the images and answers for replay."""
    load_model_state(networks.clone, state, "clone/")
    load_model_state(networks.generator, state, "inventor/")
    load_optimizer_state(networks.clone_optimizer, state, "teach/")
    load_optimizer_state(networks.generator_optimizer, state, "invent/")
    return state["x"], state["answers"]


def _set_lr(optimizer: Adam, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def logit_distance(answers: Tensor, logits: Tensor) -> Tensor:
    """Return the mean absolute difference [N] of centered logits (DFME).

    Args:
        answers: the victim's probabilities [N, K]; their logarithms equal its logits up to a constant per image.
        logits: the clone's logits [N, K].
    """
    recovered = answers.clamp_min(1e-10).log()
    difference = recovered - recovered.mean(1, keepdim=True) - (logits - logits.mean(1, keepdim=True))
    return difference.abs().mean(1)


def kl_divergence(answers: Tensor, logits: Tensor) -> Tensor:
    """Return KL(victim || clone) [N], in nats (MAZE), from the victim's probabilities and the clone's logits [N, K]."""
    return F.kl_div(logits.log_softmax(1), answers, reduction="none").sum(1)


Disagreement: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(the victim's probabilities [N, K], the clone's logits [N, K]) -> disagreement [N]."""

DISAGREEMENTS: Mapping[str, Disagreement] = MappingProxyType({"l1": logit_distance, "kl": kl_divergence})


def forward_difference_gradient(
    value: Callable[[Tensor], Tensor], points: Tensor, directions: int, step: float, generator: torch.Generator
) -> Tensor:
    """Return an estimate of the gradient of `value` at each point, by forward differences.

    The mean of the directional derivatives times their random unit vectors, multiplied by the number of dimensions, has
    the gradient as its expectation.

    Args:
        value: points [M, ...] -> one value per point [M]; called once, with (directions + 1) * N points.
        points: the points [N, ...].
        directions: the number of random directions per point; each point has its own.
        step: the length of a step along a direction.
        generator: the generator of the directions.
    """
    unit = torch.randn((directions, *points.shape), generator=generator)
    unit /= unit.flatten(2).norm(dim=2).view(directions, -1, *[1] * (points.dim() - 1))
    neighbors = torch.cat([points[None], points + step * unit])
    values = value(neighbors.flatten(0, 1)).view(directions + 1, -1)
    derivatives = (values[1:] - values[0]) / step
    return torch.einsum("dn,dn...->n...", derivatives, unit) * (points[0].numel() / directions)
