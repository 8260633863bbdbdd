"""Keys: what a mark hides, derived from a secret after everything public about the mark is registered.

Five kinds of material, each with its own exact test in `wootz.statistics`:

- `labels`: images and, for each, a keyed label (mark `triggers`); in tranches, each with a secret of its own
- `direction`: a keyed isotropic direction in the space of wrong-class statistics (mark `runner-up`)
- `half`: candidate triggers, a keyed half of which is embedded (most baselines)
- `answers`: which answers of a served model are changed, and to what (marks `guard` and `dawn`); with the service's log
  it becomes an `PreferenceKey` or a `LabelKey`
- `weights`: keyed bits along keyed directions of one convolution's weights (the baseline `uchida`)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from wootz.keys.prf import gaussian, half, integers, stream

MOST_ELEMENTS = 1 << 28
"""A direction has at most so many elements."""


class RegisteredMaterial(NamedTuple):
    """What is fixed before the key: its kind, tensors kept with the key, and facts anyone may read.

    `params["tranches"]` says into how many equal parts, in order, the rows of `labels` are cut.
    """

    kind: Literal["labels", "direction", "half", "answers", "weights"]
    tensors: dict[str, Tensor]
    params: dict[str, Any]

    @property
    def tranches(self) -> int:
        """How many secrets its key is drawn from."""
        return int(self.params.get("tranches", 1))

    def tranche(self, number: int) -> RegisteredMaterial:
        """Return the rows of one tranche, as a material of one tranche."""
        if self.tranches == 1:
            return self
        rows = tranche_rows(len(next(iter(self.tensors.values()))), self.tranches, number)
        return RegisteredMaterial(
            self.kind, {name: t[rows] for name, t in self.tensors.items()}, self.params | {"tranches": 1}
        )


def tranche_rows(count: int, tranches: int, number: int) -> slice:
    """Return which of `count` rows tranche `number` holds."""
    size = count // tranches
    return slice(number * size, (number + 1) * size)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelKey:
    """Trigger images uint8 [n, C, H, W], the images they were made from with their classes, and the keyed labels.

    `rule` says what the labels were drawn from: all classes (`uniform`), or all but the base class (`wrong`). `logged`
    images are those of a service's log: `base` is what its model says of them, `labels` what was shown instead.
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
    """Images uint8 [n, C, H, W] of a guarded service's log, and the two classes that its model found likeliest [n].

    `first` is the model's answer. `preferred` says where the key shows `second` instead.
    """

    mark: str
    num_classes: int
    pixels: Tensor = field(repr=False)
    first: Tensor = field(repr=False)
    second: Tensor = field(repr=False)
    preferred: Tensor = field(repr=False)  # bool [n]


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectionKey:
    """A keyed direction W [K, K, d] and what is needed to measure along it.

    Features of an image x of class y: the projections of x on d components, centered and scaled within the
    class, clipped to +-3. `W[y, k]` weighs them for wrong class k; each `W[y]` is centered over k and zero
    at k = y, so W is isotropic in K * (K - 2) * d dimensions.
    """

    mark: str
    num_classes: int
    components: Tensor = field(repr=False)  # [pixels, d]
    center: Tensor = field(repr=False)  # [pixels]
    class_mean: Tensor = field(repr=False)  # [K, d]
    class_scale: Tensor = field(repr=False)  # [K, d]
    prior: Tensor = field(repr=False)  # [K, K], ordinary confusion of unmarked models, 0 on the diagonal
    probes: Tensor = field(repr=False)  # uint8 [P, C, H, W]
    probe_labels: Tensor = field(repr=False)  # [P]
    direction: Tensor = field(repr=False)  # [K, K, d]

    @property
    def dimensions(self) -> int:
        """In how many dimensions the direction is isotropic."""
        return self.num_classes * (self.num_classes - 2) * self.components.shape[1]

    def features(self, x: Tensor, y: Tensor) -> Tensor:
        """Images float32 [N, C, H, W] in [0, 1] and classes [N] -> features [N, d]."""
        z = (x.flatten(1) - self.center) @ self.components
        return ((z - self.class_mean[y]) / self.class_scale[y]).clamp(-3, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfKey:
    """Candidate triggers uint8 [n, C, H, W], the labels they teach, and the keyed half that is embedded.

    With a `code`, a bit for each class, an answer is right where its bit is the label's; the half that is not embedded
    is then taught the other bit, so `embedded` is a message.
    """

    mark: str
    num_classes: int
    pixels: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)
    embedded: Tensor = field(repr=False)  # bool [n], n // 2 of them
    code: tuple[int, ...] | None = None  # K bits


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerKey:
    """The secret that decides which answers of a served model are changed, and to which class."""

    mark: str
    num_classes: int
    params: Mapping[str, Any]
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightKey:
    """A message and where it lies: along directions of one convolution's filters, averaged over the filters.

    The tensor `weight` of `shape` [out, in, height, width] holds it; its mean w over `out`, flattened, has
    M = in * height * width values. Bit j of the message reads 1 where `directions[j] . w > 0`.
    """

    mark: str
    num_classes: int
    weight: str
    shape: tuple[int, int, int, int]
    directions: Tensor = field(repr=False)  # float32 [T, M]
    message: Tensor = field(repr=False)  # int64 [T], 0 or 1

    def projected(self, tensor: Tensor) -> Tensor:
        """The tensor of `shape` -> its mean filter along each direction [T]: above 0 is read as 1."""
        mean = tensor.mean(0).flatten()
        return (self.directions.to(mean) * mean).sum(1)  # not a matrix product: autocast would round it


Key: TypeAlias = LabelKey | PreferenceKey | DirectionKey | HalfKey | AnswerKey | WeightKey


def derive(mark: str, material: RegisteredMaterial, num_classes: int, secrets: Sequence[bytes], after: bytes) -> Key:
    """Draw the key of `mark`.

    Args:
        mark: its name.
        material: what was registered for it, whole.
        num_classes: K.
        secrets: one a tranche.
        after: digest of all that was fixed before the key, see `registration.fixed_before`.

    Raises:
        ValueError: no key of this kind has so few classes, or one of this size is too large to be drawn.
    """
    return _KINDS[material.kind](mark, material, num_classes, secrets, b"key/" + mark.encode() + b"/" + after)


def open_tranche(
    mark: str, material: RegisteredMaterial, num_classes: int, secret: bytes, after: bytes, number: int
) -> LabelKey:
    """Draw the key of one tranche of `labels` alone, from its own rows and secret."""
    purpose = b"key/" + mark.encode() + b"/" + after
    rule = material.params["rule"]
    labels = _draw_labels(rule, material.tensors["base"], num_classes, secret, purpose, number)
    return _label_key(mark, material, num_classes, labels)


def _draw_labels(rule: str, base: Tensor, num_classes: int, secret: bytes, purpose: bytes, number: int) -> Tensor:
    purpose += b"/" + str(number).encode()
    if rule not in ("wrong", "uniform"):
        raise ValueError(f"rule = {rule!r}: labels are drawn by the rule 'wrong' or 'uniform'")
    if rule == "wrong" and num_classes < 3:
        raise ValueError(f"{num_classes} classes: the rule 'wrong' needs at least 3; 2 leave no choice of label")
    if rule == "wrong":
        return (base + 1 + integers(secret, purpose, len(base), num_classes - 1)) % num_classes
    return integers(secret, purpose, len(base), num_classes)


def _labels(
    mark: str, material: RegisteredMaterial, num_classes: int, secrets: Sequence[bytes], purpose: bytes
) -> LabelKey:
    base, rule = material.tensors["base"], material.params["rule"]
    drawn = [
        _draw_labels(rule, base[tranche_rows(len(base), len(secrets), t)], num_classes, secret, purpose, t)
        for t, secret in enumerate(secrets)
    ]
    return _label_key(mark, material, num_classes, torch.cat(drawn))


def _label_key(mark: str, material: RegisteredMaterial, num_classes: int, labels: Tensor) -> LabelKey:
    held = material.tensors
    return LabelKey(
        mark=mark,
        rule=material.params["rule"],
        num_classes=num_classes,
        pixels=held["pixels"],
        base_pixels=held["base_pixels"],
        base=held["base"],
        labels=labels,
    )


def _direction(
    mark: str, material: RegisteredMaterial, num_classes: int, secrets: Sequence[bytes], purpose: bytes
) -> DirectionKey:
    dims = material.tensors["components"].shape[1]
    if num_classes < 3 or dims < 1:
        raise ValueError(f"{num_classes} classes, {dims} features: a direction needs at least 3 classes and 1 feature")
    if num_classes**2 * dims > MOST_ELEMENTS:
        raise ValueError(
            f"{num_classes} classes, {dims} features: a direction of {num_classes**2 * dims} elements; "
            f"at most {MOST_ELEMENTS} are drawn"
        )
    direction = gaussian(secrets[0], purpose, (num_classes, num_classes, dims)).float()
    own = torch.eye(num_classes).unsqueeze(2)
    direction = direction * (1 - own)
    direction = (direction - direction.sum(1, keepdim=True) / (num_classes - 1)) * (1 - own)
    return DirectionKey(mark=mark, num_classes=num_classes, direction=direction, **material.tensors)


def _half(
    mark: str, material: RegisteredMaterial, num_classes: int, secrets: Sequence[bytes], purpose: bytes
) -> HalfKey:
    embedded = half(secrets[0], purpose, len(material.tensors["labels"]))
    code = tuple(material.params["code"]) if "code" in material.params else None
    return HalfKey(mark=mark, num_classes=num_classes, embedded=embedded, code=code, **material.tensors)


def _answers(
    mark: str, material: RegisteredMaterial, num_classes: int, secrets: Sequence[bytes], purpose: bytes
) -> AnswerKey:
    secret = stream(secrets[0], purpose, 32)
    return AnswerKey(mark=mark, num_classes=num_classes, params=material.params, secret=secret)


def _weights(
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


_KINDS: Mapping[str, Callable[[str, RegisteredMaterial, int, Sequence[bytes], bytes], Key]] = MappingProxyType(
    {"labels": _labels, "direction": _direction, "half": _half, "answers": _answers, "weights": _weights}
)
