"""The losses by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from wootz.training.certified import crown_ibp, ibp, mtl_ibp
from wootz.training.divergence import mart, trades
from wootz.training.losses import Loss, natural, noise_fgsm, pgd_adversarial

LOSSES: Mapping[str, Loss] = MappingProxyType(
    {
        "natural": natural,
        "pgd-at": pgd_adversarial,
        "n-fgsm": noise_fgsm,
        "trades": trades,
        "mart": mart,
        "ibp": ibp,
        "crown-ibp": crown_ibp,
        "mtl-ibp": mtl_ibp,
    }
)
