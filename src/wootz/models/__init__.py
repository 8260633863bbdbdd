"""Classifiers: images float32 [N, C, H, W] in [0, 1] -> logits [N, K], normalization inside.

`MODELS` lists the architectures by name; a user's own `nn.Module` is welcome wherever a model is taken,
and `check_model` says whether it keeps the contract.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import nn

from wootz.config import from_mapping
from wootz.errors import StoreError
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
    "Filtered",
    "ModelSpec",
    "build",
    "check_model",
    "other_architecture",
    "read_files",
    "read_model",
    "read_spec",
    "same_answers",
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


def build(spec: ModelSpec, seed: int) -> nn.Module:
    """Return a fresh model of `spec`, initialized from `seed`; the global random state is untouched."""
    make, config = lookup(MODELS, spec.architecture, "model")
    with global_seed(seed, "init", spec.architecture):
        return make(from_mapping(config, spec.settings, spec.architecture), spec.shape, len(spec.classes))


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
