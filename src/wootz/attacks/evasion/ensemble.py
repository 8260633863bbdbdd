"""An ensemble of attacks: each one runs on the images that are still classified correctly; the worst case counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from wootz.attacks.evasion.attacks import ATTACKS
from wootz.attacks.evasion.black_box import QueryCounter, answers_to, margins_of, misclassified
from wootz.config import digest, to_mapping
from wootz.rng import generator
from wootz.store import read_state, tensor_digest, write_state
from wootz.types import Norm, Predict


class AttackStep(NamedTuple):
    """One attack of an ensemble.

    Attributes:
        name: its name in the ensemble.
        attack: its name in `ATTACKS`.
        config: its settings without the budget.
        nearest: the fraction of the images still robust that it runs on, those with the largest margin first.
    """

    name: str
    attack: str
    config: Any
    nearest: float = 1.0

    @property
    def access(self) -> str:
        """The access to the target that the attack needs: `weights`, `scores` or `label`."""
        return ATTACKS[self.attack].access


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationTarget:
    """What all attacks of an ensemble share.

    Attributes:
        model: images in [0, 1] -> logits; for attacks by queries alone any `Predict`.
        x: images float32 [N, C, H, W] in [0, 1].
        y: true labels int64 [N].
        eps: the budget, in pixels of [0, 1].
        norm: the norm of the ball.
        seed: the seed of the attacks' randomness.
        batch_size: the number of images attacked at a time.
        folder: the folder in which an interrupted ensemble leaves its state after every batch; None keeps none.
        clean: the model's answers to the images: scores [N, K], or labels [N]; a model that is no module keeps no state
            without them.
    """

    model: nn.Module | Predict
    x: Tensor
    y: Tensor
    eps: float
    norm: Norm = "Linf"
    seed: int = 0
    batch_size: int = 500
    folder: Path | None = None
    clean: Tensor | None = None

    def state_file(self, steps: Sequence[AttackStep]) -> Path | None:
        """Return the file of the state of these steps; its name changes with any change of target or steps.

        A module is known by its weights, any other target by its answers to the images.
        """
        if self.folder is None or not (isinstance(self.model, nn.Module) or self.clean is not None):
            return None
        known = self.model.state_dict().values() if isinstance(self.model, nn.Module) else (self.clean,)
        settings = {"eps": self.eps, "norm": self.norm, "seed": self.seed, "batch_size": self.batch_size}
        tensors = {"what": tensor_digest(self.x, self.y, *known)}
        attacks = [to_mapping(step.config) | {"name": step.name, "nearest": step.nearest} for step in steps]
        return self.folder / f"evaluation-{digest(settings, tensors, *attacks)[:16]}.safetensors"


class Attacked(NamedTuple):
    """The outcome of an ensemble.

    Attributes:
        robust: the images that remain classified correctly, [N] bool.
        first_success: attack -> the number of images on which it was the first to succeed.
        queries: the number of queries of the attacks without gradients about each image, [N] int64.
    """

    robust: Tensor
    first_success: dict[str, int]
    queries: Tensor


def attack_ensemble(
    steps: Sequence[AttackStep], target: EvaluationTarget, correct: Tensor, progress: Callable[[float], None]
) -> Attacked:
    """Run every attack on the images that are still robust.

    Args:
        steps: the attacks, in order.
        target: the model, the images and the ball.
        correct: the images to attack, [N] bool: those classified correctly.
        progress: the callback that receives the fraction done, 0 to 1.
    """
    path = target.state_file(steps)
    state = _start(correct, len(steps)) | (read_state(path) if path and path.exists() else {})
    state = {name: tensor.to(correct.device) for name, tensor in state.items()}
    for number, step in enumerate(steps):
        if number < int(state["step"]):
            continue
        if int(state["batch"]) == 0:
            state["rows"] = _select_rows(step, state)
        batches = state["rows"].split(target.batch_size)
        for batch in range(int(state["batch"]), len(batches)):
            progress((number + batch / len(batches)) / len(steps))
            rows = batches[batch]
            margins, queries = _attack(step, target, rows, batch)
            state["height"][rows] = torch.maximum(state["height"][rows], margins)
            state["fallen"][number] += int((margins >= 0).sum())
            state["standing"][rows] &= margins < 0
            state["queries"][rows] += queries.to(rows.device)
            state["batch"] = torch.tensor(batch + 1)
            if path:
                write_state(path, state)
        state |= {"step": torch.tensor(number + 1), "batch": torch.tensor(0)}
    progress(1.0)
    if path:
        path.unlink(missing_ok=True)
    first_success = {step.name: int(count) for step, count in zip(steps, state["fallen"], strict=True)}
    return Attacked(state["standing"], first_success, state["queries"])


def _start(correct: Tensor, steps: int) -> dict[str, Tensor]:
    """Return the state before the first attack; its keys are part of the file format.

    `standing`: still robust. `height`: the largest margin reached. `fallen`: successes per attack. `queries`: queries
    per image. `step` and `batch`: the next attack and its next batch.
    """
    return {
        "standing": correct.clone(),
        "height": torch.full(correct.shape, float("-inf")),
        "fallen": torch.zeros(steps, dtype=torch.int64),
        "queries": torch.zeros(correct.shape, dtype=torch.int64),
        "step": torch.tensor(0),
        "batch": torch.tensor(0),
    }


def _select_rows(step: AttackStep, state: dict[str, Tensor]) -> Tensor:
    """Return the rows that an attack runs on."""
    rows = state["standing"].nonzero().squeeze(1)
    if step.nearest == 1:
        return rows
    order = state["height"][rows].argsort(descending=True, stable=True)
    return rows[order[: math.ceil(step.nearest * len(rows))]]


def _attack(step: AttackStep, target: EvaluationTarget, rows: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """Return the margins [n] that the attack reaches, 0 or above if misclassified, and its queries per image [n].

    Of labels, the margin is -1 or 1. Queries are counted for attacks without gradients; the query that checks their
    result is not one of theirs.
    """
    x, y = target.x[rows], target.y[rows]
    cfg = replace(step.config, eps=target.eps, norm=target.norm)
    stream = generator(target.seed, step.name, batch, device=x.device)
    counter = QueryCounter(target.model, len(rows))
    run = ATTACKS[step.attack].run
    points = run(cfg, target.model if step.access == "weights" else counter, x, y, generator=stream)
    answers = answers_to(target.model, points)
    reached = margins_of(answers, y).clamp_max(-1e-30) if answers.dim() == 2 else -torch.ones_like(x[:, 0, 0, 0])
    return torch.where(misclassified(answers, y), 1.0, reached), counter.spent
