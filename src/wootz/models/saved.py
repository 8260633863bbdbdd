"""A model on disk: `model.safetensors` beside `model.json`, which says how to build it, filters around it included."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wootz.errors import ModelError, StoreError
from wootz.models.filters import filters_of
from wootz.store import read_json, write_json, write_tensors

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """How to build a model: a name of `MODELS`, its settings, the images it takes and its classes."""

    architecture: str
    settings: dict[str, Any]
    shape: tuple[int, int, int]
    classes: tuple[str, ...]


def write_model(folder: Path, model: nn.Module, spec: ModelSpec, about: dict[str, Any]) -> None:
    """Write weights, then the description; `about` (how it was made) is kept with it.

    `spec` describes the network itself; the filters around it are read off the module.
    """
    write_tensors(folder / "model.safetensors", model.state_dict())
    described = {
        "schema": SCHEMA,
        "architecture": spec.architecture,
        "settings": spec.settings,
        "input": {"shape": list(spec.shape), "range": [0.0, 1.0], "layout": "NCHW"},
        "classes": list(spec.classes),
    }
    filters = filters_of(model)
    write_json(folder / "model.json", described | ({"filters": filters} if filters else {}) | about)


def read_spec(path: Path) -> tuple[ModelSpec, dict[str, Any]]:
    """Read `model.json`; returns the spec and everything else it says."""
    plain = read_json(path)
    return spec_of(plain, path), plain


def spec_of(plain: Any, path: Path | str) -> ModelSpec:
    """Return the spec in a description; `path` names it in errors."""
    try:
        if plain["schema"] != SCHEMA:
            raise StoreError(f"{path}: schema {plain['schema']!r}; this version reads schema {SCHEMA}")
        channels, height, width = (int(size) for size in plain["input"]["shape"])
        return ModelSpec(
            architecture=plain["architecture"],
            settings=plain["settings"],
            shape=(channels, height, width),
            classes=tuple(plain["classes"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path}: is not the description of a model (what is wrong: {error!r})") from error


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], path: Path | str) -> None:
    """Load weights into `model`; names, shapes and finiteness must fit. `path` names them in errors.

    Raises:
        ModelError: the weights are another architecture's, or hold NaN or infinity.
    """
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{path}: does not hold the weights of the architecture in model.json: {reason}") from error
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ModelError(f"{path}: {name} holds NaN or infinity")
