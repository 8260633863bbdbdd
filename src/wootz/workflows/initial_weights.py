"""Weights that a network starts from, in the files that people have: safetensors, and `torch.save` where allowed."""

from __future__ import annotations

import pickle
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wootz.errors import ModelError, StoreError
from wootz.logs import warn_once
from wootz.models import load_weights
from wootz.store import read_tensors
from wootz.suspects.files.tensor_names import matched_names

_LISTED = 5


def load_initial_weights(model: nn.Module, path: str | Path, *, torch_zip: bool = False) -> None:
    """Load the weights in a file into `model`, in the model's own types.

    A checkpoint may hold state dicts in dictionaries; averaged weights (EMA) are preferred, which is reported. Prefixes
    such as `module.`, `_orig_mod.` and `model.` that all tensors share, and tensors that only count batches, are
    ignored. Tied tensors may be in the file once.

    Args:
        model: the network.
        path: a safetensors file, or a file of `torch.save`.
        torch_zip: whether files of `torch.save` are read; PyTorch then unpickles tensors and containers only.

    Raises:
        StoreError: there is no such file, or it is damaged or of another kind.
        ModelError: tensors are missing, unexpected or of another shape, or hold NaN or infinity.
    """
    path = Path(path)
    expected, problems = model.state_dict(), []
    for where, state in _state_dicts(_read(path, torch_zip=torch_zip)):
        fitted = _fitted(state, expected, model)
        if not (problem := _difference(fitted, expected)):
            if where:
                warn_once(f"{path}: the weights in {where!r} were taken")
            load_weights(model, fitted, path)
            return
        problems.append(problem)
    raise ModelError(f"{path}: does not hold weights of this network: {min(problems, key=len, default='no tensors')}")


def _read(path: Path, *, torch_zip: bool) -> Any:
    if not path.is_file():
        raise StoreError(f"{path}: there is no such file")
    with path.open("rb") as file:
        head = file.read(9)
    if head[8:] == b"{":  # after the length of the header
        return read_tensors(path)
    if not head.startswith((b"PK", b"\x80")):
        raise StoreError(f"{path}: is neither a safetensors file nor one of torch.save")
    if not torch_zip:
        raise StoreError(f"{path}: is a file of torch.save; --allow-torch-zip reads the tensors in it")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200]
        raise StoreError(
            f"{path}: holds more than tensors and plain values, or is damaged ({reason}); save model.state_dict()"
        ) from error


def _state_dicts(content: Any, where: str = "") -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """Yield the state dicts in a checkpoint by their place in it: averaged weights first, then the outermost."""
    if not isinstance(content, Mapping):
        return
    own = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    inner = [
        (_is_averaged(name), f"{where}.{name}" if where else str(name), value)
        for name, value in content.items()
        if isinstance(value, Mapping)
    ]
    for averaged in (True, False):
        if own and not averaged:
            yield where, own
        for is_averaged, place, value in inner:
            if is_averaged is averaged:
                yield from _state_dicts(value, place)


def _is_averaged(name: Any) -> bool:
    return "ema" in str(name).lower()


def _fitted(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors under the network's own names, as far as they have them."""
    counters = {name for name in expected if name.endswith("num_batches_tracked")}
    state = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    tied = _tied(model, expected)
    for kept in (set(expected) - counters, set(expected) - counters - set(tied)):
        names = _without_prefix(state, kept)
        if set(names.values()) == kept or not tied:
            break
    fitted = {names[name]: tensor for name, tensor in state.items()}
    fitted |= {name: fitted[other] for name, other in tied.items() if name not in fitted and other in fitted}
    return fitted | {name: expected[name] for name in counters}


def _without_prefix(state: Mapping[str, Tensor], kept: Collection[str]) -> dict[str, str]:
    """Return the network's name of each tensor, found by `matched_names`, or without the likeliest prefix."""
    matched = matched_names(list(state), kept)
    if set(matched.values()) == set(kept):
        return matched
    prefixes = {"", *(name[: name.index(".") + 1] for name in state if "." in name)}
    best = max(sorted(prefixes), key=lambda prefix: sum(name.removeprefix(prefix) in kept for name in state))
    return {name: name.removeprefix(best) for name in state}


def _tied(model: nn.Module, expected: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the first name of each tensor that has a second one, by the second."""
    first: dict[tuple[int, tuple[int, ...]], str] = {}
    tied: dict[str, str] = {}
    for name, tensor in expected.items():
        if tensor.numel():
            other = first.setdefault((tensor.data_ptr(), tuple(tensor.shape)), name)
            if other != name:
                tied[name] = other
    return tied


def _difference(present: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """Return what does not fit, in words; empty if all fits."""
    missing = [name for name in expected if name not in present]
    surplus = [name for name in present if name not in expected]
    shapes = [
        f"{name} is {list(present[name].shape)}, not {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in present and present[name].shape != tensor.shape
    ]
    parts = (("missing", missing), ("unexpected", surplus), ("of another shape", shapes))
    return "; ".join(f"{len(found)} {what}: {_listed(found)}" for what, found in parts if found)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
