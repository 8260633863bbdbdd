"""Suspects in files: whatever is to be verified, opened as a `Predict`. The file is a stranger's and may be hostile.

Read are a run folder, safetensors with their description beside them, ONNX, and (where allowed) plain PyTorch zip
files. The content decides, never the ending; what can run code when it is read is refused. Headers are checked against
`Limits` before anything is allocated, and the model lives in a process of its own, with few rights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from wootz.errors import ModelError, SuspectError
from wootz.models import ModelSpec
from wootz.store import sha256
from wootz.suspects.files.budget import Limits
from wootz.suspects.files.confine import Isolation
from wootz.suspects.files.files import Untrusted, read_untrusted
from wootz.suspects.files.loading import load, predictor, through_numpy, weights_of
from wootz.suspects.files.own_network import described_network
from wootz.suspects.files.words import strict_json
from wootz.suspects.files.worker import isolated as isolated_process
from wootz.types import Access, Predict, Weights

__all__ = [
    "Isolation",
    "Limits",
    "Opened",
    "described_network",
    "open_file",
    "open_suspect",
    "predictor",
    "weights_of",
]

_IMAGES, _VALUES = 256, 1 << 26  # a batch has at most so many images, and so many values


class Opened(NamedTuple):
    """A suspect that can be asked.

    Attributes:
        predict: asks it.
        spec: what it claims to be.
        digest: SHA-256 of the bytes that were read, with the algorithm's name.
        isolation: the walls around it.
        about: what its description says of it, plain words and whole numbers; nothing depends on them.
        weights: shows its tensors by name and shape, where it is a network of ours and the access is `weights`.
    """

    predict: Predict
    spec: ModelSpec
    digest: str
    isolation: Isolation
    about: Mapping[str, str | int]
    weights: Weights | None = None


@contextmanager
def open_suspect(
    path: Path, access: Access = "scores", *, isolated: bool = True, allow_torch_zip: bool = False
) -> Iterator[tuple[Predict, ModelSpec]]:
    """Open what stands at `path` and give its `Predict` with the spec it claims to have; see `open_file`."""
    with open_file(path, access, isolated=isolated, allow_torch_zip=allow_torch_zip) as opened:
        yield opened.predict, opened.spec


@contextmanager
def open_file(
    path: Path,
    access: Access = "scores",
    *,
    isolated: bool = True,
    allow_torch_zip: bool = False,
    limits: Limits | None = None,
) -> Iterator[Opened]:
    """Open the suspect at `path`.

    Args:
        path: run folder, or file; the description of a `.safetensors` or PyTorch zip file stands beside it.
        access: what it shall show: labels alone, scores, or scores and weights.
        isolated: in a process of its own; a file of one's own making may do without.
        allow_torch_zip: read dense tensors from PyTorch zip files too (not by PyTorch's loader).
        limits: what it may ask for.

    Raises:
        SuspectError: a kind that is refused, with the reason; beyond the limits; or its isolated process broke.
        ModelError: weights that do not fit their description, or hold NaN or infinity.
        StoreError: files that are missing or damaged.
        ConfigError: an architecture, a filter or a setting that is not known here.
    """
    limits = limits or Limits()
    given = read_untrusted(path, limits, allow_torch_zip=allow_torch_zip)
    digest, threads, about = sha256(given.data), torch.get_num_threads(), _about(given)
    if not isolated:
        predict, spec, weights = load(given, limits, threads=threads)
        shown = weights if access == "weights" else None
        yield Opened(_checked(predict, spec, given.name, access), spec, digest, Isolation(), about, shown)
        return
    with isolated_process(given, limits, threads=threads) as worker:
        name, shown = given.name, worker.weights if access == "weights" and given.kind != "onnx" else None
        del given
        predict = through_numpy(worker.ask)
        yield Opened(_checked(predict, worker.spec, name, access), worker.spec, digest, worker.isolation, about, shown)


def _about(given: Untrusted) -> dict[str, str | int]:
    if given.description is None:
        return {}
    told = strict_json(given.description, f"{given.name} (its description)")
    plain = told.items() if isinstance(told, dict) else ()
    return {key: value for key, value in plain if type(value) is int or (isinstance(value, str) and len(value) <= 64)}


def _checked(predict: Predict, spec: ModelSpec, name: str, access: Access) -> Predict:
    """Ask in batches, and let through only answers that are some: rows that are not finite become missing ones."""
    channels, height, width = spec.shape
    size = max(1, min(_IMAGES, _VALUES // (channels * height * width)))

    def answer(x: Tensor) -> Tensor:
        if x.dim() != 4 or tuple(x.shape[1:]) != spec.shape:
            raise ModelError(f"{name}: takes images [N, {channels}, {height}, {width}], not {list(x.shape)}")
        answers = [_rows(predict(batch.cpu()), batch, len(spec.classes), name) for batch in x.split(size)]
        scores = torch.cat(answers).to(x.device)
        if access == "label":
            return scores.argmax(1).masked_fill(scores.isnan().any(1), -1)
        return scores

    return answer


def _rows(scores: Tensor, batch: Tensor, classes: int, name: str) -> Tensor:
    if scores.shape != (len(batch), classes):
        raise SuspectError(f"{name}: answered {len(batch)} images with scores {list(scores.shape)}")
    return scores.masked_fill(~scores.isfinite().all(1, keepdim=True), torch.nan)
