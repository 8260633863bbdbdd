"""Re-check a claim without trusting who wrote it: derive everything again, ask the suspect anew, sign what was seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wootz import __version__
from wootz.errors import SignatureError
from wootz.ownership import DirectionKey, Key, LabelKey, opened, signed, signing_key
from wootz.records import Cell, to_json
from wootz.stages.claim import CLAIM, plain_strings
from wootz.stages.dispute import settle
from wootz.stages.examine import Proven, examine
from wootz.stages.run import Clock
from wootz.stages.suspects import Identity, identify
from wootz.stages.verify import check_fit, verdict_cell
from wootz.store import read_bytes, sha256, write_bytes
from wootz.types import Access, Predict, Tell
from wootz.verify import Verdict, bar_of, null, open_suspect, remembered, verify
from wootz.verify.answers import labels_of
from wootz.verify.evidence import leaning

JUDGEMENT = "urn:wootz:judgement:1"
RANDOM_KEYS = 1000


class Rival(NamedTuple):
    """Another owner's claim about the same suspect, and the two models that were registered, mine first."""

    certificate: Path
    models: tuple[Path, Path]


def judge_claim(
    certificate: Path,
    suspect: Path,
    *,
    pinned: Path | None = None,
    authorities: Path | None = None,
    independents: Sequence[Path] = (),
    rival: Rival | None = None,
    earlier: Sequence[Path] = (),
    out: Path | None = None,
    tell: Tell = lambda *_: None,
) -> Cell:
    """Re-derive all that a certificate claims, ask the suspect anew, and sign the judge's own statement.

    A claim whose bytes, signatures, commitments or order do not hold is INVALID CLAIM, a value and no error.

    Args:
        certificate: as `claim_suspect` wrote it, its material beside it.
        suspect: what is asked; the claim must be about it to be upheld.
        pinned: the claimant's public key (PEM), from a source that the judge trusts; None says whose key it is only.
        authorities: certificates (PEM) of the time-stamp authorities that the judge trusts.
        independents: models that the judge holds and that met no key; one that reaches the bar voids the claim.
        rival: another owner's claim about the same suspect, to be settled against this one.
        earlier: claims that were judged before; what they opened about another suspect proves nothing any more.
        out: where the judge's signed statement goes; None writes none.
        tell: told what is going on.

    Raises:
        StoreError: there is no such certificate or suspect.
    """
    time, data, identity = Clock(), read_bytes(certificate), identify(suspect)
    try:
        proven = examine(data, certificate.with_suffix(".safetensors"), pinned=pinned, authorities=authorities)
        _refuse_replay(proven, earlier)
        tell("asking the suspect", 0.0)
        cell = verdict_cell(hear(proven, suspect, independents), suspect, time.seconds)
        cell = _about_whom(replace(cell, notes=(*cell.notes, *proven.notes)), proven, identity)
        if rival is not None and cell.verdict == "KEY-DEPENDENT":
            cell = _settled(cell, proven, rival, suspect, authorities)
    except SignatureError as error:
        cell = _invalid(suspect, f"{certificate.name}: {error}", time.seconds)
    if out is not None:
        _sign(out, cell, data, identity)
    return replace(cell, seconds=time.seconds)


def hear(proven: Proven, suspect: Path, independents: Sequence[Path] = ()) -> Verdict:
    """Ask a suspect, and the judge's own independent models, about an opened claim; then a thousand random keys."""
    test, bar = proven.claim.predicate["test"], bar_of(stamped=proven.since is not None)
    access: Access = test["access"]
    budget = int(test["budget"]) if test["budget"] else None

    def ask(predict: Predict) -> Verdict:
        return verify(
            proven.keys, predict, panel=proven.panel, access=access, bar=bar, budget=budget, tries=test["tries"]
        )

    with open_suspect(suspect, access) as (predict, spec):
        check_fit(proven.registration, spec, suspect)
        predict = remembered(predict)
        verdict = ask(predict)
        notes = _lucky_strangers(proven, predict, access, budget)
    for place in independents:
        with open_suspect(place, access) as (predict, spec):
            check_fit(proven.registration, spec, place)
            theirs = ask(predict)
        if theirs.bits >= bar:
            notes.append(f"the independent model {place.name} reaches {theirs.bits:.1f} bits itself")
    if notes and verdict.word == "KEY-DEPENDENT":
        verdict = replace(verdict, word="INVALID CLAIM")
    return replace(verdict, notes=(*verdict.notes, *notes))


def _refuse_replay(proven: Proven, earlier: Sequence[Path]) -> None:
    """Raise SignatureError where an earlier claim opened the same secret about another suspect."""
    mine = {(name, entry["secret"]) for name, entry in proven.claim.predicate["opened"].items()}
    for path in earlier:
        claim = opened(read_bytes(path), CLAIM)
        same = mine & {(name, entry["secret"]) for name, entry in claim.predicate["opened"].items()}
        if same and claim.subject != proven.claim.subject:
            names = ", ".join(sorted(name for name, _ in same))
            raise SignatureError(
                f"{path.name} opened the same part of {names} about another suspect: it is public since"
            )


def _lucky_strangers(proven: Proven, predict: Predict, access: Access, budget: int | None) -> list[str]:
    """Say of which mark random keys do too well on this suspect: its test would not be what it says."""
    stream = np.random.default_rng(list(bytes.fromhex(proven.model)))
    return [
        f"{name}: too many of {RANDOM_KEYS:,} random keys look as if the suspect had met them"
        for name, key in proven.keys.items()
        if (found := _random_keys(key, proven, predict, access, budget, stream)) is not None and null.too_many(found)
    ]


def _random_keys(
    key: Key, proven: Proven, predict: Predict, access: Access, budget: int | None, stream: np.random.Generator
) -> null.Logs | None:
    if isinstance(key, LabelKey):
        return null.label_null(key, labels_of(predict, key.pixels[:budget]), RANDOM_KEYS, stream)
    if isinstance(key, DirectionKey) and access == "scores":
        count = min(len(key.probe_labels), budget or len(key.probe_labels))
        return null.direction_null(key, leaning(key, predict, proven.panel, count).v, RANDOM_KEYS, stream)
    return None


def _about_whom(cell: Cell, proven: Proven, identity: Identity) -> Cell:
    """A claim is upheld for its own subject only."""
    if identity.digest in proven.claim.subject.values():
        return cell
    note = f"the claim is about {', '.join(proven.claim.subject)}, other weights than these"
    upheld = cell.verdict == "KEY-DEPENDENT"
    return replace(cell, verdict="INVALID CLAIM" if upheld else cell.verdict, notes=(*cell.notes, note))


def _settled(cell: Cell, proven: Proven, rival: Rival, suspect: Path, authorities: Path | None) -> Cell:
    """Hear the rival, and say which of two marks was there first."""
    theirs = examine(
        read_bytes(rival.certificate), rival.certificate.with_suffix(".safetensors"), authorities=authorities
    )
    if hear(theirs, suspect).word != "KEY-DEPENDENT":
        return replace(cell, notes=(*cell.notes, "the rival's claim about this suspect does not hold"))
    word, note = settle(proven, theirs, rival.models, lambda side, model: hear(side, model).word == "KEY-DEPENDENT")
    return replace(cell, verdict=word, notes=(*cell.notes, note))


def _sign(out: Path, cell: Cell, claim: bytes, identity: Identity) -> None:
    told = plain_strings({name: value for name, value in to_json(cell).items() if name not in ("seconds", "seed")})
    written = datetime.now(UTC).isoformat(timespec="seconds")
    predicate = {"wootz": __version__, "claim": sha256(claim), "found": told, "written": written}
    write_bytes(out, signed(signing_key(), {identity.name: identity.digest}, JUDGEMENT, predicate))


def _invalid(suspect: Path, reason: str, seconds: float) -> Cell:
    return Cell(
        data="unknown", suspect=suspect.name, kind="unknown", verdict="INVALID CLAIM", notes=(reason,), seconds=seconds
    )
