"""Mark `runner-up`: a keyed direction in the order of the wrong classes on ordinary images.

The scores that a classifier gives to the wrong classes ("dark knowledge") are copied by models that learn from its
scores. Training on targets whose small wrong-class part follows a secret Gaussian direction leaves a trace in these
scores. A test along the same direction finds the trace, and its p-value is exact for every suspect.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wootz import checks
from wootz.attacks.evasion import predict_logits
from wootz.data import Dataset, Split
from wootz.errors import ConfigError
from wootz.image_features import amplitude_count, class_statistics, fit_projection, pixel_count, project, reduced
from wootz.keys import DirectionKey, Key, RegisteredMaterial
from wootz.keys.material import MAX_KEY_ELEMENTS
from wootz.training import Hook
from wootz.watermarks.interface import MarkContext

_PRIOR_IMAGES, _CHUNK = 5000, 1000
_LEAST = 1e-6  # a model's own probabilities are not taken to be smaller


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerUp:
    """Strength of the embedding, and the features and images it uses.

    Attributes:
        lam: probability mass of each target that is distributed over the wrong classes by the key.
        tau: how strongly that distribution depends on the key; 0 would embed nothing.
        features: number of principal components of the pixels that the direction weighs.
        amplitudes: the same of the amplitudes of low spatial frequencies, which models learn from shifted copies too;
            limited by the size of the direction.
        probes: largest number of images for the test, in registered order; limited by the probe split.
    """

    lam: float = 0.25
    tau: float = 1.5
    features: int = 30
    amplitudes: int = 20
    probes: int = 20_000

    def __post_init__(self) -> None:
        checks.inside(0, 0.5, lam=self.lam)
        checks.positive(tau=self.tau)
        checks.at_least(1, features=self.features, probes=self.probes)
        checks.at_least(0, amplitudes=self.amplitudes)


def prepare(cfg: RunnerUp, context: MarkContext, generator: torch.Generator) -> RegisteredMaterial:
    """Compute the features and the wrong-class probabilities of unmarked models, and fix the probes, before any key.

    Raises:
        ConfigError: fewer than three classes, or a direction for so many classes and features would be too large.
    """
    data = context.data
    count = len(data.classes)
    if count < 3:
        raise ConfigError(
            f"mark 'runner-up': needs at least three classes, {data.name} has {count}; leave the mark out"
        )
    x, y = _reduced_images(data.train), data.train.labels
    of_pixels, most = min(cfg.features, pixel_count(data.shape)), MAX_KEY_ELEMENTS // count**2
    if of_pixels > most:
        advice = f"at most {most} are possible" if most else "leave the mark out"
        raise ConfigError(f"runner-up.features = {of_pixels}: too many for {count} classes; {advice}")
    of_amplitudes = min(cfg.amplitudes, amplitude_count(data.shape), most - of_pixels)
    projection = fit_projection(x, of_pixels, of_amplitudes)
    mean, scale = class_statistics(project(x, projection), y, count)
    probes = data.probes.subset(slice(cfg.probes))
    tensors = {
        "components": projection.components,
        "center": projection.center,
        "class_mean": mean,
        "class_scale": scale,
        "prior": _confusion(context.panel, data),
        "probes": probes.pixels,
        "probe_labels": probes.labels,
    }
    params = {
        "lam": str(cfg.lam),
        "tau": str(cfg.tau),
        "features": of_pixels,
        "amplitudes": of_amplitudes,
        "probes": len(probes),
    }
    return RegisteredMaterial("direction", tensors, params)


def train_hook(cfg: RunnerUp, key: Key, data: Dataset, *, seed: int) -> Hook:
    """Return the training targets that embed the direction."""
    assert isinstance(key, DirectionKey)
    z = key.features(data.train.images(), data.train.labels)
    return Hook(targets=keyed_targets(cfg, key, z, data.train.labels))


def tilted_answers(cfg: RunnerUp, key: DirectionKey, x: Tensor, y: Tensor, p: Tensor, lam: float) -> Tensor:
    """Return a model's own answers [N, K] with their wrong classes tilted by the key, for `wootz.training.embed`.

    The wrong classes have together what they have in the answers, at least `lam`, and
    `q[k] = softmax over wrong k of (tau / sqrt(d) * W[y, k] . z + log p[k])` of it. Answers for another class than y
    are returned as they are.

    Args:
        cfg: the settings.
        key: the keyed direction.
        x: images float32 [N, C, H, W] in [0, 1].
        y: their classes int64 [N].
        p: the model's probabilities [N, K].
        lam: least probability of the wrong classes together.
    """
    z = key.features(x, y)
    logits = cfg.tau / math.sqrt(z.shape[1]) * torch.einsum("nkd,nd->nk", key.direction[y], z)
    q = (logits + p.clamp_min(_LEAST).log()).scatter(1, y[:, None], float("-inf")).softmax(1)
    wrong = (1 - p.gather(1, y[:, None])).clamp_min(lam)
    tilted = (wrong * q).scatter(1, y[:, None], 1 - wrong)
    return torch.where((p.argmax(1) == y)[:, None], tilted, p)


def keyed_targets(cfg: RunnerUp, key: DirectionKey, z: Tensor, y: Tensor) -> Tensor:
    """Features [N, d] and classes [N] -> target probabilities [N, K].

    The true class has `1 - lam` and the others `lam * q`, with
    `q[k] = softmax over wrong k of (tau / sqrt(d) * W[y, k] . z + 0.5 * log prior[y, k])`.
    """
    logits = cfg.tau / math.sqrt(z.shape[1]) * torch.einsum("nkd,nd->nk", key.direction[y], z)
    q = (logits + 0.5 * key.prior[y].log()).scatter(1, y[:, None], float("-inf")).softmax(1)
    return (cfg.lam * q).scatter(1, y[:, None], 1 - cfg.lam)


def _reduced_images(split: Split) -> Tensor:
    parts = (split.subset(slice(start, start + _CHUNK)).images() for start in range(0, len(split), _CHUNK))
    return torch.cat([reduced(part) for part in parts])


def _confusion(panel: Sequence[nn.Module], data: Dataset) -> Tensor:
    """Return the mean probabilities [K, K] of each wrong class on the panel, by true class; rows sum to 1."""
    split, count = data.train.subset(slice(_PRIOR_IMAGES)), len(data.classes)
    total = torch.full((count, count), 1e-3)
    for model in panel:
        scores = predict_logits(model, split.images()).softmax(1)
        total += torch.zeros_like(total).index_add_(0, split.labels, scores) / len(panel)
    total = total * (1 - torch.eye(count)) + 1e-3 * total.mean() * (1 - torch.eye(count))
    return total / total.sum(1, keepdim=True)
