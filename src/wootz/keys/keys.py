"""Keys: the secret part of a mark, derived from a secret after everything public about the mark is registered.

There are five kinds of material, each with its own exact test in `wootz.statistics`:

- `labels`: images and a keyed label for each (mark `triggers`), in tranches with one secret each
- `direction`: a keyed isotropic direction in the space of wrong-class statistics (mark `runner-up`)
- `half`: candidate triggers, of which a keyed half is embedded (most baselines)
- `answers`: which answers of a served model are keyed, and how (marks `guard` and `dawn`); together with the log of the
  service it becomes a `PreferenceKey` or a `LabelKey`, see `wootz.keys.answer_log`
- `weights`: keyed bits along keyed directions of the weights of one convolution (baseline `uchida`)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from wootz.image_features import Projection, project, standardize
from wootz.keys.material import RegisteredMaterial, tranche_rows
from wootz.keys.prf import gaussian, half, integers, stream


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelKey:
    """Trigger images with keyed labels.

    Attributes:
        mark: name of the mark.
        rule: what the labels were drawn from: all classes (`uniform`), or all but the base class (`wrong`).
        num_classes: number of classes K.
        pixels: trigger images, uint8 [n, C, H, W].
        base_pixels: the images that the triggers were made from, uint8 [n, C, H, W].
        base: classes of the base images, int64 [n].
        labels: the keyed labels, int64 [n].
        logged: whether the images come from the log of a service; `base` is then the answer of its model, and `labels`
            the answer that was sent instead.
    """

    mark: str
    rule: Literal["wrong", "uniform"]
    num_classes: int
    pixels: Tensor = field(repr=False)
    base_pixels: Tensor = field(repr=False)
    base: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)
    logged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceKey:
    """Logged images of a service, and which of the two most likely classes the key prefers for each.

    Attributes:
        mark: name of the mark.
        num_classes: number of classes K.
        pixels: the logged images, uint8 [n, C, H, W].
        first: the most likely class by the model's scores, int64 [n].
        second: the second most likely class, int64 [n].
        preferred: where the key prefers `second`, bool [n].
    """

    mark: str
    num_classes: int
    pixels: Tensor = field(repr=False)
    first: Tensor = field(repr=False)
    second: Tensor = field(repr=False)
    preferred: Tensor = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectionKey:
    """A keyed direction W [C, C, d] and the registered tensors that define the features it weighs.

    It covers C classes: all K, or those of `classes` where K is large. Rows and columns are places among these.

    The features of an image x of class y are principal components of its pixels and, where they were registered, of
    its amplitudes (see `wootz.image_features`), M values in all, standardized within the class. `W[y, k]` weighs them
    for wrong class k; each `W[y]` is centered over k and zero at k = y, so the part of W that weighs n of the d
    features is isotropic in C * (C - 2) * n dimensions.
    """

    mark: str
    num_classes: int
    components: Tensor = field(repr=False)  # [M, d]
    center: Tensor = field(repr=False)  # [M]
    class_mean: Tensor = field(repr=False)  # [C, d]
    class_scale: Tensor = field(repr=False)  # [C, d]
    prior: Tensor = field(repr=False)  # [C, C], ordinary confusion of unmarked models, 0 on the diagonal
    probes: Tensor = field(repr=False)  # uint8 [P, C, H, W]
    probe_labels: Tensor = field(repr=False)  # [P], covered classes
    direction: Tensor = field(repr=False)  # [C, C, d]
    amplitudes: int = 0  # how many of the d features, the last ones, are of amplitudes
    classes: Tensor | None = field(default=None, repr=False)  # [C], ascending; None if all are covered

    @property
    def groups(self) -> tuple[int, ...]:
        """Numbers of features of each kind, in order: of pixels, and of amplitudes if there are any."""
        of_pixels = self.components.shape[1] - self.amplitudes
        return (of_pixels, self.amplitudes) if self.amplitudes else (of_pixels,)

    @property
    def covered(self) -> int:
        """The number C of classes that the direction covers."""
        return len(self.direction)

    def dimensions(self, features: int) -> int:
        """Return in how many dimensions the part of the direction that weighs so many features is isotropic."""
        return self.covered * (self.covered - 2) * features

    def covers(self, y: Tensor) -> Tensor:
        """Return which of the classes [N] are covered, bool [N]."""
        return torch.ones_like(y, dtype=torch.bool) if self.classes is None else torch.isin(y, self.classes)

    def places(self, y: Tensor) -> Tensor:
        """Return the places [N] of covered classes [N] among those that are covered."""
        return y if self.classes is None else torch.searchsorted(self.classes, y)

    def columns(self, scores: Tensor) -> Tensor:
        """Return the scores [N, C] of the covered classes among scores [N, K]."""
        return scores if self.classes is None else scores[:, self.classes]

    def features(self, x: Tensor, y: Tensor) -> Tensor:
        """Images float32 [N, channels, H, W] in [0, 1] and places of their classes [N] -> features [N, d]."""
        z = project(x, Projection(self.center, self.components))
        return standardize(z, y, self.class_mean, self.class_scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfKey:
    """Candidate triggers uint8 [n, C, H, W], their labels, and the keyed half that is embedded.

    With a `code`, one bit per class, an answer is correct if its bit equals the bit of the label. The half that is not
    embedded is then trained towards the other bit, so that `embedded` is a message.
    """

    mark: str
    num_classes: int
    pixels: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)
    embedded: Tensor = field(repr=False)  # bool [n], n // 2 of them
    code: tuple[int, ...] | None = None  # K bits


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerKey:
    """The secret that decides which answers of a served model are keyed, and to which class they are changed."""

    mark: str
    num_classes: int
    params: Mapping[str, Any]
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightKey:
    """A message in the filters of one convolution, averaged over the filters.

    The message is in the tensor named `weight`, of `shape` [out, in, height, width]. Its mean w over `out`, flattened,
    has M = in * height * width values; bit j of the message is read as 1 if `directions[j] . w > 0`.
    """

    mark: str
    num_classes: int
    weight: str
    shape: tuple[int, int, int, int]
    directions: Tensor = field(repr=False)  # float32 [T, M]
    message: Tensor = field(repr=False)  # int64 [T], 0 or 1

    def projected(self, tensor: Tensor) -> Tensor:
        """Weights of `shape` -> projections of the mean filter on the directions [T]; above 0 is read as 1."""
        mean = tensor.mean(0).flatten()
        return (self.directions.to(mean) * mean).sum(1)  # a matrix product would be rounded by autocast


Key: TypeAlias = LabelKey | PreferenceKey | DirectionKey | HalfKey | AnswerKey | WeightKey


def derive_key(
    mark: str, material: RegisteredMaterial, num_classes: int, secrets: Sequence[bytes], context: bytes
) -> Key:
    """Derive the key of a mark. The material must have passed `wootz.keys.material.check_material`.

    Args:
        mark: name of the mark.
        material: what was registered for the mark, with all tranches.
        num_classes: number of classes K.
        secrets: one per tranche.
        context: digest of everything that was fixed before the key, see `wootz.keys.key_context`.

    Raises:
        ValueError: the key would need more random values than can be drawn.
    """
    return _DERIVE[material.kind](mark, material, num_classes, secrets, _purpose(mark, context))


def open_tranche(
    mark: str, material: RegisteredMaterial, num_classes: int, secret: bytes, context: bytes, number: int
) -> LabelKey:
    """Derive the key of a single tranche of `labels`, from the rows and the secret of that tranche."""
    base, rule = material.tensors["base"], material.params["rule"]
    labels = _draw_labels(rule, base, num_classes, secret, _purpose(mark, context), number)
    return _label_key(mark, material, num_classes, labels)


def _purpose(mark: str, context: bytes) -> bytes:
    return b"key/" + mark.encode() + b"/" + context


def _draw_labels(rule: str, base: Tensor, num_classes: int, secret: bytes, purpose: bytes, number: int) -> Tensor:
    purpose += b"/" + str(number).encode()
    if rule == "wrong":
        return (base + 1 + integers(secret, purpose, len(base), num_classes - 1)) % num_classes
    return integers(secret, purpose, len(base), num_classes)


def _derive_labels(
    mark: str, material: RegisteredMaterial, num_classes: int, secrets: Sequence[bytes], purpose: bytes
) -> LabelKey:
    base, rule = material.tensors["base"], material.params["rule"]
    labels = [
        _draw_labels(rule, base[tranche_rows(len(base), len(secrets), t)], num_classes, secret, purpose, t)
        for t, secret in enumerate(secrets)
    ]
    return _label_key(mark, material, num_classes, torch.cat(labels))


def _label_key(mark: str, material: RegisteredMaterial, num_classes: int, labels: Tensor) -> LabelKey:
    tensors = material.tensors
    return LabelKey(
        mark=mark,
        rule=material.params["rule"],
        num_classes=num_classes,
        pixels=tensors["pixels"],
        base_pixels=tensors["base_pixels"],
        base=tensors["base"],
        labels=labels,
    )


def _derive_direction(
    mark: str, material: RegisteredMaterial, num_classes: int, secrets: Sequence[bytes], purpose: bytes
) -> DirectionKey:
    covered, features = material.tensors["class_mean"].shape
    direction = gaussian(secrets[0], purpose, (covered, covered, features)).float()
    diagonal = torch.eye(covered).unsqueeze(2)
    direction = direction * (1 - diagonal)
    direction = (direction - direction.sum(1, keepdim=True) / (covered - 1)) * (1 - diagonal)
    return DirectionKey(
        mark=mark,
        num_classes=num_classes,
        direction=direction,
        amplitudes=material.params.get("amplitudes", 0),
        **material.tensors,
    )


def _derive_half(
    mark: str, material: RegisteredMaterial, num_classes: int, secrets: Sequence[bytes], purpose: bytes
) -> HalfKey:
    embedded = half(secrets[0], purpose, len(material.tensors["labels"]))
    code = tuple(material.params["code"]) if "code" in material.params else None
    return HalfKey(mark=mark, num_classes=num_classes, embedded=embedded, code=code, **material.tensors)


def _derive_answers(
    mark: str, material: RegisteredMaterial, num_classes: int, secrets: Sequence[bytes], purpose: bytes
) -> AnswerKey:
    secret = stream(secrets[0], purpose, 32)
    return AnswerKey(mark=mark, num_classes=num_classes, params=material.params, secret=secret)


def _derive_weights(
    mark: str, material: RegisteredMaterial, num_classes: int, secrets: Sequence[bytes], purpose: bytes
) -> WeightKey:
    params, secret = material.params, secrets[0]
    outs, ins, height, width = (int(size) for size in params["shape"])
    count = int(params["bits"])
    return WeightKey(
        mark=mark,
        num_classes=num_classes,
        weight=params["weight"],
        shape=(outs, ins, height, width),
        directions=gaussian(secret, purpose + b"/directions", (count, ins * height * width)).float(),
        message=integers(secret, purpose + b"/message", count, 2),
    )


_DERIVE: Mapping[str, Callable[[str, RegisteredMaterial, int, Sequence[bytes], bytes], Key]] = MappingProxyType(
    {
        "labels": _derive_labels,
        "direction": _derive_direction,
        "half": _derive_half,
        "answers": _derive_answers,
        "weights": _derive_weights,
    }
)
