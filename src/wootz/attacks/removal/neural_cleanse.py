"""Neural Cleanse (Wang et al., IEEE S&P 2019): reverse-engineer the smallest patch per target class, and unlearn it.

A target class that a much smaller patch suffices for is taken to be a backdoor's: the L1 norm of its mask lies more
than two standard deviations (estimated by the median absolute deviation) below the median. The patch is applied to
images that keep their true labels, and the model is trained on them. If no class is an outlier, which is what marks
without a patch lead to, all patches are unlearned.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wootz import checks
from wootz.attacks.context import AttackContext, State, checkpointed_loop
from wootz.attacks.evasion import predict_logits
from wootz.attacks.removal.finetune import FinetuneConfig, finetune
from wootz.data import Split
from wootz.modes import eval_mode

_MAD_TO_STD = 1.4826  # the standard deviation of a normal distribution, in median absolute deviations
_PENALTY_FACTOR = 1.1  # change of the weight of the mask's size per step


@dataclass(frozen=True, slots=True, kw_only=True)
class NeuralCleanse(FinetuneConfig):
    """How patches are found and unlearned.

    Attributes:
        steps: the number of steps of Adam per class, at learning rate 0.1.
        goal: the fraction of images that a patch must send to its class; its mask shrinks while it does.
        anomaly: the anomaly index above which a small mask is taken to be a backdoor's.
        stamped: the fraction of the images that get a patch for unlearning, in addition to all clean images.
    """

    epochs: int = 10
    lr: float = 5e-3
    steps: int = 300
    goal: float = 0.99
    anomaly: float = 2.0
    stamped: float = 0.2

    def __post_init__(self) -> None:
        FinetuneConfig.__post_init__(self)
        checks.at_least(1, steps=self.steps)
        checks.inside(0, 1, goal=self.goal)
        checks.positive(anomaly=self.anomaly)
        checks.within(0, 1, stamped=self.stamped)


class Patches(NamedTuple):
    """Masks [K, 1, H, W] and patterns [K, C, H, W] in [0, 1], one of each per target class."""

    masks: Tensor
    patterns: Tensor

    def apply(self, x: Tensor, targets: Tensor) -> Tensor:
        """Return images [N, C, H, W], each with the patch of its target class, int64 [N]."""
        mask = self.masks[targets]
        return (1 - mask) * x + mask * self.patterns[targets]


def neural_cleanse(cfg: NeuralCleanse, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a copy of `model` trained on clean images and on patched ones with their true labels."""
    patches = reverse_engineer_patches(cfg, model, context)
    suspicious = outliers(patches.masks.flatten(1).sum(1), cfg.anomaly).nonzero().squeeze(1)
    if len(suspicious) == 0:
        suspicious = torch.arange(len(patches.masks))
    stream = context.generator("stamped")
    rows = torch.randperm(len(context.data), generator=stream)[: round(cfg.stamped * len(context.data))]
    base = context.data.subset(rows)
    targets = suspicious[torch.randint(len(suspicious), (len(base),), generator=stream)]
    pixels = patches.apply(base.images(), targets).mul(255).round().to(torch.uint8)
    data = Split(torch.cat([context.data.pixels, pixels]), torch.cat([context.data.labels, base.labels]))
    return finetune(cfg, model, context, data=data)


def outliers(sizes: Tensor, limit: float) -> Tensor:
    """Return which masks are outliers on the small side, bool [K], by their sizes [K] and the limit of the index."""
    distance = sizes.quantile(0.5) - sizes
    return distance / (_MAD_TO_STD * distance.abs().quantile(0.5)).clamp_min(1e-12) > limit


def reverse_engineer_patches(cfg: NeuralCleanse, model: nn.Module, context: AttackContext) -> Patches:
    """Return the smallest patch found for every class."""
    image = context.data.subset(slice(1)).images()
    classes, (channels, *sides) = predict_logits(model, image).shape[1], image.shape[1:]
    net = copy.deepcopy(model).to(context.execution.accelerator)

    def start() -> State:
        return {"masks": torch.zeros(classes, 1, *sides), "patterns": torch.zeros(classes, channels, *sides)}

    def step(target: int, state: State) -> State:
        with eval_mode(net):
            state["masks"][target], state["patterns"][target] = _smallest_patch(cfg, net, context, target)
        return state

    return Patches(**checkpointed_loop(context, "patches", classes, start, step))


def _smallest_patch(cfg: NeuralCleanse, model: nn.Module, context: AttackContext, target: int) -> tuple[Tensor, Tensor]:
    """Return mask and pattern of the smallest patch, of all steps, that reached the goal on a batch."""
    device, stream = context.execution.accelerator, context.generator("reverse", target)
    others = context.data.subset(context.data.labels != target)
    raw = torch.randn(1 + others.pixels.shape[1], *others.pixels.shape[2:], generator=stream)
    raw = raw.to(device).requires_grad_(True)
    adam, penalty = torch.optim.Adam([raw], lr=0.1, betas=(0.5, 0.9)), 1e-3
    smallest, best = float("inf"), raw.detach().sigmoid()
    for _ in range(cfg.steps):
        rows = torch.randint(len(others), (cfg.batch_size,), generator=stream)
        x, patch = others.subset(rows).images().to(device), raw.sigmoid()
        logits = model((1 - patch[:1]) * x + patch[:1] * patch[1:])
        size, success = patch[0].sum(), (logits.argmax(1) == target).float().mean().item()
        if success >= cfg.goal and size.item() < smallest:
            smallest, best = size.item(), patch.detach().clone()
        loss = F.cross_entropy(logits, torch.full((len(x),), target, device=device)) + penalty * size
        adam.zero_grad()
        loss.backward()
        adam.step()
        penalty = penalty * _PENALTY_FACTOR if success >= cfg.goal else penalty / _PENALTY_FACTOR
    return best[:1].cpu(), best[1:].cpu()
