"""The thefts by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from wootz.attacks.extraction.activethief import ActiveThief, steal_actively
from wootz.attacks.extraction.averaging import Average, average
from wootz.attacks.extraction.blending import Blend, blend
from wootz.attacks.extraction.copying import Copy, copy_weights
from wootz.attacks.extraction.data_free import DataFree, steal_without_data
from wootz.attacks.extraction.distillation import Distill, distill
from wootz.attacks.extraction.few import Few, retrain_on_few
from wootz.attacks.extraction.jacobian import Jacobian, steal_by_jacobian
from wootz.attacks.extraction.knockoff import Knockoff, steal_by_bandit
from wootz.attacks.extraction.regression import Regress, regress
from wootz.attacks.extraction.retrain import Retrain, retrain
from wootz.attacks.extraction.stability import Stable, steal_stable
from wootz.attacks.extraction.transfer import Transfer, steal_by_transfer
from wootz.attacks.extraction.uncertain import Uncertain, steal_robustness
from wootz.types import Attack

_TRAMER = "Tramer et al. 2016; arXiv 1812.02766"

ATTACKS: Mapping[str, Attack] = MappingProxyType(
    {
        "copy": Attack(copy_weights, Copy(), "the file itself", "weights", "none"),
        "retrain-soft": Attack(retrain, Retrain(), _TRAMER, "scores", "1 query an image"),
        "retrain-hard": Attack(retrain, Retrain(labels="hard"), _TRAMER, "label", "1 query an image"),
        "retrain-top-k": Attack(retrain, Retrain(), _TRAMER, "top-3", "1 query an image"),
        "retrain-rounded": Attack(retrain, Retrain(), _TRAMER, "rounded-2", "1 query an image"),
        "retrain-tempered": Attack(
            retrain, Retrain(temperature=4.0), "Hinton et al., arXiv 1503.02531", "scores", "1 query an image"
        ),
        "retrain-flat": Attack(retrain, Retrain(labels="flat"), "ours, adaptive", "scores", "1 query an image"),
        "retrain-robust": Attack(
            retrain,
            Retrain(loss="pgd-at"),
            "arXiv 2210.13631 (an adversarially trained thief)",
            "scores",
            "1 query an image; adversarial training",
        ),
        "retrain-few": Attack(retrain_on_few, Few(), _TRAMER, "scores", "1,000 images, 10,000 queries"),
        "distill": Attack(distill, Distill(), "arXiv 1503.02531", "scores", "labeled data, 1 query an image"),
        "transfer": Attack(steal_by_transfer, Transfer(), "after arXiv 1803.07728", "scores", "1,000 queries"),
        "jbda": Attack(
            steal_by_jacobian,
            Jacobian(),
            "arXiv 1602.02697; settings of 2312.14260",
            "label",
            "200 images, 51,200 queries",
        ),
        "jbda-grey": Attack(
            steal_by_jacobian,
            Jacobian(model="same", loss="pgd-at"),
            "arXiv 2312.14260 (grey box)",
            "label",
            "200 images, 51,200 queries; adversarial training",
        ),
        "knockoff-random": Attack(
            retrain, Retrain(data="other"), "arXiv 1812.02766", "scores", "1 query a foreign image"
        ),
        "knockoff-adaptive": Attack(
            steal_by_bandit, Knockoff(), "arXiv 1812.02766, 4.1.2", "scores", "10,000 queries of foreign images"
        ),
        "copycat": Attack(
            retrain, Retrain(data="other", labels="hard"), "arXiv 1806.05476", "label", "1 query a foreign image"
        ),
        "activethief": Attack(steal_actively, ActiveThief(), "Pal et al., AAAI 2020", "scores", "5,000 queries"),
        "best": Attack(steal_robustness, Uncertain(), "Li et al., ICLR 2023 (BEST)", "label", "11 queries an image"),
        "dfme": Attack(steal_without_data, DataFree(), "arXiv 2011.14779", "scores", "no images, 500,000 queries"),
        "maze": Attack(
            steal_without_data,
            DataFree(loss="kl", directions=10, replay=10, batch_size=128),
            "arXiv 2005.03161",
            "scores",
            "no images, 500,000 queries",
        ),
        "average": Attack(average, Average(), "ours, adaptive", "scores", "1 query an image"),
        "blend": Attack(blend, Blend(), "ours, adaptive", "scores", "labeled data, 1 query an image"),
        "stable": Attack(steal_stable, Stable(), "ours, adaptive: against served marks", "label", "2 queries an image"),
        "regress": Attack(regress, Regress(), "ours, adaptive: against runner-up", "scores", "1 query an image"),
    }
)
