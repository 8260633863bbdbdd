"""Neural Cleanse (Wang et al., IEEE S&P 2019): find the smallest patch that turns images into each class, unlearn it.

A class that a patch reaches far more easily than the others is taken for a backdoor's: its mask's l1 norm lies more
than two of its spreads (median absolute deviation) below the median. The patch then goes onto images with their true
labels. Where no class stands out, which is what marks without a patch look like, all patches are unlearned.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wootz import checks
from wootz.attacks.adversary import AttackContext, State, rounds
from wootz.attacks.evasion import predict_logits
from wootz.attacks.removal.tuning import Tuning, tune
from wootz.data import Split
from wootz.modes import eval_mode

_GAUSSIAN = 1.4826  # a normal distribution's standard deviation, in median absolute deviations
_PACE = 1.1  # how fast the weight of the mask's size follows success


@dataclass(frozen=True, slots=True, kw_only=True)
class NeuralCleanse(Tuning):
    """How patches are found and unlearned.

    Attributes:
        steps: of Adam at learning rate 0.1, for each class.
        goal: share of images that a patch must turn; its mask shrinks as long as it does.
        anomaly: index above which a small mask is taken for a backdoor's.
        stamped: share of the images that get a patch for the unlearning, beside all clean ones.
    """

    epochs: int = 10
    lr: float = 5e-3
    steps: int = 300
    goal: float = 0.99
    anomaly: float = 2.0
    stamped: float = 0.2

    def __post_init__(self) -> None:
        Tuning.__post_init__(self)
        checks.at_least(1, steps=self.steps)
        checks.inside(0, 1, goal=self.goal)
        checks.positive(anomaly=self.anomaly)
        checks.within(0, 1, stamped=self.stamped)


class Patches(NamedTuple):
    """Masks [K, 1, H, W] and patterns [K, C, H, W] in [0, 1], one of each a class."""

    masks: Tensor
    patterns: Tensor

    def stamp(self, x: Tensor, which: Tensor) -> Tensor:
        """Put patch `which` [N] on each image."""
        mask = self.masks[which]
        return (1 - mask) * x + mask * self.patterns[which]


def neural_cleanse(cfg: NeuralCleanse, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a copy of `model`, trained on clean images and on stamped ones with their true labels."""
    patches = reversed_patches(cfg, model, context)
    suspicious = anomalies(patches.masks.flatten(1).sum(1), cfg.anomaly).nonzero().squeeze(1)
    if len(suspicious) == 0:
        suspicious = torch.arange(len(patches.masks))
    stream = context.generator("stamped")
    few = context.data.subset(
        torch.randperm(len(context.data), generator=stream)[: round(cfg.stamped * len(context.data))]
    )
    which = suspicious[torch.randint(len(suspicious), (len(few),), generator=stream)]
    pixels = patches.stamp(few.images(), which).mul(255).round().to(torch.uint8)
    both = Split(torch.cat([context.data.pixels, pixels]), torch.cat([context.data.labels, few.labels]))
    return tune(cfg, model, context, share=both)


def anomalies(sizes: Tensor, limit: float) -> Tensor:
    """Return which of the masks' sizes [K] are outliers on the small side."""
    distance = sizes.quantile(0.5) - sizes
    return distance / (_GAUSSIAN * distance.abs().quantile(0.5)).clamp_min(1e-12) > limit


def reversed_patches(cfg: NeuralCleanse, model: nn.Module, context: AttackContext) -> Patches:
    """Return the smallest patch found for every class."""
    one = context.data.subset(slice(1)).images()
    classes, (channels, *sides) = predict_logits(model, one).shape[1], one.shape[1:]
    net = copy.deepcopy(model).to(context.execution.accelerator)

    def start() -> State:
        return {"masks": torch.zeros(classes, 1, *sides), "patterns": torch.zeros(classes, channels, *sides)}

    def step(target: int, state: State) -> State:
        with eval_mode(net):
            state["masks"][target], state["patterns"][target] = _reverse(cfg, net, context, target)
        return state

    return Patches(**rounds(context, "patches", classes, start, step))


def _reverse(cfg: NeuralCleanse, model: nn.Module, context: AttackContext, target: int) -> tuple[Tensor, Tensor]:
    """Return mask and pattern of the smallest patch on the way that turned a batch into class `target`."""
    device, stream = context.execution.accelerator, context.generator("reverse", target)
    others = context.data.subset(context.data.labels != target)
    raw = torch.randn(1 + others.pixels.shape[1], *others.pixels.shape[2:], generator=stream)
    raw = raw.to(device).requires_grad_(True)
    adam, price = torch.optim.Adam([raw], lr=0.1, betas=(0.5, 0.9)), 1e-3
    least, best = float("inf"), raw.detach().sigmoid()
    for _ in range(cfg.steps):
        rows = torch.randint(len(others), (cfg.batch_size,), generator=stream)
        x, soft = others.subset(rows).images().to(device), raw.sigmoid()
        logits = model((1 - soft[:1]) * x + soft[:1] * soft[1:])
        size, hit = soft[0].sum(), (logits.argmax(1) == target).float().mean().item()
        if hit >= cfg.goal and size.item() < least:
            least, best = size.item(), soft.detach().clone()
        loss = F.cross_entropy(logits, torch.full((len(x),), target, device=device)) + price * size
        adam.zero_grad()
        loss.backward()
        adam.step()
        price = price * _PACE if hit >= cfg.goal else price / _PACE
    return best[:1].cpu(), best[1:].cpu()
