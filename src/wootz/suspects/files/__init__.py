"""Open untrusted model files as a `Predict`: run folders, safetensors, ONNX and, if allowed, plain PyTorch zip files.

The kind of a file follows from its content, not from its extension; formats that can run code when they are loaded are
refused. Headers are checked against `Limits` before memory is allocated, and the model runs in a separate process with
few rights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from wootz.errors import ModelError, SuspectError
from wootz.extras import require
from wootz.models import ModelSpec
from wootz.store import sha256
from wootz.suspects.files.limits import Limits
from wootz.suspects.files.loading import load, predictor, through_numpy, weights_of
from wootz.suspects.files.own_network import described_network
from wootz.suspects.files.sandbox import Isolation
from wootz.suspects.files.sanitize import strict_json
from wootz.suspects.files.untrusted import Untrusted, read_untrusted
from wootz.suspects.files.worker import isolated as isolated_worker
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

_BATCH_IMAGES, _BATCH_VALUES = 256, 1 << 22  # limits of one batch


class OpenSuspect(NamedTuple):
    """An open suspect.

    Attributes:
        predict: The function that queries it.
        spec: The image shape, the classes and the architecture that the file states.
        digest: The SHA-256 of the bytes that were read, with the algorithm's name.
        isolation: The restrictions of the process that runs it.
        about: The strings and integers of its description, for display only.
        weights: The function that returns its tensors by name and shape; None unless it is a network of this package
            and the access is `weights`.
    """

    predict: Predict
    spec: ModelSpec
    digest: str
    isolation: Isolation
    about: Mapping[str, str | int]
    weights: Weights | None = None


@contextmanager
def open_suspect(
    path: str | Path, access: Access = "scores", *, isolated: bool = True, allow_torch_zip: bool = False
) -> Iterator[tuple[Predict, ModelSpec]]:
    """Open the suspect at `path` and yield its `Predict` and the spec that it states; see `open_file`."""
    with open_file(path, access, isolated=isolated, allow_torch_zip=allow_torch_zip) as opened:
        yield opened.predict, opened.spec


@contextmanager
def open_file(
    path: str | Path,
    access: Access = "scores",
    *,
    isolated: bool = True,
    allow_torch_zip: bool = False,
    network: ModelSpec | None = None,
    limits: Limits | None = None,
) -> Iterator[OpenSuspect]:
    """Open the suspect at `path`.

    Args:
        path: The run folder, or the file; the description of a `.safetensors` or PyTorch zip file lies beside it.
        access: What the suspect returns: labels only, scores, or scores and weights.
        isolated: Run it in a separate process. A trusted file may be run in this one.
        allow_torch_zip: Also read dense tensors from PyTorch zip files (not by PyTorch's loader).
        network: The network that weights are loaded into, named by the verifier: its code is run. None is the
            built-in network that the description names.
        limits: The limits on its size, memory and time.

    Raises:
        SuspectError: The kind of file is refused, or its headers exceed a limit.
        InconclusiveError: The isolated process failed, crashed, or exceeded a limit, here or at a query.
        ModelError: The weights do not fit their description, or hold NaN or infinity.
        StoreError: A file is missing or damaged.
        ConfigError: An architecture, a filter or a setting is unknown.
    """
    limits = limits or Limits()
    untrusted = read_untrusted(Path(path), limits, allow_torch_zip=allow_torch_zip, network_known=network is not None)
    if untrusted.kind == "onnx":
        require("onnx")
    digest, threads, about = sha256(untrusted.data), torch.get_num_threads(), _description_values(untrusted)
    if not isolated:
        predict, spec, weights = load(untrusted, limits, threads=threads, network=network)
        weights = weights if access == "weights" else None
        yield OpenSuspect(
            _batched_and_checked(predict, spec, untrusted.name, access), spec, digest, Isolation(), about, weights
        )
        return
    with isolated_worker(untrusted, limits, threads=threads, network=network) as worker:
        name, weights = untrusted.name, worker.weights if access == "weights" and untrusted.kind != "onnx" else None
        del untrusted
        predict = through_numpy(worker.ask)
        yield OpenSuspect(
            _batched_and_checked(predict, worker.spec, name, access),
            worker.spec,
            digest,
            worker.isolation,
            about,
            weights,
        )


def _description_values(untrusted: Untrusted) -> dict[str, str | int]:
    if untrusted.description is None:
        return {}
    description = strict_json(untrusted.description, f"{untrusted.name} (its description)")
    plain = description.items() if isinstance(description, dict) else ()
    return {key: value for key, value in plain if type(value) is int or (isinstance(value, str) and len(value) <= 64)}


def _batched_and_checked(predict: Predict, spec: ModelSpec, name: str, access: Access) -> Predict:
    """Return a predictor that splits batches, checks shapes, and marks rows without finite scores as missing."""
    channels, height, width = spec.shape
    size = max(1, min(_BATCH_IMAGES, _BATCH_VALUES // (channels * height * width)))

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
