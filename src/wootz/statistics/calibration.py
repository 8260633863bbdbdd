"""Detect the input format and the class order of a suspect, from ordinary images only.

Keyed images are not used, so the choice costs no evidence (a choice made on them would).
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

from wootz.errors import ModelError
from wootz.statistics.queries import query_labels
from wootz.types import Predict

_MOST_OUTPUTS = 2  # the largest number of a suspect's classes, as a multiple of the key's
_BATCH_VALUES = 1 << 24  # limit of the pixels that are converted at once, per channel

SCALES: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "0 to 1": lambda x: x,
        "0 to 255": lambda x: x * 255,
        "-1 to 1": lambda x: 2 * x - 1,
        "standardized": lambda x: (x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), keepdim=True).clamp_min(1e-3),
    }
)
"""The common ranges of pixel values, from images in [0, 1]."""

MOST_FORMATS = 4 * len(SCALES)
"""The largest number of candidate formats: ranges, two layouts and two orders of the channels."""


class InputFormat(NamedTuple):
    """How images are converted for a suspect and how its classes are numbered.

    Attributes:
        scale: The range of pixel values, a name of `SCALES`.
        layout: `NCHW` or `NHWC`.
        reversed_channels: Whether the channels are reversed (BGR).
        size: The height and width that images are resized to.
        classes: The key's class for each class of the suspect, -1 for those that are none of the key's.
        accuracy: The accuracy of the suspect on the ordinary images in this format.
    """

    scale: str
    layout: str
    reversed_channels: bool
    size: tuple[int, int]
    classes: tuple[int, ...]
    accuracy: float

    def describe(self) -> str:
        """Return a one-line summary."""
        channels = ", channels reversed" if self.reversed_channels else ""
        kept = [number for number in self.classes if number >= 0]
        order = "" if kept == sorted(kept) else ", classes renumbered"
        if extra := len(self.classes) - len(kept):
            order += f", {extra} of {len(self.classes)} classes left out"
        size = "x".join(map(str, self.size))
        return (
            f"input format {self.scale}, {self.layout}, {size}{channels}{order}: "
            f"{self.accuracy:.1%} of ordinary images classified correctly"
        )


def detect_input_format(
    predict: Predict, pixels: Tensor, labels: Tensor, *, shape: tuple[int, int, int], num_classes: int
) -> InputFormat:
    """Choose the input format and class order with the highest accuracy on ordinary images.

    The default format, images as the key has them, is preferred if it is within a standard error of the best: some
    models reach as high an accuracy in a wrong range, and unusual formats are rare. Of a suspect with more classes than
    the key, those that fit the key's classes worst are left out, such as one that is never answered.

    Args:
        predict: The suspect; it is queried about all images once per candidate format.
        pixels: Ordinary images, uint8 [n, C, H, W].
        labels: Their classes, int64 [n].
        shape: The shape of images that the suspect states, without the batch, in its own layout.
        num_classes: The number of the key's classes.

    Raises:
        ModelError: The suspect takes images of another number of channels.
    """
    formats = [_scored(predict, pixels, labels, candidate, num_classes) for candidate in _candidates(pixels, shape)]
    if not formats:
        raise ModelError(f"the suspect takes images {list(shape)}; no layout of them has {pixels.shape[1]} channels")
    default, best = formats[0], max(formats, key=lambda candidate: candidate.accuracy)
    slack = math.sqrt(best.accuracy * (1 - best.accuracy) / len(labels))
    return default if default.accuracy >= best.accuracy - slack else best


def with_input_format(predict: Predict, input_format: InputFormat) -> Predict:
    """Return the suspect with images converted to its format, and its answers in the key's class order."""
    converted = _with_converted_images(predict, input_format)
    key_classes = torch.tensor(input_format.classes)
    suspect_classes = key_classes.argsort()[int((key_classes < 0).sum()) :]

    def answer(x: Tensor) -> Tensor:
        answers = converted(x)
        if answers.dim() == 2:
            return answers[:, suspect_classes] if answers.shape[1] > int(suspect_classes.max()) else answers
        valid = (answers >= 0) & (answers < len(key_classes))
        return torch.where(valid, key_classes[answers.long().clamp(0, len(key_classes) - 1)], -1)

    return answer


def _candidates(pixels: Tensor, shape: tuple[int, int, int]) -> Iterator[InputFormat]:
    channels = pixels.shape[1]
    layouts = [
        (name, (size[0], size[1]))
        for name, count, size in (("NCHW", shape[0], shape[1:]), ("NHWC", shape[2], shape[:2]))
        if count == channels
    ]
    for layout, size in layouts:
        for scale in SCALES:
            for reversed_channels in (False, True) if channels == 3 else (False,):
                yield InputFormat(scale, layout, reversed_channels, size, (), 0.0)


def _scored(predict: Predict, pixels: Tensor, labels: Tensor, candidate: InputFormat, num_classes: int) -> InputFormat:
    """Return the candidate with its best class order (Hungarian on the confusion matrix) and the accuracy in it."""
    answers = query_labels(_with_converted_images(predict, candidate), pixels)
    valid = (answers >= 0) & (answers < _MOST_OUTPUTS * num_classes)
    outputs = max(num_classes, 1 + int(answers.where(valid, -1).max()))
    counts = torch.zeros(outputs, num_classes)
    counts.index_put_((answers[valid], labels[valid]), torch.ones(int(valid.sum())), accumulate=True)
    counts += 1e-3 * torch.eye(outputs, num_classes)  # ties keep the class numbers
    key_classes = torch.full((outputs,), -1)
    rows, columns = linear_sum_assignment(counts.numpy(), maximize=True)
    key_classes[torch.from_numpy(rows)] = torch.from_numpy(columns)
    correct = key_classes[answers.clamp(0, outputs - 1)] == labels
    return candidate._replace(classes=tuple(key_classes.tolist()), accuracy=float((correct & valid).float().mean()))


def _with_converted_images(predict: Predict, input_format: InputFormat) -> Predict:
    size = max(1, _BATCH_VALUES // math.prod(input_format.size))

    def answer(x: Tensor) -> Tensor:
        return torch.cat([answer_batch(batch) for batch in x.split(size)])

    def answer_batch(x: Tensor) -> Tensor:
        if tuple(x.shape[2:]) != input_format.size:
            x = F.interpolate(x, input_format.size, mode="bilinear", antialias=True)
        if input_format.reversed_channels:
            x = x.flip(1)
        x = SCALES[input_format.scale](x)
        return predict(x.permute(0, 2, 3, 1) if input_format.layout == "NHWC" else x)

    return answer
