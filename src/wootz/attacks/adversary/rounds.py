"""An attempt in rounds that goes on after a stop: the state is tensors, whole on disk after every round."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from wootz.attacks.adversary.context import AttackContext
from wootz.store import read_tensors, write_tensors

State: TypeAlias = dict[str, Tensor]

_ROUND = "round"


def rounds(
    context: AttackContext,
    name: str,
    count: int,
    start: Callable[[], State],
    step: Callable[[int, State], State],
    every: int = 1,
) -> State:
    """Run `state = step(number, state)` for `count` rounds; with a folder, from the newest round on disk.

    Args:
        context: folder and `progress`.
        name: of these rounds within the attempt.
        count: rounds in all.
        start: makes the state before the first round; not called where there is one on disk.
        step: takes the round's number, from 0, and the state. Its randomness must follow from the number.
        every: rounds between two states on disk.
    """
    place = None if context.folder is None else context.folder / f"{name}.safetensors"
    state = read_tensors(place) if place and place.exists() else start()
    done = int(state.pop(_ROUND, torch.zeros(())))
    for number in range(done, count):
        context.progress(name, number / count)
        state = step(number, state)
        if place and ((number + 1) % every == 0 or number + 1 == count):
            write_tensors(place, state | {_ROUND: torch.tensor(number + 1)})
    return state


def packed(model: nn.Module, prefix: str = "model/") -> State:
    """Return the weights of `model` as a part of a state."""
    return {f"{prefix}{name}": t.detach().clone() for name, t in model.state_dict().items()}


def unpacked(model: nn.Module, state: State, prefix: str = "model/") -> nn.Module:
    """Put that part of a state into `model` and return it."""
    model.load_state_dict({n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)})
    return model
