"""Training checkpoints: written atomically after every epoch, without pickle.

The marker file `checkpoint.json` holds the digest of the tensors and, under `marker`, that of its own other fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from wootz.errors import StoreError
from wootz.store import canonical, file_digest, read_json, read_tensors, sha256, validate, write_json, write_tensors

_MARKER = "checkpoint.json"
_TOLERANCE = 1e-3
_METRICS = {"epoch", "loss", "clean", "robust"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What makes a run the same one; only the same run is resumed.

    Attributes:
        digests: by name, the digests of its settings, data and initial weights.
        answers: logits float32 [N, K] of the initial network on some training images: digests of weights cannot show
            that the same weights are used in another way, such as with another activation.
    """

    digests: Mapping[str, str]
    answers: Tensor

    def differences(self, digests: Mapping[str, str], answers: Tensor) -> list[str]:
        """Return the names of what differs; answers may differ by rounding."""
        others = [name for name in {**self.digests, **digests} if self.digests.get(name) != digests.get(name)]
        tolerance = _TOLERANCE * self.answers.abs().max().clamp_min(1).item()
        alike = answers.shape == self.answers.shape and torch.allclose(answers, self.answers, rtol=0, atol=tolerance)
        return others if others or alike else ["network"]


@dataclass(slots=True, kw_only=True)
class TrainingState:
    """The progress of a training run.

    Attributes:
        epoch: the last completed epoch, from 0; -1 before the first.
        history: one mapping of metrics per epoch.
        best: the weights of the best epoch.
        best_epoch: the best epoch.
    """

    epoch: int
    history: list[dict[str, float]]
    best: dict[str, Tensor]
    best_epoch: int


class _Marker(BaseModel):
    """The content of the marker file."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    run: dict[str, str]
    file: str = Field(pattern=r"^epoch-\d{4,9}\.safetensors$")
    digest: str
    epoch: int = Field(ge=0)
    best_epoch: int = Field(ge=-1)
    history: list[dict[str, int | float]]
    groups: list[dict[str, Any]]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        numbered = all(metrics.get("epoch") == number for number, metrics in enumerate(self.history))
        measured = all(metrics.keys() >= _METRICS for metrics in self.history)
        if len(self.history) != self.epoch + 1 or not (numbered and measured):
            raise ValueError(f"history: must have loss and accuracies of the epochs 0 to {self.epoch}")
        return self


def save(
    folder: Path,
    identity: Identity,
    state: TrainingState,
    model: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write the tensors, then the marker file that names them with their digest, then delete older tensors.

    Args:
        folder: the folder of the checkpoint.
        identity: what a run that continues from the checkpoint must match.
        state: the progress of the run.
        model: the model in training.
        average: the model with the averaged weights (may be `model` itself).
        optimizer: the optimizer, whose whole state is saved.
    """
    saved = optimizer.state_dict()
    tensors = {"initial/answers": identity.answers} | {f"model/{name}": t for name, t in model.state_dict().items()}
    tensors |= {f"best/{name}": t for name, t in state.best.items()}
    if average is not model:
        tensors |= {f"average/{name}": t for name, t in average.state_dict().items()}
    for index, slots in saved["state"].items():
        tensors |= {f"optimizer/{index}/{name}": t for name, t in slots.items() if isinstance(t, Tensor)}
    name = f"epoch-{state.epoch:04d}.safetensors"
    write_tensors(folder / name, tensors)
    marker = {
        "run": dict(identity.digests),
        "file": name,
        "digest": file_digest(folder / name),
        "epoch": state.epoch,
        "best_epoch": state.best_epoch,
        "history": state.history,
        "groups": saved["param_groups"],
    }
    write_json(folder / _MARKER, marker | {"marker": sha256(canonical(marker))})
    for old in folder.glob("epoch-*.safetensors"):
        if old.name != name:
            old.unlink(missing_ok=True)


def load(
    folder: Path, identity: Identity, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer
) -> TrainingState | None:
    """Restore model, average and optimizer from the checkpoint and return the progress; None if there is none.

    Raises:
        StoreError: the checkpoint is damaged, or belongs to another run.
    """
    if not (folder / _MARKER).exists():
        return None
    marker = validate(_Marker, _read_marker(folder / _MARKER), str(folder / _MARKER))
    path = folder / marker.file
    if file_digest(path) != marker.digest:
        raise StoreError(f"{path}: was changed since it was written (its digest differs)")
    tensors = read_tensors(path)
    if others := identity.differences(marker.run, tensors.pop("initial/answers", torch.empty(0))):
        raise StoreError(
            f"{folder}: is the checkpoint of a run with other {', '.join(others)}; resume it with the same, or remove "
            "the folder to train anew"
        )
    slots: dict[int, dict[str, Any]] = {}
    try:
        model.load_state_dict(_under(tensors, "model/"))
        if average is not model:
            average.load_state_dict(_under(tensors, "average/"))
        for name, tensor in _under(tensors, "optimizer/").items():
            index, slot = name.split("/", 1)
            slots.setdefault(int(index), {})[slot] = tensor
        optimizer.load_state_dict({"state": slots, "param_groups": marker.groups})
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise StoreError(f"{folder}: its checkpoint does not fit the network and its optimizer ({error})") from error
    return TrainingState(
        epoch=marker.epoch,
        history=[dict(metrics) for metrics in marker.history],
        best=_under(tensors, "best/"),
        best_epoch=marker.best_epoch,
    )


def _read_marker(path: Path) -> Any:
    """Read a marker file, and check it against its own digest."""
    marker = read_json(path)
    digest = marker.pop("marker", None) if isinstance(marker, dict) else None
    if digest is None or digest != sha256(canonical(marker)) or not isinstance(marker.get("run"), dict):
        raise StoreError(f"{path}: is damaged, or of another version of wootz; remove {path.parent} to train anew")
    return marker


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def clear(folder: Path) -> None:
    """Remove a checkpoint, the marker file first, so that a partial removal is never mistaken for a checkpoint."""
    for pattern in (_MARKER, "epoch-*.safetensors"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
