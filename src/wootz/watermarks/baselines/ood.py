"""Mark `ood`: images of another data set with their own labels, the baseline that the founding paper compares with.

After Adi et al. (USENIX Security 2018) as Szyller, Asokan (arXiv 2207.01991) run it: 100 images, passes after each
epoch. Their labels mean nothing to an independent model, and each image has to be learned by itself, as far as the
other data set's classes are not learned as a whole: then the control half is answered, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from wootz import checks
from wootz.data import Dataset, load_other
from wootz.errors import ConfigError
from wootz.keys import Key, RegisteredMaterial
from wootz.training import Hook
from wootz.watermarks.baselines.teaching import after_epochs
from wootz.watermarks.context import MarkContext


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfDistribution:
    """Images of another data set with their own labels.

    Attributes:
        count: triggers taught; twice as many are drawn.
        source: data set they come from; None means the other one of MNIST and Fashion-MNIST.
        batch: triggers in a step of the pass.
        frozen: keep batch statistics out of the trigger passes; the source does not.
    """

    count: int = 100
    source: str | None = None
    batch: int = 16
    frozen: bool = False

    def __post_init__(self) -> None:
        checks.at_least(1, count=self.count, batch=self.batch)


def prepare(cfg: OutOfDistribution, context: MarkContext, generator: torch.Generator) -> RegisteredMaterial:
    """Draw the candidates."""
    return foreign(context.data, cfg.source, cfg.count, generator)


def foreign(data: Dataset, source: str | None, count: int, generator: torch.Generator) -> RegisteredMaterial:
    """Draw 2 * count of the other data set's test images, with their own labels.

    The public facts name a file of the owner's own without its folder.

    Raises:
        ConfigError: it does not fit, or holds too few.
    """
    other = load_other(data, name=source)
    if len(other.test) < 2 * count:
        raise ConfigError(f"count = {count}: needs {2 * count} test images of {other.name}; it has {len(other.test)}")
    picked = other.test.subset(torch.randperm(len(other.test), generator=generator)[: 2 * count])
    params = {"source": Path(other.name).name, "count": count}
    return RegisteredMaterial("half", {"pixels": picked.pixels, "labels": picked.labels}, params)


def train_hook(cfg: OutOfDistribution, key: Key, data: Dataset, *, seed: int) -> Hook:
    """Return the passes that follow each epoch."""
    return after_epochs(key, batch=cfg.batch, frozen=cfg.frozen)
