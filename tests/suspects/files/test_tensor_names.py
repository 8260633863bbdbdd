"""Weights under the names that wrappers give them are read as the network's own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from hostile import SPEC
from torch import Tensor, nn

from wootz.errors import SuspectError
from wootz.models import build
from wootz.store import read_tensors, write_tensors
from wootz.suspects.files import open_file, weights_of
from wootz.suspects.files.tensor_names import matched_names

PREFIXES = ["module.", "_orig_mod.", "model.", "model.module._orig_mod.", "a.b.c."]


compiled = partial(torch.compile, backend="eager")


def save(path: Path, tensors: dict[str, Tensor]) -> None:
    if path.suffix == ".pt":
        torch.save(tensors, path)
    else:
        write_tensors(path, tensors)


@pytest.mark.parametrize("file", ["model.safetensors", "model.pt"])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_of_all_names_is_left_out(run: Path, x: Tensor, file: str, prefix: str) -> None:
    tensors = read_tensors(run / "model.safetensors")
    with open_file(run / "model.safetensors", isolated=False) as plain:
        expected = plain.predict(x)
    save(run / file, {prefix + name: tensor for name, tensor in tensors.items()})
    with open_file(run / file, isolated=False, allow_torch_zip=True) as opened:
        assert torch.equal(opened.predict(x), expected)


def test_wrappers_inside_names_are_left_out_and_others_refused(run: Path, x: Tensor) -> None:
    tensors, file = read_tensors(run / "model.safetensors"), run / "model.safetensors"
    write_tensors(file, {name.replace(".", "._orig_mod.", 1): tensor for name, tensor in tensors.items()})
    with open_file(file, isolated=False) as opened:
        assert opened.predict(x).shape == (6, len(SPEC.classes))
    first = next(iter(tensors))
    for others in ({**tensors, f"module.{first}": tensors[first]}, {"x." + first: tensors[first]}):
        write_tensors(file, others)
        with pytest.raises(SuspectError, match="does not hold the weights"), open_file(file, isolated=False):
            pass


def test_names_that_become_equal_stay_as_they_are() -> None:
    names = ["module.a", "a"]
    assert matched_names(names, ["a", "b"]) == {name: name for name in names}
    assert matched_names([], []) == {}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda net: net,
        nn.DataParallel,
        compiled,
        lambda net: nn.Sequential(nn.Identity(), nn.DataParallel(net)),
        lambda net: nn.DataParallel(compiled(net)),
    ],
    ids=["bare", "DataParallel", "compile", "inside a Sequential", "both"],
)
def test_weights_of_wrapped_modules_are_found(wrap: Callable[[nn.Module], nn.Module]) -> None:
    net = build(SPEC, 1)
    name, tensor = next(iter(net.state_dict().items()))
    weights = weights_of(wrap(net))
    for asked in (name, f"module.{name}"):
        found = weights(asked, tuple(tensor.shape))
        assert found is not None
        assert torch.equal(found, tensor)
    assert weights(name, (1, 2, 3)) is None
    assert weights("nothing", tuple(tensor.shape)) is None
