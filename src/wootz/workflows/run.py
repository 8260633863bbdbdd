"""A model in a run folder, with the metadata of its training."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from wootz.attacks.evasion import predict_logits
from wootz.data import Dataset, load
from wootz.errors import ConfigError, ModelError, StoreError
from wootz.models import ModelSpec, read_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A model on disk with what is known of how it was made."""

    folder: Path
    model: nn.Module
    spec: ModelSpec
    about: dict[str, Any]

    @property
    def eps(self) -> float:
        """The budget that robustness is reported at."""
        return float(self.about["eps"])

    @property
    def set_aside(self) -> float:
        """How its data were divided, see `wootz.data.split_dataset`."""
        return float(self.about.get("set_aside", 1.0))

    def data(self, data_dir: Path | None) -> Dataset:
        """Load the data set that the run was trained on, and check that it still fits."""
        data = load(self.about["data"], data_dir, self.set_aside)
        if data.shape != self.spec.shape or len(data.classes) != len(self.spec.classes):
            raise ModelError(
                f"{self.folder}: its model takes {list(self.spec.shape)} and knows {len(self.spec.classes)} classes; "
                f"{data.name} has {list(data.shape)} and {len(data.classes)}"
            )
        return data


def open_run(folder: Path) -> Run:
    """Open a run folder.

    Raises:
        StoreError: there is none, or it is damaged.
    """
    if not folder.is_dir():
        raise StoreError(f"{folder}: is not a run folder (there is no such folder)")
    model, spec, about = read_model(folder)
    missing = [name for name in ("data", "eps", "kind", "seed") if name not in about]
    if missing:
        raise StoreError(f"{folder / 'model.json'}: does not say {', '.join(missing)}; was it made by wootz?")
    return Run(folder=folder, model=model, spec=spec, about=about)


def prepare_run_folder(out: Path, *, resume: bool = False, unfinished: bool = False) -> None:
    """Refuse to write over a run; make the folder.

    Args:
        out: the run folder.
        resume: whether a model that is there may be replaced by the same one.
        unfinished: whether --resume would finish the run, which the message says.
    """
    if (out / "model.safetensors").exists() and not resume:
        hint = "finish it with --resume, or " if unfinished else ""
        raise ConfigError(f"{out}: already holds a model; {hint}choose another --out (nothing was changed)")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{out}: cannot be made ({error.strerror})") from error


def agreement(one: nn.Module, other: nn.Module, data: Dataset) -> float:
    """Return the share of test images that two models answer alike."""
    x = data.test.images()
    return (predict_logits(one, x).argmax(1) == predict_logits(other, x).argmax(1)).float().mean().item()


class Timer:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Wall time, rounded to a tenth."""
        return round(time.monotonic() - self._start, 1)
