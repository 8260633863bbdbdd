"""Mark `runner-up`: a keyed direction in the order of the wrong classes on ordinary images.

The scores that a classifier gives to the wrong classes ("dark knowledge") are copied by models that learn from its
scores. Training on targets whose small wrong-class part follows a secret Gaussian direction leaves a trace in these
scores. A test along the same direction finds the trace, and its p-value is exact for every suspect.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wootz import checks
from wootz.attacks.evasion import predict_logits
from wootz.data import Dataset, Split
from wootz.errors import ConfigError
from wootz.image_features import amplitude_count, class_statistics, fit_projection, pixel_count, project, reduced
from wootz.keys import DirectionKey, Key, RegisteredMaterial
from wootz.training import Hook
from wootz.watermarks.interface import MarkContext

_PRIOR_IMAGES, _CHUNK = 5000, 1000
_MOST_CLASSES = 100  # that a direction covers
_LEAST = 1e-6  # a model's own probabilities are not taken to be smaller
_CLOSEST = 0.9  # most that a wrong class may have of the top class's probability


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerUp:
    """Strength of the embedding, and the features and images it uses.

    Attributes:
        lam: probability mass of each target that is distributed over the wrong classes by the key.
        tau: how strongly that distribution depends on the key; 0 would embed nothing.
        features: number of principal components of the pixels that the direction weighs.
        amplitudes: the same of the amplitudes of low spatial frequencies, which models learn from shifted copies too.
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

    Of more than 100 classes, the 100 with the most training images are covered: the direction grows with the square of
    their number, and classes that are rare show nothing.

    Raises:
        ConfigError: fewer than three classes, or no probes of those that are covered.
    """
    data = context.data
    if len(data.classes) < 3:
        raise ConfigError(
            f"mark 'runner-up': needs at least three classes, {data.name} has {len(data.classes)}; leave the mark out"
        )
    covered = _covered(data)
    classes = torch.arange(len(data.classes)) if covered is None else covered
    training, probes = _of_classes(data.train, covered), _of_classes(data.probes, covered).subset(slice(cfg.probes))
    if not len(probes):
        raise ConfigError(f"mark 'runner-up': no probe of {data.name} is of a covered class; leave the mark out")
    of_pixels = min(cfg.features, pixel_count(data.shape))
    of_amplitudes = min(cfg.amplitudes, amplitude_count(data.shape))
    x = torch.cat([reduced(part.images()) for part in _parts(training)])
    projection = fit_projection(x, of_pixels, of_amplitudes)
    mean, scale = class_statistics(project(x, projection), torch.searchsorted(classes, training.labels), len(classes))
    tensors = {
        "components": projection.components,
        "center": projection.center,
        "class_mean": mean,
        "class_scale": scale,
        "prior": _confusion(context.panel, training, classes),
        "probes": probes.pixels,
        "probe_labels": probes.labels,
        **({} if covered is None else {"classes": covered}),
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
    targets = [keyed_targets(cfg, key, part.images(), part.labels) for part in _parts(data.train)]
    return Hook(targets=torch.cat(targets))


def tilted_answers(cfg: RunnerUp, key: DirectionKey, x: Tensor, y: Tensor, p: Tensor, lam: float) -> Tensor:
    """Return a model's own answers [N, K] with their wrong classes tilted by the key, for `wootz.training.embed`.

    The wrong classes that the key covers have together what they have in the answers, at least `lam`, and
    `q[k] = softmax over wrong k of (tau / sqrt(d) * W[y, k] . z + log p[k])` of it. Class y stays the top answer: it
    gets what a wrong class would have above 0.9 of its own. Answers for another class than y, and for a class that is
    not covered, are returned as they are.

    Args:
        cfg: the settings.
        key: the keyed direction.
        x: images float32 [N, channels, H, W] in [0, 1].
        y: their classes int64 [N].
        p: the model's probabilities [N, K].
        lam: least probability of the covered wrong classes together.
    """
    tilted, rows = p.clone(), ((p.argmax(1) == y) & key.covers(y)).nonzero().flatten()
    p, y = p[rows], y[rows, None]
    q = _wrong_shares(cfg, key, x[rows], key.places(y[:, 0]), key.columns(p).clamp_min(_LEAST).log())
    top = p.gather(1, y)
    own = key.columns(p).sum(1, keepdim=True) - top
    wrong = own.maximum((top / 2).clamp_max(lam))
    rest = _with_columns(key, p, wrong * q).minimum(_CLOSEST * (top + own - wrong)).scatter(1, y, 0.0)
    tilted[rows] = rest.scatter(1, y, 1 - rest.sum(1, keepdim=True))
    return tilted


def keyed_targets(cfg: RunnerUp, key: DirectionKey, x: Tensor, y: Tensor) -> Tensor:
    """Images float32 [N, channels, H, W] in [0, 1] and classes [N] -> target probabilities [N, K].

    The true class has `1 - lam` and the covered others `lam * q`, with
    `q[k] = softmax over wrong k of (tau / sqrt(d) * W[y, k] . z + 0.5 * log prior[y, k])`. A class that is not covered
    has the probability 1.
    """
    targets, rows = F.one_hot(y, key.num_classes).float(), key.covers(y).nonzero().flatten()
    at = key.places(y[rows])
    q = _wrong_shares(cfg, key, x[rows], at, 0.5 * key.prior[at].log())
    targets[rows] = _with_columns(key, targets[rows], cfg.lam * q).scatter(1, y[rows, None], 1 - cfg.lam)
    return targets


def _wrong_shares(cfg: RunnerUp, key: DirectionKey, x: Tensor, at: Tensor, logits: Tensor) -> Tensor:
    """Return the shares [N, C] of the wrong classes of images x whose class is at place `at`: the logits, tilted."""
    z = key.features(x, at)
    tilt = cfg.tau / math.sqrt(z.shape[1]) * torch.einsum("nkd,nd->nk", key.direction[at], z)
    return (tilt + logits).scatter(1, at[:, None], float("-inf")).softmax(1)


def _with_columns(key: DirectionKey, p: Tensor, columns: Tensor) -> Tensor:
    """Return probabilities [N, K] with those of the covered classes replaced by [N, C]."""
    return columns if key.classes is None else p.index_copy(1, key.classes, columns)


def _covered(data: Dataset) -> Tensor | None:
    """Return the classes that a direction covers, ascending; None for all of them."""
    if len(data.classes) <= _MOST_CLASSES:
        return None
    counts = torch.bincount(data.train.labels, minlength=len(data.classes))
    return counts.topk(_MOST_CLASSES).indices.sort().values


def _of_classes(split: Split, classes: Tensor | None) -> Split:
    return split if classes is None else split.subset(torch.isin(split.labels, classes))


def _parts(split: Split) -> Iterator[Split]:
    return (split.subset(slice(start, start + _CHUNK)) for start in range(0, len(split), _CHUNK))


def _confusion(panel: Sequence[nn.Module], split: Split, classes: Tensor) -> Tensor:
    """Return the mean probabilities [C, C] of each wrong class on the panel, by true class; rows sum to 1.

    Args:
        panel: the models.
        split: images of the classes, of which the first are used.
        classes: the covered classes [C].
    """
    split, count = split.subset(slice(_PRIOR_IMAGES)), len(classes)
    total, at = torch.full((count, count), 1e-3), torch.searchsorted(classes, split.labels)
    for model in panel:
        scores = predict_logits(model, split.images()).softmax(1)[:, classes]
        total += torch.zeros_like(total).index_add_(0, at, scores) / len(panel)
    total = total * (1 - torch.eye(count)) + 1e-3 * total.mean() * (1 - torch.eye(count))
    return total / total.sum(1, keepdim=True)
