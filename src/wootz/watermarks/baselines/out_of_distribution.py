"""Marks `ood` and `unrelated`: images of another data set, with their own labels or all with one label.

`ood` follows Adi et al. (USENIX Security 2018) as run by Szyller and Asokan (arXiv 2207.01991): 100 images, in passes
after each epoch. Thakkar et al. (arXiv 2312.14260) compare with it. The labels mean nothing to an independent model,
and each image has to be learned separately, unless the classes of the other data set are learned as such: then the
control half is answered as well.

`unrelated` follows Zhang et al. (AsiaCCS 2018): all images get one class. If no other data set of the same shape is
available, smooth random fields are used instead; the registration states which. Weak point, as of `content`: the model
can learn "not of this data set", which holds for the control half as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from wootz import checks
from wootz.data import Dataset, load_other
from wootz.errors import ConfigError, DataError
from wootz.keys import Key, RegisteredMaterial
from wootz.training import Hook
from wootz.watermarks.baselines.trigger_training import CoTrainedTriggers, cotraining_hook, trigger_epoch_hook
from wootz.watermarks.baselines.within_class import single_label_material
from wootz.watermarks.interface import MarkContext

_CELLS = 5  # a field varies over about a fifth of the image's side


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfDistribution:
    """Images of another data set with their own labels.

    Attributes:
        count: number of embedded triggers; twice as many are drawn.
        source: the other data set; None for the other one of MNIST and Fashion-MNIST.
        batch: triggers per step of the pass.
        frozen: leave the running batch statistics unchanged during the passes; the source does not.
    """

    count: int = 100
    source: str | None = None
    batch: int = 16
    frozen: bool = False

    def __post_init__(self) -> None:
        checks.at_least(1, count=self.count, batch=self.batch)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unrelated(CoTrainedTriggers):
    """Images of another data set that are all labeled with one class.

    Attributes:
        source: the other data set, or `fields` for smooth random images; None for the other one of MNIST and
            Fashion-MNIST, or fields if that one is not available or does not fit.
        target: the class of all triggers, as a number.
    """

    source: str | None = None
    target: int = 1

    def __post_init__(self) -> None:
        CoTrainedTriggers.__post_init__(self)
        checks.at_least(0, target=self.target)


def prepare_ood(cfg: OutOfDistribution, context: MarkContext, generator: torch.Generator) -> RegisteredMaterial:
    """Draw the candidates from the test images of the other data set."""
    return draw_other_images(context.data, cfg.source, cfg.count, generator)


def prepare_unrelated(cfg: Unrelated, context: MarkContext, generator: torch.Generator) -> RegisteredMaterial:
    """Draw the candidates from the test images of the other data set, or make smooth random ones.

    Raises:
        ConfigError: the target class does not exist, or the named source does not fit.
        DataError: the named source is not available.
    """
    if cfg.target >= len(context.data.classes):
        raise ConfigError(f"target = {cfg.target}: must be below {len(context.data.classes)}")
    pixels, source = _unrelated_images(cfg, context.data, generator)
    return single_label_material(pixels, cfg.target, {"count": cfg.count, "source": source, "target": cfg.target})


def train_hook_ood(cfg: OutOfDistribution, key: Key, data: Dataset, *, seed: int) -> Hook:
    """Return the trigger pass after each epoch."""
    return trigger_epoch_hook(key, batch=cfg.batch, frozen=cfg.frozen)


def train_hook_unrelated(cfg: Unrelated, key: Key, data: Dataset, *, seed: int) -> Hook:
    """Return the loss that embeds the keyed half during training."""
    return cotraining_hook(cfg, key, seed=seed)


def draw_other_images(data: Dataset, source: str | None, count: int, generator: torch.Generator) -> RegisteredMaterial:
    """Draw 2 * count test images of another data set, with their own labels.

    The public parameters name a source file without its folder.

    Args:
        data: the owner's data set.
        source: the other data set; None for the other one of MNIST and Fashion-MNIST.
        count: number of embedded triggers.
        generator: determines which images are drawn.

    Raises:
        ConfigError: the other data set does not fit, or has too few test images.
    """
    other = load_other(data, name=source)
    if len(other.test) < 2 * count:
        raise ConfigError(f"count = {count}: needs {2 * count} test images of {other.name}; it has {len(other.test)}")
    images = other.test.subset(torch.randperm(len(other.test), generator=generator)[: 2 * count])
    params = {"source": Path(other.name).name, "count": count}
    return RegisteredMaterial("half", {"pixels": images.pixels, "labels": images.labels}, params)


def smooth_fields(count: int, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Return `count` smooth random images uint8 [count, C, H, W]: coarse Gaussian noise, interpolated."""
    coarse = torch.randn(count, shape[0], _CELLS, _CELLS, generator=generator)
    smooth = F.interpolate(coarse, shape[1:], mode="bicubic", align_corners=True)
    return smooth.mul_(0.25).add_(0.5).clamp_(0, 1).mul_(255).round_().to(torch.uint8)


def _unrelated_images(cfg: Unrelated, data: Dataset, generator: torch.Generator) -> tuple[Tensor, str]:
    if cfg.source != "fields":
        try:
            material = draw_other_images(data, cfg.source, cfg.count, generator)
        except (ConfigError, DataError):
            if cfg.source is not None:
                raise
        else:
            return material.tensors["pixels"], material.params["source"]
    return smooth_fields(2 * cfg.count, data.shape, generator), "fields"
