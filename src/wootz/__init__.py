"""Train image classifiers that resist evasion and prove whose they are.

The way of the data, left to right: `data` -> `training` (with what `marks` add) -> model -> `evasion`,
`removal`, `stealing` (with the means of an `adversary`) -> suspect -> `verify` (with keys of `ownership`) ->
`records` -> `report`. `stages` walk it folder by folder, and `cli` is their shell.

Names below are loaded when first used, so that importing the package costs nothing. The function that tests a
suspect is `wootz.statistics.verify`: a room and a function of one name would hide each other here.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wootz.attacks.evasion import PGD, evaluate, pgd
    from wootz.data import load
    from wootz.statistics import Verdict
    from wootz.suspects.files import predictor
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

_ROOMS = {
    "MARKS": "watermarks",
    "PGD": "attacks.evasion",
    "Protected": "watermarks",
    "Recipe": "training",
    "Verdict": "statistics",
    "evaluate": "attacks.evasion",
    "load": "data",
    "pgd": "attacks.evasion",
    "predictor": "suspects.files",
    "protect": "watermarks",
    "train": "training",
}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return getattr(importlib.import_module(f"wootz.{_ROOMS[name]}"), name)
    raise AttributeError(f"module 'wootz' has no attribute {name!r}")
