"""Fine-tuning: further training of the model, the last step of most removal attacks, and attacks that do only that.

Layer fine-tuning (Adi et al., arXiv 1802.04633), mixup (Zhang et al., arXiv 1710.09412) and regularization
(Shafieinejad et al., arXiv 1906.07745).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from scipy.special import betaincinv
from torch import Tensor, nn
from torch.nn import functional as F

from wootz import checks
from wootz.attacks.context import AttackContext, AttackDataConfig, fit
from wootz.attacks.evasion import predict_logits
from wootz.data import Split
from wootz.models import last_layer
from wootz.training import Hook, Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneConfig(AttackDataConfig):
    """The training settings of the attacker; the base of the settings of attacks that call `finetune`.

    Attributes:
        loss: `natural`, or adversarial (`pgd-at`, `n-fgsm`) at the public budget.
        epochs: the number of passes over the data; 0 skips the training.
        batch_size: the number of images per step.
        lr: the peak learning rate of AdamW.
    """

    loss: Literal["natural", "pgd-at", "n-fgsm"] = "natural"
    epochs: int = 3
    batch_size: int = 128
    lr: float = 1e-3

    def __post_init__(self) -> None:
        AttackDataConfig.__post_init__(self)
        checks.at_least(0, epochs=self.epochs)
        checks.at_least(1, batch_size=self.batch_size)
        checks.positive(lr=self.lr)


def finetune(
    cfg: FinetuneConfig,
    model: nn.Module,
    context: AttackContext,
    *,
    data: Split | None = None,
    targets: Tensor | None = None,
    hook: Hook | None = None,
    label_smoothing: float = 0.0,
) -> nn.Module:
    """Return a copy of `model` trained further, in eval mode.

    Args:
        cfg: the training settings.
        model: the network to start from; a parameter that does not require gradients keeps its value.
        context: the attacker's context.
        data: the images and labels to train on; None means `context.data`.
        targets: probabilities [N, K] to train on instead of the labels.
        hook: additional losses or training passes.
        label_smoothing: the mass taken from the true class.
    """
    if cfg.epochs == 0:
        return copy.deepcopy(model).eval()
    recipe = Recipe(
        loss=cfg.loss,
        eps=context.eps,
        epochs=cfg.epochs,
        batch_size=cfg.batch_size,
        lr=cfg.lr,
        label_smoothing=label_smoothing,
    )
    data = context.data if data is None else data
    return fit(recipe, model, data, context, "tuned", targets=targets, hook=hook)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFinetune(FinetuneConfig):
    """Which layers are trained. The source's four attacks: FTLL (`last`), FTAL (`all`), RTLL and RTAL (with `redraw`).

    Attributes:
        layers: `all` layers, or the `last` one.
        redraw: whether the last layer is initialized anew first.
        label_smoothing: the mass taken from the true class.
    """

    layers: Literal["all", "last"] = "all"
    redraw: bool = False
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        FinetuneConfig.__post_init__(self)
        checks.within(0, 0.9, label_smoothing=self.label_smoothing)


def finetune_layers(cfg: LayerFinetune, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a copy of `model` whose selected layers were trained further."""
    tuned, last = copy.deepcopy(model), last_layer(model)
    if cfg.redraw:
        new = context.new_model("head")
        tuned.get_submodule(last).load_state_dict(new.get_submodule(last_layer(new)).state_dict())
    for name, parameter in tuned.named_parameters():
        parameter.requires_grad_(cfg.layers == "all" or name.startswith(f"{last}."))
    return finetune(cfg, tuned, context, label_smoothing=cfg.label_smoothing).requires_grad_(True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixup(FinetuneConfig):
    """How images are mixed.

    Attributes:
        alpha: mixing weights follow Beta(alpha, alpha); the source's value for CIFAR-10 is 1, for ImageNet 0.2.
        partners: the number of images that each image is mixed with; an epoch uses all of these mixtures. The source
            samples a new partner in every epoch: that is `epochs` = 1 here, with as many partners.
    """

    alpha: float = 1.0
    partners: int = 10
    epochs: int = 1

    def __post_init__(self) -> None:
        FinetuneConfig.__post_init__(self)
        checks.positive(alpha=self.alpha)
        checks.at_least(1, partners=self.partners)


class Mixtures(NamedTuple):
    """Mixed images labeled with the class of the larger weight, and the weights of both classes as targets [N, K]."""

    data: Split
    targets: Tensor


def mixup(cfg: Mixup, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a copy of `model` trained further on mixtures of the attacker's images."""
    classes = predict_logits(model, context.data.subset(slice(1)).images()).shape[1]
    mixed = mixtures(cfg, context.data, classes, context.generator("mixup"))
    return finetune(cfg, model, context, data=mixed.data, targets=mixed.targets)


def mixtures(cfg: Mixup, data: Split, classes: int, generator: torch.Generator) -> Mixtures:
    """Return every image mixed with each of its partners."""
    first = torch.arange(len(data)).repeat(cfg.partners)
    second = torch.cat([torch.randperm(len(data), generator=generator) for _ in range(cfg.partners)])
    uniform = torch.rand(len(first), generator=generator, dtype=torch.float64)
    weight = torch.from_numpy(betaincinv(cfg.alpha, cfg.alpha, uniform.numpy())).float()[:, None]
    labels = F.one_hot(data.labels, classes).float()
    targets = weight * labels[first] + (1 - weight) * labels[second]
    weight = weight[..., None, None]
    pixels = (weight * data.pixels[first] + (1 - weight) * data.pixels[second]).round_().to(torch.uint8)
    return Mixtures(Split(pixels, targets.argmax(1)), targets)


@dataclass(frozen=True, slots=True, kw_only=True)
class Regularize(FinetuneConfig):
    """The strength of the weight decay; the recovery phase uses the epochs and learning rate of `FinetuneConfig`.

    Attributes:
        decay: the weight decay of the first phase, decoupled: a step scales weights by 1 - lr * decay.
        shrinking: the number of epochs of the first phase.
        shrinking_lr: the peak learning rate of the first phase.
    """

    decay: float = 10.0
    shrinking: int = 5
    shrinking_lr: float = 1e-2
    epochs: int = 5

    def __post_init__(self) -> None:
        FinetuneConfig.__post_init__(self)
        checks.not_negative(decay=self.decay)
        checks.at_least(1, shrinking=self.shrinking)
        checks.positive(shrinking_lr=self.shrinking_lr)


def regularize(cfg: Regularize, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a copy of `model`, trained with strong weight decay and then without."""
    recipe = Recipe(
        loss=cfg.loss,
        eps=context.eps,
        epochs=cfg.shrinking,
        batch_size=cfg.batch_size,
        lr=cfg.shrinking_lr,
        weight_decay=cfg.decay,
    )
    return finetune(cfg, fit(recipe, model, context.data, context, "shrunk"), context)
