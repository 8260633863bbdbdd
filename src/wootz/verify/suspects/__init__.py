"""Suspects: whatever is to be verified, opened as a `Predict`.

A suspect is a run folder, or a `.safetensors` file with a `model.json` beside it. Formats that can run code
when they are read (pickle, TorchScript, `.pt2`) are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from wootz.errors import ModelError, StoreError
from wootz.models import ModelSpec, read_files, read_model
from wootz.modes import evaluating
from wootz.types import Access, Predict

_CODE = frozenset({".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".joblib", ".pt2"})


@contextmanager
def open_suspect(path: Path, access: Access = "scores") -> Iterator[tuple[Predict, ModelSpec]]:
    """Open what stands at `path` and give its `Predict` with the spec it claims to have.

    Raises:
        ModelError: a format that is refused, with the reason, or weights that do not fit their description.
        StoreError: files that are missing or damaged.
    """
    model, spec = _read(path)
    yield predictor(model, access), spec


def predictor(model: nn.Module, access: Access = "scores") -> Predict:
    """Return the model as a `Predict` in eval mode: logits, or labels alone where access is `label`."""

    def predict(x: Tensor) -> Tensor:
        with evaluating(model), torch.no_grad():
            logits: Tensor = model(x).float()
        return logits if access == "scores" else logits.argmax(1)

    return predict


def _read(path: Path) -> tuple[nn.Module, ModelSpec]:
    if path.is_dir():
        model, spec, _ = read_model(path)
        return model, spec
    if path.suffix in _CODE:
        raise ModelError(f"{path}: files of this kind can run code when they are read; save the weights as safetensors")
    if path.suffix != ".safetensors":
        raise StoreError(f"{path}: is neither a run folder nor a .safetensors file with its model.json beside it")
    description = path.with_suffix(".json")
    model, spec, _ = read_files(path, description if description.is_file() else path.with_name("model.json"))
    return model, spec
