"""Test a suspect against the key of a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

from wootz.errors import ConfigError, StoreError
from wootz.models import read_model
from wootz.ownership import AnswerKey, DirectionKey, Key, read_keys
from wootz.records import Cell, EvidenceRecord, decimal_p
from wootz.stages.guarding import with_guard, with_log
from wootz.stages.panel import Panel, seated
from wootz.stages.run import Clock
from wootz.stages.suspects import REMOTE_BUDGET, Asking, Suspect, Where, check_fit, opened_suspect
from wootz.store import read_json
from wootz.types import Kind, Predict, Tell
from wootz.verify import DEFAULT_BAR, Verdict, verify
from wootz.verify.calibration import calibrate, calibrated

PANEL_MEMBERS = ("robust", "plain")


def verify_suspect(
    owner: Path,
    where: Where,
    asking: Asking | None = None,
    *,
    bar: float = DEFAULT_BAR,
    panel: Panel | None = None,
    log: Path | None = None,
    tell: Tell = lambda *_: None,
) -> Cell:
    """Open the owner's key and the suspect, and return evidence, bits and verdict.

    Args:
        owner: run folder with the key.
        where: what is tested: a path or a URL.
        asking: how it is asked.
        bar: bits that a verdict needs.
        panel: the independent models that came with the key, where they are open already.
        log: of the guard, such as a theft through it leaves; None takes the one beside the key, where there is one.
        tell: told what is going on.

    Raises:
        ConfigError: a log, and no guard that it could be of.
        KeyFolderError: `owner` holds no key, or a damaged one.
        ModelError: the suspect takes other images, or knows other classes, than the key's.
    """
    time, ring, asking = Clock(), read_keys(owner), asking or Asking()
    panel = open_panel(owner) if panel is None else panel
    keys = with_guard(ring.keys, owner) if log is None else _with_named_log(ring.keys, owner, log)
    tell("asking the suspect", 0.0)
    with opened_suspect(where, asking, owner / "transcripts") as suspect:
        verdict = ask_suspect(keys, ring.registration, suspect, panel, asking, bar=bar)
    return verdict_cell(verdict, suspect, time.seconds)


def _with_named_log(keys: Mapping[str, Key], owner: Path, log: Path) -> dict[str, Key]:
    if not any(isinstance(key, AnswerKey) for key in keys.values()):
        raise ConfigError(f"{log}: the run {owner} has no guard that this could be the log of")
    if not log.is_file():
        raise StoreError(f"{log}: is no guard's log (there is no such file)")
    return with_log(keys, log, sealed=None)


def ask_suspect(
    keys: Mapping[str, Key],
    registration: Mapping[str, Any],
    suspect: Suspect,
    panel: Panel,
    asking: Asking,
    *,
    bar: float,
) -> Verdict:
    """Check that an open suspect takes what was registered, find how it is asked, and test it."""
    check_fit(registration, suspect, calibrated=bool(asking.calibrate))
    predict, notes = _calibrated(keys, suspect, asking)
    verdict = verify(
        keys, predict, panel=panel.answers, access=asking.access, bar=bar, tries=asking.tries,
        budget=REMOTE_BUDGET if asking.budget is None and suspect.remote else asking.budget,
        early=suspect.remote if asking.early is None else asking.early, weights=suspect.weights,
        ways=panel.ways_for(asking.walks),
    )  # fmt: skip
    return replace(verdict, notes=(*verdict.notes, *notes, *suspect.notes()))


def _calibrated(keys: Mapping[str, Key], suspect: Suspect, asking: Asking) -> tuple[Predict, tuple[str, ...]]:
    """Return the suspect as it wants to be asked, and what to say of that."""
    if not asking.calibrate:
        return suspect.predict, ()
    key = next((key for key in keys.values() if isinstance(key, DirectionKey)), None)
    if key is None:
        raise ConfigError("--calibrate: needs the ordinary images that come with the mark 'runner-up'")
    count = asking.calibrate
    channels, height, width = key.probes.shape[1:]
    shape = suspect.shape or (channels, height, width)
    found = calibrate(
        suspect.predict, key.probes[:count], key.probe_labels[:count], shape=shape, num_classes=key.num_classes
    )
    return calibrated(suspect.predict, found), (found.describe(),)


def verdict_cell(verdict: Verdict, suspect: Suspect, seconds: float) -> Cell:
    """Return a verdict as a cell, with what the suspect says of itself."""
    about, kind = suspect.about, suspect.about.get("kind")
    theft = about.get("theft")
    return Cell(
        data=str(about.get("data", "unknown")),
        suspect=suspect.identity.name,
        kind=cast("Kind", kind) if kind in get_args(Kind) else "unknown",
        theft=None if theft is None else str(theft),
        access=verdict.access,
        evidence=records(verdict),
        bits=round(verdict.bits, 2),
        bar=verdict.bar,
        verdict=verdict.word,
        seconds=seconds,
        seed=int(about.get("seed", 0)),
        notes=verdict.notes,
    )


def open_panel(owner: Path) -> Panel:
    """Return the independent models that came with the key."""
    models = [read_model(owner / "panel" / name)[0] for name in PANEL_MEMBERS]
    return seated(models, read_json(owner / "registration.json"))


def records(verdict: Verdict) -> tuple[EvidenceRecord, ...]:
    """Return a verdict's evidence as records."""
    return tuple(
        EvidenceRecord(
            mark=item.mark, p=decimal_p(item.log_p), bits=round(item.bits, 2), queries=item.queries,
            statistic=round(item.statistic, 6), details=item.details,
        )
        for item in verdict.evidence
    )  # fmt: skip
