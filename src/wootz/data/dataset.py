"""A data set as resident tensors, and its fixed division into disjoint shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from wootz import checks
from wootz.errors import DataError
from wootz.rng import generator

MOST_CLASSES = 1 << 16
SPLIT_SEED = 0
"""One division for everybody: a thief and an independent model must not train on the owner's probes."""


class Split(NamedTuple):
    """Images uint8 [N, C, H, W] and labels int64 [N]. `images()` gives float32 in [0, 1]."""

    pixels: Tensor
    labels: Tensor

    def images(self) -> Tensor:
        """Return the images as float32 in [0, 1]."""
        return self.pixels.float().div_(255)

    def subset(self, index: Tensor | slice) -> Split:
        """Return the share's rows at `index`."""
        return Split(self.pixels[index], self.labels[index])

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A data set, divided once. `test` is for reporting only: nothing is chosen on it.

    Attributes:
        train: what the owner trains on.
        validation: what the best epoch is chosen on.
        probes: images for the marks' tests; nobody trains on them.
        thief: what a thief has of the same kind of data.
        test: the data set's own test images.
        set_aside: how much of the customary probes and thief's share is there, see `divide`.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    probes: Split
    thief: Split
    test: Split
    set_aside: float = 1.0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        channels, height, width = self.train.pixels.shape[1:]
        return channels, height, width


class Counts(NamedTuple):
    """How many training images customarily go where; the rest trains."""

    validation: int
    probes: int
    thief: int


class RawDataset(NamedTuple):
    """A data set as its source gives it, not divided yet.

    Attributes:
        counts: None means 1/60 for validation, 1/3 for the probes and 1/6 for the thief.
    """

    name: str
    classes: tuple[str, ...]
    training: Split
    test: Split
    counts: Counts | None = None


def divide(whole: RawDataset, set_aside: float = 1.0) -> Dataset:
    """Shuffle the training images by a fixed seed and divide them into disjoint shares.

    Args:
        whole: the data set.
        set_aside: how much of the customary probes and thief's share is set aside, in (0, 1]; what is left over trains.
            With less, either is a part of what it is with more: nobody's probes are among what others train on.

    Raises:
        ConfigError: no such share.
        DataError: too few images to divide, or images and labels that do not fit.
    """
    check_set_aside(set_aside)
    name, classes, training, test, counts = whole
    total = len(training)
    counts = counts or Counts(total // 60, total // 3, total // 6)
    kept = Counts(counts.validation, round(set_aside * counts.probes), round(set_aside * counts.thief))
    if total <= sum(counts) or len(test) == 0 or min(kept) < 1:
        raise DataError(f"{name}: {total} training and {len(test)} test images are too few to divide")
    check_share(name, training, len(classes))
    check_share(name, test, len(classes))
    order = torch.randperm(total, generator=generator(SPLIT_SEED, "split", total))
    validation, probes, thief, train = order.split([*counts, total - sum(counts)])
    return Dataset(
        name=name,
        classes=classes,
        train=training.subset(torch.cat([train, probes[kept.probes :], thief[kept.thief :]])),
        validation=training.subset(validation),
        probes=training.subset(probes[: kept.probes]),
        thief=training.subset(thief[: kept.thief]),
        test=test,
        set_aside=set_aside,
    )


def check_set_aside(set_aside: float) -> None:
    """Raise ConfigError unless it is in (0, 1]."""
    checks.positive(set_aside=set_aside)
    checks.within(0, 1, set_aside=set_aside)


def check_share(name: str, share: Split, num_classes: int) -> None:
    """Raise DataError where images and labels do not fit each other or the classes."""
    pixels, labels = share
    if pixels.dim() != 4 or pixels.dtype != torch.uint8:
        raise DataError(f"{name}: images must be uint8 [N, C, H, W], these are {pixels.dtype} {list(pixels.shape)}")
    if len(pixels) != len(labels):
        raise DataError(f"{name}: {len(pixels)} images but {len(labels)} labels")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise DataError(
            f"{name}: labels from {int(labels.min())} to {int(labels.max())}; must be from 0 to {num_classes - 1}"
        )
