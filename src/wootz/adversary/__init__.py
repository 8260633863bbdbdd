"""What thieves and removers have in common: their means, how they learn, and how a long attempt goes on after a stop.

Every stealing and removal attack is `(cfg, target, means) -> module`.
"""

from wootz.adversary.learning import held_out, learn
from wootz.adversary.means import Means, Outfit
from wootz.adversary.rounds import State, packed, rounds, unpacked
from wootz.adversary.wrong_classes import components, without_trace

__all__ = [
    "Means",
    "Outfit",
    "State",
    "components",
    "held_out",
    "learn",
    "packed",
    "rounds",
    "unpacked",
    "without_trace",
]
