"""Distillation: of the answers into a new network, and of a fine-tuned teacher's attention into the model itself.

Knowledge distillation (Hinton et al., arXiv 1503.02531) and neural attention distillation (NAD; Li et al., arXiv
2101.05930).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wootz import checks
from wootz.attacks.context import AttackContext, fit
from wootz.attacks.evasion import predict_logits
from wootz.attacks.removal.finetune import FinetuneConfig, finetune
from wootz.modes import eval_mode
from wootz.rng import derive, generator
from wootz.training import Forward, Hook, Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Distill(FinetuneConfig):
    """The targets of the student.

    Attributes:
        labels: the teacher's probabilities (`soft`), or its top-1 label (`hard`).
        temperature: the temperature of the teacher's softmax. The source also trains the student at this temperature;
            here the student trains at 1, so its own answers become as soft as its targets.
        truth: the fraction of each target that goes to the true label instead.
    """

    labels: Literal["soft", "hard"] = "soft"
    temperature: float = 2.0
    truth: float = 0.5
    epochs: int = 15
    lr: float = 2e-3

    def __post_init__(self) -> None:
        FinetuneConfig.__post_init__(self)
        checks.positive(temperature=self.temperature)
        checks.within(0, 1, truth=self.truth)


def distill(cfg: Distill, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return a new network trained on the answers of `model`."""
    targets = distillation_targets(cfg, predict_logits(model, context.data.images()), context.data.labels)
    return finetune(cfg, context.new_model("student"), context, targets=targets)


def distillation_targets(cfg: Distill, logits: Tensor, labels: Tensor) -> Tensor:
    """Return target probabilities [N, K] from the teacher's logits [N, K] and true labels [N]."""
    classes = logits.shape[1]
    soft = (logits / cfg.temperature).softmax(1)
    answers = soft if cfg.labels == "soft" else F.one_hot(logits.argmax(1), classes).float()
    return (1 - cfg.truth) * answers + cfg.truth * F.one_hot(labels, classes).float()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention(FinetuneConfig):
    """The training of teacher and student; the student also minimizes a distance between attention maps.

    Attributes:
        teacher_epochs: the number of passes over the data of the teacher.
        weight: the weight of the squared distance between maps, summed over positions and map sizes. The authors weight
            the mean over positions.
    """

    epochs: int = 10
    lr: float = 5e-3
    teacher_epochs: int = 10
    weight: float = 5.0

    def __post_init__(self) -> None:
        FinetuneConfig.__post_init__(self)
        checks.at_least(1, teacher_epochs=self.teacher_epochs)
        checks.positive(weight=self.weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionLoss:
    """An additional loss: the squared distance of the student's attention maps to the teacher's.

    Attributes:
        teacher: the fine-tuned copy of the model.
        pixels: images uint8 [N, C, H, W], from which each step samples a batch of its own.
        batch: the number of images per step.
        weight: the weight of the loss.
        seed: the seed of the sampling.
    """

    teacher: nn.Module
    pixels: Tensor
    batch: int
    weight: float
    seed: int

    def __call__(self, model: nn.Module, forward: Forward, *, batch_images: Tensor, step: int, done: float) -> Tensor:
        """Return the weighted distance on a batch that is a function of the step."""
        rows = torch.randint(len(self.pixels), (self.batch,), generator=generator(self.seed, step))
        x = self.pixels[rows].to(next(model.parameters()).device).float().div_(255)
        teacher = self.teacher.to(x.device)
        with eval_mode(teacher), torch.no_grad():
            teacher_maps = attention_maps(teacher, teacher, x)
        student_maps = attention_maps(model, forward, x)
        distances = [(student_maps[size] - teacher_maps[size]).square().sum(1).mean() for size in teacher_maps]
        return self.weight * torch.stack(distances).sum()


def nad(cfg: Attention, model: nn.Module, context: AttackContext) -> nn.Module:
    """Return the student: a copy of `model` trained on the images and on the attention maps of a fine-tuned teacher."""
    recipe = Recipe(loss=cfg.loss, eps=context.eps, epochs=cfg.teacher_epochs, batch_size=cfg.batch_size, lr=cfg.lr)
    teacher = fit(recipe, model, context.data, context, "teacher")
    attention_loss = AttentionLoss(
        teacher=teacher,
        pixels=context.data.pixels,
        batch=cfg.batch_size,
        weight=cfg.weight,
        seed=derive(context.seed, "attention"),
    )
    return finetune(cfg, model, context, hook=Hook(extra=(attention_loss,)))


def attention_maps(model: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor) -> dict[torch.Size, Tensor]:
    """Return map size -> attention map [N, H * W]: the sum over channels of squared activations, of L2 norm 1.

    The source takes the maps at the end of each residual group; this takes the last convolution of every map size.

    Args:
        model: the network whose convolutions are read.
        forward: runs `model` on images.
        x: images [N, C, H, W].
    """
    maps: dict[torch.Size, Tensor] = {}

    def record(layer: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        maps[out.shape[2:]] = F.normalize(out.float().square().sum(1).flatten(1), dim=1)

    handles = [layer.register_forward_hook(record) for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    try:
        forward(x)
    finally:
        for handle in handles:
            handle.remove()
    return maps
