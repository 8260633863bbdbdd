"""Theft without data: a network invents images on which clone and victim differ, and the clone learns the answers.

DFME (Truong et al., arXiv 2011.14779) and MAZE (Kariyappa et al., arXiv 2005.03161). The victim gives no gradients;
they are estimated from how its answers change under small steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Adam

from wootz import checks
from wootz.attacks.adversary import AttackContext, State, packed, rounds, unpacked
from wootz.attacks.extraction.asking import require_scores
from wootz.attacks.extraction.disagreement import DISAGREEMENTS, slope
from wootz.attacks.extraction.inventing import inventor
from wootz.attacks.extraction.ledger import Ledger
from wootz.attacks.extraction.optimizers import packed_optimizer, unpacked_optimizer
from wootz.attacks.extraction.thief import Thief
from wootz.modes import eval_mode
from wootz.rng import global_seed

_ROUND = 20  # iterations between two states on disk
_MEMORY = 20_000  # answers that the clone may see again


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFree(Thief):
    """What is asked, and how both networks learn. Defaults are DFME's but for the budget, optimizers and widths.

    Attributes:
        queries: at most; as many whole iterations as fit. DFME spends 2 to 20 million, MAZE 5 to 30 million.
        loss: what the clone lowers and the inventor raises: `l1` of logits (DFME), or `kl` (MAZE).
        directions: along which the victim's slope is estimated. MAZE's are 10.
        step: length of a step along them; before the sigmoid, as in DFME. Both papers'.
        clone_steps: steps of the clone, each on new images, per step of the inventor. Both papers'.
        replay: further steps of the clone on earlier images. MAZE's are 10.
        batch_size: images a step. MAZE's is 128.
        noise: numbers that the inventor makes an image from; MAZE's. DFME's are 256.
        contrast: by which the inventor's output, of unit variance, is multiplied before the sigmoid.
        dark: what is first subtracted from it. Neither is in the papers, whose images are gray on average: that a
            service takes light figures on dark ground is public. 0 is for photographs.
        clone_lr: learning rate of the clone's Adam, falling along a half cosine. Both papers use SGD.
        inventor_lr: of the inventor's.
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
        Thief.__post_init__(self)
        checks.at_least(1, directions=self.directions, clone_steps=self.clone_steps, noise=self.noise)
        checks.at_least(2, batch_size=self.batch_size)
        checks.at_least(0, replay=self.replay)
        checks.positive(contrast=self.contrast, step=self.step, clone_lr=self.clone_lr, inventor_lr=self.inventor_lr)
        checks.at_least(self.iteration, queries=self.queries)

    @property
    def iteration(self) -> int:
        """How many queries one iteration costs."""
        return self.batch_size * (self.directions + 1 + self.clone_steps)

    @property
    def iterations(self) -> int:
        """How many iterations the queries allow."""
        return self.queries // self.iteration


class _Pair(NamedTuple):
    """Clone and inventor, and their optimizers."""

    clone: nn.Module
    inventor: nn.Module
    teach: Adam
    invent: Adam


def steal_without_data(cfg: DataFree, victim: Ledger, context: AttackContext) -> nn.Module:
    """Return a clone that was taught on invented images alone; of `context.data` only the shape is used.

    Raises:
        BudgetError: the budget does not hold all iterations; nothing is asked.
    """
    require_scores(victim, "a theft without data")
    pair = _pair(cfg, context)
    start = partial(_packed, pair, torch.empty(0, *context.data.pixels.shape[1:]), torch.empty(0, victim.num_classes))
    count = -(-cfg.iterations // _ROUND)
    state = rounds(context, "data-free", count, start, partial(_round, cfg, victim, context, pair))
    return unpacked(pair.clone, state, "clone/").eval()


def _round(cfg: DataFree, victim: Ledger, context: AttackContext, pair: _Pair, number: int, state: State) -> State:
    if number == 0:
        victim.require(cfg.iterations * cfg.iteration)
    x, answers = _unpacked(pair, state)
    generator = context.generator("data-free", number)
    with global_seed(context.seed, "dropout", number):
        for iteration in range(number * _ROUND, min((number + 1) * _ROUND, cfg.iterations)):
            fall = 0.5 * (1 + math.cos(math.pi * iteration / cfg.iterations))
            _set_lr(pair.teach, cfg.clone_lr * fall)
            _set_lr(pair.invent, cfg.inventor_lr * fall)
            _invent(cfg, victim, pair, generator)
            with torch.no_grad():
                new = torch.cat([_raw(cfg, pair.inventor, generator) for _ in range(cfg.clone_steps)]).sigmoid_()
            told = victim.distributions(new)
            _teach(cfg, pair, new, told)
            if cfg.replay:
                x, answers = torch.cat([x, new])[-_MEMORY:], torch.cat([answers, told])[-_MEMORY:]
                again = torch.randint(len(x), (cfg.replay * cfg.batch_size,), generator=generator)
                _teach(cfg, pair, x[again], answers[again])
    return _packed(pair, x, answers)


def _invent(cfg: DataFree, victim: Ledger, pair: _Pair, generator: torch.Generator) -> None:
    """One step of the inventor, up the disagreement."""
    raw = _raw(cfg, pair.inventor.train(), generator)

    def height(points: Tensor) -> Tensor:
        x = points.sigmoid()
        return DISAGREEMENTS[cfg.loss](victim.distributions(x), pair.clone(x))

    with eval_mode(pair.clone), torch.no_grad():
        up = slope(height, raw.detach(), cfg.directions, cfg.step, generator)
    pair.invent.zero_grad()
    raw.backward(-up / len(raw))
    pair.invent.step()


def _raw(cfg: DataFree, network: nn.Module, generator: torch.Generator) -> Tensor:
    """Return a batch of invented images before their sigmoid."""
    out: Tensor = network(torch.randn(cfg.batch_size, cfg.noise, generator=generator))
    return cfg.contrast * (out - cfg.dark)


def _teach(cfg: DataFree, pair: _Pair, x: Tensor, answers: Tensor) -> None:
    """Steps of the clone, down the disagreement."""
    pair.clone.train()
    for part, told in zip(x.split(cfg.batch_size), answers.split(cfg.batch_size), strict=True):
        loss = DISAGREEMENTS[cfg.loss](told, pair.clone(part)).mean()
        pair.teach.zero_grad()
        loss.backward()
        pair.teach.step()


def _pair(cfg: DataFree, context: AttackContext) -> _Pair:
    channels, height, width = context.data.pixels.shape[1:]
    clone = context.fresh("thief")
    with global_seed(context.seed, "inventor"):
        made = inventor(cfg.noise, (channels, height, width))
    return _Pair(clone, made, Adam(clone.parameters()), Adam(made.parameters()))


def _packed(pair: _Pair, x: Tensor, answers: Tensor) -> State:
    return {
        "x": x,
        "answers": answers,
        **packed(pair.clone, "clone/"),
        **packed(pair.inventor, "inventor/"),
        **packed_optimizer(pair.teach, "teach/"),
        **packed_optimizer(pair.invent, "invent/"),
    }


def _unpacked(pair: _Pair, state: State) -> tuple[Tensor, Tensor]:
    unpacked(pair.clone, state, "clone/")
    unpacked(pair.inventor, state, "inventor/")
    unpacked_optimizer(pair.teach, state, "teach/")
    unpacked_optimizer(pair.invent, state, "invent/")
    return state["x"], state["answers"]


def _set_lr(optimizer: Adam, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
