"""What extraction and removal attacks share: the attacker's resources, training, and loops that resume.

Every extraction and removal attack is a function `(cfg, target, context) -> module`. An attack that is interrupted
continues exactly from the files that it left in the folder of its context.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from wootz import checks
from wootz.data import Split
from wootz.rng import derive, generator
from wootz.store import read_state, write_state
from wootz.training import Execution, Hook, Recipe, train
from wootz.types import Progress

State: TypeAlias = dict[str, Tensor]
"""The state of an interruptible loop, as named tensors; it is saved to one file, see `store.write_state`."""

_VALIDATION_PERIOD = 20  # every 20th image is held out to select the epoch
_ROUND = "round"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackDataConfig:
    """Which data the attacker has; the base of the settings of all attacks that use data.

    Attributes:
        data: images of the same distribution that the owner never used (`thief`), the owner's training images
            (`owner`), or another data set of the same shape (`other`).
        images: the number of images; None means all.
    """

    data: Literal["thief", "owner", "other"] = "thief"
    images: int | None = None

    def __post_init__(self) -> None:
        if self.images is not None:
            checks.at_least(20, images=self.images)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackContext:
    """The resources of an attacker: data, networks, compute and a folder, but no key.

    Attributes:
        data: the attacker's images with their true labels. Extraction attacks ignore the labels unless they say
            otherwise.
        new_model: maps a name to a new network of the attacker's architecture, initialized from that name; equal
            names give equal networks.
        eps: the public perturbation budget at which robustness is reported for these data, in pixels of [0, 1].
        seed: the seed of all randomness of the attack.
        execution: the device and the precision.
        folder: the folder for the checkpoints of a long attack; None keeps none.
        progress: the callback that receives the name of a step and the fraction done.
    """

    data: Split
    new_model: Callable[[str], nn.Module]
    eps: float
    seed: int = 0
    execution: Execution = field(default_factory=Execution)
    folder: Path | None = None
    progress: Progress = lambda *_: None

    def generator(self, *path: str | int, device: torch.device | str = "cpu") -> torch.Generator:
        """Return the generator of this attack for a path on `device`: a pure function of seed and path."""
        return generator(self.seed, *path, device=device)


def fit(
    recipe: Recipe,
    model: nn.Module,
    data: Split,
    context: AttackContext,
    name: str,
    *,
    targets: Tensor | None = None,
    hook: Hook | None = None,
) -> nn.Module:
    """Return a copy of `model` trained on `data`, in eval mode on the CPU; resumes from the attack's checkpoint.

    Args:
        recipe: the training settings; a parameter that does not require gradients keeps its value.
        model: the network to start from.
        data: images and labels. Every 20th image is held out; the epoch is selected by accuracy on these images.
        context: the attacker's execution settings, seed and folder.
        name: the name of this training run within the attack; different runs need different names.
        targets: probabilities [N, K] to train on instead of the labels.
        hook: additional losses or training passes; its targets must be None.
    """
    validation = holdout_mask(len(data))
    hook = hook or Hook()
    return train(
        recipe,
        model,
        data.subset(~validation),
        data.subset(validation),
        seed=derive(context.seed, name),
        hook=Hook(
            targets=None if targets is None else targets[~validation],
            extra=hook.extra,
            trigger_epochs=hook.trigger_epochs,
        ),
        execution=context.execution,
        folder=None if context.folder is None else context.folder / name,
        resume=True,
        progress=lambda done, _: context.progress(f"training ({name})", done),
    ).model


def holdout_mask(count: int) -> Tensor:
    """Return a mask [count] of the images that are held out to select the epoch."""
    return torch.arange(count) % _VALIDATION_PERIOD == 0


def checkpointed_loop(
    context: AttackContext,
    name: str,
    count: int,
    start: Callable[[], State],
    step: Callable[[int, State], State],
    every: int = 1,
) -> State:
    """Run `state = step(number, state)` `count` times and return the last state; resumes from the newest state on disk.

    Args:
        context: the attacker's folder and progress callback; without a folder nothing is saved.
        name: the name of this loop within the attack, and of its file.
        count: the total number of steps.
        start: creates the state before the first step; not called if a state is on disk.
        step: takes the number of the step, from 0, and the state. Its randomness must be a function of the number.
        every: the number of steps between two saved states; the last state is always saved.
    """
    path = None if context.folder is None else context.folder / f"{name}.safetensors"
    state = read_state(path) if path and path.exists() else start()
    done = int(state.pop(_ROUND, torch.zeros(())))
    for number in range(done, count):
        context.progress(name, number / count)
        state = step(number, state)
        if path and ((number + 1) % every == 0 or number + 1 == count):
            write_state(path, state | {_ROUND: torch.tensor(number + 1)})
    return state


def model_state(model: nn.Module, prefix: str = "model/") -> State:
    """Return a copy of the weights of `model` as entries of a loop state."""
    return {f"{prefix}{name}": tensor.detach().clone() for name, tensor in model.state_dict().items()}


def load_model_state(model: nn.Module, state: State, prefix: str = "model/") -> nn.Module:
    """Load the entries with this prefix into `model` and return it."""
    model.load_state_dict(
        {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    )
    return model


def optimizer_state(optimizer: Optimizer, prefix: str) -> State:
    """Return a copy of the per-parameter state of `optimizer`, whose values must be tensors, as loop state entries."""
    per_parameter = optimizer.state_dict()["state"]
    return {
        f"{prefix}{number}/{name}": tensor.clone()
        for number, tensors in per_parameter.items()
        for name, tensor in tensors.items()
    }


def load_optimizer_state(optimizer: Optimizer, state: State, prefix: str) -> None:
    """Load the entries with this prefix into `optimizer`; its hyperparameters keep their values."""
    per_parameter: dict[int, dict[str, object]] = {}
    for key, tensor in state.items():
        if key.startswith(prefix):
            number, name = key.removeprefix(prefix).split("/")
            per_parameter.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({"state": per_parameter, "param_groups": optimizer.state_dict()["param_groups"]})
