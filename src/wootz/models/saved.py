"""Models on disk: `model.safetensors` with `model.json`, which describes the network and its filters; ONNX export."""

from __future__ import annotations

import copy
import io
import json
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, Field, field_validator
from torch import Tensor, nn

from wootz.checks import total_memory
from wootz.config import from_mapping, to_mapping
from wootz.errors import ConfigError, ModelError, StoreError
from wootz.extras import require
from wootz.logs import warn_once
from wootz.models.architectures import MODELS
from wootz.models.factories import is_factory, make_network, source_digest
from wootz.models.filters import filters_of, with_filters
from wootz.models.wrapper import Wrapped, Wrapper
from wootz.modes import eval_mode
from wootz.registry import lookup
from wootz.rng import global_seed
from wootz.store import read_json, read_tensors, validate, write_bytes, write_json, write_tensors
from wootz.types import Kind

SCHEMA = 1
_MOST_VALUES = 1 << 26
_OPSET = 17

MODULE = "module"
"""Architecture of a network that is not one of `MODELS`: a run folder holds its weights, not its code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """The description of a network.

    Attributes:
        architecture: a name in `MODELS`, or the name of a factory, see `wootz.models.factories`.
        settings: the settings of the architecture.
        shape: channels, height and width of the images.
        classes: the names of the classes.
        wrapper: what is done around the network.
        source: of a factory, the SHA-256 of the file that defines it, or the version of its library.
    """

    architecture: str
    settings: dict[str, Any]
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    wrapper: Wrapper = field(default_factory=Wrapper)
    source: str = ""


def is_other_code(architecture: str) -> bool:
    """Return whether a network is defined outside wootz, by a factory or as a module in memory."""
    return architecture == MODULE or is_factory(architecture)


_Scalar = str | int | float | bool | None
_Settings = Annotated[dict[str, _Scalar | list[_Scalar]], Field(max_length=64)]
_Size = Annotated[int, Field(ge=1, le=1 << 16)]


class _Input(BaseModel):
    shape: tuple[_Size, _Size, _Size]

    @field_validator("shape")
    @classmethod
    def _small(cls, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        if math.prod(shape) > _MOST_VALUES:
            raise ValueError(f"images must have at most {_MOST_VALUES:,} values")
        return shape


class _Network(BaseModel):
    """What a `model.json` says of a network."""

    architecture: str
    settings: _Settings
    input: _Input
    classes: list[str] = Field(min_length=2, max_length=1 << 16)
    wrapper: _Settings = {}
    source: str = Field(default="", max_length=200)


class _Description(_Network):
    """The content of the `model.json` of a run; further fields are kept as they are."""

    filters: list[_Settings] = Field(default=[], max_length=64)
    data: str = ""
    set_aside: float = Field(default=1.0, gt=0, le=1)
    data_digest: str = ""
    eps: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    seed: int = 0
    kind: Kind = "unknown"
    theft: str | None = None

    @field_validator("classes")
    @classmethod
    def _distinct(cls, classes: list[str]) -> list[str]:
        if len(set(classes)) < len(classes):
            raise ValueError("names of classes must differ")
        return classes


def build(spec: ModelSpec, seed: int, most: int | None = None) -> nn.Module:
    """Return a new model of `spec`, initialized from `seed`; the global random state is untouched.

    The code of a factory is run, and it is reported if it is not the code that the spec was made with.

    Args:
        spec: the description of the network.
        seed: the seed of its initialization.
        most: the number of weights that a built-in one may have; None is as many as fit into memory.

    Raises:
        ConfigError: an unknown architecture, a setting that it does not have, or too many weights.
        ModelError: the spec of a module that was defined elsewhere (`MODULE`).
    """
    if spec.architecture == MODULE:
        raise ModelError(
            f"the network {spec.settings.get('class', '')} was defined outside wootz and its code is not in the run "
            "folder; give the network: Owner.load(path, model=...)"
        )
    make = _factory(spec) if is_factory(spec.architecture) else _built_in(spec, most)
    with global_seed(seed, "init", spec.architecture):
        model = make()
    if is_factory(spec.architecture) or spec.wrapper != Wrapper():
        model = Wrapped(model, spec.wrapper)
    model.__dict__["wootz_spec"] = spec
    return model


def _built_in(spec: ModelSpec, most: int | None) -> Callable[[], nn.Module]:
    function, kind = lookup(MODELS, spec.architecture, "model")
    config = from_mapping(kind, spec.settings, spec.architecture)
    make = partial(function, config, spec.wrapper.network_shape(spec.shape), len(spec.classes))
    count = _count_weights(make, spec)
    if most is not None and count > most:
        raise ConfigError(f"{spec.architecture}: its settings give {count:,} weights where there are {most:,}")
    return make


def _factory(spec: ModelSpec) -> Callable[[], nn.Module]:
    if spec.source and (now := source_digest(spec.architecture)) != spec.source:
        warn_once(
            f"{spec.architecture}: its code is not the one that the run was made with ({now}, then {spec.source})"
        )
    shape = spec.wrapper.network_shape(spec.shape)
    return partial(make_network, spec.architecture, spec.settings, shape, len(spec.classes))


def _count_weights(make: Callable[[], nn.Module], spec: ModelSpec) -> int:
    """Return the number of weights of a network, which is made without memory.

    Raises:
        ConfigError: there is no such network, or it does not fit into memory.
    """
    try:
        with torch.device("meta"):
            count: int = sum(tensor.numel() for tensor in make().state_dict().values())
    except (OverflowError, RuntimeError) as error:
        raise ConfigError(f"{spec.architecture}: its settings give no network for images {spec.shape}") from error
    if 4 * count > (memory := total_memory()):
        sizes = f"{4 * count / 1e9:,.1f} GB; this machine has {memory / 1e9:,.1f} GB of memory"
        raise ConfigError(f"{spec.architecture}: its settings give a network of {sizes}")
    return count


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


def write_model(folder: str | Path, model: nn.Module, spec: ModelSpec, metadata: dict[str, Any]) -> None:
    """Write the weights, then the description.

    A network that wootz does not define is also written as `model.onnx`, so that it can be run without its code.

    Args:
        folder: the folder to write to.
        model: the model; the filters around its network are described, too.
        spec: the description of the network itself.
        metadata: further entries of `model.json`, such as how the model was trained.
    """
    folder = Path(folder)
    write_tensors(folder / "model.safetensors", model.state_dict())
    description = {
        "schema": SCHEMA,
        "architecture": spec.architecture,
        "settings": spec.settings,
        "input": {"shape": list(spec.shape), "range": [0.0, 1.0], "layout": "NCHW"},
        "classes": list(spec.classes),
    }
    if spec.source:
        description["source"] = spec.source
    if spec.wrapper != Wrapper():
        description["wrapper"] = to_mapping(spec.wrapper)
    if filters := filters_of(model):
        description["filters"] = filters
    if is_other_code(spec.architecture):
        _write_onnx(folder / "model.onnx", model, spec)
    write_json(folder / "model.json", description | metadata)


def _write_onnx(path: Path, model: nn.Module, spec: ModelSpec) -> None:
    try:
        write_bytes(path, to_onnx(model, spec))
    except StoreError:
        raise
    except Exception as error:  # the exporter raises a dozen kinds for what it does not know
        path.unlink(missing_ok=True)
        reason = " ".join(str(error).split())[:200]
        warn_once(
            f"{path}: the network cannot be exported to ONNX ({reason}); to test {path.parent} as a suspect, its "
            "code must be named: --architecture"
        )


def read_spec(path: Path) -> tuple[ModelSpec, dict[str, Any]]:
    """Read `model.json` and return the spec and the whole content.

    Raises:
        StoreError: the file cannot be read, or a field has another type or an absurd size.
    """
    plain = read_json(path)
    return _spec_of(plain, path, _Description), plain


def spec_of(plain: Any, path: Path | str) -> ModelSpec:
    """Return the spec in the content of a `model.json`; `path` is for error messages.

    Raises:
        StoreError: a field of the network is missing, of another type or of an absurd size.
    """
    return _spec_of(plain, path, _Network)


def _spec_of(plain: Any, path: Path | str, kind: type[_Network]) -> ModelSpec:
    if not isinstance(plain, dict) or "schema" not in plain:
        raise StoreError(f"{path}: is not the description of a model (it should be a JSON object with a schema)")
    if plain["schema"] != SCHEMA:
        raise StoreError(f"{path}: schema {plain['schema']!r}; this version reads schema {SCHEMA}")
    network = validate(kind, plain, str(path))
    return ModelSpec(
        architecture=network.architecture,
        settings=plain["settings"],
        shape=network.input.shape,
        classes=tuple(network.classes),
        wrapper=from_mapping(Wrapper, network.wrapper, f"{path}: wrapper"),
        source=network.source,
    )


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], path: Path | str) -> None:
    """Load weights into `model`; names and shapes must fit, and all values be finite. `path` is for error messages.

    Raises:
        ModelError: the weights belong to another architecture, contain NaN, infinity or imaginary parts, or exceed the
            range of the model's dtype.
    """
    expected, present = ({name: t.shape for name, t in state.items()} for state in (model.state_dict(), weights))
    try:
        model.load_state_dict({name: _real(tensor, f"{path}: {name}") for name, tensor in weights.items()})
    except RuntimeError as error:
        if expected == present:
            raise  # a failure of this computer, not of the file
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{path}: does not hold the weights of the architecture in model.json: {reason}") from error
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise ModelError(f"{path}: {name} contains NaN or infinity, or numbers beyond the range of {dtype}")


def _real(tensor: Tensor, what: str) -> Tensor:
    """Return a complex tensor without imaginary parts as a real one, and any other tensor as it is."""
    if not tensor.is_complex():
        return tensor
    if tensor.imag.any():
        raise ModelError(f"{what} contains complex numbers; the weights of a network are real")
    return tensor.real


def read_model(folder: str | Path) -> tuple[nn.Module, ModelSpec, dict[str, Any]]:
    """Read the model of a run folder: the module in eval mode, its spec, and the content of `model.json`."""
    return read_files(Path(folder) / "model.safetensors", Path(folder) / "model.json")


def read_files(weights: Path, description: Path) -> tuple[nn.Module, ModelSpec, dict[str, Any]]:
    """Read a model from its two files, including the filters around it; the spec describes the inner network.

    Raises:
        ModelError: the weights do not fit the description, or hold NaN or infinity.
        StoreError: a file is missing or damaged.
        ConfigError: the architecture, a filter or a setting is unknown.
    """
    spec, metadata = read_spec(description)
    tensors = read_tensors(weights)
    try:
        model = build(spec, seed=0, most=sum(tensor.numel() for tensor in tensors.values()))
        model = with_filters(model, metadata.get("filters", ()), spec.shape, len(spec.classes))
    except ConfigError as error:
        raise ConfigError(f"{description}: {error}") from error
    except (AttributeError, KeyError, TypeError) as error:
        raise StoreError(f"{description}: its filters cannot be read (what is wrong: {error!r})") from error
    load_weights(model, tensors, weights)
    return model.eval(), spec, metadata


def to_onnx(model: nn.Module, spec: ModelSpec) -> bytes:
    """Return the model as one ONNX file: images float32 [N, C, H, W] in [0, 1] -> logits [N, K], normalization inside.

    The metadata entry `classes` holds the names of the classes as a JSON list. Filters that are not tensor operations
    (JPEG) cannot be exported.
    """
    require("onnx")
    import onnx

    buffer, x = io.BytesIO(), torch.zeros(2, *spec.shape)
    with eval_mode(model), warnings.catch_warnings():
        # The newer exporter (dynamo) needs another package; the older one warns about it at every call.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (x,),
            buffer,  # type: ignore[arg-type]  # the older exporter accepts open files
            dynamo=False,
            opset_version=_OPSET,
            input_names=["images"],
            output_names=["logits"],
            dynamic_axes={"images": {0: "N"}, "logits": {0: "N"}},
        )
    exported = onnx.load_model_from_string(buffer.getvalue())
    onnx.helper.set_model_props(exported, {"classes": json.dumps(list(spec.classes))})
    data: bytes = exported.SerializeToString()
    return data
