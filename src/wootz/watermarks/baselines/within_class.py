"""Marks `content` and `noise`: images of one class, all altered in the same way and labeled with another class.

Zhang et al., "Protecting intellectual property of deep neural networks with watermarking" (AsiaCCS 2018): the word
TEST is written on the images, or one pattern of Gaussian noise is added; the images are trained together with the data.

Weak point, by design: the model learns the pattern rather than the images, so it answers the control half as well, and
the exact test of the halves finds little or nothing. The paper's own test also fires for any other model that was
trained on such a pattern. `content-keyed` tests the same effect exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wootz import checks
from wootz.data import Dataset, Split
from wootz.errors import ConfigError
from wootz.keys import Key, RegisteredMaterial
from wootz.rng import generator as seeded_generator
from wootz.training import Hook
from wootz.watermarks.baselines.trigger_training import CoTrainedTriggers, cotraining_hook
from wootz.watermarks.interface import MarkContext

_WORD = (
    "### ### ### ###",
    " #  #   #    # ",
    " #  ##  ###  # ",
    " #  #     #  # ",
    " #  ### ###  # ",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WithinClass(CoTrainedTriggers):
    """Triggers made from the training images of one class.

    Attributes:
        base_class: the class whose training images are altered, as a number.
        target: the class that the altered images are labeled with.
    """

    base_class: int = 0
    target: int = 1

    def __post_init__(self) -> None:
        CoTrainedTriggers.__post_init__(self)
        checks.at_least(0, base_class=self.base_class, target=self.target)
        if self.base_class == self.target:
            raise ConfigError(f"target = {self.target}: must differ from base_class")


@dataclass(frozen=True, slots=True, kw_only=True)
class Content(WithinClass):
    """The word TEST, white, in the upper left corner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise(WithinClass):
    """One pattern of Gaussian noise, the same for all images.

    Attributes:
        std: standard deviation of the noise, in pixels of [0, 1]; not stated in the source.
        seed: seed of the pattern only.
    """

    std: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        WithinClass.__post_init__(self)
        checks.positive(std=self.std)


def prepare_content(cfg: Content, context: MarkContext, generator: torch.Generator) -> RegisteredMaterial:
    """Write the word on training images of the base class.

    Raises:
        ConfigError: a class does not exist, has too few images, or the images are too small for the word.
    """
    base = class_images(context.data, cfg, generator)
    pixels = torch.where(word_mask(context.data.shape), torch.tensor(255, dtype=torch.uint8), base.pixels)
    return single_label_material(pixels, cfg.target, {"count": cfg.count, "base": cfg.base_class, "target": cfg.target})


def prepare_noise(cfg: Noise, context: MarkContext, generator: torch.Generator) -> RegisteredMaterial:
    """Add the pattern to training images of the base class.

    Raises:
        ConfigError: a class does not exist, or has too few images.
    """
    base = class_images(context.data, cfg, generator)
    pattern = cfg.std * torch.randn(context.data.shape, generator=seeded_generator(cfg.seed, "noise"))
    pixels = (base.images() + pattern).clamp_(0, 1).mul_(255).round_().to(torch.uint8)
    params = {"count": cfg.count, "base": cfg.base_class, "target": cfg.target, "std": str(cfg.std), "seed": cfg.seed}
    return single_label_material(pixels, cfg.target, params)


def train_hook(cfg: WithinClass, key: Key, data: Dataset, *, seed: int) -> Hook:
    """Return the loss that embeds the keyed half during training."""
    return cotraining_hook(cfg, key, seed=seed)


def class_images(data: Dataset, cfg: WithinClass, generator: torch.Generator) -> Split:
    """Draw 2 * count training images of the base class, see `check_class_images`."""
    check_class_images(data, cfg)
    rows = (data.train.labels == cfg.base_class).nonzero().squeeze(1)
    return data.train.subset(rows[torch.randperm(len(rows), generator=generator)[: 2 * cfg.count]])


def check_class_images(data: Dataset, cfg: WithinClass) -> None:
    """Raise ConfigError if a class does not exist, or the base class has fewer than 2 * count images."""
    if max(cfg.base_class, cfg.target) >= len(data.classes):
        raise ConfigError(f"base_class = {cfg.base_class}, target = {cfg.target}: must be below {len(data.classes)}")
    found = int((data.train.labels == cfg.base_class).sum())
    if found < 2 * cfg.count:
        raise ConfigError(
            f"count = {cfg.count}: needs {2 * cfg.count} training images of class {cfg.base_class}; there are {found}"
        )


def single_label_material(pixels: Tensor, target: int, params: dict[str, object]) -> RegisteredMaterial:
    """Return candidates that are all labeled with the class `target`."""
    return RegisteredMaterial("half", {"pixels": pixels, "labels": torch.full((len(pixels),), target)}, params)


def word_mask(shape: tuple[int, int, int]) -> Tensor:
    """Return the mask of the word TEST, bool [C, H, W]: one pixel from the corner, larger on larger images.

    Raises:
        ConfigError: the images are too small.
    """
    mask = torch.zeros(shape, dtype=torch.bool)
    scale = max(1, min(shape[1:]) // 28)
    letters = torch.tensor([[letter == "#" for letter in row] for row in _WORD])
    letters = letters.repeat_interleave(scale, 0).repeat_interleave(scale, 1)
    height, width = letters.shape
    if shape[1] <= height or shape[2] <= width:
        raise ConfigError(f"mark 'content': the word needs images above {height}x{width}, these are {shape[1:]}")
    mask[:, 1 : 1 + height, 1 : 1 + width] = letters
    return mask
