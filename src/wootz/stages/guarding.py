"""The guard's log beside a run, and when it counts."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wootz.ownership import AnswerKey, Key
from wootz.ownership.answers import guard_key, read_log
from wootz.stages.stamp import fetch_stamp

LOG = Path("guard") / "log.jsonl"


def with_guard(keys: Mapping[str, Key], run: Path, *, sealed: str | None = None) -> dict[str, Key]:
    """Return the keys with the guard's as something that can be tested: its logged images and what it made of them.

    A guard that decided no answer yet is left out.

    Args:
        keys: of the run.
        run: its folder, which holds the log.
        sealed: the chain hash to stop at; None takes the whole log.
    """
    return with_log(keys, run / LOG, sealed=sealed)


def with_log(keys: Mapping[str, Key], log: Path, *, sealed: str | None) -> dict[str, Key]:
    """Do what `with_guard` does with a log that stands anywhere."""
    found: dict[str, Key] = {}
    for name, key in keys.items():
        if not isinstance(key, AnswerKey):
            found[name] = key
        elif log.is_file() and len((testable := guard_key(key, log, sealed=sealed)).pixels):
            found[name] = testable
    return found


def without_guard(keys: Mapping[str, Key]) -> dict[str, Key]:
    """Return the keys that need no log."""
    return {name: key for name, key in keys.items() if not isinstance(key, AnswerKey)}


def seal(keys: Mapping[str, Key], run: Path, tsa: str | None) -> dict[str, Any] | None:
    """Return what seals the log as it stands: its last chain hash, and a time token over it. None without a log."""
    log = run / LOG
    key = next((key for key in keys.values() if isinstance(key, AnswerKey)), None)
    if key is None or not log.is_file():
        return None
    head = read_log(key, log).chains[-1]
    token = fetch_stamp(tsa, bytes.fromhex(head)) if tsa else b""
    return {"head": head, "token": base64.b64encode(token).decode()}
