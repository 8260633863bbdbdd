"""Build a network of a known architecture from an untrusted description and weights, after comparing their sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wootz.errors import ConfigError, SuspectError
from wootz.models import ModelSpec, build, is_other_code
from wootz.models.filters import with_filters
from wootz.models.saved import load_weights, spec_of
from wootz.suspects.files.limits import Limits, TensorSpec
from wootz.suspects.files.sanitize import one_line, strict_json
from wootz.suspects.files.tensor_names import matched_names

_FILTERS = 8
_SCALARS = (str, int, float, bool, type(None))


def read_description(data: bytes, name: str, limits: Limits) -> tuple[ModelSpec, list[dict[str, Any]]]:
    """Return the spec in a `model.json`, and the filters around the network; error messages start with `name`.

    Raises:
        SuspectError: Images, classes, settings or filters are described wrongly, or exceed a limit.
        StoreError: A field is missing.
    """
    if len(data) > limits.description_bytes:
        raise SuspectError(f"{name}: has {len(data):,} bytes; {limits.description_bytes:,} are read at most")
    about = strict_json(data, name)
    if not isinstance(about, dict):
        raise SuspectError(f"{name}: is not a JSON object")
    image = about.get("input")
    check_image(image.get("shape") if isinstance(image, dict) else None, about.get("classes"), name, limits)
    filters = about.get("filters", [])
    if not isinstance(filters, list) or len(filters) > _FILTERS or not all(map(_is_plain, filters)):
        raise SuspectError(f"{name}: its filters are not a list of at most {_FILTERS} names with settings")
    if not isinstance(about.get("architecture"), str) or not _is_plain(about.get("settings")):
        raise SuspectError(f"{name}: has no valid architecture and settings")
    return spec_of(about, name), filters


def check_image(shape: Any, classes: Any, name: str, limits: Limits) -> None:
    """Raise SuspectError unless `shape` is [C, H, W] and `classes` is a list of names, both within the limits."""
    sizes = shape if isinstance(shape, list) and len(shape) == 3 else [0]
    if not all(type(size) is int and 0 < size <= limits.image_elements for size in sizes):
        raise SuspectError(f"{name}: does not state the shape of its images, [channels, height, width]")
    if sizes[0] * sizes[1] * sizes[2] > limits.image_elements:
        raise SuspectError(f"{name}: takes images of more than {limits.image_elements:,} values")
    if not isinstance(classes, list) or not all(isinstance(label, str) for label in classes):
        raise SuspectError(f"{name}: does not state the names of its classes")
    if not 2 <= len(classes) <= limits.classes:
        raise SuspectError(f"{name}: has {len(classes):,} classes; it must have 2 to {limits.classes:,}")


def check_sizes(
    spec: ModelSpec, filters: list[dict[str, Any]], tensors: Mapping[str, TensorSpec], name: str
) -> dict[str, str]:
    """Return the network's own name for each of these tensors, see `matched_names`.

    Raises:
        SuspectError: The network of this spec, built on the meta device, does not have exactly these tensors.
    """
    try:
        with torch.device("meta"):
            state = _network(spec, filters, name).state_dict()
    except (ConfigError, RuntimeError, ValueError, TypeError, OverflowError, ZeroDivisionError) as error:
        raise SuspectError(f"{name}: a network cannot be built from its settings ({one_line(error, 160)})") from error
    names = matched_names(list(tensors), list(state))
    expected = {key: tuple(one.shape) for key, one in state.items()}
    present = {names[key]: tuple(one.shape) for key, one in tensors.items()}
    different = [key for key in {**expected, **present} if expected.get(key) != present.get(key)]
    if different:
        key = different[0]
        shapes = (list(sizes[key]) if key in sizes else "missing" for sizes in (present, expected))
        raise SuspectError(
            "{}: does not hold the weights of the architecture in model.json: {!r} is {}, not {}".format(
                name, one_line(key, 80), *(one_line(shape, 80) for shape in shapes)
            )
        )
    return names


def own_network(spec: ModelSpec, filters: list[dict[str, Any]], weights: Mapping[str, Tensor], name: str) -> nn.Module:
    """Return the network with these weights, in eval mode.

    Raises:
        ModelError: The weights do not fit, or are not finite as float32.
    """
    model = _network(spec, filters, name)
    load_weights(model, weights, name)
    return model.eval()


def described_network(description: bytes, weights: Mapping[str, Tensor], name: str, limits: Limits) -> nn.Module:
    """Return the network of an untrusted description with untrusted weights; sizes are compared first.

    Raises:
        SuspectError: They do not fit each other, or exceed a limit.
        ModelError: The weights hold NaN or infinity.
    """
    spec, filters = read_description(description, name, limits)
    check_known(spec, name)
    sizes = {key: TensorSpec("", tuple(one.shape)) for key, one in weights.items()}
    names = check_sizes(spec, filters, sizes, name)
    return own_network(spec, filters, {names[key]: one for key, one in weights.items()}, name)


def check_known(spec: ModelSpec, name: str) -> None:
    """Raise SuspectError for the description of a network of other code: no suspect names code that is run."""
    if is_other_code(spec.architecture):
        raise SuspectError(
            f"{name}: its network ({one_line(spec.architecture, 120)}) is not one of wootz, and no code that a suspect "
            "names is run; name the code yourself with --architecture, or test its ONNX file"
        )


def _network(spec: ModelSpec, filters: list[dict[str, Any]], name: str) -> nn.Module:
    try:
        return with_filters(build(spec, seed=0), filters, spec.shape, len(spec.classes))
    except (AttributeError, KeyError) as error:
        raise SuspectError(f"{name}: its filters cannot be built ({one_line(repr(error), 80)})") from error


def _is_plain(settings: Any) -> bool:
    """Return whether these are plain settings: few, each a scalar or a short list of scalars."""
    if not isinstance(settings, dict) or len(settings) > 64:
        return False
    flat = [item for value in settings.values() for item in (value if isinstance(value, list) else [value])]
    return len(flat) <= 256 and all(isinstance(item, _SCALARS) and len(str(item)) <= 64 for item in flat)
