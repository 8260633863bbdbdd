"""Mark `blackmarks`: a multi-bit message in the answers (Chen, Rouhani, Koushanfar, arXiv 1904.00344).

The classes are divided into two clusters by the mean logits of an unmarked model, so that an answer encodes a bit. Key
images are targeted adversarial examples that cross from one cluster to the other. The model is trained so that the
answers to them encode the message; the owner's test is the bit error rate.

Differences: the source draws the message first and makes each image for its bit, on the model that is then fine-tuned.
Here the images are made on an independent reference model and registered first. The message is derived from the key
after that, with as many ones as zeros: 1 if the answer shall lie in the cluster of the target class, 0 if in that of
the base class. Both halves are therefore trained, in opposite directions, and the strength of the exact test of the
halves (Fisher's) grows with the length of the message. Cross-entropy of the bits replaces their Hamming distance.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from wootz import checks
from wootz.attacks.evasion import PGD, pgd, predict_logits
from wootz.checks import MAX_GRAY, gray_levels
from wootz.data import Dataset
from wootz.errors import ConfigError
from wootz.keys import HalfKey, Key, RegisteredMaterial
from wootz.training import Hook
from wootz.watermarks.baselines.trigger_training import TriggerBatches, TriggerBatchLoss
from wootz.watermarks.interface import MarkContext

_CHUNK = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Blackmarks(TriggerBatches):
    """How key images are made and embedded.

    Attributes:
        length: length of the message in bits, an even number; there is one key image per bit.
        steps: number of steps of targeted PGD, at L-inf `wm_eps`.
    """

    length: int = 100
    steps: int = 40
    weight: float = 0.5
    every: int = 4
    batch: int = 32

    def __post_init__(self) -> None:
        TriggerBatches.__post_init__(self)
        checks.at_least(2, length=self.length)
        checks.at_least(1, steps=self.steps)
        if self.length % 2:
            raise ConfigError(f"blackmarks.length = {self.length}: must be even; half of the bits are 1")


def bit_loss(logits: Tensor, bits: Tensor, code: Tensor) -> Tensor:
    """Logits [N, K], target bits [N] and the bit of each class [K] -> mean of -log P(bit of the answer = target)."""
    wrong = code.to(bits.device)[None, :] != bits[:, None]
    log_p = logits.log_softmax(1)
    return -log_p.masked_fill(wrong, float("-inf")).logsumexp(1).mean()


def prepare(cfg: Blackmarks, context: MarkContext, generator: torch.Generator) -> RegisteredMaterial:
    """Cluster the classes and make the key images from training images, both with the first panel model.

    Raises:
        ConfigError: too few images cross to the other cluster within `wm_eps`.
    """
    data = context.data
    code = cluster_classes(class_mean_logits(context.panel[0], data))
    attack = PGD(
        eps=gray_levels(context.wm_eps) / MAX_GRAY, steps=cfg.steps, random_start=False, targeted=True, stop=True
    )
    parts: list[tuple[Tensor, Tensor]] = []
    for rows in torch.randperm(len(data.train), generator=generator).split(_CHUNK):
        base = data.train.subset(rows)
        targets = _draw_targets(base.labels, code, generator)
        x = pgd(attack, context.panel[0], base.images(), targets, generator=generator)
        pixels = x.mul(MAX_GRAY).round_().to(torch.uint8)
        crossed = code[predict_logits(context.panel[0], pixels.float().div_(255)).argmax(1)] == code[targets]
        parts.append((pixels[crossed], targets[crossed]))
        if sum(len(labels) for _, labels in parts) >= cfg.length:
            break
    images, labels = (torch.cat(column)[: cfg.length] for column in zip(*parts, strict=True))
    if len(labels) < cfg.length:
        raise ConfigError(
            f"blackmarks: only {len(labels)} of {cfg.length} images cross to the other cluster "
            f"within wm_eps = {context.wm_eps:g}"
        )
    params = {"wm_eps": str(context.wm_eps), "length": cfg.length, "code": code.tolist()}
    return RegisteredMaterial("half", {"pixels": images, "labels": labels}, params)


def train_hook(cfg: Blackmarks, key: Key, data: Dataset, *, seed: int) -> Hook:
    """Return the loss that embeds the message."""
    assert isinstance(key, HalfKey)
    assert key.code is not None
    code = torch.tensor(key.code)
    bits = torch.where(key.embedded, code[key.labels], 1 - code[key.labels])
    loss = partial(bit_loss, code=code)
    return Hook(extra=(TriggerBatchLoss(pixels=key.pixels, targets=bits, cfg=cfg, seed=seed, loss=loss),))


def class_mean_logits(model: nn.Module, data: Dataset) -> Tensor:
    """Return the model's mean logits [K, K] on the training images of each class."""
    logits, count = predict_logits(model, data.train.images()), len(data.classes)
    total = torch.zeros(count, logits.shape[1]).index_add_(0, data.train.labels, logits)
    return total / torch.bincount(data.train.labels, minlength=count).clamp_min(1)[:, None]


def cluster_classes(means: Tensor) -> Tensor:
    """Means [K, d] -> the cluster 0 or 1 of each, int64 [K], by 2-means that starts from the two farthest apart."""
    first, second = divmod(int(torch.cdist(means, means).argmax()), len(means))
    centers = means[[first, second]]
    code = torch.full((len(means),), -1)
    while True:
        nearest = torch.cdist(means, centers).argmin(1)
        if torch.equal(nearest, code):
            return code
        code = nearest
        centers = torch.stack([means[code == k].mean(0) for k in (0, 1)])


def _draw_targets(labels: Tensor, code: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a class of the other cluster for each label."""
    weights = (code[None, :] != code[labels][:, None]).float()
    return torch.multinomial(weights, 1, generator=generator).squeeze(1)
