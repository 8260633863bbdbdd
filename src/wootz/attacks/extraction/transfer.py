"""Transfer learning: self-supervised pretraining, then training on a small number of the victim's answers.

The network first learns to predict rotations, which needs neither labels nor queries (Gidaris et al., arXiv
1803.07728). Its linear layers are then replaced by new ones and the whole network is trained on the answers. On digits,
with 100 to 1,000 answers, pretraining made no measurable difference compared with a new network.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional as F

from wootz import checks
from wootz.attacks.context import AttackContext
from wootz.attacks.extraction.oracle import BudgetedOracle, query_all
from wootz.attacks.extraction.substitute import SubstituteConfig, train_substitute
from wootz.data import Split
from wootz.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer(SubstituteConfig):
    """The query budget and the length of pretraining.

    Attributes:
        queries: the number of queries, a random choice of the attacker's images.
        pretraining: the number of epochs of rotation prediction; an epoch uses every image once, in one rotation.
    """

    queries: int = 1000
    pretraining: int = 10

    def __post_init__(self) -> None:
        SubstituteConfig.__post_init__(self)
        checks.at_least(20, queries=self.queries)
        checks.at_least(1, pretraining=self.pretraining)


def extract_by_transfer(cfg: Transfer, victim: BudgetedOracle, context: AttackContext) -> nn.Module:
    """Pretrain on all images, query some of them, and train on the answers; true labels are not used.

    Raises:
        BudgetError: the budget does not hold all `cfg.queries`; no query is sent.
        ConfigError: the attacker has fewer than `cfg.queries` images, or they are not square.
    """
    if cfg.queries > len(context.data):
        raise ConfigError(f"queries = {cfg.queries}: the attacker has {len(context.data)} images")
    pixels = context.data.pixels[torch.randperm(len(context.data), generator=context.generator("few"))[: cfg.queries]]
    answers = query_all(victim, pixels, context)
    rotated = rotate_randomly(context.data, min(4, victim.num_classes), context.generator("turns"))
    rotations = F.one_hot(rotated.labels, victim.num_classes).float()
    pretraining = replace(cfg, epochs=cfg.pretraining, loss="natural")
    pretrained = train_substitute(
        pretraining, context.new_model("thief"), rotated.pixels, rotations, context, "pretrained"
    )
    return train_substitute(cfg, copy_backbone(pretrained, context.new_model("tuned")), pixels, answers, context)


def copy_backbone(source: nn.Module, target: nn.Module) -> nn.Module:
    """Return a copy of `target` with all weights of `source` except those of its linear layers."""
    target = copy.deepcopy(target)
    linear = tuple(f"{name}." for name, module in source.named_modules() if isinstance(module, nn.Linear))
    backbone = {name: tensor for name, tensor in source.state_dict().items() if not name.startswith(linear)}
    target.load_state_dict(backbone, strict=False)
    return target


def rotate_randomly(data: Split, rotations: int, generator: torch.Generator) -> Split:
    """Return the images, each rotated by a random number of quarter turns below `rotations`, which is its label.

    Raises:
        ConfigError: the images are not square.
    """
    if data.pixels.shape[2] != data.pixels.shape[3]:
        raise ConfigError(f"images of shape {list(data.pixels.shape[1:])}: only square images can be rotated")
    labels = torch.randint(rotations, (len(data),), generator=generator)
    pixels = data.pixels.clone()
    for quarters in range(1, rotations):
        rows = labels == quarters
        pixels[rows] = data.pixels[rows].rot90(quarters, (2, 3))
    return Split(pixels, labels)
