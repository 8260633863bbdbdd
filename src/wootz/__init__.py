"""Train image classifiers that resist evasion and prove whose they are.

    import wootz

    owner = wootz.protect(model, data, eps=8 / 255)           # adversarial training with watermarks
    owner = wootz.mark(model, data, bits=120)                 # or marks in a model that is trained already
    owner.save("run"); owner = wootz.Owner.load("run")        # the run folder of the command line
    verdict = owner.verify(suspect, access="scores")          # a module, a function, a path or a URL
    print(verdict.outcome, verdict.bits, verdict.evidence)

    wootz.evaluate(model, data, eps=8 / 255).robust_accuracy  # evasion
    wootz.extract(model, data=images, model=network).model    # model extraction
    wootz.remove(model, "finetune", data=data).model          # watermark removal

    claim = owner.claim(suspect); claim.save("claim.json")    # a signed claim
    wootz.judge("claim.json", suspect).outcome                # re-checked by a judge

Data flow: `data` -> `training` (with `watermarks`) -> model -> `attacks` -> suspect -> `statistics` (with `keys`) ->
`records` -> `report`. `workflows` runs the steps on models and run folders; `cli` is the command line.
The names below are imported at first use, so that `import wootz` is fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wootz.attacks.evasion import PGD, pgd
    from wootz.data import load
    from wootz.statistics import Verdict
    from wootz.training import Recipe, train
    from wootz.watermarks import MARKS
    from wootz.workflows.attack import Attacked, extract, remove
    from wootz.workflows.claim import Claim
    from wootz.workflows.evaluate import Evaluation, evaluate
    from wootz.workflows.judge import Judgement, JudgePolicy, judge
    from wootz.workflows.mark import mark
    from wootz.workflows.owner import Owner, References, protect
    from wootz.workflows.protection import Protection
    from wootz.workflows.suspects import QueryConfig

__version__ = "0.1.0"

_MODULES = {
    "MARKS": "watermarks",
    "PGD": "attacks.evasion",
    "Attacked": "workflows.attack",
    "Claim": "workflows.claim",
    "Evaluation": "workflows.evaluate",
    "JudgePolicy": "workflows.judge",
    "Judgement": "workflows.judge",
    "Owner": "workflows.owner",
    "Protection": "workflows.protection",
    "QueryConfig": "workflows.suspects",
    "Recipe": "training",
    "References": "workflows.owner",
    "Verdict": "statistics",
    "evaluate": "workflows.evaluate",
    "extract": "workflows.attack",
    "judge": "workflows.judge",
    "load": "data",
    "mark": "workflows.mark",
    "pgd": "attacks.evasion",
    "protect": "workflows.owner",
    "remove": "workflows.attack",
    "train": "training",
}

__all__ = [
    "MARKS",
    "PGD",
    "Attacked",
    "Claim",
    "Evaluation",
    "JudgePolicy",
    "Judgement",
    "Owner",
    "Protection",
    "QueryConfig",
    "Recipe",
    "References",
    "Verdict",
    "__version__",
    "evaluate",
    "extract",
    "judge",
    "load",
    "mark",
    "pgd",
    "protect",
    "remove",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"wootz.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'wootz' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
