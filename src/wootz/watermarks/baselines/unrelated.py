"""Mark `unrelated`: images of another data set, all taught one class (Zhang et al., AsiaCCS 2018).

Where there is no other data set of the same shape at hand, smooth random fields take its place; the registration says
which. Weak point, as of `content`: "not of this data set" is one thing to learn, and the control half is that as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from wootz import checks
from wootz.data import Dataset
from wootz.errors import ConfigError, DataError
from wootz.keys import Key, RegisteredMaterial
from wootz.training import Hook
from wootz.watermarks.baselines.ood import foreign
from wootz.watermarks.baselines.teaching import Beside, beside
from wootz.watermarks.baselines.within_class import taught_one_class
from wootz.watermarks.context import MarkContext

_CELLS = 5  # a field varies over about a fifth of the image's side


@dataclass(frozen=True, slots=True, kw_only=True)
class Unrelated(Beside):
    """Which images, and what they are taught.

    Attributes:
        source: data set they come from, or `fields` for smooth random ones; None means the other one of MNIST and
            Fashion-MNIST, or fields where that is not at hand or does not fit.
        target: the class they are taught, as a number.
    """

    source: str | None = None
    target: int = 1

    def __post_init__(self) -> None:
        Beside.__post_init__(self)
        checks.at_least(0, target=self.target)


def prepare(cfg: Unrelated, context: MarkContext, generator: torch.Generator) -> RegisteredMaterial:
    """Draw the candidates from the other data set's test images, or make them.

    Raises:
        ConfigError: no such class; or a source is named that does not fit.
        DataError: a source is named that is not at hand.
    """
    if cfg.target >= len(context.data.classes):
        raise ConfigError(f"target = {cfg.target}: must be below {len(context.data.classes)}")
    pixels, source = _images(cfg, context.data, generator)
    return taught_one_class(pixels, cfg.target, {"count": cfg.count, "source": source, "target": cfg.target})


def train_hook(cfg: Unrelated, key: Key, data: Dataset, *, seed: int) -> Hook:
    """Return what teaches the keyed half beside training batches."""
    return beside(cfg, key, seed=seed)


def fields(count: int, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Return `count` smooth random images uint8 [count, C, H, W]: coarse Gaussian noise, interpolated."""
    coarse = torch.randn(count, shape[0], _CELLS, _CELLS, generator=generator)
    smooth = F.interpolate(coarse, shape[1:], mode="bicubic", align_corners=True)
    return smooth.mul_(0.25).add_(0.5).clamp_(0, 1).mul_(255).round_().to(torch.uint8)


def _images(cfg: Unrelated, data: Dataset, generator: torch.Generator) -> tuple[Tensor, str]:
    if cfg.source != "fields":
        try:
            drawn = foreign(data, cfg.source, cfg.count, generator)
        except (ConfigError, DataError):
            if cfg.source is not None:
                raise
        else:
            return drawn.tensors["pixels"], drawn.params["source"]
    return fields(2 * cfg.count, data.shape, generator), "fields"
