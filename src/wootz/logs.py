"""What other libraries say on their own account, and nobody asked for."""

from __future__ import annotations

import logging


def quiet() -> None:
    """Let Fabric speak of warnings only; at every training it would name the precision."""
    for name in ("lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
