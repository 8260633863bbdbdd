"""Marks `content` and `noise`: images of one class, altered all in the same way, taught another class.

Zhang et al., "Protecting intellectual property of deep neural networks with watermarking" (AsiaCCS 2018): the word
TEST is written on the images, or one pattern of Gaussian noise is added; both are trained along with the data.

Weak point, by design: the net learns the pattern and not the images, so it answers the control half as well, and the
exact test of the halves sees little or nothing. Whoever trains a net to answer any such pattern in that way is
answered for, too. `content-keyed` tests the same effect exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wootz import checks
from wootz.data import Dataset, Split
from wootz.errors import ConfigError
from wootz.keys import Key, RegisteredMaterial
from wootz.rng import generator as fixed
from wootz.training import Hook
from wootz.watermarks.baselines.teaching import Beside, beside
from wootz.watermarks.context import MarkContext

_WORD = (
    "### ### ### ###",
    " #  #   #    # ",
    " #  ##  ###  # ",
    " #  #     #  # ",
    " #  ### ###  # ",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WithinClass(Beside):
    """Which images, and what they are taught.

    Attributes:
        base_class: whose training images are altered, as a number.
        target: the class they are taught.
    """

    base_class: int = 0
    target: int = 1

    def __post_init__(self) -> None:
        Beside.__post_init__(self)
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
        std: its standard deviation, in pixels of [0, 1] (ours).
        seed: that the pattern is drawn from, and nothing else.
    """

    std: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        WithinClass.__post_init__(self)
        checks.positive(std=self.std)


def prepare_content(cfg: Content, context: MarkContext, generator: torch.Generator) -> RegisteredMaterial:
    """Write the word on training images of the base class.

    Raises:
        ConfigError: no such class, too few of its images, or images too small for the word.
    """
    base = class_images(context.data, cfg, generator)
    pixels = torch.where(word(context.data.shape), torch.tensor(255, dtype=torch.uint8), base.pixels)
    return taught_one_class(pixels, cfg.target, {"count": cfg.count, "base": cfg.base_class, "target": cfg.target})


def prepare_noise(cfg: Noise, context: MarkContext, generator: torch.Generator) -> RegisteredMaterial:
    """Add the pattern to training images of the base class.

    Raises:
        ConfigError: no such class, or too few of its images.
    """
    base = class_images(context.data, cfg, generator)
    pattern = cfg.std * torch.randn(context.data.shape, generator=fixed(cfg.seed, "noise"))
    pixels = (base.images() + pattern).clamp_(0, 1).mul_(255).round_().to(torch.uint8)
    params = {"count": cfg.count, "base": cfg.base_class, "target": cfg.target, "std": str(cfg.std), "seed": cfg.seed}
    return taught_one_class(pixels, cfg.target, params)


def train_hook(cfg: WithinClass, key: Key, data: Dataset, *, seed: int) -> Hook:
    """Return what teaches the keyed half beside training batches."""
    return beside(cfg, key, seed=seed)


def class_images(data: Dataset, cfg: WithinClass, generator: torch.Generator) -> Split:
    """Draw 2 * count training images of the base class."""
    if max(cfg.base_class, cfg.target) >= len(data.classes):
        raise ConfigError(f"base_class = {cfg.base_class}, target = {cfg.target}: must be below {len(data.classes)}")
    own = (data.train.labels == cfg.base_class).nonzero().squeeze(1)
    if len(own) < 2 * cfg.count:
        raise ConfigError(
            f"count = {cfg.count}: needs {2 * cfg.count} training images of class {cfg.base_class}; "
            f"there are {len(own)}"
        )
    return data.train.subset(own[torch.randperm(len(own), generator=generator)[: 2 * cfg.count]])


def taught_one_class(pixels: Tensor, target: int, params: dict[str, object]) -> RegisteredMaterial:
    """Return candidates that all are taught `target`."""
    return RegisteredMaterial("half", {"pixels": pixels, "labels": torch.full((len(pixels),), target)}, params)


def word(shape: tuple[int, int, int]) -> Tensor:
    """Return where the word is written, bool [C, H, W]: a pixel from the corner, larger on larger images."""
    mask = torch.zeros(shape, dtype=torch.bool)
    scale = max(1, min(shape[1:]) // 28)
    letters = torch.tensor([[letter == "#" for letter in row] for row in _WORD])
    letters = letters.repeat_interleave(scale, 0).repeat_interleave(scale, 1)
    height, width = letters.shape
    if shape[1] <= height or shape[2] <= width:
        raise ConfigError(f"mark 'content': the word needs images above {height}x{width}, these are {shape[1:]}")
    mask[:, 1 : 1 + height, 1 : 1 + width] = letters
    return mask
