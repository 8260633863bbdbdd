"""Registered material: everything that is fixed about a mark before its key, and the check of its contents.

`check_material` names the tensors and parameters of each kind, with their types, sizes and ranges. The tests in
`wootz.statistics` are exact for tensors of these shapes only: a tensor of another shape could be broadcast and count a
hit many times, and rows that are not under the Merkle root could be added after the key is known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from wootz.image_features import amplitude_count, pixel_count

MAX_KEY_ELEMENTS = 1 << 28
"""Largest number of random elements of a key, over all its tensors."""


class RegisteredMaterial(NamedTuple):
    """What is registered about a mark before its key is derived.

    Attributes:
        kind: selects the key and its test, see `wootz.keys.keys`.
        tensors: by name; stored with the key, and registered by digest or Merkle root.
        params: public parameters, stored as plain JSON. `params["tranches"]` is the number of equal parts into which
            the rows of kind `labels` are cut, in order.
    """

    kind: Literal["labels", "direction", "half", "answers", "weights"]
    tensors: dict[str, Tensor]
    params: dict[str, Any]

    @property
    def tranches(self) -> int:
        """Number of tranches, which is the number of secrets that the key is derived from."""
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
    """Return the slice of `count` rows that belongs to tranche `number`."""
    size = count // tranches
    return slice(number * size, (number + 1) * size)


def check_material(material: RegisteredMaterial, num_classes: int, shape: Sequence[int], *, parts: int = 1) -> None:
    """Check a registered material, either whole or one of `parts` equal tranches of it.

    Args:
        material: the kind, tensors and parameters to check.
        num_classes: number of classes K.
        shape: channels, height and width of the images.
        parts: number of tranches that the registered rows were cut into; 1 if the material is whole.

    Raises:
        ValueError: a tensor or parameter does not fit; names it and states the requirement.
    """
    tensors, params = material.tensors, material.params
    rows = len(next(iter(tensors.values()))) if tensors else 0
    expected = _expected_tensors(material.kind, rows, num_classes, tuple(shape), params, tensors)
    if tensors.keys() != expected.keys():
        raise ValueError(f"a mark of kind {material.kind!r} has the tensors {sorted(expected)}, not {sorted(tensors)}")
    for name, (dtype, size) in expected.items():
        tensor = tensors[name]
        if tensor.dtype != dtype or tuple(tensor.shape) != size:
            raise ValueError(f"{name} is {tensor.dtype} {list(tensor.shape)}; it must be {dtype} {list(size)}")
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ValueError(f"{name} holds values that are not finite")
    for name in ("base", "labels", "probe_labels", "classes"):
        if name in tensors and not bool(((tensors[name] >= 0) & (tensors[name] < num_classes)).all()):
            raise ValueError(f"{name} holds classes outside 0 to {num_classes - 1}")
    if material.kind == "labels":
        _check_labels(params, num_classes, rows, parts)
    if "classes" in tensors:
        if bool((tensors["classes"].diff() <= 0).any()):
            raise ValueError("classes must be ascending")
        if not bool(torch.isin(tensors["probe_labels"], tensors["classes"]).all()):
            raise ValueError("probe_labels holds classes that are not in classes")
    if "class_scale" in tensors and not bool((tensors["class_scale"] > 0).all()):
        raise ValueError("class_scale must be above 0")


def _expected_tensors(
    kind: str, rows: int, classes: int, shape: tuple[int, ...], params: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Return the dtype and size of each tensor of a kind, after checking the parameters that determine the sizes."""
    if kind in ("labels", "half", "direction") and rows < 1:
        raise ValueError(f"a mark of kind {kind!r} has at least one row")
    images, labels = (torch.uint8, (rows, *shape)), (torch.int64, (rows,))
    if kind == "labels":
        return {"pixels": images, "base_pixels": images, "base": labels}
    if kind == "half":
        code = params.get("code")
        if code is not None and (len(code) != classes or not set(code) <= {0, 1}):
            raise ValueError(f"code must hold {classes} bits")
        return {"pixels": images, "labels": labels}
    if kind == "direction":
        return _direction_tensors(classes, shape, params, tensors)
    if kind == "weights":
        sizes, bits = params["shape"], params["bits"]
        if len(sizes) != 4 or min(*sizes, bits) < 1 or bits * math.prod(sizes[1:]) > MAX_KEY_ELEMENTS:
            raise ValueError(f"a message of {bits} bits in weights {sizes} cannot be embedded")
    return {}


def _direction_tensors(
    classes: int, shape: tuple[int, ...], params: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    features = tensors["components"].shape[-1] if tensors["components"].dim() else 0
    probes = len(tensors["probes"]) if tensors["probes"].dim() else 0
    listed = {}
    if "classes" in tensors:
        classes = len(tensors["classes"]) if tensors["classes"].dim() else 0
        listed = {"classes": (torch.int64, (classes,))}
    if classes < 3 or features < 1:
        raise ValueError(f"{classes} classes, {features} features: a direction needs at least 3 classes and 1 feature")
    if classes**2 * features > MAX_KEY_ELEMENTS:
        raise ValueError(
            f"{classes} classes, {features} features: a direction of {classes**2 * features} elements; "
            f"the maximum is {MAX_KEY_ELEMENTS}"
        )
    if not probes:
        raise ValueError("probes must hold at least one image")
    of_amplitudes = params.get("amplitudes", 0)
    if type(of_amplitudes) is not int or not 0 <= of_amplitudes < features:
        raise ValueError(f"amplitudes = {of_amplitudes!r}: must be a number of the {features} features, but not all")
    values, real = pixel_count(shape) + (amplitude_count(shape) if of_amplitudes else 0), torch.float32
    return {
        "components": (real, (values, features)),
        "center": (real, (values,)),
        "class_mean": (real, (classes, features)),
        "class_scale": (real, (classes, features)),
        "prior": (real, (classes, classes)),
        "probes": (torch.uint8, (probes, *shape)),
        "probe_labels": (torch.int64, (probes,)),
        **listed,
    }


def _check_labels(params: Mapping[str, Any], classes: int, rows: int, parts: int) -> None:
    """Check the label rule, the number of triggers and their distances: 0 <= eps + alpha < wm_eps <= 1."""
    rule = params["rule"]
    if rule not in ("wrong", "uniform"):
        raise ValueError(f"rule = {rule!r}: labels are drawn by the rule 'wrong' or 'uniform'")
    if rule == "wrong" and classes < 3:
        raise ValueError(f"{classes} classes: the rule 'wrong' needs at least 3; 2 leave no choice of label")
    if rows * parts != params["count"]:
        raise ValueError(f"{rows} triggers per tranche, but {params['count']} in {parts} tranches were registered")
    inner, outer = float(params["eps"]) + float(params["alpha"]), float(params["wm_eps"])
    if not 0 <= inner < outer <= 1:
        raise ValueError(f"eps + alpha = {inner:g} and wm_eps = {outer:g}: must satisfy 0 <= eps + alpha < wm_eps <= 1")
