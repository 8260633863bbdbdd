"""Mark `blackmarks`: a message of many bits in the answers (Chen, Rouhani, Koushanfar, arXiv 1904.00344).

Classes are clustered in two by an unmarked model's mean logits: an answer reads as bit 0 or 1. Key images are targeted
adversarial examples that cross from one cluster to the other. The net is taught so that their answers read as the
message; the owner's test is the bit error.

Differences: the source draws the message and then makes each image towards its bit, on the model that is then
fine-tuned. Here the images are made on an independent reference and registered first; the message is drawn from the
key after that, as many ones as zeros: 1 where the answer is to lie in the target's cluster, 0 where in the base
class's. So both halves are taught, opposite things, and the exact test of the halves (Fisher's) is as strong as the
message is long. Cross-entropy of the bits replaces their Hamming distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wootz import checks
from wootz.attacks.evasion import PGD, pgd, predict_logits
from wootz.checks import MAX_GRAY, gray_levels
from wootz.data import Dataset
from wootz.errors import ConfigError
from wootz.keys import HalfKey, Key, RegisteredMaterial
from wootz.training import Forward, Hook, forward_with_context
from wootz.watermarks.baselines.teaching import drawn
from wootz.watermarks.context import MarkContext

_CHUNK = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Blackmarks:
    """How key images are made and taught.

    Attributes:
        length: of the message, in bits: one image each; an even number.
        steps: of targeted PGD, at L-inf `wm_eps`.
        weight: of the bits' loss.
        every: training steps between two batches of key images.
        batch: key images in such a batch.
    """

    length: int = 100
    steps: int = 40
    weight: float = 0.5
    every: int = 4
    batch: int = 32

    def __post_init__(self) -> None:
        checks.at_least(2, length=self.length)
        checks.at_least(1, steps=self.steps, every=self.every, batch=self.batch)
        checks.positive(weight=self.weight)
        if self.length % 2:
            raise ConfigError(f"blackmarks.length = {self.length}: must be even; as many bits are 1 as are 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class BitLoss:
    """Cross-entropy of the bits that a few key images' answers read as."""

    pixels: Tensor
    bits: Tensor
    code: Tensor
    cfg: Blackmarks
    seed: int

    def __call__(
        self, model: nn.Module, forward: Forward, *, batch_images: Tensor, step: int, done: float
    ) -> Tensor | None:
        """Return this step's weighted loss, or None between two batches."""
        if step % self.cfg.every:
            return None
        x, bits = drawn(model, self.pixels, self.bits, self.cfg.batch, seed=self.seed, step=step)
        return self.cfg.weight * bit_loss(
            forward_with_context(model, forward, x, batch_images), bits, self.code.to(x.device)
        )


def bit_loss(logits: Tensor, bits: Tensor, code: Tensor) -> Tensor:
    """Logits [N, K], bits [N] and each class's bit [K] -> the mean of -log P(answer's bit is the one wanted)."""
    wrong = code[None, :] != bits[:, None]
    log_p = logits.log_softmax(1)
    return -log_p.masked_fill(wrong, float("-inf")).logsumexp(1).mean()


def prepare(cfg: Blackmarks, context: MarkContext, generator: torch.Generator) -> RegisteredMaterial:
    """Cluster the classes and make the key images, both by the first panel model, from training images.

    Raises:
        ConfigError: too few images cross over within `wm_eps`.
    """
    data = context.data
    code = clusters(class_means(context.panel[0], data))
    attack = PGD(
        eps=gray_levels(context.wm_eps) / MAX_GRAY, steps=cfg.steps, random_start=False, targeted=True, stop=True
    )
    kept: list[tuple[Tensor, Tensor]] = []
    for rows in torch.randperm(len(data.train), generator=generator).split(_CHUNK):
        base = data.train.subset(rows)
        targets = _across(base.labels, code, generator)
        x = pgd(attack, context.panel[0], base.images(), targets, generator=generator)
        pixels = x.mul(MAX_GRAY).round_().to(torch.uint8)
        crossed = code[predict_logits(context.panel[0], pixels.float().div_(255)).argmax(1)] == code[targets]
        kept.append((pixels[crossed], targets[crossed]))
        if sum(len(found) for _, found in kept) >= cfg.length:
            break
    images, labels = (torch.cat(parts)[: cfg.length] for parts in zip(*kept, strict=True))
    if len(labels) < cfg.length:
        raise ConfigError(
            f"blackmarks: only {len(labels)} of {cfg.length} images cross over within wm_eps = {context.wm_eps:g}"
        )
    params = {"wm_eps": str(context.wm_eps), "length": cfg.length, "code": code.tolist()}
    return RegisteredMaterial("half", {"pixels": images, "labels": labels}, params)


def train_hook(cfg: Blackmarks, key: Key, data: Dataset, *, seed: int) -> Hook:
    """Return what teaches the message."""
    assert isinstance(key, HalfKey)
    assert key.code is not None
    code = torch.tensor(key.code)
    bits = torch.where(key.embedded, code[key.labels], 1 - code[key.labels])
    return Hook(extra=(BitLoss(pixels=key.pixels, bits=bits, code=code, cfg=cfg, seed=seed),))


def class_means(model: nn.Module, data: Dataset) -> Tensor:
    """Return the model's mean logits [K, K] on the training images of each class."""
    logits, count = predict_logits(model, data.train.images()), len(data.classes)
    total = torch.zeros(count, logits.shape[1]).index_add_(0, data.train.labels, logits)
    return total / torch.bincount(data.train.labels, minlength=count).clamp_min(1)[:, None]


def clusters(means: Tensor) -> Tensor:
    """Means [K, d] -> the cluster 0 or 1 of each, int64 [K]: 2-means, begun with the two that are furthest apart."""
    apart = torch.cdist(means, means)
    first, second = divmod(int(apart.argmax()), len(means))
    centers = means[[first, second]]
    code = torch.full((len(means),), -1)
    while True:
        nearest = torch.cdist(means, centers).argmin(1)
        if torch.equal(nearest, code):
            return code
        code = nearest
        centers = torch.stack([means[code == k].mean(0) for k in (0, 1)])


def _across(labels: Tensor, code: Tensor, generator: torch.Generator) -> Tensor:
    """Draw for each label a class of the other cluster."""
    chance = (code[None, :] != code[labels][:, None]).float()
    return torch.multinomial(chance, 1, generator=generator).squeeze(1)
