"""A filter before or after the model: what one can do to a mark without touching a weight."""

from __future__ import annotations

import copy

from torch import nn

from wootz.attacks.adversary import AttackContext
from wootz.attacks.evasion import predict_logits
from wootz.config import Dataclass
from wootz.models import Filtered, with_filter
from wootz.rng import global_seed


def filtering(cfg: Dataclass, model: nn.Module, context: AttackContext) -> Filtered:
    """Return a copy of `model` behind the filter of these settings, in eval mode; what it must learn, it has yet to."""
    one = context.data.subset(slice(1)).images()
    channels, height, width = one.shape[1:]
    classes = predict_logits(model, one).shape[1]
    with global_seed(context.seed, "filter"):
        filtered = with_filter(copy.deepcopy(model), cfg, (channels, height, width), classes)
    filtered.eval()
    return filtered
