"""What is logged: one line on standard error unless a program handles it, and the log levels of other libraries."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TypeVar

T = TypeVar("T")

_LINE_SECONDS = 30

_logger = logging.getLogger("wootz")


@cache
def warn_once(message: str) -> None:
    """Log a warning, the same one once per process: logging prints it on standard error unless it is configured."""
    _logger.warning("%s", message)


def with_progress(what: str, items: Sequence[T]) -> Iterator[T]:
    """Yield the items; every half minute one line says `what` is done and how many of them are behind."""
    printed = time.monotonic()
    for done, item in enumerate(items):
        if time.monotonic() - printed >= _LINE_SECONDS:
            printed = time.monotonic()
            _logger.warning("%s: %s of %s", what, f"{done:,}", f"{len(items):,}")
        yield item


def quiet() -> None:
    """Restrict Fabric's log to warnings; by default it logs the precision at every training run."""
    for name in ("lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
