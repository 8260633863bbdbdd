"""From a suspect's bytes to something that answers, in whichever process this runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wootz.errors import SuspectError
from wootz.models import Filtered, ModelSpec
from wootz.modes import eval_mode
from wootz.suspects.files.budget import Limits
from wootz.suspects.files.files import Untrusted
from wootz.suspects.files.own_network import check_sizes, own_network, read_description
from wootz.suspects.files.safetensors_file import safetensors_header
from wootz.suspects.files.torch_zip import described, torch_zip_header, torch_zip_tensors
from wootz.suspects.files.words import one_line
from wootz.types import Access, Predict, Weights

Ask = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Images float32 [N, C, H, W] in [0, 1] -> scores float32 [N, K]."""


class Loaded(NamedTuple):
    """A suspect that can be asked, what it takes and knows, and what shows its weights, where something does."""

    predict: Predict
    spec: ModelSpec
    weights: Weights | None = None


def load(given: Untrusted, limits: Limits, *, threads: int) -> Loaded:
    """Check all headers, then build the model; its `predict` gives scores.

    Raises:
        Error: the suspect is refused, damaged, or beyond the limits.
    """
    if given.kind == "onnx":
        from wootz.suspects.files.onnx_file import check_onnx, onnx_session

        checked = check_onnx(given.data, given.name, limits)
        return Loaded(through_numpy(onnx_session(checked, given.name, threads)), checked.spec)
    spec, filters = read_description(given.description or b"", f"{given.name} (its description)", limits)
    if given.kind == "safetensors":
        check_sizes(spec, filters, safetensors_header(given.data, given.name, limits), given.name)
        weights = _safetensors(given.data, given.name)
    else:
        state = torch_zip_header(given.data, given.name, limits)
        check_sizes(spec, filters, described(state), given.name)
        weights = torch_zip_tensors(given.data, given.name, state, limits)
    model = own_network(spec, filters, weights, given.name)
    return Loaded(predictor(model), spec, weights_of(model))


def predictor(model: nn.Module, access: Access = "scores") -> Predict:
    """Return the model as a `Predict` in eval mode: logits, or labels alone where access is `label`."""

    def predict(x: Tensor) -> Tensor:
        with eval_mode(model), torch.no_grad():
            logits: Tensor = model(x).float()
        return logits.argmax(1) if access == "label" else logits

    return predict


def weights_of(model: nn.Module) -> Weights:
    """Return what shows the weights of the network itself, whatever filters stand around it."""
    while isinstance(model, Filtered):
        model = model.inner
    held = model.state_dict()

    def show(name: str, shape: tuple[int, ...]) -> Tensor | None:
        tensor = held.get(name)
        return tensor.float() if tensor is not None and tuple(tensor.shape) == shape else None

    return show


def through_numpy(ask: Ask) -> Predict:
    """Return what answers arrays as a `Predict` of scores; the answers lie where the images do."""

    def predict(x: Tensor) -> Tensor:
        images = np.ascontiguousarray(x.detach().cpu().numpy(), np.float32)
        return torch.from_numpy(np.array(ask(images), np.float32)).to(x.device)

    return predict


def _safetensors(data: bytes, name: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load as load_safetensors

    try:
        return load_safetensors(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise SuspectError(f"{name}: is not a whole safetensors file ({one_line(error, 120)})") from error
