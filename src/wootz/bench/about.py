"""What a reader of published figures asks: which command, when, on what."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import torch

from wootz.store import read_bytes, write_json

ABOUT = "bench.json"
_PACKAGES = ("wootz", "torch", "numpy", "onnxruntime", "ray")


def write_about(folder: Path, *, name: str, command: str, seconds: float, work: float) -> None:
    """Write `bench.json`.

    Args:
        folder: of the grid.
        name: of the grid.
        command: that made it.
        seconds: wall time of the newest call that made anything.
        work: seconds that its jobs took together.
    """
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    hardware = {"processor": _processor(), "cores": str(os.cpu_count())}
    if torch.cuda.is_available():
        hardware["gpu"] = torch.cuda.get_device_name()
    about = {
        "schema": 1,
        "name": name,
        "command": command,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "hardware": hardware,
        "versions": versions,
        "seconds": seconds,
        "work": work,
    }
    write_json(folder / ABOUT, about)


def _processor() -> str:
    """Return the processor's name as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = read_bytes(info).decode(errors="replace").splitlines() if info.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
