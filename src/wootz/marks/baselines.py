"""Baseline marks to compare with: `paper` (the founding recipe, true labels) and `ood` (after Adi et al. 2018).

Both teach after each epoch, batch 16, plain cross-entropy, as in the founding recipe. Their usual evidence,
"watermark accuracy", proves nothing: a stranger's model may know the true label too. To have an exact test
beside it, twice as many candidates are made as are taught, and a keyed half is taught.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wootz import checks
from wootz.data import Dataset, load_other
from wootz.marks.beyond import beyond_the_ball, check_budget
from wootz.ownership import HalfKey, Key, Material
from wootz.training import Hook, Pass

_BATCH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    """Triggers at L-inf `wm_eps` from training images, labeled with the true class (arXiv 2312.14260).

    Attributes:
        count: triggers taught; twice as many are made.
        alpha: margin around the training ball.
        steps: PGD steps that make them.
        frozen: keep batch statistics out of the trigger passes; the paper does not.
    """

    count: int = 100
    alpha: float = 0.01
    steps: int = 40
    frozen: bool = False

    def __post_init__(self) -> None:
        checks.at_least(1, count=self.count, steps=self.steps)
        checks.not_negative(alpha=self.alpha)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfDistribution:
    """Images of another data set with their own labels (Szyller, Asokan, arXiv 2207.01991).

    Attributes:
        count: triggers taught; twice as many are drawn.
        source: data set they come from; None means the other one of MNIST and Fashion-MNIST.
        frozen: keep batch statistics out of the trigger passes; the source does not.
    """

    count: int = 100
    source: str | None = None
    frozen: bool = False

    def __post_init__(self) -> None:
        checks.at_least(1, count=self.count)


def prepare_paper(
    cfg: Paper,
    data: Dataset,
    panel: list[nn.Module],
    *,
    eps: float,
    wm_eps: float,
    generator: torch.Generator,
) -> Material:
    """Make the candidates from training images and the first panel model."""
    check_budget(eps, cfg.alpha, wm_eps)
    pixels, rows = beyond_the_ball(
        data.train, panel[0], 2 * cfg.count, eps=eps, alpha=cfg.alpha, wm_eps=wm_eps, steps=cfg.steps,
        generator=generator,
    )  # fmt: skip
    facts = {"eps": str(eps), "alpha": str(cfg.alpha), "wm_eps": str(wm_eps), "count": cfg.count}
    return Material("half", {"pixels": pixels, "labels": data.train.labels[rows]}, facts)


def prepare_ood(
    cfg: OutOfDistribution,
    data: Dataset,
    panel: list[nn.Module],
    *,
    eps: float,
    wm_eps: float,
    generator: torch.Generator,
) -> Material:
    """Draw the candidates from the other data set's test images."""
    other = load_other(data, name=cfg.source)
    rows = torch.randperm(len(other.test), generator=generator)[: 2 * cfg.count]
    picked = other.test.take(rows)
    return Material(
        "half", {"pixels": picked.pixels, "labels": picked.labels}, {"source": other.name, "count": cfg.count}
    )


def train_hook(cfg: Paper | OutOfDistribution, key: Key, data: Dataset, *, seed: int) -> Hook:
    """Return the passes over the keyed half that follow each epoch."""
    assert isinstance(key, HalfKey)
    taught: Tensor = key.embedded
    return Hook(passes=(Pass(pixels=key.pixels[taught], labels=key.labels[taught], batch=_BATCH, frozen=cfg.frozen),))
