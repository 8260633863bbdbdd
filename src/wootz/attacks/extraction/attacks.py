"""The extraction attacks by name, and the trivial one: a copy of the weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import nn

from wootz.attacks.context import AttackContext
from wootz.attacks.extraction.activethief import ActiveThief, extract_actively
from wootz.attacks.extraction.adaptive import (
    Average,
    Blend,
    RegressAnswers,
    Stable,
    average,
    blend,
    extract_stable,
    regress_answers,
)
from wootz.attacks.extraction.data_free import DataFree, extract_without_data
from wootz.attacks.extraction.jacobian import Jacobian, extract_by_jacobian
from wootz.attacks.extraction.knockoff import Knockoff, extract_by_bandit
from wootz.attacks.extraction.retrain import (
    DistillAnswers,
    FewImages,
    Retrain,
    distill_answers,
    retrain,
    retrain_on_few,
)
from wootz.attacks.extraction.transfer import Transfer, extract_by_transfer
from wootz.attacks.extraction.uncertain import Uncertain, extract_robustness
from wootz.types import Attack


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A copy of the weights has no settings."""


def copy_weights(cfg: Copy, victim: nn.Module, context: AttackContext) -> nn.Module:
    """Return a copy of the victim itself, in eval mode on the CPU."""
    return copy.deepcopy(victim).cpu().eval()


_TRAMER = "Tramer et al. 2016; arXiv 1812.02766"

ATTACKS: Mapping[str, Attack] = MappingProxyType(
    {
        "copy": Attack(copy_weights, Copy(), "the file itself", "weights", "none"),
        "retrain-soft": Attack(retrain, Retrain(), _TRAMER, "scores", "1 query per image"),
        "retrain-hard": Attack(retrain, Retrain(labels="hard"), _TRAMER, "label", "1 query per image"),
        "retrain-top-k": Attack(retrain, Retrain(), _TRAMER, "top-3", "1 query per image"),
        "retrain-rounded": Attack(retrain, Retrain(), _TRAMER, "rounded-2", "1 query per image"),
        "retrain-tempered": Attack(
            retrain, Retrain(temperature=4.0), "Hinton et al., arXiv 1503.02531", "scores", "1 query per image"
        ),
        "retrain-flat": Attack(retrain, Retrain(labels="flat"), "ours, adaptive", "scores", "1 query per image"),
        "retrain-robust": Attack(
            retrain,
            Retrain(loss="pgd-at"),
            "arXiv 2210.13631 (an adversarially trained substitute)",
            "scores",
            "1 query per image; adversarial training",
        ),
        "retrain-few": Attack(retrain_on_few, FewImages(), _TRAMER, "scores", "1,000 images, 10,000 queries"),
        "distill": Attack(
            distill_answers, DistillAnswers(), "arXiv 1503.02531", "scores", "labeled data, 1 query per image"
        ),
        "transfer": Attack(extract_by_transfer, Transfer(), "after arXiv 1803.07728", "scores", "1,000 queries"),
        "jbda": Attack(
            extract_by_jacobian,
            Jacobian(),
            "arXiv 1602.02697; settings of 2312.14260",
            "label",
            "200 images, 51,200 queries",
        ),
        "jbda-grey": Attack(
            extract_by_jacobian,
            Jacobian(model="same", loss="pgd-at"),
            "arXiv 2312.14260 (grey box)",
            "label",
            "200 images, 51,200 queries; adversarial training",
        ),
        "knockoff-random": Attack(
            retrain, Retrain(data="other"), "arXiv 1812.02766", "scores", "1 query per foreign image"
        ),
        "knockoff-adaptive": Attack(
            extract_by_bandit, Knockoff(), "arXiv 1812.02766, 4.1.2", "scores", "10,000 queries of foreign images"
        ),
        "copycat": Attack(
            retrain, Retrain(data="other", labels="hard"), "arXiv 1806.05476", "label", "1 query per foreign image"
        ),
        "activethief": Attack(extract_actively, ActiveThief(), "Pal et al., AAAI 2020", "scores", "5,000 queries"),
        "best": Attack(extract_robustness, Uncertain(), "Li et al., ICLR 2023 (BEST)", "label", "11 queries per image"),
        "dfme": Attack(extract_without_data, DataFree(), "arXiv 2011.14779", "scores", "no images, 500,000 queries"),
        "maze": Attack(
            extract_without_data,
            DataFree(loss="kl", directions=10, replay=10, batch_size=128),
            "arXiv 2005.03161",
            "scores",
            "no images, 500,000 queries",
        ),
        "average": Attack(average, Average(), "ours, adaptive", "scores", "1 query per image"),
        "blend": Attack(blend, Blend(), "ours, adaptive", "scores", "labeled data, 1 query per image"),
        "stable": Attack(
            extract_stable, Stable(), "ours, adaptive: against served marks", "label", "2 queries per image"
        ),
        "regress": Attack(
            regress_answers, RegressAnswers(), "ours, adaptive: against runner-up", "scores", "1 query per image"
        ),
    }
)
