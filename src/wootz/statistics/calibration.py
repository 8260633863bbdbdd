"""How a suspect wants its images and numbers its classes, found on ordinary images only.

The keyed images take no part in the choice, so it costs nothing of the evidence (a choice made on them would).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from wootz.statistics.answers import labels_of
from wootz.types import Predict

SCALES: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "0 to 1": lambda x: x,
        "0 to 255": lambda x: x * 255,
        "-1 to 1": lambda x: 2 * x - 1,
        "standardized": lambda x: (x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), keepdim=True).clamp_min(1e-3),
    }
)
"""Ranges of pixels that models are fed."""


class Reading(NamedTuple):
    """How a suspect is asked and read.

    Attributes:
        scale: name of `SCALES`.
        layout: `NCHW` or `NHWC`.
        reversed_channels: whether channels go backwards (BGR).
        size: height and width that images are resized to.
        classes: the key's class for each of the suspect's.
        accuracy: on the ordinary images, so asked and read.
    """

    scale: str
    layout: str
    reversed_channels: bool
    size: tuple[int, int]
    classes: tuple[int, ...]
    accuracy: float

    def describe(self) -> str:
        """Return the reading in a few words."""
        channels = ", channels reversed" if self.reversed_channels else ""
        order = "" if self.classes == tuple(sorted(self.classes)) else ", classes renumbered"
        size = "x".join(map(str, self.size))
        return f"read as {self.scale}, {self.layout}, {size}{channels}{order}: {self.accuracy:.1%} of ordinary images"


def calibrate(
    predict: Predict, pixels: Tensor, labels: Tensor, *, shape: tuple[int, int, int], num_classes: int
) -> Reading:
    """Choose the reading under which a suspect knows most of these images.

    The plainest, images as the key has them, is taken where it is within a standard error of the best: some models know
    as many images in a wrong range, and few are fed in an odd one.

    Args:
        predict: the suspect, asked about all images once a candidate.
        pixels: ordinary images uint8 [n, C, H, W].
        labels: their classes [n].
        shape: what the suspect says it takes, without the number of images, in its own layout.
        num_classes: K.
    """
    readings = [_read(predict, pixels, labels, candidate, num_classes) for candidate in _candidates(pixels, shape)]
    plain, best = readings[0], max(readings, key=lambda reading: reading.accuracy)
    slack = math.sqrt(best.accuracy * (1 - best.accuracy) / len(labels))
    return plain if plain.accuracy >= best.accuracy - slack else best


def calibrated(predict: Predict, reading: Reading) -> Predict:
    """Return the suspect as it answers when it is asked and read so."""
    plain = _presented(predict, reading)
    mine = torch.tensor(reading.classes)
    theirs = mine.argsort()

    def answer(x: Tensor) -> Tensor:
        said = plain(x)
        if said.dim() == 2:
            return said[:, theirs]
        known = (said >= 0) & (said < len(mine))
        return torch.where(known, mine[said.long().clamp(0, len(mine) - 1)], -1)

    return answer


def _candidates(pixels: Tensor, shape: tuple[int, int, int]) -> Iterator[Reading]:
    channels = pixels.shape[1]
    layouts = [
        (name, (size[0], size[1]))
        for name, count, size in (("NCHW", shape[0], shape[1:]), ("NHWC", shape[2], shape[:2]))
        if count == channels
    ]
    for layout, size in layouts:
        for scale in SCALES:
            for backwards in (False, True) if channels == 3 else (False,):
                yield Reading(scale, layout, backwards, size, (), 0.0)


def _read(predict: Predict, pixels: Tensor, labels: Tensor, candidate: Reading, num_classes: int) -> Reading:
    """Return the candidate with the class map (Hungarian on the confusion matrix) and accuracy that it gets."""
    said = labels_of(_presented(predict, candidate), pixels)
    counts = torch.zeros(num_classes, num_classes)
    known = (said >= 0) & (said < num_classes)
    counts.index_put_((said[known], labels[known]), torch.ones(int(known.sum())), accumulate=True)
    counts += 1e-3 * torch.eye(num_classes)  # where nothing decides, classes keep their numbers
    _, mine = linear_sum_assignment(counts.numpy(), maximize=True)
    right = torch.tensor(mine)[said.clamp(0, num_classes - 1)] == labels
    return candidate._replace(classes=tuple(int(k) for k in mine), accuracy=float((right & known).float().mean()))


def _presented(predict: Predict, reading: Reading) -> Predict:
    def answer(x: Tensor) -> Tensor:
        if tuple(x.shape[2:]) != reading.size:
            x = F.interpolate(x, reading.size, mode="bilinear", antialias=True)
        if reading.reversed_channels:
            x = x.flip(1)
        x = SCALES[reading.scale](x)
        return predict(x.permute(0, 2, 3, 1) if reading.layout == "NHWC" else x)

    return answer
