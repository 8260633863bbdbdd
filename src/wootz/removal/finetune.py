"""Fine-tuning on labeled data (Adi et al., arXiv 1802.04633): the last layer or all, as it is or freshly drawn."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

from torch import nn

from wootz import checks
from wootz.adversary import Means, Outfit, learn
from wootz.training import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Finetune(Outfit):
    """How the attacker trains on.

    Attributes:
        layers: which layers learn, `all` or the `last` one.
        redraw: start the last layer afresh.
        loss: plain (`natural`), or adversarial (`pgd-at`) at the customary budget.
        epochs: passes over the data.
        batch_size: images a step.
        lr: peak learning rate of AdamW.
        label_smoothing: mass taken from the true class.
    """

    layers: Literal["all", "last"] = "all"
    redraw: bool = False
    loss: Literal["natural", "pgd-at"] = "natural"
    epochs: int = 3
    batch_size: int = 128
    lr: float = 1e-3
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        Outfit.__post_init__(self)
        checks.at_least(1, epochs=self.epochs, batch_size=self.batch_size)
        checks.positive(lr=self.lr)
        checks.within(0, 0.9, label_smoothing=self.label_smoothing)


def finetune(cfg: Finetune, model: nn.Module, means: Means) -> nn.Module:
    """Return a copy of `model`, trained on."""
    tuned, last = copy.deepcopy(model), last_layer(model)
    if cfg.redraw:
        tuned.get_submodule(last).load_state_dict(means.fresh("head").get_submodule(last).state_dict())
    for name, parameter in tuned.named_parameters():
        parameter.requires_grad_(cfg.layers == "all" or name.startswith(f"{last}."))
    recipe = Recipe(
        loss=cfg.loss, eps=means.eps, epochs=cfg.epochs, batch_size=cfg.batch_size, lr=cfg.lr,
        label_smoothing=cfg.label_smoothing,
    )  # fmt: skip
    return learn(recipe, tuned, means.data, means, "tuned").requires_grad_(True)


def last_layer(model: nn.Module) -> str:
    """Return the name of the last linear layer."""
    names: list[str] = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return names[-1]
