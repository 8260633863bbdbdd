"""Test a suspect against the key of a run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wootz.errors import ModelError
from wootz.models import ModelSpec, read_model, read_spec
from wootz.ownership import Key, read_keys
from wootz.records import Cell, EvidenceRecord, decimal_p
from wootz.stages.run import Clock
from wootz.types import Access, Predict, Tell
from wootz.verify import DEFAULT_BAR, Verdict, open_suspect, predictor, verify

PANEL_MEMBERS = ("robust", "plain")


def verify_suspect(
    owner: Path,
    suspect: Path,
    *,
    access: Access = "scores",
    bar: float = DEFAULT_BAR,
    budget: int | None = None,
    tries: int = 1,
    early: bool = False,
    panel: Sequence[Predict] | None = None,
    tell: Tell = lambda *_: None,
) -> Cell:
    """Open the owner's key and the suspect, and return evidence, bits and verdict.

    Args:
        owner: run folder with the key.
        suspect: what is tested.
        access: what the suspect shows.
        bar: bits that a verdict needs.
        budget: queries a mark may spend.
        tries: suspects and keys that were tried; log2 of it is taken off.
        early: ask triggers one at a time and stop at the bar.
        panel: the independent models that came with the key, where they are open already.
        tell: told what is going on.

    Raises:
        KeyFolderError: `owner` holds no key, or a damaged one.
        ModelError: the suspect takes other images, or knows other classes, than the key's.
    """
    time, ring = Clock(), read_keys(owner)
    panel = open_panel(owner) if panel is None else panel
    tell("asking the suspect", 0.0)
    verdict = check_suspect(
        ring.keys, ring.registration, suspect, panel, access=access, bar=bar, budget=budget, tries=tries, early=early
    )
    return verdict_cell(verdict, suspect, time.seconds)


def check_suspect(
    keys: Mapping[str, Key],
    registration: Mapping[str, Any],
    suspect: Path,
    panel: Sequence[Predict],
    *,
    access: Access,
    bar: float,
    budget: int | None,
    tries: int = 1,
    early: bool = False,
) -> Verdict:
    """Open a suspect, check that it takes what was registered, and test it."""
    with open_suspect(suspect, access) as (predict, spec):
        check_fit(registration, spec, suspect)
        return verify(keys, predict, panel=panel, access=access, bar=bar, budget=budget, tries=tries, early=early)


def verdict_cell(verdict: Verdict, suspect: Path, seconds: float) -> Cell:
    """Return a verdict as a cell, with what the suspect's folder says of itself."""
    about = _about(suspect)
    return Cell(
        data=about.get("data", "unknown"),
        suspect=suspect.name,
        kind=about.get("kind", "unknown"),
        theft=about.get("theft"),
        access=verdict.access,
        evidence=records(verdict),
        bits=round(verdict.bits, 2),
        bar=verdict.bar,
        verdict=verdict.word,
        seconds=seconds,
        seed=about.get("seed", 0),
        notes=verdict.notes,
    )


def open_panel(owner: Path) -> list[Predict]:
    """Return the independent models that came with the key."""
    return [predictor(read_model(owner / "panel" / name)[0]) for name in PANEL_MEMBERS]


def records(verdict: Verdict) -> tuple[EvidenceRecord, ...]:
    """Return a verdict's evidence as records."""
    return tuple(
        EvidenceRecord(
            mark=item.mark, p=decimal_p(item.log_p), bits=round(item.bits, 2), queries=item.queries,
            statistic=round(item.statistic, 6), details=item.details,
        )
        for item in verdict.evidence
    )  # fmt: skip


def check_fit(registration: Mapping[str, Any], spec: ModelSpec, suspect: Path) -> None:
    """Raise ModelError unless the suspect takes the key's images and knows as many classes."""
    shape, classes = list(registration["shape"]), registration["classes"]
    if list(spec.shape) != shape or len(spec.classes) != len(classes):
        raise ModelError(
            f"{suspect}: takes images {list(spec.shape)} and knows {len(spec.classes)} classes; "
            f"the key is for images {shape} and {len(classes)} classes"
        )


def _about(suspect: Path) -> dict[str, Any]:
    """Return what the suspect's folder says of itself, for the record only: no test depends on it."""
    description = suspect / "model.json"
    if not description.is_file():
        return {}
    return read_spec(description)[1]
