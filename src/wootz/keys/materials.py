"""What the tensors and facts of a registered mark must be like: names, types, sizes and ranges, by kind.

The tests in `wootz.statistics` are exact for tensors of these shapes. A tensor of another shape could be broadcast and
count a hit many times, and rows that are not under the Merkle root could be added after the key is known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from wootz.keys.keys import MOST_ELEMENTS, RegisteredMaterial


def check_material(material: RegisteredMaterial, num_classes: int, shape: Sequence[int], *, parts: int = 1) -> None:
    """Check what was registered for a mark, whole or one of `parts` equal tranches.

    Args:
        material: its kind, tensors and facts.
        num_classes: K.
        shape: channels, height, width of the images.
        parts: tranches that the registered number of rows was cut into.

    Raises:
        ValueError: names the tensor or fact, and what it must be.
    """
    tensors, params = material.tensors, material.params
    rows = len(next(iter(tensors.values()))) if tensors else 0
    expected = _expected(material.kind, rows, num_classes, tuple(shape), params, tensors)
    if tensors.keys() != expected.keys():
        raise ValueError(f"a mark of kind {material.kind!r} has the tensors {sorted(expected)}, not {sorted(tensors)}")
    for name, (dtype, size) in expected.items():
        tensor = tensors[name]
        if tensor.dtype != dtype or tuple(tensor.shape) != size:
            raise ValueError(f"{name} is {tensor.dtype} {list(tensor.shape)}; it must be {dtype} {list(size)}")
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ValueError(f"{name} holds values that are not finite")
    for name in ("base", "labels", "probe_labels"):
        if name in tensors and not bool(((tensors[name] >= 0) & (tensors[name] < num_classes)).all()):
            raise ValueError(f"{name} holds classes outside 0 to {num_classes - 1}")
    if material.kind == "labels":
        _check_labels(params, rows, parts)
    if "class_scale" in tensors and not bool((tensors["class_scale"] > 0).all()):
        raise ValueError("class_scale must be above 0")


def _expected(
    kind: str, rows: int, classes: int, shape: tuple[int, ...], params: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Return dtype and size of each tensor of a kind, and check the facts that sizes follow from."""
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
        pixels, real = math.prod(shape), torch.float32
        size = tensors["components"].shape[-1] if tensors["components"].dim() else 0
        probes = len(tensors["probes"]) if tensors["probes"].dim() else 0
        if not 1 <= classes * classes * size <= MOST_ELEMENTS or not probes:
            raise ValueError("components and probes must hold at least one feature and one image, and no more than fit")
        return {
            "components": (real, (pixels, size)),
            "center": (real, (pixels,)),
            "class_mean": (real, (classes, size)),
            "class_scale": (real, (classes, size)),
            "prior": (real, (classes, classes)),
            "probes": (torch.uint8, (probes, *shape)),
            "probe_labels": (torch.int64, (probes,)),
        }
    if kind == "weights":
        sizes, bits = params["shape"], params["bits"]
        if len(sizes) != 4 or min(*sizes, bits) < 1 or bits * math.prod(sizes[1:]) > MOST_ELEMENTS:
            raise ValueError(f"a message of {bits} bits in weights {sizes} cannot be")
    return {}


def _check_labels(params: Mapping[str, Any], rows: int, parts: int) -> None:
    """Check the number of triggers and their distances: 0 <= eps + alpha < wm_eps <= 1."""
    if params["rule"] not in ("wrong", "uniform") or rows * parts != params["count"]:
        raise ValueError(f"{rows} triggers per tranche are not what was registered")
    inner, outer = float(params["eps"]) + float(params["alpha"]), float(params["wm_eps"])
    if not 0 <= inner < outer <= 1:
        raise ValueError(f"eps + alpha = {inner:g} and wm_eps = {outer:g}: must rise from 0 to 1")
