"""The model of a run behind its own guard: what a server shows, and a thief who asks in this process."""

from __future__ import annotations

from pathlib import Path

import torch

from wootz.errors import ConfigError
from wootz.keys import AnswerKey, LabelKey, has_keys, read_keys
from wootz.types import Predict
from wootz.watermarks import AnswerFilter, CalibrationScores
from wootz.workflows.run import Run


def open_guard(run: Run, answer: Predict, log: Path, data_dir: Path | None = None) -> AnswerFilter:
    """Open the guard of a run (mark `guard` or `dawn`); a new log learns from probe images what is unsure.

    The run's own triggers are always answered as the model does.

    Args:
        run: whose key it is.
        answer: its model's scores.
        log: where the answers that the key decides are logged; one that is there already is continued.
        data_dir: where data are looked for first.

    Raises:
        ConfigError: the run has no guard.
        StoreError: see `AnswerFilter`.
    """
    keys = read_keys(run.folder).by_mark if has_keys(run.folder) else {}
    key = next((key for key in keys.values() if isinstance(key, AnswerKey)), None)
    if key is None:
        raise ConfigError(f"{run.folder}: has no guard to serve it with; protect with --marks ...,guard (or dawn)")
    begun = log.is_file() and b"\n" in log.read_bytes()
    held = None if begun else run.data(data_dir).probes
    ordinary = None if held is None else CalibrationScores(answer(held.images()), held.labels)
    own = [key.pixels for key in keys.values() if isinstance(key, LabelKey)]
    return AnswerFilter(key, log, shape=run.spec.shape, calibration=ordinary, allow=torch.cat(own) if own else None)
