"""The substitute model of an extraction attack: its architecture, and its training on the victim's answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from wootz import checks
from wootz.attacks.context import AttackContext, AttackDataConfig, fit
from wootz.data import Split
from wootz.training import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractionConfig(AttackDataConfig):
    """The settings that all extraction attacks with data share.

    Attributes:
        model: the substitute's architecture: the `same` as the victim's, an `other` one, or a name of `MODELS`.
    """

    model: str = "same"


@dataclass(frozen=True, slots=True, kw_only=True)
class SubstituteConfig(ExtractionConfig):
    """The training settings of the substitute; the base of the settings of attacks that call `train_substitute`.

    Attributes:
        loss: `natural`, or adversarial (`pgd-at`, `n-fgsm`) at the public budget.
        epochs: the number of passes over the images.
        batch_size: the number of images per step.
        lr: the peak learning rate of AdamW.
        shift: the largest random shift of an image along each axis in training, in pixels; its answer stays the same.
        mirror: whether images are flipped left to right at random in training; their answers stay the same.
    """

    loss: Literal["natural", "pgd-at", "n-fgsm"] = "natural"
    epochs: int = 15
    batch_size: int = 128
    lr: float = 2e-3
    shift: int = 0
    mirror: bool = False

    def __post_init__(self) -> None:
        ExtractionConfig.__post_init__(self)
        checks.at_least(1, epochs=self.epochs, batch_size=self.batch_size)
        checks.at_least(0, shift=self.shift)
        checks.positive(lr=self.lr)


def train_substitute(
    cfg: SubstituteConfig,
    model: nn.Module,
    pixels: Tensor,
    answers: Tensor,
    context: AttackContext,
    name: str = "thief",
) -> nn.Module:
    """Return a copy of `model` trained on the victim's answers, in eval mode.

    The epoch is selected by agreement with the answers; true labels are not used.

    Args:
        cfg: the training settings.
        model: the network to start from.
        pixels: images uint8 [N, C, H, W].
        answers: the target distributions [N, K].
        context: the attacker's context.
        name: the name of this training run within the attack.
    """
    recipe = Recipe(
        loss=cfg.loss,
        eps=context.eps,
        epochs=cfg.epochs,
        batch_size=cfg.batch_size,
        lr=cfg.lr,
        shift=cfg.shift,
        mirror=cfg.mirror,
    )
    return fit(recipe, model, Split(pixels, answers.argmax(1)), context, name, targets=answers)
