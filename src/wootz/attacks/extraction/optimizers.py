"""An optimizer's memory as part of a state of tensors, so that an attempt in rounds goes on exactly."""

from __future__ import annotations

from torch.optim import Optimizer

from wootz.attacks.adversary import State


def packed_optimizer(optimizer: Optimizer, prefix: str) -> State:
    """Return what `optimizer` (Adam) remembers of each parameter, by the parameter's number."""
    memory = optimizer.state_dict()["state"]
    return {f"{prefix}{number}/{name}": t.clone() for number, kept in memory.items() for name, t in kept.items()}


def unpacked_optimizer(optimizer: Optimizer, state: State, prefix: str) -> None:
    """Put that part of a state into `optimizer`; its settings stay."""
    memory: dict[int, dict[str, object]] = {}
    for key, tensor in state.items():
        if key.startswith(prefix):
            number, name = key.removeprefix(prefix).split("/")
            memory.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({"state": memory, "param_groups": optimizer.state_dict()["param_groups"]})
