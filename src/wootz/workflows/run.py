"""A model in a run folder, with the metadata of its training."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import platformdirs
from torch import nn

from wootz.attacks.evasion import predict_logits
from wootz.data import DATASETS, Dataset, label_dataset, load, load_unlabelled
from wootz.errors import ConfigError, DataError, ModelError, StoreError
from wootz.logs import warn_once
from wootz.models import ModelSpec, read_model
from wootz.store import read_tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A model on disk with what is known of how it was made.

    Attributes:
        folder: the run folder.
        model: its model.
        spec: the description of the network.
        about: the content of `model.json`.
        moved: the name or path of its data set now; None is the one in `about`.
    """

    folder: Path
    model: nn.Module
    spec: ModelSpec
    about: dict[str, Any]
    moved: str | None = None

    @property
    def eps(self) -> float:
        """The budget that robustness is reported at."""
        return float(self.about["eps"])

    @property
    def set_aside(self) -> float:
        """How its data were divided, see `wootz.data.split_dataset`."""
        return float(self.about.get("set_aside", 1.0))

    @property
    def size(self) -> int | None:
        """The side that its images were resized to, see `wootz.data.load`."""
        return self.about.get("size")

    def data(self, data_dir: Path | None) -> Dataset:
        """Load the data set that the run was trained on.

        Raises:
            DataError: it is not where it was, or its images or labels are others.
            ModelError: its images or classes do not fit the model.
        """
        name = self.about["data"] if self.moved is None else self.moved
        skip = bool(self.about.get("unreadable"))
        if answers := self.about.get("labels_from"):
            data = self._answered(name, data_dir, answers, skip)
        else:
            data = load_moved(name, data_dir, self.set_aside, self.folder, size=self.size, skip_unreadable=skip)
        if data.shape != self.spec.shape or len(data.classes) != len(self.spec.classes):
            raise ModelError(
                f"{self.folder}: its model takes {list(self.spec.shape)} and knows {len(self.spec.classes)} classes; "
                f"{data.name} has {list(data.shape)} and {len(data.classes)}"
            )
        check_same_data(self.about, data, self.folder)
        return data

    def _answered(self, name: str, data_dir: Path | None, answers: str, skip_unreadable: bool) -> Dataset:
        """Return images without labels, with the answers that the marked model gave before it was marked."""
        file = next((file for file in (self.folder / ANSWERS_FILE, Path(answers)) if file.is_file()), None)
        if file is None:
            raise DataError(f"{answers}: is not there; it holds the labels of the images of {self.folder}")
        pixels, unreadable = load_unlabelled(name, data_dir, size=self.size, skip_unreadable=skip_unreadable)
        labels = read_tensors(file).get("labels")
        if labels is None or labels.shape != (len(pixels),):
            raise DataError(f"{file}: does not hold one label for each of the {len(pixels)} images of {name}")
        data = label_dataset(
            name,
            pixels,
            labels,
            self.spec.classes,
            set_aside=self.set_aside,
            size=self.size,
            unreadable=unreadable,
        )
        return replace(data, labels_from=os.path.abspath(file))


DATA_FIELDS = ("data", "set_aside", "data_digest", "size", "unreadable", "labels_from")
"""The fields of `data_metadata`; the last three are there only where they say something."""

ANSWERS_FILE = "answers.safetensors"
"""A marked model's own answers on all images, int64 [N] `labels`, where the images brought no labels."""


def load_moved(
    name: str,
    data_dir: Path | None,
    set_aside: float,
    run: Path | str,
    *,
    size: int | None = None,
    skip_unreadable: bool = False,
) -> Dataset:
    """Load the data set of a run, or of the model at a URL, which may no longer be where it was.

    Raises:
        DataError: there is neither a data set of this name nor such a path.
    """
    if name not in DATASETS and not os.path.exists(name):
        raise DataError(f"{run}: its data set {name!r} is not there; name its place now with --data (data= in Python)")
    return load(name, data_dir, set_aside, size=size, skip_unreadable=skip_unreadable)


def data_metadata(data: Dataset) -> dict[str, Any]:
    """Return what `model.json` says of the data that a model was made with."""
    read = {"size": data.size, "unreadable": data.unreadable, "labels_from": data.labels_from}
    return {
        "data": data.name,
        "set_aside": data.set_aside,
        "data_digest": data.digest,
        **{name: value for name, value in read.items() if value},
    }


def check_same_data(about: Mapping[str, Any], data: Dataset, folder: Path) -> None:
    """Raise DataError unless these are the pixels and labels that the run at `folder` was made with.

    Args:
        about: what its `model.json` says. Runs of older versions hold no digest, which is logged.
        data: the data that are at hand.
        folder: for messages.
    """
    expected = about.get("data_digest")
    if not expected:
        warn_once(f"{folder}: an older version made it without a digest of its data; {data.name} was not compared")
    elif expected != (found := data.digest):
        raise DataError(
            f"{data.name}: its images or labels are not those that {folder} was made with (SHA-256 {_short(found)}, "
            f"then {_short(expected)}); restore them, or name their place with --data (data= in Python)"
        )


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def open_run(folder: str | Path, data: str | None = None) -> Run:
    """Open a run folder.

    Args:
        folder: the run folder.
        data: the name or path of its data set now; None is where it was when the run was made.

    Raises:
        StoreError: there is none, or it is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise StoreError(f"{folder}: is not a run folder (there is no such folder)")
    model, spec, about = read_model(folder)
    missing = [name for name in ("data", "eps", "kind", "seed") if name not in about]
    if missing:
        raise StoreError(f"{folder / 'model.json'}: does not say {', '.join(missing)}; was it made by wootz?")
    return Run(folder=folder, model=model, spec=spec, about=about, moved=data)


def user_folder(kind: str, name: str) -> Path:
    """Return a folder of the user's own in the state folder ($XDG_STATE_HOME), mode 0700, made at the first call.

    Args:
        kind: what it is for.
        name: which of that kind it is.

    Raises:
        StoreError: it cannot be made.
    """
    place = Path(platformdirs.user_state_dir("wootz")) / kind / name
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.chmod(0o700)
    except OSError as error:
        raise StoreError(
            f"{place}: cannot be made ({error.strerror}); set $XDG_STATE_HOME to a folder of yours"
        ) from error
    return place


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
