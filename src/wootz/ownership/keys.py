"""Keys: what a mark hides, derived from a secret after everything public about the mark is registered.

Three kinds, each with its own exact test in `wootz.verify`:

- `labels`: images and, for each, a keyed label (mark `triggers`)
- `direction`: a keyed isotropic direction in the space of wrong-class statistics (mark `runner-up`)
- `half`: candidate triggers, a keyed half of which is embedded (the baselines `paper` and `ood`)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from wootz.ownership.prf import gaussian, half, integers


class Material(NamedTuple):
    """What is fixed before the key: its kind, tensors kept with the key, and facts anyone may read."""

    kind: Literal["labels", "direction", "half"]
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelKey:
    """Trigger images uint8 [n, C, H, W], the images they were made from with their classes, and the keyed labels.

    `rule` says what the labels were drawn from: all classes (`uniform`), or all but the base class (`wrong`).
    """

    mark: str
    rule: Literal["wrong", "uniform"]
    num_classes: int
    pixels: Tensor = field(repr=False)
    base_pixels: Tensor = field(repr=False)
    base: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)


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
    """Candidate triggers uint8 [n, C, H, W], the labels they teach, and the keyed half that is embedded."""

    mark: str
    num_classes: int
    pixels: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)
    embedded: Tensor = field(repr=False)  # bool [n], n // 2 of them


Key: TypeAlias = LabelKey | DirectionKey | HalfKey


def derive(mark: str, material: Material, num_classes: int, secret: bytes, registration: bytes) -> Key:
    """Draw the key of `mark` from its secret and the digest of the registration that holds its material."""
    return _KINDS[material.kind](mark, material, num_classes, secret, b"key/" + mark.encode() + b"/" + registration)


def _labels(mark: str, material: Material, num_classes: int, secret: bytes, purpose: bytes) -> LabelKey:
    base, rule = material.tensors["base"], material.facts["rule"]
    if rule == "wrong":
        labels = (base + 1 + integers(secret, purpose, len(base), num_classes - 1)) % num_classes
    else:
        labels = integers(secret, purpose, len(base), num_classes)
    return LabelKey(mark=mark, rule=rule, num_classes=num_classes, labels=labels, **material.tensors)


def _direction(mark: str, material: Material, num_classes: int, secret: bytes, purpose: bytes) -> DirectionKey:
    dims = material.tensors["components"].shape[1]
    direction = gaussian(secret, purpose, (num_classes, num_classes, dims)).float()
    own = torch.eye(num_classes).unsqueeze(2)
    direction = direction * (1 - own)
    direction = (direction - direction.sum(1, keepdim=True) / (num_classes - 1)) * (1 - own)
    return DirectionKey(mark=mark, num_classes=num_classes, direction=direction, **material.tensors)


def _half(mark: str, material: Material, num_classes: int, secret: bytes, purpose: bytes) -> HalfKey:
    embedded = half(secret, purpose, len(material.tensors["labels"]))
    return HalfKey(mark=mark, num_classes=num_classes, embedded=embedded, **material.tensors)


_KINDS: Mapping[str, Callable[[str, Material, int, bytes, bytes], Key]] = MappingProxyType(
    {"labels": _labels, "direction": _direction, "half": _half}
)
