"""What thieves and removers have in common: their means, how they learn, and how a long attempt goes on after a stop.

Every stealing and removal attack is `(cfg, target, context) -> module`.
"""

from wootz.attacks.adversary.context import AttackContext, AttackDataConfig
from wootz.attacks.adversary.learning import held_out, learn
from wootz.attacks.adversary.rounds import State, packed, rounds, unpacked
from wootz.attacks.adversary.wrong_classes import components, without_trace

__all__ = [
    "AttackContext",
    "AttackDataConfig",
    "State",
    "components",
    "held_out",
    "learn",
    "packed",
    "rounds",
    "unpacked",
    "without_trace",
]
