"""Where a grid's models lie, which of them are whole, and which are still needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from wootz.bench.job import Job

DONE = "done.json"
"""Written last into a model's folder."""


def model_folder(folder: Path, digest: str) -> Path:
    """Return where the job of this digest makes its model, in a grid's folder."""
    return folder / "models" / digest


def is_made(folder: Path, digest: str) -> bool:
    """Whether that model is there, whole."""
    return (model_folder(folder, digest) / DONE).is_file()


def lacking(tests: Iterable[Job], models: Mapping[str, Job], folder: Path) -> dict[str, Job]:
    """Return the models that these tests need and that are not there, with what they need in turn, in order."""
    found: set[str] = set()
    looked = [need for job in tests for need in job.needs]
    while looked:
        digest = looked.pop()
        if digest not in found and not is_made(folder, digest):
            found.add(digest)
            looked.extend(models[digest].needs)
    return {digest: job for digest, job in models.items() if digest in found}
