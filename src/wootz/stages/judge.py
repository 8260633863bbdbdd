"""Re-check a claim without trusting who wrote it: derive everything again, ask the suspect anew, sign what was seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wootz import __version__
from wootz.endpoints import Identity
from wootz.errors import SignatureError
from wootz.ownership import DirectionKey, Key, LabelKey, OrderKey, WeightKey, opened, signed, signing_key
from wootz.records import Cell, to_json
from wootz.stages.claim import CLAIM, plain_strings
from wootz.stages.dispute import settle
from wootz.stages.examine import Proven, examine
from wootz.stages.run import Clock
from wootz.stages.suspects import Asking, Suspect, Where, identify, is_endpoint, opened_suspect
from wootz.stages.verify import ask_suspect, verdict_cell
from wootz.store import read_bytes, sha256, write_bytes
from wootz.types import Tell
from wootz.verify import Verdict, bar_of, null, remembered
from wootz.verify.evidence import bits_read
from wootz.verify.leaning import leaning
from wootz.verify.orders import leanings, unforeseen
from wootz.verify.reach import Reach
from wootz.verify.wrong_classes import opinions, unforeseen_opinions

JUDGEMENT = "urn:wootz:judgement:1"
RANDOM_KEYS = 1000


class Rival(NamedTuple):
    """Another owner's claim about the same suspect, and the two models that were registered, mine first."""

    certificate: Path
    models: tuple[Path, Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What a judge brings to a claim.

    Attributes:
        pinned: the claimant's public key (PEM), from a source that she trusts; None says whose key it is only.
        authorities: certificates (PEM) of the time-stamp authorities that she trusts.
        independents: models that she holds and that met no key; one that reaches the bar voids the claim.
        rival: another owner's claim about the same suspect, to be settled against this one.
        earlier: claims that were judged before; what they opened about another suspect proves nothing any more.
        suspect_since: before this time the suspect did not exist; a guard's log that was sealed earlier counts.
        isolated: read the suspect's file in a process of its own.
        torch_zip: also read zip files of `torch.save`.
        client: settings of the client that asks an endpoint; the claimant's own are not taken, since who chooses them
            could choose them on the triggers.
    """

    pinned: Path | None = None
    authorities: Path | None = None
    independents: tuple[Path, ...] = ()
    rival: Rival | None = None
    earlier: tuple[Path, ...] = ()
    suspect_since: datetime | None = None
    isolated: bool = True
    torch_zip: bool = False
    client: tuple[str, ...] = ()


def judge_claim(
    certificate: Path,
    where: Where,
    bench: Bench | None = None,
    *,
    out: Path | None = None,
    tell: Tell = lambda *_: None,
) -> Cell:
    """Re-derive all that a certificate claims, ask the suspect anew, and sign the judge's own statement.

    A claim whose bytes, signatures, commitments or order do not hold is INVALID CLAIM, a value and no error.

    Args:
        certificate: as `claim_suspect` wrote it, its material beside it.
        where: who is asked, a path or a URL; the claim must be about it to be upheld.
        bench: what the judge trusts and holds.
        out: where her signed statement goes; None writes none. Transcripts of endpoints stand beside the certificate.
        tell: told what is going on.

    Raises:
        StoreError: there is no such certificate or suspect.
    """
    time, data, bench = Clock(), read_bytes(certificate), bench or Bench()
    identity = None if is_endpoint(where) else identify(Path(where))
    try:
        proven = _examined(certificate, bench)
        _refuse_replay(proven, bench.earlier)
        tell("asking the suspect", 0.0)
        verdict, suspect = hear(proven, where, bench, certificate.parent)
        identity = suspect.identity
        cell = verdict_cell(verdict, suspect, time.seconds)
        cell = _about_whom(replace(cell, notes=(*cell.notes, *proven.notes)), proven, identity)
        if bench.rival is not None and cell.verdict == "KEY-DEPENDENT":
            cell = _settled(cell, proven, bench.rival, where, bench, certificate.parent)
    except SignatureError as error:
        name = identity.name if identity else str(where)
        cell = Cell(
            data="unknown",
            suspect=name,
            kind="unknown",
            verdict="INVALID CLAIM",
            notes=(f"{certificate.name}: {error}",),
        )
    if out is not None:
        _sign(out, cell, data, identity)
    return replace(cell, seconds=time.seconds)


def hear(proven: Proven, where: Where, bench: Bench, place: Path) -> tuple[Verdict, Suspect]:
    """Ask a suspect, and the judge's own independent models, about an opened claim; then a thousand random keys."""
    test, bar = proven.claim.predicate["test"], bar_of(stamped=proven.since is not None)
    asking = Asking(
        access=test["access"], budget=int(test["budget"]) if test["budget"] else None, tries=test["tries"],
        calibrate=test["calibrate"], walks=test.get("walks", 0), isolated=bench.isolated,
        torch_zip=bench.torch_zip, client=bench.client,
    )  # fmt: skip
    with opened_suspect(where, asking, place) as suspect:
        suspect = replace(suspect, predict=remembered(suspect.predict))
        verdict = ask_suspect(proven.keys, proven.registration, suspect, proven.panel, asking, bar=bar)
        notes = [] if suspect.remote else _lucky_strangers(proven, suspect, asking)
    for independent in bench.independents:
        with opened_suspect(independent, asking, place) as other:
            theirs = ask_suspect(proven.keys, proven.registration, other, proven.panel, asking, bar=bar)
        if theirs.bits >= bar:
            notes.append(f"the independent model {independent.name} reaches {theirs.bits:.1f} bits itself")
    word = "INVALID CLAIM" if notes and verdict.word == "KEY-DEPENDENT" else verdict.word
    return replace(verdict, word=word, notes=(*verdict.notes, *notes)), suspect


def _examined(certificate: Path, bench: Bench, *, rival: bool = False) -> Proven:
    return examine(
        read_bytes(certificate), certificate.with_suffix(".safetensors"), pinned=None if rival else bench.pinned,
        authorities=bench.authorities, suspect_since=bench.suspect_since,
    )  # fmt: skip


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


def _lucky_strangers(proven: Proven, suspect: Suspect, asking: Asking) -> list[str]:
    """Say of which mark random keys do too well on this suspect: its test would not be what it says."""
    stream = np.random.default_rng(list(bytes.fromhex(proven.model)))
    return [
        f"{name}: too many of {RANDOM_KEYS:,} random keys look as if the suspect had met them"
        for name, key in proven.keys.items()
        if (found := _random_keys(key, proven, suspect, asking, stream)) is not None and null.too_many(found)
    ]


def _random_keys(
    key: Key, proven: Proven, suspect: Suspect, asking: Asking, stream: np.random.Generator
) -> null.Logs | None:
    predict, panel = suspect.predict, proven.panel.answers
    reach = Reach(asking.access, asking.budget, suspect.weights, proven.panel.ways_for(asking.walks))
    if isinstance(key, LabelKey):
        said, wrong, _ = opinions(key, predict, reach)
        if wrong is None:
            return null.label_null(key, said, RANDOM_KEYS, stream)
        return null.places_null(key, unforeseen_opinions(key, wrong, panel), RANDOM_KEYS, stream)
    if isinstance(key, OrderKey):
        return null.order_null(unforeseen(key, leanings(key, predict, reach).far, panel), RANDOM_KEYS, stream)
    if isinstance(key, WeightKey):
        tensor = suspect.weights(key.weight, key.shape) if suspect.weights else None
        return None if tensor is None else null.weight_null(key, bits_read(key, tensor), RANDOM_KEYS, stream)
    if isinstance(key, DirectionKey):
        found = leaning(key, predict, panel, reach)
        return found and null.direction_null(key, found.v, RANDOM_KEYS, stream)
    return None


def _about_whom(cell: Cell, proven: Proven, identity: Identity) -> Cell:
    """A claim is upheld for its own subject only."""
    if identity.digest in proven.claim.subject.values():
        return cell
    note = f"the claim is about {', '.join(proven.claim.subject)}, other weights than these"
    upheld = cell.verdict == "KEY-DEPENDENT"
    return replace(cell, verdict="INVALID CLAIM" if upheld else cell.verdict, notes=(*cell.notes, note))


def _settled(cell: Cell, proven: Proven, rival: Rival, where: Where, bench: Bench, place: Path) -> Cell:
    """Hear the rival, and say which of two marks was there first."""
    alone = replace(bench, independents=())

    def carries(side: Proven, model: Where) -> bool:
        return hear(side, model, alone, place)[0].word == "KEY-DEPENDENT"

    theirs = _examined(rival.certificate, bench, rival=True)
    if not carries(theirs, where):
        return replace(cell, notes=(*cell.notes, "the rival's claim about this suspect does not hold"))
    word, note = settle(proven, theirs, rival.models, carries)
    return replace(cell, verdict=word, notes=(*cell.notes, note))


def _sign(out: Path, cell: Cell, claim: bytes, identity: Identity | None) -> None:
    told = plain_strings({name: value for name, value in to_json(cell).items() if name not in ("seconds", "seed")})
    written = datetime.now(UTC).isoformat(timespec="seconds")
    predicate = {"wootz": __version__, "claim": sha256(claim), "found": told, "written": written}
    subject = {identity.name: identity.digest} if identity else {}
    write_bytes(out, signed(signing_key(), subject, JUDGEMENT, predicate))
