"""Train image classifiers that resist evasion and prove whose they are.

Data flow: `data` -> `training` (with hooks of `watermarks`) -> model -> `attacks` -> suspect (`suspects`) ->
`statistics` (with `keys`) -> `records` -> `report`. `workflows` run these steps on run folders, and `cli` is their
command line.

The names below are imported on first use, so that importing the package is fast. The function that tests a suspect is
`wootz.statistics.verify`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wootz.attacks.evasion import PGD, evaluate, pgd
    from wootz.data import load
    from wootz.statistics import Verdict, predictor
    from wootz.training import Recipe, train
    from wootz.watermarks import MARKS, Protected, protect

__version__ = "0.1.0"

__all__ = [
    "MARKS",
    "PGD",
    "Protected",
    "Recipe",
    "Verdict",
    "__version__",
    "evaluate",
    "load",
    "pgd",
    "predictor",
    "protect",
    "train",
]

_PACKAGES = {
    "MARKS": "watermarks",
    "PGD": "attacks.evasion",
    "Protected": "watermarks",
    "Recipe": "training",
    "Verdict": "statistics",
    "evaluate": "attacks.evasion",
    "load": "data",
    "pgd": "attacks.evasion",
    "predictor": "statistics",
    "protect": "watermarks",
    "train": "training",
}


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return getattr(importlib.import_module(f"wootz.{_PACKAGES[name]}"), name)
    raise AttributeError(f"module 'wootz' has no attribute {name!r}")
