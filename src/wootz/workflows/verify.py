"""Test a suspect against the key of a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

from wootz.errors import ConfigError, StoreError
from wootz.keys import AnswerKey, DirectionKey, Key, read_keys
from wootz.models import read_model
from wootz.records import Cell, EvidenceRecord, decimal_p
from wootz.statistics import DEFAULT_BAR, Verdict, verify
from wootz.statistics.calibration import detect_input_format, with_input_format
from wootz.statistics.queries import LabelledImages
from wootz.store import read_json
from wootz.types import Kind, Progress
from wootz.workflows.guard_log import with_guard, with_log
from wootz.workflows.reference_models import ReferenceModels, registered_panel
from wootz.workflows.run import Timer
from wootz.workflows.suspects import QueryConfig, Suspect, Where, check_fit, open_suspect_model

PANEL_MEMBERS = ("robust", "plain")


def verify_suspect(
    owner: Path,
    where: Where,
    query: QueryConfig | None = None,
    *,
    bar: float = DEFAULT_BAR,
    panel: ReferenceModels | None = None,
    log: Path | None = None,
    progress: Progress = lambda *_: None,
) -> Cell:
    """Open the owner's key and the suspect, and return evidence, bits and verdict.

    Args:
        owner: run folder with the key.
        where: what is tested: a path or a URL.
        query: how it is asked.
        bar: bits that a verdict needs.
        panel: the independent models that came with the key, where they are open already.
        log: of the guard, such as a theft through it leaves; None takes the one beside the key, where there is one.
        progress: told what is going on.

    Raises:
        ConfigError: a log, and no guard that it could be of.
        KeyFolderError: `owner` holds no key, or a damaged one.
        ModelError: the suspect takes other images, or knows other classes, than the key's.
    """
    time, owner_keys, query = Timer(), read_keys(owner), query or QueryConfig()
    panel = open_panel(owner) if panel is None else panel
    keys = with_guard(owner_keys.keys, owner) if log is None else _with_named_log(owner_keys.keys, owner, log)
    progress("asking the suspect", 0.0)
    with open_suspect_model(where, query, owner / "transcripts") as suspect:
        suspect = own_calibration(keys, owner_keys.registration, suspect, query.calibrate)
        verdict = ask_suspect(keys, owner_keys.registration, suspect, panel, query, bar=bar)
    return verdict_cell(verdict, suspect, time.seconds)


def _with_named_log(keys: Mapping[str, Key], owner: Path, log: Path) -> dict[str, Key]:
    if not any(isinstance(key, AnswerKey) for key in keys.values()):
        raise ConfigError(f"{log}: the run {owner} has no guard that this could be the log of")
    if not log.is_file():
        raise StoreError(f"{log}: is no guard's log (there is no such file)")
    return with_log(keys, log)


def ask_suspect(
    keys: Mapping[str, Key],
    registration: Mapping[str, Any],
    suspect: Suspect,
    panel: ReferenceModels,
    query: QueryConfig,
    *,
    bar: float,
    discounts: Mapping[str, float] | None = None,
) -> Verdict:
    """Check that an open suspect takes what was registered, and test it.

    Args:
        keys: by mark.
        registration: what they were drawn after.
        suspect: see `calibrated_suspect` for one that wants other images or numbers its classes differently.
        panel: independent models.
        query: how it is asked.
        bar: bits that a verdict needs.
        discounts: by mark, bits that come off its evidence.

    Raises:
        ModelError: the suspect takes other images, or knows other classes.
    """
    check_fit(registration, suspect)
    verdict = verify(
        keys,
        suspect.predict,
        panel=panel.answers,
        access=query.access,
        bar=bar,
        tries=query.tries,
        budget=query.queries(remote=suspect.remote),
        sequential=suspect.remote if query.early is None else query.early,
        weights=suspect.weights,
        boundary_search=panel.boundary_search_for(query.boundary_queries),
        discounts=discounts,
    )
    return replace(verdict, notes=(*verdict.notes, *suspect.notes()))


def calibrated_suspect(registration: Mapping[str, Any], suspect: Suspect, ordinary: LabelledImages) -> Suspect:
    """Return a suspect as it wants to be asked, found on ordinary images, with a note that says how.

    A claimant who chooses these images and labels chooses a class map with them, so a judge takes her own.

    Args:
        registration: what the key was drawn after.
        suspect: the suspect as it is.
        ordinary: images uint8 [n, C, H, W] and their classes in the registered order.
    """
    channels, height, width = registration["shape"]
    shape = suspect.shape or (channels, height, width)
    input_format = detect_input_format(
        suspect.predict, ordinary.pixels, ordinary.labels, shape=shape, num_classes=len(registration["classes"])
    )
    notes = (input_format.describe(),)
    return replace(
        suspect,
        predict=with_input_format(suspect.predict, input_format),
        shape=(channels, height, width),
        notes=lambda: (*notes, *suspect.notes()),
        accuracy=input_format.accuracy,
    )


def _own_ordinary(keys: Mapping[str, Key], count: int) -> LabelledImages:
    """Return the first probes of a key: the owner's own images for calibration."""
    key = next((key for key in keys.values() if isinstance(key, DirectionKey)), None)
    if key is None:
        raise ConfigError("--calibrate: needs the ordinary images that come with the mark 'runner-up'")
    return LabelledImages(key.probes[:count], key.probe_labels[:count])


def own_calibration(keys: Mapping[str, Key], registration: Mapping[str, Any], suspect: Suspect, count: int) -> Suspect:
    """Return the suspect calibrated on `count` of the key's own probes; as it is where `count` is 0."""
    return calibrated_suspect(registration, suspect, _own_ordinary(keys, count)) if count else suspect


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
        verdict=verdict.outcome.value,
        seconds=seconds,
        seed=int(about.get("seed", 0)),
        notes=verdict.notes,
    )


def open_panel(owner: Path) -> ReferenceModels:
    """Return the independent models that came with the key."""
    models = [read_model(owner / "panel" / name)[0] for name in PANEL_MEMBERS]
    return registered_panel(models, read_json(owner / "registration.json"), owner)


def records(verdict: Verdict) -> tuple[EvidenceRecord, ...]:
    """Return a verdict's evidence as records."""
    return tuple(
        EvidenceRecord(
            mark=item.mark,
            p=decimal_p(item.log_p),
            bits=round(item.bits, 2),
            queries=item.queries,
            statistic=round(item.statistic, 6),
            details=item.details,
            null=item.null,
            measure=item.measure,
        )
        for item in verdict.evidence
    )
