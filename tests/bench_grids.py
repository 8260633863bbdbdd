"""A tiny grid for tests: what it says, who makes it, and what two of its folders must have in common."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wootz.bench import Staffing

TINY = """
name = "tiny"

[axes]
data = ["mnist-5k"]
mark = ["none", "order"]
theft = ["none", "independent", "prune", "8-bit", "refused"]
seed = [3]

[settings]
recipe = { steps = 1, epochs = 2, lr = 5e-3 }
panel = { robust_epochs = 1, plain_epochs = 1, width = 4, robust_steps = 1 }
small_cnn = { width = 4, hidden = 16 }

[mark.order]
marks = ["runner-up"]
settings = { runner_up = { features = 8, probes = 300 } }

[theft.8-bit]
attack = "quantize"
settings = { bits = 8 }

[theft.refused]
attack = "retrain-soft"
budget = 10

[[independent]]
count = 1
loss = "natural"

[measure]
images = 20
evaluations = ["apgd-ce"]
evaluation_images = 10
"""

STAFFING = Staffing(workers=2)


def figures(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of `cells.jsonl` without their times."""
    lines = (folder / "cells.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]
