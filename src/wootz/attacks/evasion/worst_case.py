"""The worst case of each image over several attacks, one after the other, on those that still stand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from wootz.attacks.evasion.objectives import margin
from wootz.attacks.evasion.table import ATTACKS
from wootz.config import digest, to_mapping
from wootz.modes import eval_mode
from wootz.rng import generator
from wootz.store import read_tensors, tensor_digest, write_tensors
from wootz.types import Norm


class Step(NamedTuple):
    """One attack of an evaluation: its name there, its row in `ATTACKS`, its settings without the budget.

    `nearest` is the share of the images still standing that it tries, those that came nearest to falling first.
    """

    name: str
    attack: str
    config: Any
    nearest: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What stays the same while attacks change: the model, images [N, C, H, W], labels [N], the ball, the seed.

    A trial with a `folder` leaves what it found there after every batch, and goes on from there.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    eps: float
    norm: Norm = "Linf"
    seed: int = 0
    batch_size: int = 500
    folder: Path | None = None

    def place(self, steps: Sequence[Step]) -> Path | None:
        """Return the file of this trial of these steps; any change of either gives another."""
        if self.folder is None:
            return None
        told = {"eps": self.eps, "norm": self.norm, "seed": self.seed, "batch_size": self.batch_size}
        what = {"what": tensor_digest(self.x, self.y, *self.model.state_dict().values())}
        attacks = [to_mapping(step.config) | {"name": step.name, "nearest": step.nearest} for step in steps]
        return self.folder / f"evaluation-{digest(told, what, *attacks)[:16]}.safetensors"


def worst_case(
    steps: Sequence[Step], trial: Trial, standing: Tensor, progress: Callable[[float], None]
) -> tuple[Tensor, dict[str, int]]:
    """Run every step and return which images stand [N] bool, and how many fell to which step.

    Args:
        steps: the attacks, in order.
        trial: the target.
        standing: the images to attack, [N] bool; those answered right.
        progress: told the fraction done, 0 to 1.
    """
    place = trial.place(steps)
    state = read_tensors(place) if place and place.exists() else _fresh(standing, len(steps))
    state = {name: tensor.to(standing.device) for name, tensor in state.items()}
    for number, step in enumerate(steps):
        if number < int(state["step"]):
            continue
        if int(state["batch"]) == 0:
            state["rows"] = _rows(step, state)
        batches = state["rows"].split(trial.batch_size)
        for batch in range(int(state["batch"]), len(batches)):
            progress((number + batch / len(batches)) / len(steps))
            rows = batches[batch]
            height = _attack(step, trial, rows, batch)
            state["height"][rows] = torch.maximum(state["height"][rows], height)
            state["fallen"][number] += int((height >= 0).sum())
            state["standing"][rows] &= height < 0
            state["batch"] = torch.tensor(batch + 1)
            if place:
                write_tensors(place, state)
        state |= {"step": torch.tensor(number + 1), "batch": torch.tensor(0)}
    progress(1.0)
    if place:
        place.unlink(missing_ok=True)
    return state["standing"], {step.name: int(count) for step, count in zip(steps, state["fallen"], strict=True)}


def _fresh(standing: Tensor, steps: int) -> dict[str, Tensor]:
    return {
        "standing": standing.clone(),
        "height": torch.full(standing.shape, float("-inf")),
        "fallen": torch.zeros(steps, dtype=torch.int64),
        "step": torch.tensor(0),
        "batch": torch.tensor(0),
    }


def _rows(step: Step, state: dict[str, Tensor]) -> Tensor:
    """Return the rows that a step tries."""
    rows = state["standing"].nonzero().squeeze(1)
    if step.nearest == 1:
        return rows
    order = state["height"][rows].argsort(descending=True, stable=True)
    return rows[order[: math.ceil(step.nearest * len(rows))]]


def _attack(step: Step, trial: Trial, rows: Tensor, batch: int) -> Tensor:
    """Return the margin [n] that the attack reaches; 0 and above is a misclassified image."""
    x, y = trial.x[rows], trial.y[rows]
    cfg = replace(step.config, eps=trial.eps, norm=trial.norm)
    stream = generator(trial.seed, step.name, batch, device=x.device)
    points = ATTACKS[step.attack].run(cfg, trial.model, x, y, generator=stream)
    with eval_mode(trial.model), torch.no_grad():
        logits = trial.model(points).float()
    return torch.where(logits.argmax(1) == y, margin(logits, y).clamp_max(-1e-30), 1.0)
