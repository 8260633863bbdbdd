"""Data sets as tensors in memory, their fixed split into disjoint parts, and the order of training batches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from wootz import checks
from wootz.data.stratified import stratified_parts
from wootz.errors import DataError
from wootz.logs import warn_once
from wootz.rng import generator
from wootz.store import tensor_digest

MOST_CLASSES = 1 << 16
_TEST_FRACTION = 6
_FEW_IMAGES, _LISTED = 10, 5
SPLIT_SEED = 0
"""The same split for every user: extracted and independent models must not be trained on the owner's probes."""


class Split(NamedTuple):
    """Images uint8 [N, C, H, W] and labels int64 [N]. `images()` gives float32 in [0, 1]."""

    pixels: Tensor
    labels: Tensor

    def images(self) -> Tensor:
        """Return the images as float32 in [0, 1]."""
        return self.pixels.float().div_(255)

    def subset(self, index: Tensor | slice) -> Split:
        """Return the images and labels at `index`."""
        return Split(self.pixels[index], self.labels[index])

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True)  # no slots: the digest is computed once
class Dataset:
    """A data set, split into disjoint parts by `split_dataset`.

    Attributes:
        name: the data set's name, or its absolute path.
        classes: the names of the classes.
        train: the owner's training images.
        validation: the images on which the best epoch is selected.
        probes: held-out images for the marks' tests; no model is trained on them.
        thief: images of the same distribution for an extraction attack.
        test: the data set's own test images, for reporting only.
        set_aside: the fraction of the default probes and attack images that was held out, see `split_dataset`.
        size: the side that all images were resized and cropped to; None where they are as the source has them.
        unreadable: the number of images that were left out because they cannot be read.
        labels_from: the file of a model's answers that are the labels; empty where the source has labels.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    probes: Split
    thief: Split
    test: Split
    set_aside: float = 1.0
    size: int | None = None
    unreadable: int = 0
    labels_from: str = ""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        channels, height, width = self.train.pixels.shape[1:]
        return channels, height, width

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the pixels and labels of all parts; a run keeps it to recognize its data."""
        parts = (self.train, self.validation, self.probes, self.thief, self.test)
        return tensor_digest(*(tensor for part in parts for tensor in part))


class Counts(NamedTuple):
    """The default sizes of the parts that are split off the training images."""

    validation: int
    probes: int
    thief: int


class RawDataset(NamedTuple):
    """A data set as its source provides it, before `split_dataset`.

    Attributes:
        name: the data set's name, or its absolute path.
        classes: the names of the classes.
        training: the source's training images.
        test: the source's test images; may be empty if `stratified`.
        counts: the default sizes of the other parts; None means 1/60 of the training images for validation, 1/3 for
            the probes and 1/6 for an extraction attack.
        stratified: whether every class gets its proportion of each part, and images that are nearly alike stay in one
            part. Data sets of published figures are only shuffled.
        size: see `Dataset`.
        unreadable: see `Dataset`.
    """

    name: str
    classes: tuple[str, ...]
    training: Split
    test: Split
    counts: Counts | None = None
    stratified: bool = False
    size: int | None = None
    unreadable: int = 0


def split_dataset(raw: RawDataset, set_aside: float = 1.0) -> Dataset:
    """Shuffle the training images by a fixed seed and split them into disjoint parts.

    Args:
        raw: the data set. If it is stratified and has no test images, one image in six is held out for testing first.
        set_aside: the fraction in (0, 1] of the default probes and attack images to hold out; the rest is added to the
            training images. A smaller fraction holds out a subset of what a larger one does.

    Raises:
        ConfigError: `set_aside` is not in (0, 1].
        DataError: there are too few images to split, or images and labels do not fit together.
    """
    check_set_aside(set_aside)
    name, classes, training, test = raw[:4]
    testing = len(training) // _TEST_FRACTION if raw.stratified and len(test) == 0 else 0
    total = len(training) - testing
    counts = raw.counts or Counts(max(total // 60, int(raw.stratified)), total // 3, total // 6)
    held_out = Counts(counts.validation, round(set_aside * counts.probes), round(set_aside * counts.thief))
    if total <= sum(counts) or testing + len(test) == 0 or min(held_out) < 1:
        raise DataError(f"{name}: {len(training)} training and {len(test)} test images are too few to split")
    check_split(name, training, len(classes))
    check_split(name, test, len(classes))
    if not testing and training.pixels.shape[1:] != test.pixels.shape[1:]:
        sizes = (list(split.pixels.shape[1:]) for split in (training, test))
        raise DataError("{}: training images are {} and test images {}; all must have one size".format(name, *sizes))
    divide = _stratified if raw.stratified else _shuffled
    parts = divide(name, training, testing, counts, held_out)
    if not all(map(len, parts[not testing :])):
        raise DataError(f"{name}: its {len(training)} images of {len(classes)} classes are too few to split")
    if testing:
        test = training.subset(parts.test)
    elif raw.stratified:  # the first test images are those that robust accuracy is measured on
        test = test.subset(torch.randperm(len(test), generator=generator(SPLIT_SEED, "test", len(test))))
    return Dataset(
        name=name,
        classes=classes,
        train=training.subset(parts.train),
        validation=training.subset(parts.validation),
        probes=training.subset(parts.probes),
        thief=training.subset(parts.thief),
        test=test,
        set_aside=set_aside,
        size=raw.size,
        unreadable=raw.unreadable,
    )


class _Parts(NamedTuple):
    """Indices of the images of each part, int64."""

    test: Tensor
    validation: Tensor
    probes: Tensor
    thief: Tensor
    train: Tensor


def _shuffled(name: str, training: Split, testing: int, counts: Counts, held_out: Counts) -> _Parts:
    total = len(training)
    order = torch.randperm(total, generator=generator(SPLIT_SEED, "split", total))
    validation, probes, thief, train = order.split([*counts, total - sum(counts)])
    train = torch.cat([train, probes[held_out.probes :], thief[held_out.thief :]])
    return _Parts(order[:0], validation, probes[: held_out.probes], thief[: held_out.thief], train)


def _stratified(name: str, training: Split, testing: int, counts: Counts, held_out: Counts) -> _Parts:
    total = len(training)
    sizes = [testing, *counts, total - testing - sum(counts)]
    groups = stratified_parts(name, training.pixels, training.labels, sizes, SPLIT_SEED)
    (probes, more), (thief, still_more) = (
        _cut(part, count) for part, count in zip(groups[2:4], held_out[1:], strict=True)
    )
    parts = (groups[0], groups[1], probes, thief, [*groups[4], *more, *still_more])
    rank = torch.randperm(total, generator=generator(SPLIT_SEED, "split", total))
    joined = (torch.cat([rank[:0], *part]) for part in parts)
    return _Parts(*(part[rank[part].argsort()] for part in joined))


def _cut(groups: list[Tensor], count: int) -> tuple[list[Tensor], list[Tensor]]:
    """Return the first groups that hold `count` images together, or the next larger number, and the other groups."""
    held = 0
    for number, group in enumerate(groups):
        if held >= count:
            return groups[:number], groups[number:]
        held += len(group)
    return groups, []


class Unlabelled(NamedTuple):
    """Images without labels, uint8 [N, C, H, W], and the number of those that were left out as unreadable."""

    pixels: Tensor
    unreadable: int = 0


def label_dataset(
    name: str,
    pixels: Tensor,
    labels: Tensor,
    classes: tuple[str, ...],
    *,
    set_aside: float = 1.0,
    size: int | None = None,
    unreadable: int = 0,
) -> Dataset:
    """Return images with given labels, such as a model's own answers, as a data set with its fixed split.

    The parts are stratified by the labels. Classes may have any number of images, none included.

    Args:
        name: the name or the absolute path of the images.
        pixels: uint8 [N, C, H, W].
        labels: int64 [N].
        classes: the names of the classes.
        set_aside: see `split_dataset`.
        size: see `Dataset`.
        unreadable: see `Dataset`.

    Raises:
        DataError: there are too few images to split, or images and labels do not fit together.
    """
    raw = RawDataset(name, classes, Split(pixels, labels), Split(pixels[:0], labels[:0]), stratified=True)
    return split_dataset(raw._replace(size=size, unreadable=unreadable), set_aside)


def check_set_aside(set_aside: float) -> None:
    """Raise ConfigError unless `set_aside` is in (0, 1]."""
    checks.positive(set_aside=set_aside)
    checks.within(0, 1, set_aside=set_aside)


def check_split(name: str, split: Split, num_classes: int) -> None:
    """Raise DataError unless the images are uint8 [N, C, H, W] and each has a label in [0, num_classes)."""
    pixels, labels = split
    if pixels.dim() != 4 or pixels.dtype != torch.uint8:
        raise DataError(f"{name}: images must be uint8 [N, C, H, W], these are {pixels.dtype} {list(pixels.shape)}")
    if len(pixels) != len(labels):
        raise DataError(f"{name}: {len(pixels)} images but {len(labels)} labels")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise DataError(
            f"{name}: labels from {int(labels.min())} to {int(labels.max())}; must be from 0 to {num_classes - 1}"
        )


def check_balance(data: Dataset) -> None:
    """Check that each class can be learned; classes with few training images are logged.

    Raises:
        DataError: a class has no image left for training after the split.
    """
    counts = torch.bincount(data.train.labels, minlength=len(data.classes)).tolist()
    few = {name: count for name, count in zip(data.classes, counts, strict=True) if count < _FEW_IMAGES}
    if not few:
        return
    listed = ", ".join(f"{name!r} ({count})" for name, count in list(few.items())[:_LISTED])
    if min(few.values()) == 0:
        raise DataError(
            f"{data.name}: after the split, classes have too few of the {len(data.train)} training images: {listed}; "
            "give more images of them, or leave these classes out"
        )
    warn_once(f"{data.name}: some classes have few of the {len(data.train)} training images: {listed}")


def epoch_batches(count: int, batch_size: int, *, seed: int, epoch: int, rank: int = 0, world: int = 1) -> list[Tensor]:
    """Return this process's batches of indices (int64) for one epoch, all of equal size.

    The order is a function of seed and epoch. Every process gets the same number of batches of `batch_size // world`
    indices, and no index occurs twice. A last incomplete batch is dropped; fewer than `batch_size` items give one
    smaller batch.

    Args:
        count: the number of items.
        batch_size: the items per batch, over all processes.
        seed: the seed of the order.
        epoch: the number of the epoch.
        rank: the number of this process.
        world: the number of processes.
    """
    order = torch.randperm(count, generator=generator(seed, "order", epoch))
    size = min(batch_size, count)
    batches = order[: count // size * size].view(-1, size)
    return [batch[rank::world][: size // world] for batch in batches]
