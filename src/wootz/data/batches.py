"""The order of the data: a pure function of seed, epoch and process, so that nothing needs to be saved."""

from __future__ import annotations

import torch
from torch import Tensor

from wootz.rng import generator


def epoch_batches(count: int, batch_size: int, *, seed: int, epoch: int, rank: int = 0, world: int = 1) -> list[Tensor]:
    """Return this process's batches of indices (int64) for one epoch, all of equal size.

    Every process gets the same number of batches of `batch_size // world` indices; processes together see
    each index at most once. The few left over that fill no batch sit this epoch out. Fewer than
    `batch_size` items give one batch of what there is.
    """
    order = torch.randperm(count, generator=generator(seed, "order", epoch))
    size = min(batch_size, count)
    whole = order[: count // size * size].view(-1, size)
    return [batch[rank::world][: size // world] for batch in whole]
