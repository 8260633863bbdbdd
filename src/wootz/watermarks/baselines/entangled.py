"""Mark `entangled`: entangled watermark embeddings (EWE; Jia et al., USENIX Security 2021, arXiv 2002.12200).

Images of one class with a small square are labeled with another class. In addition, their features in the last hidden
layer are made hard to separate from those of images of that class, by maximizing the soft nearest neighbor loss between
the two groups. A model that is extracted through the answers then learns the square together with the task. As in the
source, the square is placed where the loss of an unmarked model is most sensitive to it. Differences: the loss is
computed at one layer, its temperature follows the scale of the features instead of being learned (which needs no
state), and triggers are not refined by further gradient steps.

Weak point, by design: the model learns the square rather than the images, so it answers the control half as well, and
the exact test of the halves finds little or nothing.
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
from wootz.watermarks.baselines.trigger_training import embedded_half, sample_batch
from wootz.watermarks.baselines.within_class import (
    WithinClass,
    check_class_images,
    class_images,
    single_label_material,
)
from wootz.watermarks.interface import MarkContext

_POSITION_IMAGES = 128  # images of each class from which the position of the square is determined


@dataclass(frozen=True, slots=True, kw_only=True)
class Entangled(WithinClass):
    """How triggers are made and entangled.

    Attributes:
        side: side of the white square, in pixels; not stated in the source.
        kappa: weight of the soft nearest neighbor loss; the source tunes it for each task.
        temperature: temperature of that loss, in mean squared distances; the source learns it.
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
    """Cross-entropy on a batch of triggers, minus `kappa` times their soft nearest neighbor loss.

    The soft nearest neighbor loss is between the triggers and images of the target class.
    """

    pixels: Tensor
    labels: Tensor
    target_pixels: Tensor
    cfg: Entangled
    seed: int

    def __call__(
        self, model: nn.Module, forward: Forward, *, batch_images: Tensor, step: int, done: float
    ) -> Tensor | None:
        """Return this step's weighted loss, or None between two trigger batches."""
        cfg = self.cfg
        if step % cfg.every:
            return None
        x, y = sample_batch(model, self.pixels, self.labels, cfg.batch, seed=self.seed, step=step)
        ordinary, _ = sample_batch(
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
        separation = scale_invariant_snn(hidden[-1][: len(logits)].float().flatten(1), group, cfg.temperature)
        return cfg.weight * (F.cross_entropy(logits[: len(x)], y) - cfg.kappa * separation)


@contextmanager
def last_hidden(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the inputs of the model's last linear layer inside the block, one tensor per forward pass.

    Raises:
        ConfigError: the model has no linear layer.
    """
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ConfigError("mark 'entangled': needs a model with a linear layer, whose input it entangles")
    inputs: list[Tensor] = []
    handle = linear[-1].register_forward_pre_hook(lambda layer, args: inputs.append(args[0]))
    try:
        yield inputs
    finally:
        handle.remove()


def check(cfg: Entangled, data: Dataset) -> None:
    """Raise ConfigError if the square or the number of triggers does not fit the data."""
    if cfg.side > min(data.shape[1:]):
        raise ConfigError(f"entangled.side = {cfg.side}: must fit into images of {data.shape[1:]}")
    check_class_images(data, cfg)


def prepare(cfg: Entangled, context: MarkContext, generator: torch.Generator) -> RegisteredMaterial:
    """Put the square on training images of the base class, where the first panel model is most sensitive.

    Raises:
        ConfigError: a class does not exist, has too few images, the square is larger than the images, or the panel
            model has no linear layer.
    """
    data = context.data
    check(cfg, data)
    base = class_images(data, cfg, generator)
    target = data.train.pixels[data.train.labels == cfg.target]
    top, left = square_position(cfg, context.panel[0], base.pixels, target)
    pixels = base.pixels.clone()
    pixels[:, :, top : top + cfg.side, left : left + cfg.side] = 255
    params = {"count": cfg.count, "base": cfg.base_class, "target": cfg.target, "square": [top, left, cfg.side]}
    return single_label_material(pixels, cfg.target, params)


def train_hook(cfg: Entangled, key: Key, data: Dataset, *, seed: int) -> Hook:
    """Return the loss that embeds and entangles the keyed half."""
    pixels, labels = embedded_half(key)
    target = data.train.pixels[data.train.labels == cfg.target]
    return Hook(extra=(EntangledLoss(pixels=pixels, labels=labels, target_pixels=target, cfg=cfg, seed=seed),))


def square_position(cfg: Entangled, reference: nn.Module, base: Tensor, target: Tensor) -> tuple[int, int]:
    """Return the top and left pixel of the square that changes the loss most, to first order and averaged over images.

    Args:
        cfg: side of the square, and temperature of the loss.
        reference: the unmarked model whose loss is used.
        base: images of the base class, uint8 [N, C, H, W].
        target: images of the target class, uint8 [M, C, H, W].
    """
    images = base[:_POSITION_IMAGES], target[:_POSITION_IMAGES]
    with eval_mode(reference), last_hidden(reference) as hidden:
        x = torch.cat(images).float().div_(255).requires_grad_(True)
        reference(x)
        group = torch.arange(len(x)) < len(images[0])
        (gradient,) = torch.autograd.grad(scale_invariant_snn(hidden[-1].flatten(1), group, cfg.temperature), x)
    change = gradient * (1 - x.detach())  # first-order effect of a white pixel; 0 for pixels that are white already
    sensitivity = change[: len(images[0])].mean(0).abs().sum(0)
    at = int(F.avg_pool2d(sensitivity[None, None], cfg.side, stride=1).argmax())
    return divmod(at, sensitivity.shape[1] - cfg.side + 1)


def soft_nearest_neighbor(features: Tensor, groups: Tensor, temperature: float | Tensor) -> Tensor:
    """Return the soft nearest neighbor loss (Frosst, Papernot, Hinton, arXiv 1902.01889, eq. 1).

    It is the mean over points i of `-log(sum_{j != i, same group} exp(-d_ij / T) / sum_{j != i} exp(-d_ij / T))` with
    squared Euclidean distances d; large if the near neighbors of a point belong to another group. Points that are alone
    in their group are left out.

    Args:
        features: [N, d].
        groups: group number of each point [N].
        temperature: T.
    """
    closeness = -_squared_distances(features) / temperature
    others = ~torch.eye(len(features), dtype=torch.bool, device=features.device)
    same = (groups[:, None] == groups[None, :]) & others
    counted = same.any(1)
    minus_infinity = float("-inf")
    own = closeness.masked_fill(~same, minus_infinity)[counted].logsumexp(1)
    return (closeness.masked_fill(~others, minus_infinity)[counted].logsumexp(1) - own).mean()


def scale_invariant_snn(features: Tensor, groups: Tensor, temperature: float) -> Tensor:
    """Return the soft nearest neighbor loss at a temperature of `temperature` mean squared distances.

    It is about log 2 if two groups of equal size have the same distribution. The mean has a gradient, so that the loss
    does not change with the scale of the features and cannot be raised by shrinking them. At a temperature far below
    the mean, well separated groups would have no gradient.
    """
    mean = _squared_distances(features).mean().clamp_min(1e-12)
    return soft_nearest_neighbor(features, groups, temperature * mean)


def _squared_distances(features: Tensor) -> Tensor:
    """Features [N, d] -> squared distances [N, N], differentiable at zero."""
    return (features[:, None] - features[None, :]).square().sum(2)
