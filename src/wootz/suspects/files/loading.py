"""Build a predictor from a suspect's bytes, in this process or in the isolated one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wootz.errors import SuspectError
from wootz.models import Filtered, ModelSpec
from wootz.modes import device_of, eval_mode
from wootz.suspects.files.limits import Limits
from wootz.suspects.files.own_network import check_known, check_sizes, own_network, read_description
from wootz.suspects.files.safetensors_file import safetensors_header
from wootz.suspects.files.sanitize import one_line
from wootz.suspects.files.tensor_names import plain_name
from wootz.suspects.files.torch_zip import tensor_specs, torch_zip_header, torch_zip_tensors
from wootz.suspects.files.untrusted import Untrusted
from wootz.types import Access, Predict, Weights

ScoreFn = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Images float32 [N, C, H, W] in [0, 1] -> scores float32 [N, K]."""


class LoadedSuspect(NamedTuple):
    """A loaded suspect: its predictor, its spec, and the function that returns its weights, if it has one."""

    predict: Predict
    spec: ModelSpec
    weights: Weights | None = None


def load(untrusted: Untrusted, limits: Limits, *, threads: int, network: ModelSpec | None = None) -> LoadedSuspect:
    """Check all headers, then build the model; its `predict` returns scores.

    Args:
        untrusted: the suspect's bytes.
        limits: the limits on its size.
        threads: of ONNX Runtime.
        network: the network that its weights are loaded into, named by the verifier; None is the built-in one of its
            description.

    Raises:
        Error: The suspect is refused, damaged, or exceeds a limit.
    """
    if untrusted.kind == "onnx":
        from wootz.suspects.files.onnx_file import check_onnx, onnx_session

        checked = check_onnx(untrusted.data, untrusted.name, limits)
        return LoadedSuspect(through_numpy(onnx_session(checked, untrusted.name, threads)), checked.spec)
    spec, filters = _described(untrusted, limits, network)
    if untrusted.kind == "safetensors":
        header = safetensors_header(untrusted.data, untrusted.name, limits)
        names = check_sizes(spec, filters, header, untrusted.name)
        weights = _safetensors(untrusted.data, untrusted.name)
    else:
        state = torch_zip_header(untrusted.data, untrusted.name, limits)
        names = check_sizes(spec, filters, tensor_specs(state), untrusted.name)
        weights = torch_zip_tensors(untrusted.data, untrusted.name, state, limits)
    model = own_network(spec, filters, {names[key]: one for key, one in weights.items()}, untrusted.name)
    return LoadedSuspect(predictor(model), spec, weights_of(model))


def _described(
    untrusted: Untrusted, limits: Limits, network: ModelSpec | None
) -> tuple[ModelSpec, list[dict[str, Any]]]:
    """Return the network to build, and the filters around it."""
    name = f"{untrusted.name} (its description)"
    if untrusted.description is None:
        if network is None:
            raise SuspectError(f"{untrusted.name}: there is no model.json beside it that describes the network")
        return network, []
    spec, filters = read_description(untrusted.description, name, limits)
    if network is not None:
        return network, filters
    check_known(spec, name)
    return spec, filters


def predictor(model: nn.Module, access: Access = "scores") -> Predict:
    """Return the model in eval mode, on its device, as a `Predict`: logits, or labels only if `access` is `label`."""

    def predict(x: Tensor) -> Tensor:
        with eval_mode(model), torch.no_grad():
            logits: Tensor = model(x.to(device_of(model))).float().to(x.device)
        return logits.argmax(1) if access == "label" else logits

    return predict


def weights_of(model: nn.Module) -> Weights:
    """Return a function to the weights of the network itself, without filters and wrappers around it.

    A tensor inside another module has its name at the end; of several such tensors, none is meant.
    """
    while isinstance(model, Filtered):
        model = model.inner
    state = {plain_name(name): tensor for name, tensor in model.state_dict().items()}

    def weights(name: str, shape: tuple[int, ...]) -> Tensor | None:
        name = plain_name(name)
        names = [name] if name in state else [other for other in state if other.endswith(f".{name}")]
        found = [state[other] for other in names if tuple(state[other].shape) == shape]
        return found[0].float().cpu() if len(found) == 1 else None

    return weights


def through_numpy(scores_of: ScoreFn) -> Predict:
    """Return a function of arrays as a `Predict` of scores on the device of the images."""

    def predict(x: Tensor) -> Tensor:
        images = np.ascontiguousarray(x.detach().cpu().numpy(), np.float32)
        return torch.from_numpy(np.array(scores_of(images), np.float32)).to(x.device)

    return predict


def _safetensors(data: bytes, name: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load as load_safetensors

    try:
        return load_safetensors(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise SuspectError(f"{name}: is not a complete safetensors file ({one_line(error, 120)})") from error
