"""Weights in the files that people have: formats, nesting, prefixes, types, tied tensors, and what does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from wootz.errors import Error, ModelError, StoreError
from wootz.workflows.initial_weights import load_initial_weights


class Net(nn.Module):
    """A network with batch statistics and a tied layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(self.norm(self.conv(x)).mean((2, 3))))
        return out


def network(seed: int) -> Net:
    torch.manual_seed(seed)
    return Net().eval()


def renamed(prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in network(1).state_dict().items()}


def outer_with_ema() -> dict[str, object]:
    zeros = {name: torch.zeros_like(tensor) for name, tensor in network(1).state_dict().items()}
    return {"epoch": 3, "state_dict": zeros, "state_dict_ema": network(1).state_dict(), "args": {"lr": 0.1}}


def without_counters() -> dict[str, Tensor]:
    return {name: tensor for name, tensor in renamed("").items() if not name.endswith("num_batches_tracked")}


def without_tied() -> dict[str, Tensor]:
    return {name: tensor for name, tensor in renamed("").items() if name != "second.weight"}


CHECKPOINTS = {
    "plain": lambda: renamed(""),
    "DataParallel": lambda: renamed("module."),
    "torch.compile": lambda: renamed("_orig_mod."),
    "a Lightning module": lambda: {"state_dict": renamed("model."), "global_step": 7},
    "compiled and parallel": lambda: renamed("module._orig_mod."),
    "nested": lambda: {"model": {"state_dict": renamed("")}, "optimizer": {"state": {}, "lr": 1.0}},
    "averaged weights": outer_with_ema,
    "without batch counters": without_counters,
    "tied tensors once": without_tied,
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_a_checkpoint_of_torch_save(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(CHECKPOINTS[kind](), path)
    model, x = network(2), torch.rand(3, 1, 8, 8)
    load_initial_weights(model, path, torch_zip=True)
    assert torch.equal(model(x), network(1)(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_safetensors_file_of_another_type(dtype: torch.dtype, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({name: t.to(dtype) if t.is_floating_point() else t for name, t in without_tied().items()}, path)
    model, x = network(2), torch.rand(3, 1, 8, 8)
    load_initial_weights(model, path)
    torch.testing.assert_close(model(x), network(1)(x), atol=0.05, rtol=0.05)


def other(**changes: Tensor | None) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in (renamed("") | changes).items() if tensor is not None}


REFUSED = {
    "missing": (lambda: other(**{"conv.weight": None}), "1 missing: conv.weight"),
    "unexpected": (lambda: other(extra=torch.ones(2)), "1 unexpected: extra"),
    "shape": (
        lambda: other(**{"conv.weight": torch.ones(4, 3, 3, 3)}),
        r"1 of another shape: conv.weight is \[4, 3, 3, 3\], not \[4, 1, 3, 3\]",
    ),
    "infinity": (lambda: other(**{"conv.bias": torch.full((4,), torch.inf)}), "contains NaN or infinity"),
    "nothing": (lambda: {"epoch": 3}, "no tensors"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_does_not_fit_is_listed(kind: str, tmp_path: Path) -> None:
    make, match = REFUSED[kind]
    torch.save(make(), tmp_path / "weights.pt")
    with pytest.raises(ModelError, match=match) as caught:
        load_initial_weights(network(2), tmp_path / "weights.pt", torch_zip=True)
    assert "\n" not in str(caught.value)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    torch.save({"model": network(1)}, tmp_path / "weights.pt")
    with pytest.raises(StoreError, match=r"holds more than tensors and plain values.*save model.state_dict\(\)"):
        load_initial_weights(network(2), tmp_path / "weights.pt", torch_zip=True)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (None, "no such file"),
        (b"", "neither"),
        (b"PK\x03\x04damaged", "--allow-torch-zip"),
        (b"hello, world", "neither"),
    ],
)
def test_files_that_are_not_read(content: bytes | None, match: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Error, match=match):
        load_initial_weights(network(2), path)
