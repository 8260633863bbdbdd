"""Write a run's model for those who serve it elsewhere, and see that what was written answers as the model does."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from wootz.errors import ConfigError, ModelError
from wootz.models.filters import Filtered
from wootz.models.saved import to_onnx
from wootz.store import sha256, write_bytes
from wootz.suspects.files import open_file, predictor
from wootz.workflows.run import open_run

IMAGES = 256
"""Images of noise that both are asked about."""

TOLERANCE = 1e-3
"""How far a log-probability may be off; rounding alone moved one of `small-cnn` by 7e-7."""


def export_run(folder: str | Path, out: str | Path) -> dict[str, Any]:
    """Write the model of a run folder as one ONNX file, with its normalization and the classes' names.

    Args:
        folder: the run folder.
        out: the file to write.

    Returns:
        What stands in the file, its digest, and the largest difference between a log-probability of its and of the
        model's, asked about images of noise through ONNX Runtime.

    Raises:
        ConfigError: there is such a file already.
        ModelError: a filter stands before or after the model, or the file does not answer as the model does.
    """
    out = Path(out)
    if out.exists():
        raise ConfigError(f"{out}: is there already; choose another --out (nothing was changed)")
    run = open_run(folder)
    if isinstance(run.model, Filtered):
        raise ModelError(f"{folder}: a filter ({run.model.name}) changes its images or answers; ONNX has none")
    data = to_onnx(run.model, run.spec)
    x = torch.rand(IMAGES, *run.spec.shape, generator=torch.Generator().manual_seed(0))
    with TemporaryDirectory() as place:
        written = Path(place) / "model.onnx"
        written.write_bytes(data)
        with open_file(written, isolated=False) as opened:
            off = (opened.predict(x) - predictor(run.model)(x)).abs().max().item()
    if not off <= TOLERANCE:
        raise ModelError(f"{folder}: as ONNX its log-probabilities are off by {off:.2g}; nothing was written")
    write_bytes(out, data)
    shape, classes = ", ".join(map(str, run.spec.shape)), list(run.spec.classes)
    return {
        "schema": 1,
        "file": str(out),
        "digest": sha256(data),
        "input": f"images, float32 [N, {shape}] in [0, 1]",
        "output": f"logits, float32 [N, {len(classes)}]",
        "classes": classes,
        "largest_difference": off,
    }
