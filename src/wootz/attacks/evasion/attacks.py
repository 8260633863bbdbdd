"""The evasion attacks by name: `run(cfg, target, x, y, *, generator)` returns images.

The budget `eps` of a row is a placeholder that callers replace.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from wootz.attacks.evasion.auto_pgd import APGD, apgd
from wootz.attacks.evasion.hop_skip_jump import HopSkipJump, hop_skip_jump
from wootz.attacks.evasion.minimum_norm import FMN, fmn
from wootz.attacks.evasion.natural_evolution import NES, nes
from wootz.attacks.evasion.projected_gradient import PGD, pgd
from wootz.attacks.evasion.square import Square, square
from wootz.types import Attack

_EPS = 8 / 255
_CROCE = "Croce, Hein, arXiv 2003.01690"

ATTACKS: Mapping[str, Attack] = MappingProxyType(
    {
        "pgd": Attack(pgd, PGD(eps=_EPS, stop=True), "Madry et al., arXiv 1706.06083", "weights", "40 gradients"),
        "apgd-ce": Attack(apgd, APGD(eps=_EPS), _CROCE, "weights", "100 gradients"),
        "apgd-dlr": Attack(apgd, APGD(eps=_EPS, loss="dlr"), _CROCE, "weights", "100 gradients"),
        "apgd-t": Attack(apgd, APGD(eps=_EPS, loss="targeted-dlr"), _CROCE, "weights", "100 gradients per target"),
        "fmn": Attack(fmn, FMN(eps=_EPS, stop=True), "Pintor et al., arXiv 2102.12827", "weights", "1,000 gradients"),
        "square": Attack(
            square, Square(eps=_EPS), "Andriushchenko et al., arXiv 1912.00049", "scores", "5,000 queries"
        ),
        "nes": Attack(nes, NES(eps=_EPS), "Ilyas et al., arXiv 1804.08598", "scores", "10,000 queries"),
        "hop-skip-jump": Attack(
            hop_skip_jump, HopSkipJump(eps=_EPS), "Chen et al., arXiv 1904.02144", "label", "5,000 queries"
        ),
    }
)
