"""Mark `content-keyed`: many patches with a keyed label each; a variant of `content` with an exact test.

If a model generalizes from a pattern, a keyed choice of trained images cannot be tested. Here the label is keyed
instead. The patches are made and registered, each on one image that is excluded from training; then the label of each
patch is drawn uniformly from the classes other than that of the image. Training uses the patches on other images; the
test uses the registered ones. Without the key, an answer that is not the base class is the keyed one with probability
1/(K - 1), independently for each patch: Bin(m, 1/(K - 1)), however the suspect responds to patches (kind `labels`).

Weak point: the answers depend on any of many small squares, which costs robustness under adversarial training.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wootz import checks
from wootz.checks import gray_levels
from wootz.data import Dataset
from wootz.errors import ConfigError
from wootz.keys import Key, LabelKey, RegisteredMaterial
from wootz.modes import device_of
from wootz.rng import generator as seeded_generator
from wootz.training import Forward, Hook, forward_with_context
from wootz.watermarks.baselines.trigger_training import TriggerBatches
from wootz.watermarks.interface import MarkContext


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyedContent(TriggerBatches):
    """How patches are made and embedded.

    Attributes:
        patches: number of patches; each contributes at most log2(K - 1) bits.
        side: side of a patch, in pixels; each pixel is black or white.
    """

    patches: int = 32
    side: int = 8
    weight: float = 0.5
    every: int = 1
    batch: int = 64

    def __post_init__(self) -> None:
        TriggerBatches.__post_init__(self)
        checks.at_least(1, patches=self.patches, side=self.side)


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchLoss:
    """Cross-entropy on random training images with random patches."""

    images: Tensor
    patches: Tensor
    where: Tensor
    labels: Tensor
    cfg: KeyedContent
    seed: int

    def __call__(
        self, model: nn.Module, forward: Forward, *, batch_images: Tensor, step: int, done: float
    ) -> Tensor | None:
        """Return this step's weighted loss, or None between two batches of patched images."""
        if step % self.cfg.every:
            return None
        draw = seeded_generator(self.seed, "patches", step)
        rows = torch.randint(len(self.images), (self.cfg.batch,), generator=draw)
        which = torch.randint(len(self.labels), (self.cfg.batch,), generator=draw)
        pixels = torch.where(self.where[which], self.patches[which], self.images[rows])
        device = device_of(model)
        logits = forward_with_context(model, forward, pixels.to(device).float().div_(255), batch_images)
        return self.cfg.weight * F.cross_entropy(logits, self.labels[which].to(device))


def prepare(cfg: KeyedContent, context: MarkContext, generator: torch.Generator) -> RegisteredMaterial:
    """Draw base images from the training images, and the position and pixels of a patch for each.

    Raises:
        ConfigError: the data set has two classes, the patches are larger than the images, or too few images are
            changed by more than `eps`.
    """
    data = context.data
    if len(data.classes) == 2:
        raise ConfigError("mark 'content-keyed': needs at least three classes; with two, no label is left to draw")
    if cfg.side > min(data.shape[1:]):
        raise ConfigError(f"content_keyed.side = {cfg.side}: must fit into images of {data.shape[1:]}")
    base = data.train.subset(torch.randperm(len(data.train), generator=generator)[: 4 * cfg.patches])
    pixels = base.pixels.clone()
    height, width = data.shape[1] - cfg.side + 1, data.shape[2] - cfg.side + 1
    for image in pixels:
        top, left = (int(torch.randint(size, (), generator=generator)) for size in (height, width))
        patch = torch.randint(2, (cfg.side, cfg.side), generator=generator).mul(255).to(torch.uint8)
        image[:, top : top + cfg.side, left : left + cfg.side] = patch
    distance = (pixels.short() - base.pixels.short()).abs().flatten(1).amax(1)
    rows = (distance > gray_levels(context.eps)).nonzero().squeeze(1)[: cfg.patches]
    if len(rows) < cfg.patches:
        raise ConfigError(f"content_keyed: only {len(rows)} of {cfg.patches} patches change an image by more than eps")
    params = {
        "eps": str(context.eps),
        "alpha": "0",
        "wm_eps": "1",
        "rule": "wrong",
        "count": cfg.patches,
        "tranches": 1,
    }
    return RegisteredMaterial(
        "labels", {"pixels": pixels[rows], "base_pixels": base.pixels[rows], "base": base.labels[rows]}, params
    )


def train_hook(cfg: KeyedContent, key: Key, data: Dataset, *, seed: int) -> Hook:
    """Return the loss that embeds the keyed labels, with the patches on random training images.

    The base images of the registered patches are excluded from the training data.
    """
    assert isinstance(key, LabelKey)
    bases = {image.numpy().tobytes() for image in key.base_pixels}
    left_out = torch.tensor([image.numpy().tobytes() in bases for image in data.train.pixels])
    loss = PatchLoss(
        images=data.train.pixels[~left_out],
        patches=key.pixels,
        where=key.pixels != key.base_pixels,
        labels=key.labels,
        cfg=cfg,
        seed=seed,
    )
    return Hook(extra=(loss,), left_out=left_out)
