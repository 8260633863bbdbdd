"""The guard's log beside a run: the key that it makes testable, and its seals."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wootz.errors import StoreError
from wootz.journal import append_line, read_json_lines
from wootz.keys import AnswerKey, Key, check_token
from wootz.keys.answer_log import key_from_log, read_log
from wootz.workflows.timestamp import fetch_token

LOG = Path("guard") / "log.jsonl"
SEALS = Path("guard") / "seals.jsonl"


def with_guard(keys: Mapping[str, Key], run: Path) -> dict[str, Key]:
    """Return the keys with the guard's as something that can be tested: its logged images and what it made of them.

    A guard that decided no answer yet is left out.

    Args:
        keys: of the run.
        run: its folder, which holds the log.

    Raises:
        StoreError: the log is damaged, or does not hold what was sealed.
    """
    _check_seals(keys, run)
    return with_log(keys, run / LOG)


def _check_seals(keys: Mapping[str, Key], run: Path) -> None:
    """Raise StoreError unless the log begins with all that its seals cover."""
    seals, log = read_seals(run), run / LOG
    key = next((key for key in keys.values() if isinstance(key, AnswerKey)), None)
    if key is None or not seals:
        return
    chains = read_log(key, log).chains if log.is_file() else ()
    for seal in seals:
        if not 0 <= seal["lines"] < len(chains) or chains[seal["lines"]] != seal["head"]:
            raise StoreError(f"{log}: does not hold the {seal['lines']:,} images that were sealed; restore that file")


def with_log(keys: Mapping[str, Key], log: Path, *, count: int | None = None) -> dict[str, Key]:
    """Do what `with_guard` does with a log at any path; `count` takes its first images only."""
    found: dict[str, Key] = {}
    for name, key in keys.items():
        if not isinstance(key, AnswerKey):
            found[name] = key
        elif log.is_file() and len((testable := key_from_log(key, log, count=count)).pixels):
            found[name] = testable
    return found


def without_guard(keys: Mapping[str, Key]) -> dict[str, Key]:
    """Return the keys that need no log."""
    return {name: key for name, key in keys.items() if not isinstance(key, AnswerKey)}


def seal_log(keys: Mapping[str, Key], run: Path, tsa: str | None) -> dict[str, Any] | None:
    """Seal the log as it is: append its last chain hash, its number of images and a time token to `SEALS`.

    Returns:
        The seal; None where there is no log, or no authority to stamp it.
    """
    log = run / LOG
    key = next((key for key in keys.values() if isinstance(key, AnswerKey)), None)
    if key is None or tsa is None or not log.is_file():
        return None
    entries = read_log(key, log)
    head = entries.chains[-1]
    token = fetch_token(tsa, bytes.fromhex(head))
    seal = {"head": head, "lines": len(entries.base), "token": base64.b64encode(token).decode()}
    append_line(run / SEALS, json.dumps(seal))
    return seal


def read_seals(run: Path) -> list[dict[str, Any]]:
    """Return the seals of a run's log, oldest first."""
    path = run / SEALS
    if not path.is_file():
        return []
    seals = []
    for number, seal in read_json_lines(path):
        try:
            check_token(base64.b64decode(seal["token"]), bytes.fromhex(seal["head"]))
            seals.append({"head": seal["head"], "lines": int(seal["lines"]), "token": seal["token"]})
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{path}, line {number}: is not a seal ({error!r})") from error
    return seals
