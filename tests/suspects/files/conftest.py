"""One small model, written in every supported format."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hostile import SPEC
from torch import nn

from wootz.models import build, write_model
from wootz.models.saved import to_onnx


@pytest.fixture(scope="session")
def net() -> nn.Module:
    return build(SPEC, 1).eval()


@pytest.fixture(scope="session")
def _exported(net: nn.Module) -> bytes:
    return to_onnx(net, SPEC)


@pytest.fixture
def run(net: nn.Module, _exported: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a run folder, `model.pt` and `model.onnx` in it too, as working folder: canaries sing there."""
    folder = tmp_path / "run"
    write_model(folder, net, SPEC, {"kind": "independent"})
    torch.save(net.state_dict(), folder / "model.pt")
    (folder / "model.onnx").write_bytes(_exported)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(6, *SPEC.shape, generator=torch.Generator().manual_seed(0))
