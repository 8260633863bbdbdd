"""Fine-tuning on labeled data (Adi et al., arXiv 1802.04633): the last layer or all, as it is or freshly drawn."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

from torch import nn

from wootz import checks
from wootz.attacks.adversary import AttackContext
from wootz.attacks.removal.tuning import Tuning, tune


@dataclass(frozen=True, slots=True, kw_only=True)
class Finetune(Tuning):
    """What learns. The source's four: FTLL (`last`), FTAL (`all`), RTLL and RTAL (the same, redrawn).

    Attributes:
        layers: which layers learn, `all` or the `last` one.
        redraw: start the last layer afresh.
        label_smoothing: mass taken from the true class.
    """

    layers: Literal["all", "last"] = "all"
    redraw: bool = False
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        Tuning.__post_init__(self)
        checks.within(0, 0.9, label_smoothing=self.label_smoothing)


def finetune(cfg: Finetune, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a copy of `model`, trained on."""
    tuned, last = copy.deepcopy(model), last_layer(model)
    if cfg.redraw:
        fresh = context.fresh("head")
        tuned.get_submodule(last).load_state_dict(fresh.get_submodule(last_layer(fresh)).state_dict())
    for name, parameter in tuned.named_parameters():
        parameter.requires_grad_(cfg.layers == "all" or name.startswith(f"{last}."))
    return tune(cfg, tuned, context, label_smoothing=cfg.label_smoothing).requires_grad_(True)


def last_layer(model: nn.Module) -> str:
    """Return the name of the last linear layer."""
    names: list[str] = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return names[-1]
