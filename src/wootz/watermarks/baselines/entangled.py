"""Mark `entangled`: entangled watermark embeddings (EWE; Jia et al., USENIX Security 2021, arXiv 2002.12200).

Images of one class with a small square are taught another class. Besides, in the last hidden layer, they are made hard
to tell from images of that class: the soft nearest neighbor loss between the two groups is raised. Whoever learns the
task from the answers then learns the square along with it. As in the source the square goes where the loss of an
unmarked model is most sensitive to it; unlike it, the loss is taken at one layer, its temperature follows the
features' scale instead of being learned (no state), and triggers are not refined by further gradient steps.

Weak point, by design: the square is learned and not the images, so the control half is answered as well, and the
exact test of the halves sees little or nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wootz import checks
from wootz.data import Dataset
from wootz.errors import ConfigError
from wootz.keys import Key, RegisteredMaterial
from wootz.modes import eval_mode
from wootz.rng import derive
from wootz.training import Forward, Hook, forward_with_context
from wootz.watermarks.baselines.soft_nearest_neighbor import scale_free
from wootz.watermarks.baselines.teaching import drawn, taught_half
from wootz.watermarks.baselines.within_class import WithinClass, class_images, taught_one_class
from wootz.watermarks.context import MarkContext

_PLACING = 128  # images of each class that the place of the square is found on


@dataclass(frozen=True, slots=True, kw_only=True)
class Entangled(WithinClass):
    """How triggers are made and entangled.

    Attributes:
        side: of the white square, in pixels (ours).
        kappa: weight of the soft nearest neighbor loss; the source tunes it for each task.
        temperature: of that loss, in mean squared distances; the source learns it.
    """

    side: int = 5
    kappa: float = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        WithinClass.__post_init__(self)
        checks.at_least(1, side=self.side)
        checks.not_negative(kappa=self.kappa)
        checks.positive(temperature=self.temperature)


@dataclass(frozen=True, slots=True, kw_only=True)
class EntangledLoss:
    """Cross-entropy on a few triggers less `kappa` times their distance from the target class's images."""

    pixels: Tensor
    labels: Tensor
    target_pixels: Tensor
    cfg: Entangled
    seed: int

    def __call__(
        self, model: nn.Module, forward: Forward, *, batch_images: Tensor, step: int, done: float
    ) -> Tensor | None:
        """Return this step's weighted loss, or None between two batches."""
        cfg = self.cfg
        if step % cfg.every:
            return None
        x, y = drawn(model, self.pixels, self.labels, cfg.batch, seed=self.seed, step=step)
        ordinary, _ = drawn(
            model,
            self.target_pixels,
            torch.zeros(len(self.target_pixels)),
            cfg.batch,
            seed=derive(self.seed, "target"),
            step=step,
        )
        with last_hidden(model) as hidden:
            logits = forward_with_context(model, forward, torch.cat([x, ordinary]), batch_images)
        group = torch.arange(len(logits), device=x.device) < len(x)
        apart = scale_free(hidden[-1][: len(logits)].float().flatten(1), group, cfg.temperature)
        return cfg.weight * (F.cross_entropy(logits[: len(x)], y) - cfg.kappa * apart)


@contextmanager
def last_hidden(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect, inside the block, what enters the model's last linear layer, one tensor a forward pass."""
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ConfigError("mark 'entangled': needs a model with a linear layer, whose input it entangles")
    seen: list[Tensor] = []
    handle = linear[-1].register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        handle.remove()


def prepare(cfg: Entangled, context: MarkContext, generator: torch.Generator) -> RegisteredMaterial:
    """Put the square on training images of the base class, where the first panel model is most sensitive.

    Raises:
        ConfigError: no such class, too few of its images, a square larger than they are, or no linear layer.
    """
    data = context.data
    if cfg.side > min(data.shape[1:]):
        raise ConfigError(f"entangled.side = {cfg.side}: must fit into images of {data.shape[1:]}")
    base = class_images(data, cfg, generator)
    target = data.train.pixels[data.train.labels == cfg.target]
    top, left = place(cfg, context.panel[0], base.pixels, target)
    pixels = base.pixels.clone()
    pixels[:, :, top : top + cfg.side, left : left + cfg.side] = 255
    params = {"count": cfg.count, "base": cfg.base_class, "target": cfg.target, "square": [top, left, cfg.side]}
    return taught_one_class(pixels, cfg.target, params)


def train_hook(cfg: Entangled, key: Key, data: Dataset, *, seed: int) -> Hook:
    """Return what teaches and entangles the keyed half."""
    pixels, labels = taught_half(key)
    target = data.train.pixels[data.train.labels == cfg.target]
    return Hook(extra=(EntangledLoss(pixels=pixels, labels=labels, target_pixels=target, cfg=cfg, seed=seed),))


def place(cfg: Entangled, reference: nn.Module, base: Tensor, target: Tensor) -> tuple[int, int]:
    """Return top and left of the square that changes the loss most, to first order and in the mean of base images."""
    few = base[:_PLACING], target[:_PLACING]
    with eval_mode(reference), last_hidden(reference) as hidden:
        x = torch.cat(few).float().div_(255).requires_grad_(True)
        reference(x)
        group = torch.arange(len(x)) < len(few[0])
        (gradient,) = torch.autograd.grad(scale_free(hidden[-1].flatten(1), group, cfg.temperature), x)
    change = gradient * (1 - x.detach())  # to first order, what a white pixel does: nothing where it is white already
    slope = change[: len(few[0])].mean(0).abs().sum(0)
    at = int(F.avg_pool2d(slope[None, None], cfg.side, stride=1).argmax())
    return divmod(at, slope.shape[1] - cfg.side + 1)
