"""What is logged: one line on standard error unless a program handles it, and the log levels of other libraries."""

from __future__ import annotations

import logging
from functools import cache

_logger = logging.getLogger("wootz")


@cache
def warn_once(message: str) -> None:
    """Log a warning, the same one once per process: logging prints it on standard error unless it is configured."""
    _logger.warning("%s", message)


def quiet() -> None:
    """Restrict Fabric's log to warnings; by default it logs the precision at every training run."""
    for name in ("lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
