"""Transfer learning: a network that already knows such images needs few answers.

It is taught without any label or query to tell how images were turned (Gidaris et al., arXiv 1803.07728), then its
linear layers are drawn anew and all is tuned on the victim's answers about a few images. On digits, at 100 to 1,000
answers, we measured nothing that the lesson brings over a fresh network.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional as F

from wootz import checks
from wootz.attacks.adversary import AttackContext
from wootz.attacks.extraction.asking import answered
from wootz.attacks.extraction.learner import Learner, imitate
from wootz.attacks.extraction.ledger import Ledger
from wootz.data import Split
from wootz.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer(Learner):
    """How little is asked.

    Attributes:
        queries: images that are asked, drawn from the thief's.
        pretraining: epochs of telling turned images apart; an epoch shows every image once, in one of its turns.
    """

    queries: int = 1000
    pretraining: int = 10

    def __post_init__(self) -> None:
        Learner.__post_init__(self)
        checks.at_least(20, queries=self.queries)
        checks.at_least(1, pretraining=self.pretraining)


def steal_by_transfer(cfg: Transfer, victim: Ledger, context: AttackContext) -> nn.Module:
    """Pretrain on all images, ask about a few, and tune on their answers; true labels are not used."""
    if cfg.queries > len(context.data):
        raise ConfigError(f"queries = {cfg.queries}: the thief has {len(context.data)} images")
    few = context.data.pixels[torch.randperm(len(context.data), generator=context.generator("few"))[: cfg.queries]]
    answers = answered(victim, few, context)
    lesson = turned(context.data, min(4, victim.num_classes), context.generator("turns"))
    turns = F.one_hot(lesson.labels, victim.num_classes).float()
    schooled = replace(cfg, epochs=cfg.pretraining, loss="natural")
    body = imitate(schooled, context.fresh("thief"), lesson.pixels, turns, context, "pretrained")
    return imitate(cfg, with_body(context.fresh("tuned"), body), few, answers, context)


def with_body(model: nn.Module, body: nn.Module) -> nn.Module:
    """Return a copy of `model` with all of `body` but its linear layers, which know little but turns."""
    model = copy.deepcopy(model)
    head = tuple(f"{name}." for name, module in body.named_modules() if isinstance(module, nn.Linear))
    kept = {name: t for name, t in body.state_dict().items() if not name.startswith(head)}
    model.load_state_dict(kept, strict=False)
    return model


def turned(share: Split, turns: int, generator: torch.Generator) -> Split:
    """Return the images, each turned by a random number of quarters below `turns`, which is its label."""
    if share.pixels.shape[2] != share.pixels.shape[3]:
        raise ConfigError(f"images of shape {list(share.pixels.shape[1:])}: only square ones can be turned")
    labels = torch.randint(turns, (len(share),), generator=generator)
    pixels = share.pixels.clone()
    for quarters in range(1, turns):
        rows = labels == quarters
        pixels[rows] = share.pixels[rows].rot90(quarters, (2, 3))
    return Split(pixels, labels)
