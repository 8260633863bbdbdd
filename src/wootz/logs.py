"""Log levels of other libraries."""

from __future__ import annotations

import logging


def quiet() -> None:
    """Restrict Fabric's log to warnings; by default it logs the precision at every training run."""
    for name in ("lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
