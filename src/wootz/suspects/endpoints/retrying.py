"""When a request is sent again, and after which pause."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from wootz import rng
from wootz.suspects.endpoints.settings import Client
from wootz.suspects.endpoints.wire import Reply, Request, Wire

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that say that nothing was answered, and that another try may be."""

OTHER_FORM = frozenset({400, 415, 422})
"""Statuses that refuse a form of encoding, before anything is answered."""


class Outcome(NamedTuple):
    """The last reply, the status of every try (0 where none was read), and which of the requests was sent last."""

    reply: Reply
    tries: tuple[int, ...]
    form: int


def persist(
    wire: Wire, requests: Sequence[Request], limit: int, cfg: Client, ident: str, sleep: Callable[[float], None]
) -> Outcome:
    """Send the first of `requests` until something final comes back, or `cfg.max_tries` are spent.

    The others are the same question in other forms: the next one replaces one whose form is refused. A status 200
    is final whatever is in it, and so is every status that is not retried.
    """
    tries: list[int] = []
    form = 0
    while True:
        reply = wire.send(requests[form], limit)
        tries.append(reply.status)
        refused = reply.status in OTHER_FORM and form + 1 < len(requests)
        if len(tries) == cfg.max_tries or not (refused or unanswered(reply)):
            return Outcome(reply, tuple(tries), form)
        if refused:
            form += 1
        else:
            sleep(pause(cfg, ident, len(tries), reply.headers))


def pause(cfg: Client, ident: str, tries: int, headers: Mapping[str, str]) -> float:
    """Return the seconds to wait after so many tries: full jitter, and at least what the server asks for (capped)."""
    jitter = rng.derive(cfg.seed, ident, tries) / 2**63 * min(cfg.backoff_cap, cfg.backoff * 2.0**tries)
    return max(jitter, min(_asked(headers.get("retry-after", "")), cfg.retry_after_cap))


def unanswered(reply: Reply) -> bool:
    """Return whether a reply says that nothing was answered, and that another try may be."""
    return not reply.answered or reply.status in RETRIED


def _asked(value: str) -> float:
    """Read Retry-After (RFC 9110, 10.2.3): seconds, or a date; 0 where it is neither."""
    if re.fullmatch(r"\d{1,9}", value):
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return 0.0
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
