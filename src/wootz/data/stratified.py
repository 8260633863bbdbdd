"""Stratified parts of custom data: every class in its proportion, and images that are nearly alike in one part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wootz.logs import warn_once
from wootz.rng import generator

_SIDE, _QUARTERS, _DIFFERENCE = 8, 4, 16
"""Images are nearly alike if no gray level of their reductions to 8 x 8 differs by more than 16 quarters of a level."""

_TABLES, _PROJECTIONS, _WIDTH = 8, 8, 512
_BATCH = 4096


def stratified_parts(name: str, pixels: Tensor, labels: Tensor, sizes: Sequence[int], seed: int) -> list[list[Tensor]]:
    """Return the parts of a data set; the last one is for training.

    Every class gets its proportion of each part, and one image at least of the last part. Nearly alike images form a
    group that stays in one part, unless a part would then be less than half as large as it should.

    Args:
        name: the data set, for messages.
        pixels: uint8 [N, C, H, W].
        labels: int64 [N].
        sizes: the size of each part; their sum is N.
        seed: of the order.

    Returns:
        For each part its groups, each an int64 tensor of indices. Any first groups of a part are stratified as well.
    """
    order = torch.randperm(len(labels), generator=generator(seed, "stratified", len(labels)))
    for group_of in (_near_duplicates, _duplicates, _separate):
        parts = _assign(_groups(order, labels, group_of(pixels)), labels, sizes)
        if all(2 * sum(map(len, part)) >= size for part, size in zip(parts, sizes, strict=True)):
            break
    if group_of is not _near_duplicates:
        warn_once(f"{name}: so many images are alike that copies of one image come into several parts")
    return [_interleaved(part) for part in parts]


def _assign(groups: list[Tensor], labels: Tensor, sizes: Sequence[int]) -> list[list[Tensor]]:
    """Assign groups, which are sorted by class, to parts: each goes where its class and the whole lack most.

    The first group of each class goes to the last part.
    """
    parts: list[list[Tensor]] = [[] for _ in sizes]
    shares = [size / len(labels) for size in sizes]
    assigned, of_class = [0] * len(sizes), [0] * len(sizes)
    label = None
    for group in groups:
        best = len(sizes) - 1
        if label == (label := int(labels[group[0]])):
            seen, seen_of_class = sum(assigned) + len(group), sum(of_class) + len(group)
            scores = [
                share * seen_of_class - of_class[part] + min(1.0, max(-1.0, share * seen - assigned[part]))
                if assigned[part] + len(group) <= sizes[part]
                else -np.inf
                for part, share in enumerate(shares)
            ]
            if max(scores) > -np.inf:
                best = scores.index(max(scores))
        else:
            of_class = [0] * len(sizes)
        parts[best].append(group)
        assigned[best] += len(group)
        of_class[best] += len(group)
    return parts


def _groups(order: Tensor, labels: Tensor, ids: NDArray[np.int64]) -> list[Tensor]:
    """Return the groups of images with one id, sorted by the class of their first image, each class in `order`."""
    members: dict[int, list[int]] = {}
    for index in order.tolist():
        members.setdefault(int(ids[index]), []).append(index)
    groups = [torch.tensor(group) for group in members.values()]
    return sorted(groups, key=lambda group: int(labels[group[0]]))


def _interleaved(groups: list[Tensor]) -> list[Tensor]:
    """Return groups that are sorted by class in an order of which every beginning holds all classes evenly."""
    width = max(1, (len(groups) - 1).bit_length())
    return [groups[i] for i in sorted(range(len(groups)), key=lambda i: int(f"{i:0{width}b}"[::-1], 2))]


def _near_duplicates(pixels: Tensor) -> NDArray[np.int64]:
    """Return the number of the group of each image; images that are linked by nearly alike ones are in one group.

    Candidates share all rounded projections of one of several tables (locality-sensitive hashing, as E2LSH); each is
    then compared with the first of them. Everything is computed in integers, so that all computers agree.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    small = np.concatenate([_reduced(batch.numpy()) for batch in pixels.split(_BATCH)])
    small, inverse = np.unique(small, axis=0, return_inverse=True)
    links = []
    for table in range(_TABLES):
        random = generator(0, "projections", table)
        signs = 2 * torch.randint(2, (small.shape[1], _PROJECTIONS), generator=random) - 1
        offsets = torch.randint(_WIDTH, (_PROJECTIONS,), generator=random)
        rounded = (small.astype(np.int64) @ signs.numpy() + offsets.numpy()) // _WIDTH
        _, first, bucket = np.unique(rounded, axis=0, return_index=True, return_inverse=True)
        other = first[bucket.reshape(-1)]
        alike = np.abs(small - small[other]).max(1) <= _DIFFERENCE
        links.append(np.stack([np.flatnonzero(alike), other[alike]]))
    rows, columns = np.concatenate(links, axis=1)
    graph = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(len(small), len(small)))
    components: NDArray[np.int64] = connected_components(graph, directed=False)[1]
    return components[inverse.reshape(-1)]


def _reduced(images: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Return the mean gray levels of a grid of cells, in quarters of a level: int32 [N, cells]."""
    sums, area = images.sum(1, dtype=np.int64), np.array(images.shape[1])
    for axis in (1, 2):
        side = sums.shape[axis]
        edges = np.unique(np.arange(_SIDE) * side // _SIDE)
        sums = np.add.reduceat(sums, edges, axis=axis)
        area = np.multiply.outer(area, np.diff(edges, append=side))
    cells = sums * _QUARTERS // area
    reduced: NDArray[np.int32] = cells.reshape(len(cells), -1).astype(np.int32)
    return reduced


def _duplicates(pixels: Tensor) -> NDArray[np.int64]:
    numbers: dict[bytes, int] = {}
    return np.array([numbers.setdefault(image.numpy().tobytes(), len(numbers)) for image in pixels])


def _separate(pixels: Tensor) -> NDArray[np.int64]:
    return np.arange(len(pixels))
