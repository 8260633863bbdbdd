"""Classifiers: images float32 [N, C, H, W] in [0, 1] -> logits [N, K], normalization inside.

`MODELS` lists the architectures by name; a user's own `nn.Module` is welcome wherever a model is taken,
and `check_model` says whether it keeps the contract.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import nn

from wootz.config import from_mapping
from wootz.errors import ModelError, StoreError
from wootz.models.contract import check_model
from wootz.models.cw_cnn import CWCNN, cw_cnn
from wootz.models.filters import FILTERS, Filtered, same_answers, with_filter, with_filters
from wootz.models.paper_cnn import PaperCNN, paper_cnn
from wootz.models.paper_thief import PaperThief, paper_thief
from wootz.models.preact_resnet import PreActResNet18, preact_resnet18
from wootz.models.saved import ModelSpec, load_weights, read_spec, write_model
from wootz.models.small_cnn import SmallCNN, small_cnn
from wootz.registry import lookup
from wootz.rng import global_seed
from wootz.store import read_tensors

__all__ = [
    "FILTERS",
    "MODELS",
    "MODULE",
    "Filtered",
    "ModelSpec",
    "build",
    "check_model",
    "load_weights",
    "other_architecture",
    "read_files",
    "read_model",
    "read_spec",
    "reinitialized",
    "same_answers",
    "describe_module",
    "with_filter",
    "write_model",
]

MODELS: Mapping[str, tuple[Callable[..., nn.Module], type[Any]]] = MappingProxyType(
    {
        "small-cnn": (small_cnn, SmallCNN),
        "cw-cnn": (cw_cnn, CWCNN),
        "paper-cnn": (paper_cnn, PaperCNN),
        "paper-thief": (paper_thief, PaperThief),
        "preact-resnet18": (preact_resnet18, PreActResNet18),
    }
)


MODULE = "module"
"""Architecture of a network that is not one of `MODELS`: a run folder holds its weights, not its code."""


def build(spec: ModelSpec, seed: int) -> nn.Module:
    """Return a new model of `spec`, initialized from `seed`; the global random state is untouched.

    Raises:
        ConfigError: an unknown architecture, or a setting that it does not have.
        ModelError: the spec of a module that was defined elsewhere (`MODULE`).
    """
    if spec.architecture == MODULE:
        raise ModelError(
            f"the network {spec.settings.get('class', '')} was defined outside wootz and its code is not in the run "
            "folder; give the network: Owner.load(path, model=...)"
        )
    make, config = lookup(MODELS, spec.architecture, "model")
    with global_seed(seed, "init", spec.architecture):
        model = make(from_mapping(config, spec.settings, spec.architecture), spec.shape, len(spec.classes))
    model.__dict__["wootz_spec"] = spec
    return model


def describe_module(model: nn.Module, shape: tuple[int, int, int], classes: tuple[str, ...]) -> ModelSpec:
    """Return the spec that `model` was built from, or one of architecture `MODULE` for any other module."""
    spec = getattr(model, "wootz_spec", None)
    if isinstance(spec, ModelSpec):
        return spec
    kind = type(model)
    return ModelSpec(
        architecture=MODULE, settings={"class": f"{kind.__module__}.{kind.__qualname__}"}, shape=shape, classes=classes
    )


def reinitialized(model: nn.Module, seed: int) -> nn.Module:
    """Return a copy of `model` with new weights from `seed`.

    A network of `MODELS` is built again; of any other module every layer that has `reset_parameters` is reset.
    """
    spec = getattr(model, "wootz_spec", None)
    if isinstance(spec, ModelSpec):
        return build(spec, seed)
    model = copy.deepcopy(model)
    with global_seed(seed, "init", type(model).__name__):
        for layer in model.modules():
            if callable(reset := getattr(layer, "reset_parameters", None)):
                reset()
    return model


def other_architecture(name: str) -> str:
    """Return an architecture that is not `name`, for thieves and independents who build their own."""
    return "paper-cnn" if name == "small-cnn" else "small-cnn"


def read_model(folder: Path) -> tuple[nn.Module, ModelSpec, dict[str, Any]]:
    """Read the model of a run folder: the module in eval mode, its spec, and all that `model.json` says."""
    return read_files(folder / "model.safetensors", folder / "model.json")


def read_files(weights: Path, description: Path) -> tuple[nn.Module, ModelSpec, dict[str, Any]]:
    """Read a model from its two files, filters around it included; the spec is that of the network within.

    Raises:
        ModelError: the weights do not fit the description, or hold NaN or infinity.
        StoreError: files that are missing or damaged.
        ConfigError: an architecture, a filter or a setting that is not known here.
    """
    spec, about = read_spec(description)
    model = build(spec, seed=0)
    try:
        model = with_filters(model, about.get("filters", ()), spec.shape, len(spec.classes))
    except (AttributeError, KeyError, TypeError) as error:
        raise StoreError(f"{description}: its filters can not be read (what is wrong: {error!r})") from error
    load_weights(model, read_tensors(weights), weights)
    return model.eval(), spec, about
